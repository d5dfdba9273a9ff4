"""The generator inside (a fake of) A1111: what it makes, and what it leaves behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import save_file

from lib_automerge.domain.payload import Hires, ImageJob, Payload
from lib_automerge.domain.pictures import pixel_digest
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.errors import AutomergeError, GenerationError, HostError, ModelError
from lib_automerge.generate.base import PauseRequested
from lib_automerge.host.webui import WebUIGenerator, WebUISession
from lib_automerge.merge.files import write_merge
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from tests.checkpoints import write_tiny
from tests.contracts.generator import GeneratorContract
from tests.contracts.generator import recipe as recipe_of
from tests.host_fake.install import FakeHost, fake_webui

raises = pytest.raises
"""For what is raised in the middle of a session: how the session ends is the test."""

PAYLOAD = Payload(
    prompt="a cat", name="cat", steps=4, sampler="Euler", cfg_scale=5.0, width=64, height=64
)
MIX = {"IN04": 0.3, "OUT07": 0.8, "TIME_EMBED": 1.0}
Models = Mapping[str, Checkpoint]


class TestContract(GeneratorContract):
    """With the fixtures of `conftest.py`."""


def recipe(weights: Mapping[str, float]) -> Recipe:
    return recipe_of(**weights)


def job(seed: int = 1, **changes: Any) -> ImageJob:
    return ImageJob(seed, msgspec.structs.replace(PAYLOAD, **changes), seed)


def pictures(session: WebUISession, *jobs: ImageJob) -> list[str]:
    return [pixel_digest(image) for _, image in session.images(jobs or (job(),), lambda: False)]


def user_image(webui: FakeHost, **settings: Any) -> str:
    with webui.call_queue.queue_lock:
        found = webui.txt2img(prompt="a cat", cfg_scale=5.0, **settings).images[0]
    return pixel_digest(found)


def is_free(webui: FakeHost) -> bool:
    lock = webui.call_queue.queue_lock
    if not lock.acquire(blocking=False):
        return False
    lock.release()
    return True


def snapshot(webui: FakeHost) -> dict[str, Any]:
    """What a session must leave as it was."""
    model = webui.shared.sd_model
    return {
        "options": dict(webui.shared.opts.data),
        "kind": type(webui.shared.opts.data),
        "flags": dict(vars(webui.shared.cmd_opts)),
        "model": id(model),
        "file": model.sd_checkpoint_info.filename,
        "weights": {name: p.double().sum().item() for name, p in model.named_parameters()},
        "titles": list(webui.sd_models.checkpoints_list),
        "aliases": dict(webui.sd_models.checkpoint_aliases),
        "threads": torch.get_num_threads(),
        "lock": is_free(webui),
        "image": user_image(webui),
        "files": sorted(
            str(path.relative_to(webui.data))
            for path in webui.data.rglob("*")
            if path.is_file() and "cache" not in path.name
        ),
    }


@contextmanager
def left_as_found(webui: FakeHost) -> Iterator[None]:
    user_image(webui)
    before = snapshot(webui)
    yield
    after = snapshot(webui)
    assert {k: v for k, v in after.items() if v != before[k]} == {}


def open_and_close(
    generator: WebUIGenerator, models: Models, stop: Callable[[], bool] = lambda: False
) -> None:
    with generator.open(models, stop):
        pass


def use_other_vae(webui: FakeHost, folder: Path) -> None:
    """Have the WebUI use the file `other.safetensors` for all images."""
    vaes = webui.data / "models" / "VAE"
    vaes.mkdir(parents=True, exist_ok=True)
    prefix = "first_stage_model."
    with open_checkpoint(write_tiny(folder / "v.safetensors", "sd1", seed=9)) as other:
        names = [key for key in other.keys() if key.startswith(prefix)]  # noqa: SIM118
        save_file(
            {n.removeprefix(prefix): other.tensor(n).clone() for n in names},
            vaes / "other.safetensors",
        )
    webui.sd_vae.refresh_vae_list()
    webui.shared.opts.set("sd_vae", "other.safetensors")
    webui.sd_vae.reload_vae_weights()
    assert webui.sd_vae.loaded_vae_file is not None


def run_in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_everything_is_left_as_it_was(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    with left_as_found(webui), generator.open(models) as session:
        start = pictures(session)
        session.apply(recipe(MIX | {"BASE": 0.5, "VAE": 0.5}))
        other = job(clip_skip=3, override_settings={"eta_noise_seed_delta": 9})
        assert pictures(session, other) != start


def test_also_after_an_error_within(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    with left_as_found(webui), raises(ZeroDivisionError), generator.open(models) as session:
        session.apply(recipe(MIX))
        raise ZeroDivisionError


def test_also_after_a_merge_that_broke_off(
    webui: FakeHost, generator: WebUIGenerator, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lib_automerge.merge.engine import Merger

    whole, calls = Merger._merge_key, 0

    def half_way(self: Merger, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 30:
            raise MemoryError
        whole(self, *arguments)

    with left_as_found(webui), raises(MemoryError), generator.open(models) as session:
        session.apply(recipe({"IN00": 0.5}))
        monkeypatch.setattr(Merger, "_merge_key", half_way)
        session.apply(recipe(MIX | {"IN01": 0.5}))


def test_text_encoders_show_although_prompts_are_cached(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    with generator.open(models) as session:
        start = pictures(session)
        session.apply(recipe({"BASE": 1.0}))
        changed = pictures(session)
        session.apply(recipe({}))
        assert pictures(session) == start != changed
        session.apply(recipe({"BASE": 1.0}))
        assert pictures(session) == changed


def test_another_method_starts_from_a(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    three = {**models, "c": models["b"]}
    other = recipe({"OUT07": 0.5})
    other = msgspec.structs.replace(
        other, method="add_difference", models={**other.models, "c": ModelRef("c")}
    )
    with generator.open(three) as session:
        session.apply(other)
        expected = pictures(session)
        session.apply(recipe(MIX))
        session.apply(other)
        assert pictures(session) == expected


def test_the_empty_prompt_follows_the_text_encoder(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    model = webui.shared.sd_model
    before = model.cond_stage_model_empty_prompt
    with generator.open(models) as session:
        session.apply(recipe({"BASE": 1.0}))
        merged = model.cond_stage_model_empty_prompt
        session.apply(recipe({}))
        assert not torch.equal(merged, before)
        assert torch.equal(model.cond_stage_model_empty_prompt, before)
        session.apply(recipe({"BASE": 1.0}))
    assert model.cond_stage_model_empty_prompt is before


def test_the_users_last_image_stays_the_last(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    user_image(webui)
    params = webui.data / "params.txt"
    before = params.read_text()
    with generator.open(models) as session:
        pictures(session, job(prompt="a dog"))
    assert params.read_text() == before


def test_another_denoiser_is_put_aside(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    from modules import sd_unet

    class Custom(sd_unet.SdUnet):
        def forward(self, x: Any, *_: Any, **__: Any) -> Any:
            return x * 0.1

    class Option(sd_unet.SdUnetOption):
        label = model_name = "custom"

        def create_unet(self) -> Any:
            return Custom()

    plain = user_image(webui)
    sd_unet.unet_options.append(Option())
    webui.shared.opts.set("sd_unet", "custom")
    before = user_image(webui)
    with left_as_found(webui), generator.open(models) as session:
        assert pictures(session) == [plain] != [before]


def test_only_changed_blocks_are_written(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    with generator.open(models) as session:
        session.apply(recipe(MIX))
        written: list[str] = []
        live: Any = session._model._live
        note = live._note
        live._note = lambda key, place: (written.append(key), note(key, place))
        session.apply(recipe(MIX | {"OUT07": 0.7}))
        assert {key.split(".")[2:4][-1] for key in written} == {"7"}
        assert all(key.startswith("model.diffusion_model.output_blocks.7.") for key in written)


@pytest.mark.parametrize("weights", [MIX, MIX | {"BASE": 0.5, "VAE": 0.5}], ids=["unet", "all"])
def test_the_saved_merge_gives_the_same_images(
    webui: FakeHost,
    generator: WebUIGenerator,
    models: Models,
    tmp_path: Path,
    weights: dict[str, float],
) -> None:
    path = tmp_path / "run" / "merged.safetensors"
    path.parent.mkdir()
    # A has a configuration of its own, which its merge needs to be loaded alike
    config = Path(webui.sd_models_config.__file__).read_text()
    (webui.models / "a.yaml").write_text(config)
    webui.sd_models.reload_model_weights(forced_reload=True)
    jobs = (job(1), job(2, prompt="a dog"))
    with generator.open(models) as session:
        session.apply(recipe(weights))
        live = pictures(session, *jobs)
    write_merge(recipe(weights), models, path)
    before = snapshot(webui)
    with open_checkpoint(path) as merged, generator.open({"a": merged}) as session:
        used = Path(webui.shared.sd_model.used_config)
        assert used == path.with_suffix(".yaml")
        assert pictures(session, *jobs) == live
    assert [file.name for file in path.parent.iterdir()] == ["merged.safetensors"]
    # the model of another configuration is another object
    assert snapshot(webui) | {"model": before["model"]} == before


def test_another_vae_stays_and_is_not_merged(
    webui: FakeHost, generator: WebUIGenerator, models: Models, tmp_path: Path
) -> None:
    use_other_vae(webui, tmp_path)
    path = tmp_path / "merged.safetensors"
    with left_as_found(webui), generator.open(models) as session:
        assert any("other.safetensors" in text for text in session.warnings())
        uniform = dict.fromkeys(("IN04", "OUT07", "VAE"), 1.0)
        session.apply(recipe(uniform))  # a baseline: model B, whose VAE is not in use either
        live = pictures(session)
        session.apply(recipe({"IN04": 1.0, "OUT07": 1.0}))
        assert pictures(session) == live
        with pytest.raises(HostError, match=r"merges the VAE.*other\.safetensors"):
            session.apply(recipe({"IN04": 0.2, "VAE": 0.7}))
    # the proof of a saved merge is made with the same VAE, even if it was chosen by A's name
    write_merge(recipe({"IN04": 1.0, "OUT07": 1.0}), models, path)
    webui.shared.opts.set("sd_vae", "None", run_callbacks=False)
    with open_checkpoint(path) as merged, generator.open({"a": merged}) as session:
        assert pictures(session) == live


def test_the_users_other_model_comes_back(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    with generator.open(models) as session:
        expected = pictures(session)
    webui.shared.opts.set("sd_model_checkpoint", "c.safetensors")
    with left_as_found(webui), generator.open(models) as session:
        assert pictures(session) == expected
        session.apply(recipe(MIX))


def test_never_loaded_model_is_loaded_first(tmp_path: Path, tiny_files: Mapping[str, Path]) -> None:
    with fake_webui(tmp_path / "data", checkpoints=tiny_files, no_half=True) as webui:
        from lib_automerge.host.a1111 import A1111

        with (
            open_checkpoint(webui.models / "b.safetensors") as b,
            WebUIGenerator(A1111()).open({"a": b}),
        ):
            pass
        assert Path(webui.shared.sd_model.sd_checkpoint_info.filename).name == "a.safetensors"


def test_a_file_that_the_webui_cannot_load(
    webui: FakeHost, generator: WebUIGenerator, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken pipe\nmore")

    with left_as_found(webui):
        monkeypatch.setattr(webui.sd_models, "reload_model_weights", fail)
        with pytest.raises(HostError, match="could not load a: RuntimeError: broken pipe"):
            open_and_close(generator, models)
        monkeypatch.undo()


@pytest.mark.parametrize("kind", ["refiner", "inpainting", "flux", "no text encoder", "no VAE"])
def test_what_makes_no_images_is_refused(
    webui: FakeHost, generator: WebUIGenerator, tmp_path: Path, kind: str
) -> None:
    options: dict[str, Any] = {
        "inpainting": {"channels": 9},
        "no text encoder": {"drop": ("cond_stage_model.*",)},
        "no VAE": {"drop": ("first_stage_model.*",)},
    }.get(kind, {})
    family = {"refiner": "sdxl_refiner", "flux": "flux1"}.get(kind, "sd1")
    path = write_tiny(tmp_path / "x.safetensors", family, **options)
    with open_checkpoint(path) as model, pytest.raises(ModelError, match=r"^x( |: )"):
        generator.check(model)


def test_a_vae_that_the_webui_widens_is_narrowed_again(
    tmp_path: Path, tiny_files: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The WebUI gives a half precision VAE that makes NaN a second try in 32 bits, for good."""
    with fake_webui(tmp_path / "data", checkpoints=tiny_files) as webui, ExitStack() as stack:
        from lib_automerge.host.a1111 import A1111

        models = {
            role: stack.enter_context(open_checkpoint(webui.models / f"{role}.safetensors"))
            for role in "ab"
        }
        with left_as_found(webui), WebUIGenerator(A1111()).open(models) as session:
            assert session.warnings() == []
            decode = webui.shared.sd_model.decode_first_stage

            def overflow(z: torch.Tensor) -> Any:
                narrow = webui.devices.dtype_vae == torch.float16
                return decode(z) * (float("nan") if narrow else 1.0)

            monkeypatch.setattr(webui.shared.sd_model, "decode_first_stage", overflow)
            ((_, image),) = session.images([job()], lambda: False)
            assert "broken" not in image.info
            assert any("switched the VAE to float32" in text for text in session.warnings())
            session.apply(recipe({"VAE": 0.5}))
            monkeypatch.undo()
        assert webui.devices.dtype_vae == torch.float16
        assert {p.dtype for p in webui.shared.sd_model.first_stage_model.parameters()} == {
            torch.float16
        }


# --- the self-check ---------------------------------------------------------------------------


def test_a_webui_that_ignores_weights_is_refused(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    with left_as_found(webui):
        webui.faults.ignore_weights = True
        with pytest.raises(HostError, match="do not follow its weights"):
            open_and_close(generator, models)
        webui.faults.ignore_weights = False


def test_a_webui_that_others_write_to_is_refused(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    webui.faults.drift = True
    with pytest.raises(HostError, match=r"was changed 5 times|is not what the file"):
        open_and_close(generator, models)
    webui.faults.drift = False
    assert is_free(webui)


def test_a_modified_model_is_read_again(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    with generator.open(models) as session:
        expected = pictures(session)
    weight = next(webui.shared.sd_model.model.parameters())
    weight.data.add_(1)
    with generator.open(models) as session:
        assert pictures(session) == expected
    assert user_image(webui) == expected[0]


def test_models_with_the_same_weights_need_no_difference(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    with generator.open({"a": models["a"], "b": models["a"]}) as session:
        assert session.warnings() == []


def test_a_model_that_makes_black_images_is_refused(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    webui.faults.nan_prompts = {"a picture"}
    with pytest.raises(HostError, match="makes a NaN test image"), generator.open(models):
        pass


# --- trouble in a session ---------------------------------------------------------------------


def test_skip_makes_the_image_again(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    with generator.open(models) as session:
        expected = pictures(session)
        webui.faults.at(webui.faults.images + 1, 2, webui.shared.state.skip)
        assert pictures(session) == expected


@pytest.mark.parametrize("button", ["interrupt", "stop_generating"])
@pytest.mark.parametrize("when", ["in an image", "between images"])
def test_interrupt_pauses(
    webui: FakeHost,
    generator: WebUIGenerator,
    models: Models,
    button: str,
    when: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    press = getattr(webui.shared.state, button)
    with left_as_found(webui), raises(PauseRequested), generator.open(models) as session:
        session.apply(recipe(MIX))
        if when == "between images":
            press()
        else:
            webui.faults.at(webui.faults.images + 1, 2, press)
        pictures(session)


def test_an_old_interrupt_is_forgotten(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    webui.shared.state.interrupt()
    with generator.open(models) as session:
        assert len(pictures(session)) == 1


def test_reload_ui_only_costs_an_image(
    webui: FakeHost, generator: WebUIGenerator, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page comes back as another object, a while after the interrupt."""

    class Page:
        is_running = True

    monkeypatch.setattr(webui.shared, "demo", Page(), raising=False)
    with generator.open(models) as session:
        session.apply(recipe(MIX))
        expected = pictures(session)

        def reload() -> None:
            webui.shared.state.request_restart()
            run_in_thread(reload_later)

        def reload_later() -> None:
            webui.shared.state.wait_for_server_command(0)
            webui.shared.demo = Page()
            webui.shared.demo.is_running = False
            webui.sd_models.list_models()
            time.sleep(0.3)
            webui.shared.demo.is_running = True

        webui.faults.at(webui.faults.images + 1, 2, reload)
        assert pictures(session) == expected
        assert webui.shared.demo.is_running
        assert session.warnings() == []


def test_out_of_memory_halves_the_batch(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    jobs = [job(seed, batch_size=4) for seed in range(4)]
    with generator.open(models) as session:
        webui.faults.oom_above = 2
        assert len(pictures(session, *jobs)) == 4
        assert any("going on with 2" in text for text in session.warnings())
        webui.faults.oom_above = 0
        with pytest.raises(GenerationError, match="out of memory with a single image of 64x64"):
            pictures(session, *jobs)
        webui.faults.oom_above = None


def test_an_error_is_tried_again_once(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    with left_as_found(webui), generator.open(models) as session:
        expected = pictures(session)
        faults = webui.faults
        faults.error_passes = {faults.images + 1: RuntimeError("a glitch")}
        assert pictures(session) == expected
        faults.error_passes = {faults.images + i: ValueError("no\nmore") for i in (1, 2)}
        with pytest.raises(GenerationError, match=r"'cat': ValueError: no\. Change"):
            pictures(session)


def test_nan_marks_only_what_is_broken(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    jobs = [job(seed, prompt=f"a {what}", batch_size=3) for seed, what in enumerate(WHATS)]
    with left_as_found(webui), generator.open(models) as session:
        whole = list(session.images(jobs, lambda: False))
        webui.faults.nan_prompts = {WHATS[0]}
        made = list(session.images(jobs, lambda: False))
        webui.faults.nan_prompts = {}
    assert [image.info.get("broken") for _, image in whole] == [None, None, None]
    assert [image.info.get("broken") for _, image in made] == ["NaN", None, None]
    for (_, before), (_, after) in list(zip(whole, made, strict=True))[1:]:
        assert pixel_digest(before) == pixel_digest(after)


WHATS = ("dog", "cow", "hen")


@pytest.mark.parametrize("how", ["another", "the same again", "another object"])
def test_a_model_loaded_by_somebody_else(
    webui: FakeHost, generator: WebUIGenerator, models: Models, how: str
) -> None:
    load = webui.sd_models.reload_model_weights
    infos = {r: webui.sd_models.get_closet_checkpoint_match(f"{r}.safetensors") for r in "ac"}

    def meddle() -> None:
        with webui.sd_models.SkipWritingToConfig():
            if how == "another":
                load(info=infos["c"])
            elif how == "the same again":
                load(info=infos["a"], forced_reload=True)
            else:
                webui.sd_models.load_model(infos["a"])

    with generator.open(models) as session:
        session.apply(recipe(MIX | {"BASE": 0.5}))
        expected = pictures(session)
        run_in_thread(meddle).join()
        assert pictures(session) == expected
        assert any("Somebody else" in text for text in session.warnings())
        webui.faults.at(webui.faults.images + 1, 2, lambda: run_in_thread(meddle).join())
        assert pictures(session) == expected
    assert user_image(webui) == user_image(webui)


def test_a_merge_kept_aside_is_restored_too(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    webui.shared.opts.set("sd_checkpoints_limit", 2)
    before = user_image(webui)
    c = webui.sd_models.get_closet_checkpoint_match("c.safetensors")
    with generator.open(models) as session:
        session.apply(recipe(MIX))
        with webui.sd_models.SkipWritingToConfig():
            run_in_thread(lambda: webui.sd_models.reload_model_weights(info=c)).join()
    assert user_image(webui) == before


def test_what_cannot_be_restored_is_read_again(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    with left_as_found(webui), generator.open(models) as session:
        session.apply(recipe(MIX))
        live: Any = session._model._live
        live.put = live.target = lambda *_: 1 / 0


def test_what_cannot_even_be_read_again_is_forgotten(
    webui: FakeHost, generator: WebUIGenerator, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = user_image(webui)
    with generator.open(models) as session:
        session.apply(recipe(MIX))
        live: Any = session._model._live
        live.put = live.target = lambda *_: 1 / 0
        monkeypatch.setattr(webui.sd_models, "reload_model_weights", lambda *_, **__: 1 / 0)
    monkeypatch.undo()
    assert is_free(webui)
    assert user_image(webui) == before


# --- the user meanwhile -----------------------------------------------------------------------


def test_others_wait_until_the_session_ends(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    before = user_image(webui)
    with generator.open(models) as session:
        session.apply(recipe(MIX))
        waiting, result = webui.user_generates(cfg_scale=5.0)
        pictures(session)
        time.sleep(0.2)
        assert result == []
        session.rest()  # not shared
        assert result == []
    waiting.join(10)
    assert pixel_digest(result[0].images[0]) == before


def test_a_shared_webui_lets_them_in_on_their_own_model(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    webui.shared.opts.data["automerge_share"] = True
    webui.shared.opts.set("sd_model_checkpoint", "c.safetensors")
    before = user_image(webui)
    with generator.open(models) as session:
        session.apply(recipe(MIX))
        expected = pictures(session)
        waiting, result = webui.user_generates(cfg_scale=5.0)
        time.sleep(0.2)
        session.rest()
        waiting.join(10)
        assert pixel_digest(result[0].images[0]) == before
        webui.user_sets("eta_noise_seed_delta", 9).join()
        waiting, _ = webui.user_generates()
        time.sleep(0.2)
        session.rest()
        session.apply(recipe(MIX))
        # the run goes on with the options with which it began
        assert pictures(session) == expected
    waiting.join(10)
    webui.shared.opts.set("eta_noise_seed_delta", 0)
    assert user_image(webui) == before


def test_who_stops_while_waiting_does_not_get_the_webui_later(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    with webui.call_queue.queue_lock, pytest.raises(PauseRequested, match="waited"):
        open_and_close(generator, models, lambda: True)
    time.sleep(0.2)
    assert is_free(webui)


def test_what_the_user_changes_takes_effect_at_the_end(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    options = webui.shared.opts
    changes = {"eta_noise_seed_delta": 9, "samples_save": False}
    with generator.open(models) as session:
        session.apply(recipe(MIX))
        expected = pictures(session)
        for key, value in changes.items():
            webui.user_sets(key, value).join()
        wish = webui.user_sets("sd_model_checkpoint", "c.safetensors")
        time.sleep(0.1)
        assert pictures(session) == expected
        news = session.warnings()
        assert len(news) == 2
        assert all("takes effect when the run ends or is paused" in text for text in news)
        assert session.warnings() == []
    wish.join(10)
    assert {key: options.data[key] for key in changes} == changes
    assert Path(webui.shared.sd_model.sd_checkpoint_info.filename).name == "c.safetensors"


def test_overrides_of_options_that_were_never_set_do_not_leak(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    options = webui.shared.opts.data
    for key in ("CLIP_stop_at_last_layers", "token_merging_ratio", "sd_model_checkpoint"):
        options.pop(key, None)
    with left_as_found(webui), generator.open(models) as session:
        pictures(session, job(clip_skip=2, override_settings={"token_merging_ratio": 0.5}))


def test_the_checkpoint_option_that_was_never_set_stays_so(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    # as after any load of it: its title then has its hash
    webui.sd_models.get_closet_checkpoint_match("b.safetensors").calculate_shorthash()
    for key in ("sd_model_checkpoint", "sd_checkpoint_hash"):
        webui.shared.opts.data.pop(key, None)
    with left_as_found(webui), generator.open({"a": models["b"], "b": models["a"]}) as session:
        session.apply(recipe(MIX))


def test_comments_in_prompts_are_hidden_where_the_webui_hides_them(
    webui: FakeHost, generator: WebUIGenerator, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, bare = job(prompt="a cat # or <lora:none:1>"), job(prompt="a cat ")
    made = {}
    for hidden in (True, False):
        monkeypatch.setitem(webui.shared.opts.data, "enable_prompt_comments", hidden)
        with generator.open(models) as session:
            made[hidden] = pictures(session, noted, bare)
    assert made[True][0] == made[True][1] == made[False][1]
    assert made[False][0] != made[False][1]


def test_settings_reach_the_webui(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    from modules import styles

    webui.shared.prompt_styles.styles["night"] = styles.PromptStyle("night", "{prompt}, night", "")
    hires = Hires(scale=2.0, upscaler="Latent", second_pass_steps=2, denoising_strength=0.6)
    plain = {"enable_hr": False}
    with_hires = {
        "enable_hr": True,
        "hr_scale": 2.0,
        "hr_upscaler": "Latent",
        "hr_second_pass_steps": 2,
        "denoising_strength": 0.6,
    }
    expected = [user_image(webui, styles=["night"], **extra) for extra in (plain, with_hires)]
    expected.append(user_image(webui, override_settings={"CLIP_stop_at_last_layers": 3}))
    with generator.open(models) as session:
        made = pictures(session, job(styles=("night",)), job(styles=("night",), hires=hires))
        # whatever becomes of the style, the run goes on with it as it was
        del webui.shared.prompt_styles.styles["night"]
        assert pictures(session, job(styles=("night",))) == made[:1]
        made += pictures(session, job(clip_skip=3))
        known = msgspec.structs.replace(recipe(MIX), provenance={"run": "r,1", "evaluation": 12})
        session.apply(known)
        ((_, image),) = session.images([job()], lambda: False)
    assert made == expected
    assert "Automerge run: r 1" in image.info["parameters"]
    assert "Automerge candidate: 12" in image.info["parameters"]


def test_threads_are_those_of_the_run(
    webui: FakeHost, generator: WebUIGenerator, models: Models
) -> None:
    from lib_automerge.host.a1111 import A1111

    with left_as_found(webui):
        frozen = WebUIGenerator(A1111(), 2)
        assert frozen.fingerprint()["threads"] == "2"
        with frozen.open(models):
            assert torch.get_num_threads() == 2


def test_errors_are_of_our_kind() -> None:
    assert issubclass(HostError, AutomergeError)
