from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from lib_automerge.app.service import Service
from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import BASELINES, Origin, Scored, Stage
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.run import RunState, Status
from lib_automerge.errors import ConfigError, ModelError, RunFailedError, StorageError
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.study.store import RunFolder
from tests.checkpoints import write_tiny
from tests.fake_host import BrightnessReward, FakeHost, tiny_config


def run(host: FakeHost, config: RunConfig, folder: Path) -> RunState:
    return Service(host, clock=lambda: 0.0).start(config, folder)


def provable(models: Mapping[str, str]) -> RunConfig:
    """A run whose winner is better; on five unseen images, because four equal gains prove none."""
    config = tiny_config(models, evaluations=20, optimizer="bayes")
    return msgspec.structs.replace(config, verdict=msgspec.structs.replace(config.verdict, seeds=5))


def test_parents_and_half_come_first_and_are_the_true_parents(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    state = run(host, tiny_config(models), folder)
    first = [state.evaluations[number] for number in (1, 2, 3)]
    assert [e.origin for e in first] == [Origin.MODEL_A, Origin.MODEL_B, Origin.HALF]
    for evaluation, weight in zip(first, (0.0, 1.0, 0.5), strict=True):
        assert set(evaluation.weights.values()) == {weight}
        assert {"BASE", "VAE", "M00", "TIME_EMBED"} <= set(evaluation.weights)
    assert [e.number for e in state.history] == list(range(1, 8))
    assert host.open_sessions == 0


def test_every_candidate_sees_the_same_jobs_in_the_same_batches(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    state = run(host, tiny_config(models), folder)
    rehearsed = 2  # one image of each kind, before anything is scored
    searched = host.batches[rehearsed : rehearsed + 7 * 3]
    assert searched == [[0, 1], [2, 3], [4, 5]] * 7
    seeds = {
        tuple((image.payload, image.seed) for _, image in sorted(images.items()))
        for (stage, _), images in state.scores.items()
        if stage is Stage.SEARCH
    }
    assert seeds == {(("p01", 1), ("p01", 2), ("p01", 3), ("p02", 4), ("p02", 5), ("p02", 6))}


def test_the_verdict_uses_held_out_prompts_and_unseen_seeds(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    state = run(host, provable(models), folder)
    verdict = state.verdict
    assert verdict is not None
    assert verdict.held_out
    assert [c.baseline for c in verdict.comparisons] == list(BASELINES)
    proof = [
        image
        for (stage, _), images in state.scores.items()
        if stage is Stage.VERDICT
        for image in images.values()
    ]
    assert {image.payload for image in proof} == {"p03"}
    fresh = [
        image.seed
        for (stage, _), images in state.scores.items()
        if stage is Stage.FINALISTS
        for image in images.values()
    ]
    assert not set(fresh) & {1, 2, 3, 4, 5, 6}
    assert verdict.gain
    assert verdict.sentence.startswith("Better: on 5 images of prompts and seeds")


def test_without_held_out_prompts_the_verdict_says_so(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    config = tiny_config(models)
    config = msgspec.structs.replace(config, payloads=config.payloads[:2])
    state = run(host, config, folder)
    assert state.verdict is not None
    assert not state.verdict.held_out
    assert "no held-out prompts were given" in state.verdict.sentence


def test_what_is_handed_over(host: FakeHost, models: Mapping[str, str], folder: Path) -> None:
    state = run(host, provable(models), folder)
    assert state.verdict is not None
    assert state.incumbent is not None
    best = json.loads((folder / "best.json").read_text())
    assert best["format"] == 1
    assert best["evaluation"] == state.incumbent.number
    assert best["score"] == state.incumbent.score
    assert set(best["baselines"]) == {"a", "b", "half"}
    assert best["baselines"]["b"] == state.evaluations[2].score
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["kind"] == "automerge-recipe"
    assert recipe["weights"] == state.evaluations[state.verdict.winner].weights
    assert set(recipe["models"]["a"]) == {"name", "sha256", "path"}
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["gain"] is True
    assert verdict["unit"] is None
    assert {c["baseline"] for c in verdict["comparisons"]} == {"A", "B", "50:50"}
    assert (folder / "report.html").stat().st_size > 1000
    assert state.saved is not None
    assert state.saved.reproduced == state.saved.checked == 3
    with open_checkpoint(folder / state.saved.file) as saved:
        assert saved.sha256() == state.saved.sha256
    files = [i.file for images in state.scores.values() for i in images.values()]
    assert all((folder / name).is_file() for name in files)


def test_no_gain_saves_no_checkpoint(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    class Blind(BrightnessReward):
        def score(self, images, prompts):  # type: ignore[no-untyped-def]
            return [i.getpixel((0, 0))[1] / 255 for i in images]  # noise only

    host.judge = Blind()
    state = run(host, tiny_config(models), folder)
    assert state.verdict is not None
    assert not state.verdict.gain
    assert state.verdict.sentence.startswith("No significant gain")
    assert state.saved is None
    assert not list(folder.glob("*.safetensors"))
    assert (folder / "recipe.json").exists()


def test_the_same_configuration_gives_the_same_journal(
    models: Mapping[str, str], tmp_path: Path
) -> None:
    journals = []
    for name in ("one", "two"):
        config = tiny_config(models, optimizer="bayes", evaluations=9)
        run(FakeHost(), config, tmp_path / name)
        journals.append([plain(e) for e in RunFolder(tmp_path / name).events()])
    assert journals[0] == journals[1]


def plain(event: object) -> dict[str, object]:
    """An event without what may differ between equal runs."""
    fields: dict[str, object] = msgspec.to_builtins(event, str_keys=True)
    return {k: v for k, v in fields.items() if k not in ("time", "seconds", "memory_bytes")}


def test_another_seed_searches_elsewhere(models: Mapping[str, str], tmp_path: Path) -> None:
    states = [
        run(FakeHost(), tiny_config(models, seed=seed), tmp_path / str(seed)) for seed in (0, 1)
    ]
    assert states[0].evaluations[7].weights != states[1].evaluations[7].weights


def test_a_broken_candidate_is_rejected_at_its_first_broken_image(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    def broken(weights: Mapping[str, float], job: ImageJob) -> str | None:
        fifth = host.applied and len(host.applied) == 5
        return "NaN" if fifth and job.number == 2 else None

    host.broken = broken
    state = run(host, tiny_config(models), folder)
    rejected = state.evaluations[5]
    assert rejected.score is None
    assert rejected.rejected == "NaN image for payload 'p01', seed 3"
    assert sorted(state.scores[Stage.SEARCH, 5]) == [0, 1, 2, 3]
    assert state.status is Status.FINISHED
    assert state.verdict is not None
    assert state.verdict.winner != 5


def test_a_broken_parent_fails_the_run_in_words_and_it_can_be_resumed(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    host.broken = lambda weights, job: "black" if weights.get("M00") == 1.0 else None
    with pytest.raises(RunFailedError, match="model B itself makes a black image"):
        run(host, tiny_config(models), folder)
    state = RunFolder(folder).state()
    assert state.status is Status.FAILED
    assert state.evaluations[1].score is not None
    with pytest.raises(RunFailedError, match="model B"):
        Service(host).resume(folder)


def test_target_and_patience_end_the_search_in_words(
    models: Mapping[str, str], tmp_path: Path
) -> None:
    state = run(FakeHost(), tiny_config(models, target=-0.45), tmp_path / "target")
    assert state.search_ended is not None
    assert len(state.history) < 7
    assert "target" in state.search_ended.reason
    state = run(FakeHost(), tiny_config(models, evaluations=60, patience=3), tmp_path / "patience")
    assert len(state.history) < 60


def test_warnings_of_the_generator_are_kept(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    host.news = [["the batch was halved to 1."]]
    assert run(host, tiny_config(models), folder).warnings == ["the batch was halved to 1."]


def test_add_difference_compares_with_the_real_model_b(
    host: FakeHost, models: Mapping[str, str], folder: Path, tmp_path: Path
) -> None:
    c = write_tiny(tmp_path / "c.safetensors", "sd1", seed=9)
    config = msgspec.structs.replace(
        tiny_config({**models, "c": str(c)}, optimizer="bayes", evaluations=14),
        method="add_difference",
    )
    run(host, config, folder)
    assert [recipe.method for recipe in host.applied[:4]] == ["weighted_sum"] * 3 + [
        "add_difference"
    ]


def test_a_run_folder_is_never_overwritten(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    folder.mkdir()
    (folder / "mine.txt").write_text("precious")
    with pytest.raises(StorageError, match="not empty"):
        run(host, tiny_config(models), folder)
    assert [p.name for p in folder.iterdir()] == ["mine.txt"]


def test_failed_checks_write_nothing(
    host: FakeHost, models: Mapping[str, str], folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(Path(models["a"]).read_bytes())
    nan = write_tiny(
        tmp_path / "nan.safetensors",
        "sd1",
        seed=3,
        extra={"model.diffusion_model.out.2.bias": _nans()},
    )
    bare = write_tiny(tmp_path / "bare.safetensors", "sd1", seed=4, drop=("first_stage_model.*",))
    cases = [
        ({**models, "b": models["a"]}, {}, ModelError, "are the same file"),
        ({**models, "b": str(copy)}, {}, ModelError, "have the same content"),
        ({**models, "b": str(nan)}, {}, ModelError, "model.diffusion_model.out.2.bias"),
        ({"a": str(bare), "b": models["b"]}, {}, ModelError, "has no VAE"),
        ({**models, "b": str(tmp_path / "none.safetensors")}, {}, ModelError, "none.safetensors"),
        (models, {"blocks": {"IN1": {"fixed": 0.0}}}, ConfigError, "IN1"),
        (models, {"low": 0.8, "high": 0.2}, ConfigError, "0.8"),
        (models, {"optimizer": "bays"}, ConfigError, "bayes"),
    ]
    for paths, search, kind, words in cases:
        with pytest.raises(kind, match=words):
            run(host, tiny_config(paths, **search), folder)
        assert not folder.exists()


def _nans():  # type: ignore[no-untyped-def]
    import torch

    return torch.full((4,), torch.nan).half()


def test_scores_are_those_of_the_images_on_disk(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    from PIL import Image

    state = run(host, tiny_config(models), folder)
    scored: list[Scored] = [i for images in state.scores.values() for i in images.values()]
    for image in scored:
        with Image.open(folder / image.file) as picture:
            assert host.judge.score([picture], [""]) == [image.score]


def test_a_merge_without_effect_is_noticed_once(
    host: FakeHost, models: Mapping[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classic failure of merge searches: model A is scored for days, whatever is proposed."""
    from PIL import Image

    from tests import fake_host

    def draw(self: object, job: ImageJob) -> Image.Image:
        return Image.new("RGB", (8, 8), (job.seed * 40, 9, 9))

    monkeypatch.setattr(fake_host.FakeSession, "_draw", draw)
    state = run(host, tiny_config(models), folder)
    assert len(state.warnings) == 1
    assert "evaluations 1 and 2 made the very same images" in state.warnings[0]


def test_the_reward_is_closed(host: FakeHost, models: Mapping[str, str], folder: Path) -> None:
    closed: list[bool] = []
    host.judge.close = lambda: closed.append(True)  # type: ignore[method-assign]
    run(host, tiny_config(models), folder)
    assert closed == [True]


def test_styles_that_the_reward_does_not_read_are_told(
    host: FakeHost, models: Mapping[str, str], folder: Path
) -> None:
    config = tiny_config(models)
    first, second, third = config.payloads
    payloads = (
        msgspec.structs.replace(first, styles=("film",)),
        msgspec.structs.replace(second, styles=("film",), score_prompt="a star on film"),
        third,
    )
    config = msgspec.structs.replace(config, payloads=payloads)
    state = Service(host, clock=lambda: 0.0).start(config, folder)
    (told,) = (text for text in state.warnings if "styles" in text)
    assert "'p01' shape the images" in told
