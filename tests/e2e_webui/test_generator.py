"""The generator in a real WebUI: what the user had is there afterwards, bit for bit."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lib_automerge.host.txt2img_form import ELEMENTS

from .conftest import RealWebUI, fill, running


def unchanged(seen: dict[str, object]) -> None:
    assert seen["after"] == seen["before"]


def test_the_form_is_found(webui: RealWebUI) -> None:
    seen = webui.check("form")
    assert set(seen["fields"]) == set(ELEMENTS.values())
    assert (seen["width"], seen["seeds"], seen["hires"]) == (512, [], False)


def test_what_there_is_to_choose(webui: RealWebUI) -> None:
    seen = webui.check("host")
    assert seen["name"].startswith("AUTOMATIC1111 WebUI v1.")
    assert "automerge-demo-t.safetensors" in seen["models"]
    assert seen["loaded"].startswith("automerge-demo-")
    assert "DPM++ 2M" in seen["choices"]["samplers"]
    assert "Karras" in seen["choices"]["schedulers"]
    assert {"Latent", "Lanczos"} <= set(seen["choices"]["upscalers"])
    assert seen["notices"] == []


def test_images_follow_the_weights_there_and_back(webui: RealWebUI) -> None:
    seen = webui.check("basic")
    unchanged(seen)
    assert seen["start"] == seen["restored"] == [seen["before"]]
    assert seen["merged"] == seen["again"] != seen["start"]
    assert seen["options"]
    assert seen["plain"]
    assert seen["news"] == []


def test_every_part_shows_and_every_weight_comes_back(webui: RealWebUI) -> None:
    seen = webui.check("all_blocks")
    unchanged(seen)
    assert seen["same weights"]
    assert seen["text again"] == seen["text"]
    images = [seen[part] for part in ("before", "text", "unet", "vae", "all")]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize("padded", [False, True], ids=["plain", "padded prompts"])
@pytest.mark.parametrize("part", ["unet", "all", "slerp", "ties"])
def test_the_saved_merge_gives_the_same_images(
    webui: RealWebUI, tmp_path: Path, part: str, padded: bool
) -> None:
    seen = webui.check("saved", folder=str(tmp_path), part=part, padded=padded)
    unchanged(seen)
    assert seen["loaded"] == seen["live"]
    assert seen["left"] == ["merged-e0007.safetensors"]
    assert seen["same lists"]


def check_loras(seen: dict[str, object]) -> None:
    unchanged(seen)
    assert seen["start"] == seen["before"]
    assert seen["with lora"] == seen["start with lora"] == seen["restored with lora"]
    assert seen["after with lora"] == seen["with lora"]
    assert seen["merged with lora again"] == seen["merged with lora"]
    different = ("before", "with lora", "merged", "merged with lora", "other with lora")
    assert len({seen[name] for name in different}) == len(different)


def test_loras_of_the_user_and_of_payloads(webui: RealWebUI) -> None:
    check_loras(webui.check("lora"))


def test_a_skipped_image_is_made_again(webui: RealWebUI) -> None:
    seen = webui.check("skip")
    assert seen["skipped"] == seen["expected"]


@pytest.mark.parametrize("stopping", [False, True], ids=["interrupt", "stop after current"])
@pytest.mark.parametrize("between", [False, True], ids=["in an image", "between images"])
def test_the_users_interrupt_pauses(webui: RealWebUI, stopping: bool, between: bool) -> None:
    seen = webui.check("interrupt", stopping=stopping, between=between)
    unchanged(seen)
    assert seen["asked"].startswith("PauseRequested")
    assert seen["made"] == []


def test_what_the_user_changes_waits(webui: RealWebUI, tmp_path: Path) -> None:
    seen = webui.check("user_changes", folder=str(tmp_path))
    unchanged(seen)
    assert seen["seen"] == seen["later"] == seen["expected"]
    assert sorted(text.split("'")[2] for text in seen["news"]) == [
        "Clip skip",
        "Eta noise seed delta",
        "Stable Diffusion checkpoint",
    ]
    assert seen["again"] == []
    assert seen["saved"][0].startswith("automerge-demo-t")
    assert (seen["saved"][1], seen["clip skip"], seen["delta"]) == (2, 2, 31337)
    assert seen["loaded"] == "automerge-demo-t.safetensors"


def test_overrides_do_not_leak(webui: RealWebUI) -> None:
    seen = webui.check("overrides")
    assert seen["same options"]
    assert seen["inside"] == seen["plain"] != seen["other"]


@pytest.mark.parametrize("name", ["other_model_loaded", "two_models_kept"])
def test_the_users_own_model_comes_back(webui: RealWebUI, name: str) -> None:
    seen = webui.check(name)
    unchanged(seen)
    assert seen["start"] == [seen["expected"]]
    assert seen["before"] != seen["expected"]
    assert seen["loaded"] == "automerge-demo-t.safetensors"
    assert seen["same options"]
    assert seen["a"] == seen["expected"]


def test_a_model_loaded_behind_our_back_is_noticed(webui: RealWebUI) -> None:
    seen = webui.check("rogue")
    unchanged(seen)
    assert seen["swapped"] == seen["reloaded"] == seen["within"] == seen["expected"]
    assert any("Somebody else" in text for text in seen["news"])


def test_others_get_in_between_candidates(webui: RealWebUI) -> None:
    seen = webui.check("shared")
    unchanged(seen)
    assert seen["too early"] == []
    assert seen["guest"] == [seen["before"]]
    assert seen["later"] == seen["expected"]
    assert seen["idle"] < 0.01


def test_settings_are_those_of_txt2img(webui: RealWebUI) -> None:
    seen = webui.check("settings")
    assert seen["found"] == seen["expected"]
    assert len({tuple(images) for images in seen["found"].values()}) == 5
    assert "Automerge candidate: " in seen["infotext"]


def test_another_denoiser_is_put_aside(webui: RealWebUI) -> None:
    seen = webui.check("custom_unet")
    unchanged(seen)
    assert seen["start"] == [seen["plain"]] != [seen["before"]]
    assert seen["again"] == seen["plain"]


def test_a_vae_of_the_users_own(webui: RealWebUI, tmp_path: Path) -> None:
    seen = webui.check("vae", folder=str(tmp_path))
    unchanged(seen)
    assert seen["before"] != seen["plain"] == seen["again"]
    assert seen["same weights"]
    assert seen["loaded"] == seen["live"]
    assert any("automerge-demo-a.vae.safetensors" in text for text in seen["news"])


def test_nan_is_told_and_healed(webui: RealWebUI) -> None:
    seen = webui.check("nan")
    assert seen["broken"] == ["NaN"]
    assert seen["whole"] == [None]


def test_cached_files_are_not_the_live_weights(webui: RealWebUI) -> None:
    seen = webui.check("cached_files")
    unchanged(seen)
    assert seen["reloaded"] == seen["before"]


def test_eight_bit_storage(webui: RealWebUI, tmp_path: Path) -> None:
    seen = webui.check("fp8", folder=str(tmp_path))
    unchanged(seen)
    assert "torch.float8_e4m3fn" in seen["kinds"]
    assert seen["loaded"] == seen["live"]
    check_loras(seen["lora"])


def test_memory_is_flat_over_500_candidates(webui: RealWebUI) -> None:
    seen = webui.check("memory")
    assert max(seen["trace MB"]) - seen["trace MB"][0] < 20


def test_a_session_survives_reload_ui(webui: RealWebUI) -> None:
    webui.check("reload_begin")
    report: dict[str, object] = {}
    deadline = time.monotonic() + 120
    while "done" not in report and time.monotonic() < deadline:
        time.sleep(1)
        try:
            report = webui.check("reload_report")
        except OSError:
            continue
    assert "error" not in report
    assert report["seen"] == report["expected"]
    assert report["later"] != report["expected"]
    assert report["after"] == webui.check("basic")["before"]


@pytest.mark.parametrize("flags", [("--no-half", "--medvram"), ("--precision", "half")], ids=str)
def test_other_ways_to_run(tmp_path: Path, flags: tuple[str, ...]) -> None:
    (tmp_path / "out").mkdir()
    with running(fill(tmp_path / "webui"), *flags) as webui:
        seen = webui.check("all_blocks")
        unchanged(seen)
        assert seen["same weights"]
        saved = webui.check("saved", folder=str(tmp_path / "out"))
        assert saved["loaded"] == saved["live"]
        check_loras(webui.check("lora"))


def test_names_of_every_family(tmp_path: Path) -> None:
    """In a WebUI of its own: it is left with a model that cannot make images."""
    with running(fill(tmp_path / "webui"), "--no-half") as webui:
        for family in ("sd1", "sd2", "sdxl"):
            scratch = tmp_path / family
            scratch.mkdir()
            seen = webui.check("names", family=family, folder=str(scratch))
            assert seen["wrong"] == []
            assert seen["places"] >= seen["keys"] - 2
