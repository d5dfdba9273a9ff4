"""From settings to images."""

from __future__ import annotations

import os
from pathlib import Path

from .bench import Bench, behaviour, levels_apart, raises


@behaviour
def equal_settings_give_equal_images(bench: Bench) -> None:
    """Same settings, same bits; another prompt, seed, number of steps, sampler, schedule, CFG,
    negative prompt or clip skip, another image."""
    first = bench.image()
    assert bench.image() == first
    for settings in (
        {"prompt": "a blue moon at sea"},
        {"seed": 2},
        {"steps": 5},
        {"sampler_name": "Euler a"},
        {"scheduler": "Karras"},
        {"cfg_scale": 3.0},
        {"negative_prompt": ""},
    ):
        assert bench.image(**settings) != first, settings
    bench.shared.opts.data["CLIP_stop_at_last_layers"] = 2
    assert bench.image() != first


@behaviour
def a_job_of_many_iterations_is_single_images(bench: Bench) -> None:
    """`n_iter` 3 gives exactly the images of three calls with consecutive seeds."""
    images = bench.generate(n_iter=3).images
    assert [x.tobytes() for x in images] == [bench.image(seed=seed) for seed in (1, 2, 3)]


@behaviour
def a_batch_is_nearly_single_images(bench: Bench) -> str:
    """A batch of 3 gives the images of single calls to within a level of 255."""
    images = [x.tobytes() for x in bench.generate(batch_size=3).images]
    apart = [levels_apart(x, bench.image(seed=1 + i)) for i, x in enumerate(images)]
    assert max(apart) <= 1, apart
    assert [x.tobytes() for x in bench.generate(batch_size=3).images] == images
    return f"differences of {apart} levels"


@behaviour
def prompts_and_seeds_may_be_lists(bench: Bench) -> str:
    """Lists of prompts, negative prompts and seeds are one batch of different images."""
    prompts, seeds = ["a red heart", "a blue moon"], [7, 3]
    result = bench.generate(
        prompt=prompts, negative_prompt=["", "x"], seed=seeds, subseed=[1, 1], batch_size=2
    )
    assert list(result.all_seeds) == seeds
    assert list(result.all_prompts) == prompts
    apart = [
        levels_apart(x.tobytes(), bench.image(prompt=p, negative_prompt=n, seed=s))
        for x, p, n, s in zip(result.images, prompts, ("", "x"), seeds, strict=True)
    ]
    assert max(apart) <= 1, apart
    return f"differences of {apart} levels"


@behaviour
def a_batch_may_come_before_a_grid(bench: Bench) -> None:
    """Several images are preceded by a grid unless `do_not_save_grid`; `index_of_first_image` says
    so; a single image has none."""
    folder = os.fspath(bench.folder / "grids")
    result = bench.generate(batch_size=2, do_not_save_grid=False, outpath_grids=folder)
    assert result.index_of_first_image == 1
    assert len(result.images) == 3
    assert bench.generate(batch_size=2).index_of_first_image == 0
    assert bench.generate(do_not_save_grid=False).index_of_first_image == 0


@behaviour
def images_carry_their_settings(bench: Bench) -> None:
    """`image.info["parameters"]` holds prompt, settings, the loaded file's hash and name whatever
    the weights are, and our `extra_generation_params`."""
    bench.change()
    result = bench.generate(extra_generation_params={"Automerge": "IN00 0.5"})
    text = result.images[0].info["parameters"]
    for part in (
        "a red heart at sunset",
        "Negative prompt: blurry",
        "Seed: 1",
        "Steps: 4",
        "Sampler: Euler",
        "Schedule type: Automatic",
        "Size: 64x64",
        "Automerge: IN00 0.5",
        f"Model hash: {bench.a.shorthash}",
        f"Model: {bench.a.name_for_extra}",
        "Version: v1.10.1",
    ):
        assert part in text, (part, text)
    assert result.infotexts == [text]


@behaviour
def an_unknown_sampler_becomes_the_first(bench: Bench) -> str:
    """An unknown sampler or schedule is replaced by the first of its list without an error; a
    schedule may be a part of the sampler's name; None is "Automatic"."""
    from modules import sd_samplers

    first = sd_samplers.all_samplers[0].name
    found = sd_samplers.get_sampler_and_scheduler
    assert found("No such sampler", "No such schedule") == (first, "Automatic")
    assert found("DPM++ 2M Karras", None, convert_automatic=False) == ("DPM++ 2M", "Karras")
    result = bench.generate(sampler_name="No such sampler", scheduler=None)
    assert f"Sampler: {first}" in result.images[0].info["parameters"]
    return f"the first is {first}"


@behaviour
def samplers_and_schedules_have_names(bench: Bench) -> None:
    """The lists of samplers and schedules contain what payloads commonly name."""
    from modules import sd_samplers, sd_schedulers

    names = sd_samplers.visible_sampler_names()
    assert {"Euler", "Euler a", "DPM++ 2M", "DDIM", "UniPC", "LCM"} <= set(names)
    labels = {x.label for x in sd_schedulers.schedulers}
    assert {"Automatic", "Karras", "Exponential", "SGM Uniform", "Uniform"} <= labels
    assert sd_schedulers.schedulers[0].label == "Automatic"


@behaviour
def the_last_settings_are_written_to_a_file(bench: Bench) -> None:
    """Every generation overwrites `params.txt` in the data folder, unless
    `cmd_opts.no_prompt_history` is set."""
    from modules import paths

    path = Path(paths.data_path) / "params.txt"
    bench.generate(prompt="first prompt")
    assert "first prompt" in path.read_text("utf-8")
    bench.shared.cmd_opts.no_prompt_history = True
    bench.generate(prompt="second prompt")
    assert "first prompt" in path.read_text("utf-8")


@behaviour
def images_are_written_unless_told_not_to(bench: Bench) -> None:
    """Without `do_not_save_samples` a file appears below `outpath_samples`; with it none does."""
    folder = bench.folder / "written"
    bench.generate(outpath_samples=os.fspath(folder))
    assert not folder.exists()
    bench.generate(outpath_samples=os.fspath(folder), do_not_save_samples=False)
    assert len([x for x in folder.rglob("*") if x.is_file()]) == 1


@behaviour
def there_is_no_default_place_for_images(bench: Bench) -> None:
    """Without `outpath_samples` or `outpath_grids` writing an image or a grid raises TypeError."""
    assert isinstance(raises(lambda: bench.generate(do_not_save_samples=False)), TypeError)
    grid = {"do_not_save_grid": False, "batch_size": 2}
    assert isinstance(raises(lambda: bench.generate(**grid)), TypeError)


@behaviour
def styles_are_added_to_the_prompt(bench: Bench) -> None:
    """Named styles change prompt and negative prompt; unknown ones do nothing."""
    styles = bench.shared.prompt_styles.styles
    sort = type(bench.shared.prompt_styles.no_style)
    styles["automerge check"] = sort("automerge check", "{prompt} in oil", "ugly")
    try:
        result = bench.generate(styles=["automerge check", "no such style"])
        assert result.all_prompts == ["a red heart at sunset in oil"]
        assert result.all_negative_prompts == ["blurry, ugly"]
    finally:
        del styles["automerge check"]


@behaviour
def hires_fix_doubles_the_size(bench: Bench) -> None:
    """A second pass gives the larger size; an unknown upscaler raises; its own prompts and steps
    change the image."""
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    first = bench.generate(**hires).images[0]
    assert first.size == (128, 128)
    assert bench.generate(**hires).images[0].tobytes() == first.tobytes()
    for more in (
        {"hr_second_pass_steps": 7},
        {"hr_prompt": "a blue moon"},
        {"denoising_strength": 0.3},
    ):
        assert bench.generate(**(hires | more)).images[0].tobytes() != first.tobytes(), more
    assert bench.generate(**(hires | {"hr_upscaler": "Lanczos"})).images[0].size == (128, 128)
    sized = {**hires, "hr_resize_x": 96, "hr_resize_y": 80}
    assert bench.generate(**sized).images[0].size == (96, 80)


@behaviour
def a_second_pass_with_another_checkpoint_discards_a_swap(bench: Bench) -> None:
    """`hr_checkpoint_name` loads that checkpoint in mid-image, and the next generation the first
    from its file: changes of the weights are lost."""
    original = bench.image()
    bench.change()
    bench.generate(
        enable_hr=True, hr_scale=2, hr_upscaler="Latent", hr_checkpoint_name=bench.b.title
    )
    assert bench.model.sd_checkpoint_info is bench.b
    assert bench.shared.opts.sd_model_checkpoint == bench.a.title
    assert bench.image() == original


@behaviour
def a_generation_counts_its_images(bench: Bench) -> None:
    """`process_images` sets `state.job_count` to `n_iter` if it is -1, as `begin` leaves it, and
    `job_no` counts on; `end` clears the job."""
    state = bench.shared.state
    state.begin(job="automerge")
    assert (state.job, state.job_count) == ("automerge", -1)
    bench.generate(n_iter=2)
    assert (state.job_count, state.job_no) == (2, 2)
    assert state.sampling_steps == 4
    state.end()
    assert (state.job, state.job_count) == ("", 0)


@behaviour
def sizes_are_cut_to_eights(bench: Bench) -> None:
    """A size that is no multiple of 8 gives a smaller image."""
    assert bench.generate(width=71, height=65).images[0].size == (64, 64)


@behaviour
def seed_minus_one_is_random(bench: Bench) -> None:
    """Seed -1 is another one in every call; `all_seeds` tells which."""
    seeds = [bench.generate(seed=-1, steps=1).all_seeds[0] for _ in range(3)]
    assert len(set(seeds)) == 3
    assert min(seeds) >= 0


@behaviour
def no_script_runs_unless_asked(bench: Bench) -> None:
    """`p.scripts` is None by default; `modules.scripts.scripts_txt2img` is the runner to set."""
    from modules import scripts

    p = bench.processing.StableDiffusionProcessingTxt2Img()
    assert p.scripts is None
    assert isinstance(scripts.scripts_txt2img.alwayson_scripts, list)
