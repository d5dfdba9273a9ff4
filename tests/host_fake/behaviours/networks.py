"""What the built-in Lora extension leaves behind in the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from safetensors.torch import save_file

from .bench import TEXT, UNET, Bench, behaviour

NAME = "automerge-check"


@contextlib.contextmanager
def _lora(bench: Bench) -> Iterator[str]:
    """A LoRA for one layer of the UNet and one of the text encoder; yields its tag."""
    import networks
    from modules import shared

    tensors = {}
    for prefix, ending in (("lora_unet_", UNET), ("lora_te_text_model_", TEXT)):
        weight = bench.weight(ending)
        layer = ending.removesuffix(".weight").replace(".", "_")
        generator = torch.Generator().manual_seed(1)
        columns = weight[0].numel()
        tensors[f"{prefix}{layer}.lora_up.weight"] = torch.randn(
            (len(weight), 2), generator=generator
        )
        tensors[f"{prefix}{layer}.lora_down.weight"] = torch.randn(
            (2, columns), generator=generator
        )
        tensors[f"{prefix}{layer}.alpha"] = torch.tensor(2.0)
    if weight.dim() == 4:
        raise AssertionError("the text encoder's layer is a convolution")
    from pathlib import Path

    folder = Path(shared.cmd_opts.lora_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.safetensors"
    save_file(tensors, path)
    try:
        networks.list_available_networks()
        yield f"<lora:{NAME}:1>"
    finally:
        path.unlink()
        networks.list_available_networks()
        networks.loaded_networks.clear()


@behaviour
def a_lora_changes_the_live_weights(bench: Bench) -> None:
    """After a generation with a LoRA the live weights are the base's plus the LoRA's, and stay so
    until a generation without it."""
    original, before = bench.image(), bench.weight(UNET).data.clone()
    with _lora(bench) as tag:
        assert bench.image(prompt=f"a red heart at sunset {tag}") != original
        assert not torch.equal(bench.weight(UNET).data, before)
        bench.image()
        assert torch.equal(bench.weight(UNET).data, before)
        bench.forget_conditions()
        assert bench.image() == original


@behaviour
def every_layer_that_ran_keeps_a_backup(bench: Bench) -> str:
    """Layers that ran while a LoRA was loaded keep `network_weights_backup` after it is gone,
    whether or not it changed them."""
    with _lora(bench) as tag:
        bench.image(prompt=tag)
        bench.image()
        unet = list(bench.model.model.modules())
        kept = [m for m in unet if getattr(m, "network_weights_backup", None) is not None]
        layers = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm)
        assert len(kept) == len([m for m in unet if isinstance(m, layers)])
        assert all(m.network_current_names == () for m in kept)
    return f"{len(kept)} layers of the UNet"


@behaviour
def a_later_lora_undoes_a_swap(bench: Bench) -> None:
    """A swap after a LoRA was used is undone by the next use of one, also after that is gone."""
    with _lora(bench) as tag:
        bench.image(prompt=tag)
        original = bench.image()
        before = bench.weight(UNET).data.clone()
        bench.change(UNET)
        changed = bench.image()
        assert changed != original
        bench.image(prompt=tag)
        assert bench.image() == original
        assert torch.equal(bench.weight(UNET).data, before)


@behaviour
def without_backups_a_swap_outlives_loras(bench: Bench) -> None:
    """With both backups None and `network_current_names` empty a swap survives LoRAs."""
    with _lora(bench) as tag:
        bench.image(prompt=tag)
        bench.image()
        bench.change(UNET)
        module = bench.module(UNET)
        module.network_weights_backup = module.network_bias_backup = None
        module.network_current_names = ()
        changed = bench.image()
        bench.image(prompt=tag)
        assert bench.image() == changed


@behaviour
def loading_drops_backups(bench: Bench) -> None:
    """Loading weights into the model drops the backups."""
    with _lora(bench) as tag:
        bench.image(prompt=tag)
        assert bench.module(UNET).network_weights_backup is not None
        bench.models.reload_model_weights(forced_reload=True)
        assert bench.module(UNET).network_weights_backup is None


@behaviour
def an_unknown_lora_is_a_comment(bench: Bench) -> None:
    """A LoRA that is not there makes no error; `processed.comments` names it, and the image is that
    of the prompt without the tag."""
    first = bench.image(prompt="a red heart")
    result = bench.generate(prompt="a red heart<lora:no such lora:1>")
    assert result.images[0].tobytes() == first
    assert "no such lora" in result.comments


@behaviour
def a_batch_uses_the_tags_of_its_first_prompt(bench: Bench) -> None:
    """Of a batch only the first prompt's tags count, for all of its images."""
    with _lora(bench) as tag:
        plain = bench.image(prompt="a red heart")
        bench.forget_conditions()
        result = bench.generate(
            prompt=["a red heart", f"a red heart{tag}"],
            negative_prompt=["blurry", "blurry"],
            seed=[1, 1],
            subseed=[1, 1],
            batch_size=2,
        )
        first, second = (image.tobytes() for image in result.images)
        assert first == second
        bench.forget_conditions()
        assert bench.image(prompt="a red heart") == plain
