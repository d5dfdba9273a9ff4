"""The fake itself: that it comes and goes without a trace, and that its faults happen."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.checkpoints import write_tiny
from tests.host_fake.behaviours import ALL
from tests.host_fake.install import FakeHost, fake_webui


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        name: write_tiny(folder / name, "sd1", seed=seed)
        for seed, name in enumerate(("a.safetensors", "b.safetensors"))
    }


@pytest.fixture
def host(tmp_path: Path, files: dict[str, Path]) -> Iterator[FakeHost]:
    torch.set_num_threads(1)
    with fake_webui(tmp_path, checkpoints=files) as host:
        yield host


def test_it_leaves_nothing_behind(tmp_path: Path, files: dict[str, Path]) -> None:
    path, names = list(sys.path), set(sys.modules)
    for data in (tmp_path / "one", tmp_path / "two"):
        with fake_webui(data, checkpoints=files) as host:
            assert host.shared.opts.data == {}
            assert host.faults.images == 0
            host.txt2img()
            assert host.faults.images == 1
    assert sys.path == path
    assert not {name for name in set(sys.modules) - names if name.startswith("modules")}


def test_settings_flags_and_files_are_as_told(tmp_path: Path, files: dict[str, Path]) -> None:
    config = {"sd_model_checkpoint": "b.safetensors", "CLIP_stop_at_last_layers": 2}
    with fake_webui(tmp_path, checkpoints=files, config=config, medvram=True) as host:
        assert host.shared.sd_model.sd_checkpoint_info.name == "b.safetensors"
        assert host.shared.sd_model.lowvram
        assert host.shared.opts.CLIP_stop_at_last_layers == 2
        assert host.add_checkpoint(files["a.safetensors"], "sub/c.safetensors").name == (
            "sub/c.safetensors"
        )
    with pytest.raises(AttributeError, match="no_such_flag"), fake_webui(tmp_path, no_such_flag=1):
        pass


@pytest.mark.parametrize("architecture", ["sd1", "sd2", "sdxl"])
def test_an_image_reads_every_parameter(tmp_path: Path, architecture: str) -> None:
    source = write_tiny(tmp_path / "m.safetensors", architecture)
    with fake_webui(tmp_path / "data", checkpoints={"m.safetensors": source}) as host:
        model = host.shared.sd_model
        seen: set[int] = set()
        take = host.fake_network.Reading.take

        def watched(reading: object, module: torch.nn.Module) -> None:
            seen.update(id(p) for p in module.parameters(recurse=False))
            take(reading, module)

        host.fake_network.Reading.take = watched
        host.txt2img()
        assert {name for name, p in model.named_parameters() if id(p) not in seen} == set()


def test_the_last_bit_of_a_weight_shows(host: FakeHost) -> None:
    def pixels() -> bytes:
        return host.txt2img().images[0].tobytes()

    first = pixels()
    largest = max(host.shared.sd_model.model.parameters(), key=torch.Tensor.numel).data
    before = largest.clone()
    largest.flatten().view(torch.int16)[-1] ^= 1
    assert pixels() != first
    largest.copy_(before)
    assert pixels() == first


def test_something_happens_at_a_step_of_an_image(host: FakeHost) -> None:
    whole = [image.tobytes() for image in host.txt2img(n_iter=3).images]
    host.faults.at(image=host.faults.images + 2, step=1, call=host.shared.state.interrupt)
    images = [image.tobytes() for image in host.txt2img(n_iter=3).images]
    assert len(images) == 2
    assert [a == b for a, b in zip(images, whole, strict=False)] == [True, False]


def test_large_batches_run_out_of_memory(host: FakeHost) -> None:
    host.faults.oom_above = 2
    assert len(host.txt2img(batch_size=2).images) == 2
    with pytest.raises(torch.cuda.OutOfMemoryError, match="batch of 3"):
        host.txt2img(batch_size=3)


def test_an_exception_comes_once(host: FakeHost) -> None:
    host.faults.error_passes[1] = RuntimeError("boom")
    with pytest.raises(RuntimeError, match="boom"):
        host.txt2img()
    assert host.txt2img().images


def test_prompts_can_give_nan(host: FakeHost) -> None:
    host.faults.nan_prompts.add("dog")
    with pytest.raises(host.devices.NansException):
        host.txt2img(prompt="a dog")
    host.shared.cmd_opts.disable_nan_check = True
    cat, dog = host.txt2img(
        prompt=["a cat", "a dog"], seed=[1, 1], subseed=[1, 1], batch_size=2
    ).images
    assert dog.getbbox() is None
    assert cat.getbbox() is not None


def test_weights_can_be_ignored(host: FakeHost) -> None:
    host.faults.ignore_weights = True
    first = host.txt2img().images[0].tobytes()
    host.sd_models.reload_model_weights(info=host.sd_models.checkpoint_aliases["b.safetensors"])
    assert host.txt2img(prompt="a cat").images[0].tobytes() == first
    host.faults.ignore_weights = False
    assert host.txt2img(prompt="a  cat").images[0].tobytes() != first


def test_another_extension_can_write_into_the_model(host: FakeHost) -> None:
    host.faults.drift = True
    assert host.txt2img().images[0].tobytes() != host.txt2img().images[0].tobytes()


def test_users_wait_for_the_lock(host: FakeHost) -> None:
    assert host.shared.sd_model.sd_checkpoint_info.name == "a.safetensors"
    host.call_queue.queue_lock.acquire()
    settings = host.user_sets("sd_model_checkpoint", "b.safetensors")
    clicked, result = host.user_generates()
    time.sleep(0.1)
    assert not result
    assert host.shared.sd_model.sd_checkpoint_info.name == "a.safetensors"
    host.call_queue.queue_lock.release()
    settings.join(10)
    clicked.join(10)
    assert len(result[0].images) == 1
    assert host.shared.sd_model.sd_checkpoint_info.name == "b.safetensors"


def test_reload_ui_unloads_scripts_and_starts_a_new_app(host: FakeHost) -> None:
    heard: list[object] = []
    host.script_callbacks.on_script_unloaded(lambda: heard.append("unloaded"))
    host.script_callbacks.on_app_started(lambda demo, app: heard.append(app))
    demo = host.shared.demo
    model = host.shared.sd_model
    host.reload_ui(app="a new app")
    assert heard == ["unloaded", "a new app"]
    assert host.shared.state.interrupted
    assert host.shared.demo is not demo
    assert host.shared.sd_model is model


def test_the_readme_lists_every_behaviour() -> None:
    text = Path(__file__).with_name("README.md").read_text("utf-8")
    assert [behaviour.name for behaviour in ALL if f"`{behaviour.name}`" not in text] == []
