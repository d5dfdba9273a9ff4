from __future__ import annotations

import pytest

from lib_automerge.domain.infotext import infotext_of, parse
from lib_automerge.domain.payload import Hires, Payload
from lib_automerge.errors import ConfigError

MODERN = """a portrait of a woman, (freckles:1.2), [red|blue] scarf
second line of the prompt, <lora:detail__v2:0.6>
Negative prompt: lowres, bad hands,
extra fingers
Steps: 28, Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale: 5.5, Seed: 3735928559, \
Size: 832x1216, Model hash: 31e35c80fc, Model: "sd_xl_base, 1.0", Clip skip: 2, \
Lora hashes: "detail__v2: 1234abcd, other: 5678", Version: v1.10.1"""

HIRES = """castle
Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 1, Size: 512x768, \
Model hash: abc, Denoising strength: 0.45, Hires sampler: DPM++ 2M, Hires schedule type: Karras, \
Hires prompt: "castle, detailed: very\\nhigh", Hires upscale: 1.5, Hires steps: 10, \
Hires upscaler: R-ESRGAN 4x+, Version: v1.10.1"""

OLD = """1girl, solo
Negative prompt: nsfw
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 42, Size: 512x512, Model hash: cc6cb2"""


def test_a_text_of_the_current_webui():
    found = parse(MODERN)
    assert found == Payload(
        prompt="a portrait of a woman, (freckles:1.2), [red|blue] scarf\n"
        "second line of the prompt, <lora:detail__v2:0.6>",
        negative_prompt="lowres, bad hands,\nextra fingers",
        seeds=(3735928559,),
        steps=28,
        sampler="DPM++ 2M SDE",
        scheduler="Karras",
        cfg_scale=5.5,
        width=832,
        height=1216,
        clip_skip=2,
    )


def test_the_second_pass_and_quoted_values():
    assert parse(HIRES).hires == Hires(
        scale=1.5,
        upscaler="R-ESRGAN 4x+",
        second_pass_steps=10,
        denoising_strength=0.45,
        sampler="DPM++ 2M",
        scheduler="Karras",
        prompt="castle, detailed: very\nhigh",
    )


def test_an_old_sampler_name_holds_its_schedule():
    found = parse(OLD)
    assert (found.sampler, found.scheduler) == ("DPM++ 2M", "Karras")
    assert (found.prompt, found.negative_prompt) == ("1girl, solo", "nsfw")


def test_the_sampler_of_the_second_pass_may_be_the_same():
    text = HIRES.replace("Hires sampler: DPM++ 2M", "Hires sampler: Use same sampler")
    text = text.replace("Hires schedule type: Karras", "Hires schedule type: Use same scheduler")
    hires = parse(text).hires
    assert hires is not None
    assert (hires.sampler, hires.scheduler) == (None, None)


def test_a_second_pass_to_a_size():
    text = OLD + ", Denoising strength: 0.7, Hires resize: 768x1024, Hires upscaler: Latent"
    hires = parse(text).hires
    assert hires is not None
    assert (hires.resize_x, hires.resize_y) == (768, 1024)


def test_denoising_alone_is_no_second_pass():
    assert parse(OLD + ", Denoising strength: 0.5").hires is None


def test_a_random_seed_is_none():
    assert parse(OLD.replace("Seed: 42", "Seed: -1")).seeds == ()


def test_windows_line_ends_and_a_line_after_the_settings():
    found = parse(OLD.replace("\n", "\r\n"))
    assert found.prompt == "1girl, solo"
    assert parse(OLD + "\nVersion: v1.2.1").prompt == "1girl, solo"


def test_no_prompt_but_a_negative_one_is_refused():
    with pytest.raises(ConfigError, match="empty prompt"):
        parse("Negative prompt: x\nSteps: 20, Sampler: Euler, CFG scale: 7, Size: 512x512")


@pytest.mark.parametrize("text", ["", "a castle", '{"prompt": "comfy"}', "Steps to nowhere, a: b"])
def test_other_texts_are_refused(text: str):
    with pytest.raises(ConfigError, match="PNG Info"):
        parse(text)


def test_a_number_that_is_none_is_refused_with_its_name():
    with pytest.raises(ConfigError, match="'CFG scale' is not a number: 'high'"):
        parse(OLD.replace("CFG scale: 7", "CFG scale: high"))


def test_a_size_that_no_model_can_make_is_refused():
    with pytest.raises(ConfigError, match="multiple of 8"):
        parse(OLD.replace("512x512", "513x512"))


@pytest.mark.parametrize(
    "payload",
    [
        Payload(prompt="x", cfg_scale=6.25, width=640, clip_skip=2),
        Payload(prompt="a: b, c", negative_prompt="no\ntext", scheduler="SGM Uniform"),
        Payload(prompt="x", hires=Hires(scale=1.75, second_pass_steps=5, prompt='say "hi", now')),
        Payload(
            prompt="x",
            hires=Hires(resize_x=1024, resize_y=768, sampler="Euler", scheduler="Normal"),
        ),
    ],
)
def test_what_is_written_is_read_again(payload: Payload):
    import msgspec

    again = parse(infotext_of(payload, 7))
    assert again == msgspec.structs.replace(payload, seeds=(7,))


def test_infotext_is_what_the_webui_reads() -> None:
    payload = Payload(
        prompt="a cat, (sitting:1.2)",
        negative_prompt="blurry",
        steps=30,
        sampler="DPM++ 2M",
        scheduler="Karras",
        cfg_scale=6.5,
        width=768,
        height=512,
        clip_skip=2,
        hires=Hires(scale=1.5, second_pass_steps=12, denoising_strength=0.4),
    )
    assert infotext_of(payload, 42).splitlines() == [
        "a cat, (sitting:1.2)",
        "Negative prompt: blurry",
        "Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 42, "
        "Size: 768x512, Clip skip: 2, Denoising strength: 0.4, Hires upscale: 1.5, "
        "Hires steps: 12, Hires upscaler: Latent",
    ]
