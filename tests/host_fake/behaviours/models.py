"""Loading, reloading and exchanging the model."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .bench import TEXT, UNET, VAE, Bench, behaviour, raises


@behaviour
def the_same_file_is_not_read_again(bench: Bench) -> None:
    """`reload_model_weights` does nothing while the file is the same: it never undoes a swap."""
    bench.change()
    before, values = bench.model, bench.weight().data.clone()
    assert bench.models.reload_model_weights() is before
    bench.generate()
    assert torch.equal(bench.weight(), values)
    assert not bench.loads


@behaviour
def another_file_of_one_configuration_fills_the_same_object(bench: Bench) -> None:
    """Another checkpoint with the same configuration: same model object, same parameters, same
    storage, other values; `on_model_loaded` fires; the title goes into the options."""
    model, weight, place = bench.model, bench.weight(), bench.weight().data_ptr()
    before = weight.data.clone()
    bench.models.reload_model_weights(info=bench.b)
    assert bench.model is model
    assert bench.weight() is weight
    assert weight.data_ptr() == place
    assert not torch.equal(weight.data, before)
    assert model.sd_checkpoint_info is bench.b
    assert bench.loads == [model]
    assert bench.shared.opts.data["sd_model_checkpoint"] == bench.b.title
    assert bench.shared.opts.data["sd_checkpoint_hash"] == bench.b.sha256


@behaviour
def another_configuration_makes_a_new_object(bench: Bench) -> None:
    """A checkpoint with a configuration file of its own: new model object, and the old one's
    weights are on the `meta` device."""
    model, weight = bench.model, bench.weight()
    bench.models.reload_model_weights(info=bench.c)
    assert bench.model is not model
    assert weight.is_meta or next(model.parameters()).is_meta
    assert bench.loads == [bench.model]


@behaviour
def loading_a_model_always_makes_a_new_object(bench: Bench) -> None:
    """`load_model` makes a new model object even of the same file; the old one is on `meta`."""
    model = bench.model
    assert bench.models.load_model(bench.a) is bench.model
    assert bench.model is not model
    assert next(model.parameters()).is_meta


@behaviour
def a_forced_reload_reads_the_file(bench: Bench) -> None:
    """`forced_reload=True` brings the file's values back into the same object and fires
    `on_model_loaded`."""
    model, before = bench.model, bench.weight().data.clone()
    bench.change()
    bench.models.reload_model_weights(forced_reload=True)
    assert bench.model is model
    assert torch.equal(bench.weight().data, before)
    assert bench.loads == [model]


@behaviour
def a_kept_model_comes_back_changed(bench: Bench) -> None:
    """With `sd_checkpoints_limit` 2 a changed model is kept and comes back still changed, without
    `on_model_loaded`; a forced reload heals it."""
    bench.shared.opts.data["sd_checkpoints_limit"] = 2
    original = bench.weight().data.clone()
    bench.change()
    model, changed = bench.model, bench.weight().data.clone()
    bench.models.reload_model_weights(info=bench.b)
    assert bench.model is not model
    bench.loads.clear()
    bench.models.reload_model_weights(info=bench.a)
    assert bench.model is model
    assert torch.equal(bench.weight().data, changed)
    assert not bench.loads
    bench.models.reload_model_weights(forced_reload=True)
    assert torch.equal(bench.weight().data, original)


@behaviour
def a_model_of_another_file_gives_way_to_the_options(bench: Bench) -> None:
    """A model loaded under `SkipWritingToConfig` is replaced by that of the options in the next
    generation."""
    with bench.models.SkipWritingToConfig():
        bench.models.reload_model_weights(info=bench.b)
    assert bench.shared.opts.sd_model_checkpoint == bench.a.title
    assert bench.model.sd_checkpoint_info is bench.b
    bench.generate()
    assert bench.model.sd_checkpoint_info is bench.a


@behaviour
def a_file_of_another_size_is_refused_and_the_former_model_stays(bench: Bench) -> None:
    """A checkpoint that does not fit the configuration raises, and the model before it is read
    again from its file."""
    path = Path(bench.a.filename).with_name("wrong-size.safetensors")
    tensors = load_file(bench.a.filename)
    key = "model.diffusion_model." + UNET
    save_file({**tensors, key: tensors[key][:1].clone()}, path)
    try:
        bench.models.list_models()
        info = bench.models.get_closet_checkpoint_match("wrong-size.safetensors")
        before = bench.weight().data.clone()
        bench.change()
        error = raises(lambda: bench.models.reload_model_weights(info=info))
        assert isinstance(error, RuntimeError), error
        assert bench.model.sd_checkpoint_info.filename == bench.a.filename
        assert torch.equal(bench.weight().data, before)
    finally:
        path.unlink()
        bench.relist()


@behaviour
def a_model_that_cannot_be_loaded_is_none(bench: Bench) -> None:
    """`shared.sd_model` is None after a failed first load, and every access tries again."""
    path = Path(bench.a.filename).with_name("broken.safetensors")
    path.write_bytes(b"no checkpoint at all")
    data = bench.models.model_data
    try:
        bench.models.list_models()
        data.sd_model, data.was_loaded_at_least_once = None, False
        data.loaded_sd_models.clear()
        title = bench.models.get_closet_checkpoint_match("broken.safetensors").title
        bench.shared.opts.data["sd_model_checkpoint"] = title
        assert bench.shared.sd_model is None
        assert not data.was_loaded_at_least_once
        assert raises(bench.generate) is not None
    finally:
        path.unlink()
        bench.relist()
    bench.shared.opts.data["sd_model_checkpoint"] = bench.a.title
    assert bench.shared.sd_model is not None


@behaviour
def text_encoder_and_its_tokens_are_wrapped(bench: Bench) -> None:
    """After loading, the UNet's and VAE's parameters have the file's names, the text encoder's lie
    below `cond_stage_model.wrapped`, its tokens below a further `wrapped`."""
    live = set(bench.parameters())
    tokens = "text_model.embeddings.token_embedding"
    for key in load_file(bench.a.filename):
        name = key.replace("cond_stage_model.transformer", "cond_stage_model.wrapped.transformer")
        name = name.replace(f"{tokens}.weight", f"{tokens}.wrapped.weight")
        assert name in live or key.endswith("position_ids"), name


@behaviour
def twelve_schedule_buffers_come_on_top(bench: Bench) -> str:
    """Besides the file's keys the model's state holds 12 buffers of the noise schedule; a 13th,
    `lvlb_weights`, is no part of it."""
    top = [name for name in bench.model.state_dict() if "." not in name]
    assert len(top) == 12, top
    assert {"betas", "alphas_cumprod"} <= set(top)
    buffers = {name for name, _ in bench.model.named_buffers() if "." not in name}
    assert buffers - set(top) == {"lvlb_weights"}
    return ", ".join(sorted(top))


@behaviour
def parameters_of_the_unet_need_gradients(bench: Bench) -> str:
    """UNet parameters require gradients: `copy_` without `no_grad` raises, `data.copy_` does
    not."""
    weight = bench.weight(UNET)
    assert weight.requires_grad
    assert isinstance(raises(lambda: weight.copy_(weight * 2)), RuntimeError)
    place = weight.data_ptr()
    weight.data.copy_(weight.data * 2)
    assert weight.data_ptr() == place
    return f"text encoder {bench.weight(TEXT).requires_grad}, VAE {bench.weight(VAE).requires_grad}"


@behaviour
def layers_are_torchs(bench: Bench) -> None:
    """Layers are torch's Linear, Conv2d, GroupNorm and LayerNorm."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm)
    modules = dict(bench.model.model.diffusion_model.named_modules())
    for name, kind in zip(
        (
            "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
            "input_blocks.0.0",
            "input_blocks.1.1.norm",
            "input_blocks.1.1.transformer_blocks.0.norm1",
        ),
        kinds,
        strict=True,
    ):
        assert isinstance(modules[name], kind), name


@behaviour
def checkpoints_are_found_by_name_title_and_hash(bench: Bench) -> None:
    """`get_closet_checkpoint_match` takes file name, title, model name, either hash, a part of the
    title, and a title with a wrong hash; None for nothing."""
    find = bench.models.get_closet_checkpoint_match
    info = bench.a
    wrong = f"{info.name} [0123456789]"
    part = info.name[: -len(".safetensors")]
    for text in (info.name, info.title, info.model_name, info.shorthash, info.sha256, wrong, part):
        assert find(text) is info, text
    assert find("no such checkpoint") is None
    assert find("") is None


@behaviour
def the_title_gets_the_hash_when_it_is_known(bench: Bench) -> None:
    """A new file's title is its name; `calculate_shorthash` renames it in the list."""
    path = Path(bench.a.filename).with_name("new-file.safetensors")
    shutil.copyfile(bench.b.filename, path)
    try:
        bench.models.list_models()
        info = bench.models.get_closet_checkpoint_match("new-file.safetensors")
        assert info.title == "new-file.safetensors"
        assert info.shorthash is None
        info.calculate_shorthash()
        assert info.title == f"new-file.safetensors [{info.sha256[:10]}]"
        assert info.title in bench.models.checkpoint_tiles()
        assert "new-file.safetensors" not in bench.models.checkpoint_tiles()
    finally:
        path.unlink()
        bench.relist()


@behaviour
def an_unknown_checkpoint_becomes_the_first(bench: Bench) -> None:
    """If the options name a checkpoint that is not there, the first of the list is used."""
    bench.shared.opts.data["sd_model_checkpoint"] = "no such checkpoint"
    first = next(iter(bench.models.checkpoints_list.values()))
    assert bench.models.select_checkpoint() is first


@behaviour
def no_checkpoint_at_all_raises(bench: Bench) -> None:
    """Without any checkpoint `select_checkpoint` raises FileNotFoundError."""
    kept = dict(bench.models.checkpoints_list), dict(bench.models.checkpoint_aliases)
    bench.models.checkpoints_list.clear()
    bench.models.checkpoint_aliases.clear()
    try:
        assert isinstance(raises(bench.models.select_checkpoint), FileNotFoundError)
    finally:
        bench.models.checkpoints_list.update(kept[0])
        bench.models.checkpoint_aliases.update(kept[1])


@behaviour
def cached_state_dicts_are_not_the_live_weights(bench: Bench) -> None:
    """`sd_checkpoint_cache` 1: a forced reload takes the values from memory, and a change of the
    live weights has not changed those."""
    bench.shared.opts.data["sd_checkpoint_cache"] = 1
    bench.models.reload_model_weights(forced_reload=True)
    before = bench.weight().data.clone()
    bench.change()
    bench.models.reload_model_weights(forced_reload=True)
    assert torch.equal(bench.weight().data, before)
    bench.models.checkpoints_loaded.clear()


@behaviour
def another_vae_is_loaded_in_place(bench: Bench) -> None:
    """`sd_vae`: another VAE's values come into the live one's storage, the checkpoint's own are
    kept in `sd_vae.base_vae`, `on_model_loaded` fires; choosing None brings them back."""
    from modules import sd_vae

    state = load_file(bench.b.filename)
    own = {k[18:]: v * 2 for k, v in state.items() if k.startswith("first_stage_model.")}
    path = Path(sd_vae.vae_path) / "other-vae.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(own, path)
    try:
        sd_vae.refresh_vae_list()
        weight, before = bench.weight(VAE), bench.weight(VAE).data.clone()
        bench.shared.opts.data["sd_vae"] = "other-vae.safetensors"
        sd_vae.reload_vae_weights()
        assert bench.weight(VAE) is weight
        assert not torch.equal(weight.data, before)
        assert torch.equal(sd_vae.base_vae["decoder.conv_out.weight"], before)
        assert sd_vae.get_loaded_vae_name() == "other-vae.safetensors"
        assert len(bench.loads) == 1
        bench.shared.opts.data["sd_vae"] = "None"
        sd_vae.reload_vae_weights()
        assert torch.equal(bench.weight(VAE).data, before)
        assert sd_vae.base_vae is None
    finally:
        path.unlink()
        sd_vae.refresh_vae_list()
