from __future__ import annotations

from types import SimpleNamespace

from lib_automerge.domain.payload import Hires, Payload
from lib_automerge.host.txt2img_form import ELEMENTS, Txt2imgForm, payload_of


def test_it_keeps_its_components_and_no_others() -> None:
    form = Txt2imgForm()
    for elem_id in (*ELEMENTS, "img2img_prompt", None):
        form.see(SimpleNamespace(elem_id=elem_id, of="first page"), elem_id=elem_id)
    assert set(form.components) == set(ELEMENTS.values())
    form.see(SimpleNamespace(of="second page"), elem_id="txt2img_steps")
    assert form.components["steps"].of == "second page"


def test_values_become_a_payload() -> None:
    values = {
        "prompt": "a cat",
        "negative_prompt": "blurry",
        "styles": ["night"],
        "sampler": "Euler",
        "scheduler": "Karras",
        "steps": 12.0,
        "cfg_scale": 6,
        "width": 512,
        "height": 640,
        "seed": "42",
        "hires": False,
        "hires.scale": 3.0,
    }
    assert payload_of(values, clip_skip=2) == Payload(
        prompt="a cat",
        negative_prompt="blurry",
        styles=("night",),
        sampler="Euler",
        scheduler="Karras",
        steps=12,
        cfg_scale=6.0,
        width=512,
        height=640,
        seeds=(42,),
        clip_skip=2,
    )


def test_random_and_senseless_seeds_are_left_to_the_run() -> None:
    for seed in (-1, "-1", "", None, "abc", 2**32):
        assert payload_of({"prompt": "a cat", "seed": seed}).seeds == ()


def test_missing_values_keep_defaults() -> None:
    assert payload_of({"prompt": "a cat"}) == Payload(prompt="a cat")


def test_hires() -> None:
    values = {
        "prompt": "a cat",
        "hires": True,
        "hires.upscaler": "Lanczos",
        "hires.second_pass_steps": 8,
        "hires.denoising_strength": 0.5,
        "hires.scale": 1.5,
        "hires.resize_x": 0,
        "hires.resize_y": 1024,
        "hires.sampler": "Use same sampler",
        "hires.scheduler": "Karras",
        "hires.prompt": "",
        "hires.negative_prompt": "rain",
    }
    assert payload_of(values).hires == Hires(
        upscaler="Lanczos",
        second_pass_steps=8,
        denoising_strength=0.5,
        scale=1.5,
        resize_y=1024,
        scheduler="Karras",
        negative_prompt="rain",
    )
