"""Interrupts, broken weights and lack of memory."""

from __future__ import annotations

import torch

from .bench import UNET, VAE, Bench, behaviour, raises


@behaviour
def an_old_interrupt_gives_no_images(bench: Bench) -> None:
    """With `state.interrupted` or `stopping_generation` set beforehand `process_images` returns
    without images and without an exception."""
    for flag in ("interrupted", "stopping_generation"):
        setattr(bench.shared.state, flag, True)
        assert bench.generate(n_iter=2).images == []
        assert getattr(bench.shared.state, flag)
        bench.shared.state.begin(job="")
        assert not getattr(bench.shared.state, flag)
        bench.shared.state.end()


@behaviour
def an_interrupt_gives_a_half_denoised_image(bench: Bench) -> None:
    """An interrupt in the second of three images: two come back, the second half denoised; the flag
    stays."""
    whole = [x.tobytes() for x in bench.generate(n_iter=3).images]
    with bench.after_step(6, bench.shared.state.interrupt):
        images = [x.tobytes() for x in bench.generate(n_iter=3).images]
    assert len(images) == 2
    assert images[0] == whole[0]
    assert images[1] != whole[1]
    assert bench.shared.state.interrupted


@behaviour
def stopping_finishes_the_image(bench: Bench) -> None:
    """`stop_generating` in the second of three images: two come back, both finished."""
    whole = [x.tobytes() for x in bench.generate(n_iter=3).images]
    with bench.after_step(6, bench.shared.state.stop_generating):
        images = [x.tobytes() for x in bench.generate(n_iter=3).images]
    assert images == whole[:2]
    assert bench.shared.state.stopping_generation


@behaviour
def a_skip_gives_all_images_one_half_denoised(bench: Bench) -> None:
    """A skip in the second of three images: three come back, the second half denoised; the flag is
    cleared when the third begins."""
    whole = [x.tobytes() for x in bench.generate(n_iter=3).images]
    with bench.after_step(6, bench.shared.state.skip):
        images = [x.tobytes() for x in bench.generate(n_iter=3).images]
    assert len(images) == 3
    assert [a == b for a, b in zip(images, whole, strict=True)] == [True, False, True]
    assert not bench.shared.state.skipped


@behaviour
def a_skip_of_the_last_image_stays_visible(bench: Bench) -> None:
    """A skip in the only image: it comes back half denoised and the flag stays set; a flag from
    before is cleared and does nothing."""
    whole = bench.image()
    with bench.after_step(2, bench.shared.state.skip):
        assert bench.image() != whole
    assert bench.shared.state.skipped
    assert bench.image() == whole
    assert not bench.shared.state.skipped


@behaviour
def an_interrupt_in_the_first_pass_leaves_out_the_second(bench: Bench) -> None:
    """Interrupted in its first pass, a hires image has the size of that pass."""
    with bench.after_step(2, bench.shared.state.interrupt):
        (image,) = bench.generate(
            enable_hr=True, hr_scale=2, hr_upscaler="Latent", denoising_strength=0.7
        ).images
    assert image.size == (64, 64)


@behaviour
def a_restart_interrupts_and_leaves_the_flag(bench: Bench) -> None:
    """`request_restart` sets `interrupted` and the command; the next `begin` clears the flag."""
    state = bench.shared.state
    # not through request_restart itself: a real process would restart its server
    command = type(state).server_command
    heard: list[str] = []
    type(state).server_command = property(lambda _: None, lambda _, value: heard.append(value))
    try:
        state.request_restart()
    finally:
        type(state).server_command = command
    assert heard == ["restart"]
    assert state.interrupted
    state.begin(job="")
    assert not state.interrupted
    state.end()


@behaviour
def broken_weights_raise(bench: Bench) -> str:
    """NaN in the UNet raises NansException, which names it; with the former weights all is as
    before."""
    from modules import devices

    original = bench.image()
    weight = bench.weight(UNET)
    before = weight.data.clone()
    weight.data.fill_(torch.nan)
    error = raises(bench.generate)
    assert isinstance(error, devices.NansException), error
    assert "Unet" in str(error), error
    weight.data.copy_(before)
    assert bench.image() == original
    return str(error).split(".")[0]


@behaviour
def a_broken_vae_raises_once_it_has_32_bits(bench: Bench) -> str:
    """NaN from a VAE of 32 bits raises NansException. One of 16 bits becomes one of 32 for all
    images to come, and makes the image again without a check; the next raises."""
    from modules import devices

    before = devices.dtype_vae
    bench.weight(VAE).data.fill_(torch.nan)
    if before != torch.float32:
        (image,) = bench.generate().images
        assert image.getbbox() is None
    error = raises(bench.generate)
    assert isinstance(error, devices.NansException), error
    assert "VAE" in str(error), error
    assert devices.dtype_vae == torch.float32
    assert bench.weight(VAE).dtype == torch.float32
    return f"{before} before"


@behaviour
def broken_weights_pass_if_the_check_is_off(bench: Bench) -> str:
    """With `--disable-nan-check` broken weights give an image of one colour."""
    bench.shared.cmd_opts.disable_nan_check = True
    weight = bench.weight(UNET)
    before = weight.data.clone()
    weight.data.fill_(torch.nan)
    (image,) = bench.generate().images
    weight.data.copy_(before)
    colours = image.getcolors(maxcolors=1 << 24)
    assert len(colours) == 1, len(colours)
    return f"colour {colours[0][1]}"


@behaviour
def lack_of_memory_comes_through(bench: Bench) -> None:
    """An exception in the model, such as lack of memory, comes out of `process_images` as it is,
    and the next generation is as before."""
    original = bench.image()

    def fail(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    hook = bench.model.model.register_forward_pre_hook(fail)
    try:
        error = raises(bench.generate)
    finally:
        hook.remove()
    assert isinstance(error, torch.cuda.OutOfMemoryError), error
    assert bench.image() == original


@behaviour
def no_steps_raise(bench: Bench) -> None:
    """0 steps raise ZeroDivisionError."""
    assert isinstance(raises(lambda: bench.generate(steps=0)), ZeroDivisionError)


@behaviour
def a_checkpoint_that_is_missing_raises(bench: Bench) -> None:
    """An unknown checkpoint or upscaler for the second pass raises an exception that names it."""
    for settings in (
        {"hr_checkpoint_name": "no such checkpoint"},
        {"hr_upscaler": "no such upscaler"},
    ):
        error = raises(lambda s=settings: bench.generate(enable_hr=True, **s))
        assert error is not None
        assert "no such" in str(error), error


@behaviour
def callbacks_that_fail_are_reported(bench: Bench) -> None:
    """An exception in a callback is reported and the others are called; a callback can be removed
    by its function."""
    from modules import script_callbacks

    heard: list[object] = []

    def fail(_: object) -> None:
        raise ValueError("a callback of the check fails on purpose")

    script_callbacks.on_model_loaded(fail)
    script_callbacks.on_model_loaded(heard.append)
    try:
        bench.models.reload_model_weights(forced_reload=True)
    finally:
        script_callbacks.remove_callbacks_for_function(fail)
        script_callbacks.remove_callbacks_for_function(heard.append)
    assert heard == [bench.model]
    bench.models.reload_model_weights(forced_reload=True)
    assert len(heard) == 1
