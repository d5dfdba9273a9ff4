"""What the application gets from (a fake of) A1111: names, models, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lib_automerge.domain.config import GeneratorConfig, RewardMember
from lib_automerge.domain.payload import Hires, Payload
from lib_automerge.errors import ConfigError
from tests.host_fake.install import FakeHost

GOOD = Payload(
    prompt="a cat",
    name="cat",
    sampler="Euler",
    scheduler="Karras",
    styles=("night",),
    hires=Hires(upscaler="Latent", sampler="DDIM", scheduler="Normal"),
    override_settings={"eta_noise_seed_delta": 9},
)


@pytest.fixture
def host(webui: FakeHost) -> Any:
    from modules import styles

    from lib_automerge.host.a1111 import A1111Host

    webui.shared.prompt_styles.styles["night"] = styles.PromptStyle("night", "at night", "")
    return A1111Host()


def test_known_names_pass(host: Any) -> None:
    host.check_payload(GOOD)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sampler": "Eulr"}, "payload 'cat': unknown sampler: 'Eulr'. Did you mean 'Euler'?"),
        ({"scheduler": "Karas"}, "unknown scheduler: 'Karas'. Did you mean 'Karras'?"),
        ({"styles": ("nihgt",)}, "unknown style: 'nihgt'. Did you mean 'night'?"),
        ({"override_settings": {"zzz": 1}}, "unknown option: 'zzz'. None of the WebUI's"),
        ({"hires": Hires(upscaler="Latnt")}, "unknown upscaler: 'Latnt'"),
        ({"hires": Hires(sampler="DDDIM")}, "unknown sampler: 'DDDIM'"),
        ({"hires": Hires(scheduler="Norm")}, "unknown scheduler: 'Norm'"),
        ({"prompt": "a <lora:nobody:1> cat"}, "unknown LoRA: 'nobody'"),
        ({"hires": Hires(prompt="<lyco:no one>")}, "unknown LoRA: 'no one'"),
    ],
)
def test_unknown_names_are_told(host: Any, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        host.check_payload(msgspec.structs.replace(GOOD, **change))
    assert sentence in str(caught.value)


def test_options_that_requests_cannot_set(host: Any, webui: FakeHost) -> None:
    webui.shared.opts.data_labels["eta_noise_seed_delta"].restrict_api = True
    with pytest.raises(ConfigError, match="'eta_noise_seed_delta' cannot be set for single images"):
        host.check_payload(GOOD)


def test_the_generator_is_the_webui_itself(host: Any) -> None:
    assert host.generator(GeneratorConfig(name="a1111", threads=1)).fingerprint()["threads"] == "1"
    with pytest.raises(ConfigError, match="unknown generator"):
        host.generator(GeneratorConfig(name="diffusers"))
    with pytest.raises(ConfigError, match=r"generator\.dtype is 'fp16', but in the WebUI"):
        host.generator(GeneratorConfig(name="a1111", dtype="fp16"))


def test_rewards_are_the_registered_ones(host: Any) -> None:
    with pytest.raises(ConfigError, match="unknown reward"):
        host.reward(RewardMember(name="nothing"))


def test_models_are_read_afresh_unless_the_webui_works(
    host: Any, webui: FakeHost, tiny_files: Mapping[str, Path]
) -> None:
    assert [Path(choice.path).name for choice in host.models()] == [
        "a.safetensors",
        "b.safetensors",
        "c.safetensors",
    ]
    new = webui.models / "new.safetensors"
    new.write_bytes(tiny_files["a.safetensors"].read_bytes())
    with webui.call_queue.queue_lock:
        host.refresh()
    assert len(host.models()) == 3
    host.refresh()
    found = host.models()
    assert new in [Path(choice.path) for choice in found]
    assert len({choice.title for choice in found}) == 4


def test_the_loaded_model_is_named_without_loading_one(host: Any, webui: FakeHost) -> None:
    assert host.loaded_model() == webui.shared.sd_model.sd_checkpoint_info.title
    webui.sd_models.model_data.sd_model = None
    webui.shared.opts.data["sd_model_checkpoint"] = "b.safetensors"
    assert host.loaded_model().startswith("b.safetensors")
    webui.shared.opts.data["sd_model_checkpoint"] = "gone"
    assert host.loaded_model() is None
    assert webui.sd_models.model_data.sd_model is None


def test_data_and_wildcards(host: Any, webui: FakeHost) -> None:
    folder = webui.data / "extensions" / "sd-dynamic-prompts" / "wildcards"
    folder.mkdir(parents=True)
    assert host.data == webui.data / "automerge"
    assert host.wildcards == (webui.data / "automerge" / "wildcards", folder)


def test_other_work_is_noticed(host: Any, webui: FakeHost) -> None:
    assert host.notices() == []
    webui.shared.state.begin(job="txt2img")
    assert host.notices() == ["The WebUI is working: the run begins when that is done."]


def test_memory_is_that_of_the_graphics_card(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.device_memory() is None  # the fake WebUI runs on the CPU
    monkeypatch.setattr(host, "device_memory", lambda: (7_500_000_000, 8_000_000_000))
    assert host.notices() == [
        "Only 0.5 GB of video memory are free. Close other programs that use the graphics card."
    ]
    monkeypatch.setattr(host, "device_memory", lambda: (1_000_000_000, 8_000_000_000))
    assert host.notices() == []


@pytest.mark.parametrize("chosen", ["b.safetensors", None])
def test_looking_for_models_leaves_the_users_choice(
    host: Any, webui: FakeHost, monkeypatch: pytest.MonkeyPatch, chosen: str | None
) -> None:
    """Started with --ckpt, the WebUI selects that file whenever it lists checkpoints."""
    options = webui.shared.opts.data
    options.pop("sd_model_checkpoint", None)
    if chosen is not None:
        options["sd_model_checkpoint"] = chosen

    def look() -> None:
        options["sd_model_checkpoint"] = "a.safetensors"

    monkeypatch.setattr(webui.shared, "refresh_checkpoints", look)
    host.refresh()
    assert options.get("sd_model_checkpoint") == chosen
    assert webui.call_queue.queue_lock.acquire(blocking=False)
    webui.call_queue.queue_lock.release()
