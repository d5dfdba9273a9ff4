"""What a change of the live weights does to images, and what hides it."""

from __future__ import annotations

import torch

from .bench import TEXT, UNET, VAE, Bench, behaviour, raises


@behaviour
def every_part_shows_in_the_image(bench: Bench) -> None:
    """A changed UNet, text encoder (with cleared caches) or VAE decoder changes the image; with the
    former bits back the image is the same again, bit for bit."""
    original = bench.image()
    for ending in (UNET, TEXT, VAE):
        restore = bench.change(ending)
        bench.forget_conditions()
        assert bench.image() != original, ending
        restore()
        bench.forget_conditions()
        assert bench.image() == original, ending


@behaviour
def conditions_are_cached_over_text_encoder_changes(bench: Bench) -> None:
    """After a text encoder change the cached conditioning is used: the same image. After clearing
    the lists in place it is another. Restoring does not help before they are cleared again, nor
    does a forced reload."""
    original = bench.image()
    restore = bench.change(TEXT)
    assert bench.image() == original
    bench.forget_conditions()
    changed = bench.image()
    assert changed != original
    restore()
    assert bench.image() == changed
    bench.models.reload_model_weights(forced_reload=True)
    assert bench.image() == changed
    bench.forget_conditions()
    assert bench.image() == original


@behaviour
def caches_are_four_lists_of_two_on_the_classes(bench: Bench) -> None:
    """The caches are class attributes, lists of two, filled by a generation and left there."""
    lists = bench.caches()
    assert [len(cache) for cache in lists] == [2, 2, 2, 2]
    bench.generate()
    assert all(now is then for now, then in zip(bench.caches(), lists, strict=True))
    assert lists[0][0] is not None
    assert lists[1][0] is not None
    assert lists[2][0] is None


@behaviour
def caches_know_prompt_steps_size_and_clip_skip(bench: Bench) -> None:
    """Another prompt, number of steps, size or clip skip is computed anew."""
    for settings, options in (
        ({}, {}),
        ({"prompt": "a blue moon"}, {}),
        ({"steps": 5}, {}),
        ({"width": 72}, {}),
        ({}, {"CLIP_stop_at_last_layers": 2}),
    ):
        bench.shared.opts.data.update(options)
        before = bench.caches()[0][0]
        bench.generate(**settings)
        assert bench.caches()[0][0] != before, (settings, options)
        kept = bench.caches()[0][1]
        bench.generate(**settings)
        assert bench.caches()[0][1] is kept


@behaviour
def the_second_pass_fills_its_own_caches(bench: Bench) -> None:
    """Hires fix fills `cached_hr_c` and `cached_hr_uc`."""
    bench.generate(enable_hr=True, hr_scale=2, hr_upscaler="Latent", denoising_strength=0.7)
    assert bench.caches()[2][0] is not None
    assert bench.caches()[3][0] is not None


@behaviour
def without_persistent_caches_the_class_gets_new_lists(bench: Bench) -> None:
    """With `persistent_cond_cache` off, `close` replaces the lists of the class."""
    lists = bench.caches()
    bench.shared.opts.data["persistent_cond_cache"] = False
    bench.generate()
    assert bench.caches()[0] is not lists[0]
    assert bench.caches()[0] == [None, None]


@behaviour
def the_empty_prompt_is_computed_once(bench: Bench) -> None:
    """`cond_stage_model_empty_prompt` is set when a model object is made and not refreshed by a
    text encoder change, nor by a reload into the same object."""
    kept = bench.model.cond_stage_model_empty_prompt
    values = kept.clone()
    bench.change(TEXT)
    bench.forget_conditions()
    bench.generate()
    bench.models.reload_model_weights(info=bench.b)
    assert bench.model.cond_stage_model_empty_prompt is kept
    assert torch.equal(kept, values)


@behaviour
def a_unet_of_another_engine_hides_all_changes(bench: Bench) -> None:
    """While `sd_unet.current_unet` is set, changes of the model's own UNet do not show."""
    from modules import sd_unet

    class Constant(sd_unet.SdUnet):
        def forward(self, x, timesteps, context, *args, **kwargs):  # type: ignore[no-untyped-def]
            return x * 0.5

    class Option(sd_unet.SdUnetOption):
        label = "constant"

        def create_unet(self) -> Constant:
            return Constant()

    sd_unet.unet_options.append(Option())
    try:
        own = bench.image()
        bench.shared.opts.data["sd_unet"] = "constant"
        other = bench.image()
        assert sd_unet.current_unet is not None
        assert other != own
        bench.change(UNET)
        assert bench.image() == other
    finally:
        bench.shared.opts.data["sd_unet"] = "None"
        sd_unet.apply_unet()
        sd_unet.unet_options.clear()
    assert sd_unet.current_unet is None


@behaviour
def eight_bit_storage(bench: Bench) -> str:
    """`fp8_storage`: Linear and Conv2d of UNet and text encoder become float8_e4m3fn, norms and the
    VAE stay; arithmetic on them raises, `copy_` rounds; the option's callback reloads."""
    from modules import devices

    before = bench.image()
    bench.shared.opts.set("fp8_storage", "Enable")
    try:
        assert devices.fp8
        assert len(bench.loads) == 1
        unet = dict(bench.model.model.diffusion_model.named_parameters())
        small = [name for name, p in unet.items() if p.dtype == torch.float8_e4m3fn]
        assert "input_blocks.1.1.proj_in.weight" in small
        assert not any(".norm" in name for name in small)
        assert bench.weight(TEXT).dtype == torch.float8_e4m3fn
        assert bench.weight(VAE).dtype != torch.float8_e4m3fn
        weight = bench.weight(UNET).data
        assert raises(lambda: weight + weight) is not None
        assert raises(lambda: weight.copy_(torch.full(weight.shape, 0.3))) is None
        assert float(weight.flatten()[0].float()) == 0.3125
        assert not hasattr(bench.module(UNET), "fp16_weight")
        bench.shared.opts.set("cache_fp16_weight", True)
        assert bench.module(UNET).fp16_weight.dtype == torch.float16
    finally:
        bench.shared.opts.set("cache_fp16_weight", False)
        bench.shared.opts.set("fp8_storage", "Disable")
    assert not devices.fp8
    assert bench.weight(UNET).dtype != torch.float8_e4m3fn
    bench.forget_conditions()
    after = "the first image" if bench.image() == before else "not the first image"
    bench.models.load_model(bench.a)
    bench.forget_conditions()
    assert bench.image() == before
    return f"{len(small)} of {len(unet)} UNet tensors; switched off again: {after}"


@behaviour
def parts_that_rest_elsewhere_are_the_same_parameters(bench: Bench) -> None:
    """`--medvram`: the names, the image and a swap are as without; previews in parallel are off."""
    names, original = set(bench.parameters()), bench.image()
    bench.shared.cmd_opts.medvram = True
    try:
        bench.models.load_model(bench.a)
        assert bench.model.lowvram
        assert not bench.shared.parallel_processing_allowed
        assert set(bench.parameters()) == names
        assert bench.image() == original
        restore = bench.change()
        assert bench.image() != original
        restore()
        assert bench.image() == original
    finally:
        bench.shared.cmd_opts.medvram = False
        bench.models.load_model(bench.a)
    assert bench.shared.parallel_processing_allowed
    assert not bench.model.lowvram
