"""Runs whose candidates are merges of the lab: of any number of models, by any parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_automerge.app.measuring import measurement_of
from lib_automerge.app.preflight import check_settings
from lib_automerge.app.service import Service
from lib_automerge.domain import architectures
from lib_automerge.domain.config import RunConfig, decode_config
from lib_automerge.domain.events import GIVEN, Origin, Stage
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.run import RunState, Status
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge import merge_files
from lib_automerge.study import findings
from lib_automerge.study.journal import read_events
from lib_automerge.study.store import RunFolder
from tests.checkpoints import write_tiny
from tests.fake_host import FakeHost
from tests.merging_host import SEEN, MergingHost

SD1 = architectures.get("sd1")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pool")
    return {
        name: str(write_tiny(folder / f"{name}.safetensors", "sd1", seed=seed))
        for seed, name in enumerate(("base", "one", "two", "three"))
    }


@pytest.fixture
def lab_host(paths: Mapping[str, str]) -> MergingHost:
    tensors = {name: load_file(path)[SEEN].double() for name, path in paths.items()}
    return MergingHost(0.1 * tensors["one"] + 0.3 * tensors["two"] + 0.6 * tensors["three"])


def config(models: Mapping[str, str], method: str, **more: Any) -> RunConfig:
    more = {"reward": {"name": "demo"}, "output": {"checkpoint": "always"}, **more}
    search = {"optimizer": "sobol", "evaluations": 9, "stop": "never", **more.pop("search", {})}
    return decode_config(
        {
            "models": dict(models),
            "method": method,
            "payloads": [
                {"prompt": "a red ball", "seeds": [1, 2], "batch_size": 2},
                {"prompt": "a moon", "held_out": True, "batch_size": 3},
            ],
            "search": search,
            "verdict": {"finalists": 2, "finalist_seeds": 1, "seeds": 6},
            **more,
        }
    )


def many(paths: Mapping[str, str], *, based: bool) -> dict[str, str]:
    models = {"m001": paths["one"], "m002": paths["two"], "m003": paths["three"]}
    return {"base": paths["base"], **models} if based else models


def start(host: FakeHost, asked: RunConfig, folder: Path) -> RunState:
    return Service(host, clock=lambda: 0.0).start(asked, folder)


def test_all_models_and_their_equal_shares_are_scored_first(
    lab_host: MergingHost, paths: Mapping[str, str], folder: Path
) -> None:
    asked = config(
        many(paths, based=True),
        "ties",
        search={"parameters": {"k": {"low": 0.1, "high": 0.9}, "scale": {"per_block": True}}},
    )
    state = start(lab_host, asked, folder)
    origins = [e.origin for _, e in sorted(state.evaluations.items())]
    assert origins[:5] == [*GIVEN, Origin.MEMBER]
    assert not set(origins[5:]) & set(GIVEN)
    own = [load_file(paths[name])[SEEN] for name in ("base", "one", "two", "three")]
    shown = [tensors[SEEN] for tensors in lab_host.merged[:5]]
    for given, tensor in zip((0, 1, 3, 4), own, strict=True):
        assert torch.equal(shown[given], tensor)
    mean = sum(tensor.double() for tensor in own) / 4
    assert torch.equal(shown[2], mean.half())
    found = findings.findings(folder, RunFolder.open(folder).manifest(), _events(folder))
    names = [found.model_of(state.evaluations[number]) for number in (1, 2, 3, 4, 5)]
    assert names == ["base", "one", "equal shares of all", "two", "three"]


def test_the_winner_meets_the_best_of_all_models(
    lab_host: MergingHost, paths: Mapping[str, str], folder: Path
) -> None:
    lab_host.ideal = load_file(paths["three"])[SEEN].double()
    asked = config(
        many(paths, based=False), "average", search={"parameters": {"shares": {"high": 1}}}
    )
    state = start(lab_host, asked, folder)
    assert state.verdict is not None
    assert state.verdict.better_parent is Origin.MEMBER
    assert [c.baseline for c in state.verdict.comparisons] == [*GIVEN]
    assert not state.verdict.gain
    assert "the better parent (the best other model)" in state.verdict.sentence
    assert {n for stage, n in state.stages if stage is Stage.VERDICT} >= {1, 2, 3, 4}


def test_what_was_scored_is_what_is_saved(
    lab_host: MergingHost, paths: Mapping[str, str], folder: Path
) -> None:
    asked = config(
        many(paths, based=False), "average", search={"parameters": {"shares": {"high": 1}}}
    )
    state = start(lab_host, asked, folder)
    assert state.status is Status.FINISHED
    assert state.saved is not None
    assert state.saved.checked == state.saved.reproduced > 0
    assert state.verdict is not None
    winner = state.evaluations[state.verdict.winner]
    assert set(winner.weights) == {"shares.m001", "shares.m002", "shares.m003"}
    manifest = RunFolder.open(folder).manifest()
    again = merge_files(findings.recipe_of(manifest, winner), folder / "again.safetensors")
    saved = load_file(folder / state.saved.file)
    for key, value in load_file(again).items():
        assert torch.equal(saved[key], value), key


def test_the_search_finds_the_shares(
    lab_host: MergingHost, paths: Mapping[str, str], folder: Path
) -> None:
    asked = config(
        many(paths, based=False),
        "average",
        search={
            "optimizer": "bayes",
            "evaluations": 30,
            "parameters": {"shares": {"low": 0.0, "high": 1}},
        },
    )
    state = start(lab_host, asked, folder)
    assert state.verdict is not None
    assert state.verdict.gain
    found = np.array(list(state.evaluations[state.verdict.winner].weights.values()))
    assert np.abs(found / found.sum() - [0.1, 0.3, 0.6]).max() < 0.12


def test_parameters_fixed_and_searched_reach_the_recipe(
    lab_host: MergingHost, paths: Mapping[str, str], folder: Path
) -> None:
    asked = config(
        many(paths, based=True),
        "della",
        parameters={"seed": 7, "scale": 0.8, "p": 0.25},
        search={
            "evaluations": 8,
            "parameters": {
                "favour": {"values": ["large", "small"]},
                "p": {"low": 0.1, "high": 0.5, "per_block": True},
            },
        },
    )
    start(lab_host, asked, folder)
    merged = [each for each in lab_host.applied if each.method == "della"]
    assert {each.parameters["favour"] for each in merged} == {"large", "small"}
    for each in merged:
        p = each.parameters["p"]
        assert isinstance(p, dict)
        assert (each.parameters["seed"], each.parameters["scale"]) == (7, 0.8)
        assert p["BASE"] == p["VAE"] == 0.25
        assert all(0.1 <= p[block] <= 0.5 for block in SD1.parameters)
        assert len({p[block] for block in SD1.parameters}) > 20


def test_three_models_by_weights_and_a_parameter_for_each_block(
    lab_host: MergingHost, paths: Mapping[str, str], folder: Path
) -> None:
    models = {"a": paths["one"], "b": paths["two"], "c": paths["three"]}
    asked = config(models, "sum_twice", search={"parameters": {"beta": {"per_block": True}}})
    state = start(lab_host, asked, folder)
    assert [e.origin for _, e in sorted(state.evaluations.items())][:4] == [*GIVEN]
    merged = [each for each in lab_host.applied if each.method == "sum_twice"]
    candidates = len({each.provenance["evaluation"] for each in merged})
    assert candidates == 5
    betas = [each.parameters["beta"] for each in merged]
    assert len({beta["OUT11"] for beta in betas if isinstance(beta, dict)}) == candidates
    assert len({each.weights["OUT11"] for each in merged}) == candidates


def test_two_models_by_a_method_of_the_lab(
    lab_host: MergingHost, paths: Mapping[str, str], folder: Path
) -> None:
    state = start(lab_host, config({"a": paths["one"], "b": paths["two"]}, "slerp"), folder)
    assert state.status is Status.FINISHED
    candidates = [e for _, e in sorted(state.evaluations.items()) if e.origin not in GIVEN]
    assert len(candidates) == 6
    assert {each.method for each in lab_host.applied} == {"slerp", "weighted_sum"}


def test_a_run_that_was_stopped_goes_on_as_if_nothing_had_happened(
    paths: Mapping[str, str], lab_host: MergingHost, tmp_path: Path
) -> None:
    asked = config(
        many(paths, based=True),
        "ties",
        search={"optimizer": "bayes", "evaluations": 9, "parameters": {"k": {}, "scale": {}}},
    )
    whole = start(lab_host, asked, tmp_path / "whole")
    other = MergingHost(lab_host.ideal)
    count = 0

    def killed(jobs: Sequence[ImageJob]) -> None:
        nonlocal count
        count += 1
        if count == 9:
            raise KeyboardInterrupt

    other.before_batch = killed
    with pytest.raises(KeyboardInterrupt):
        start(other, asked, tmp_path / "cut")
    state = Service(MergingHost(lab_host.ideal), clock=lambda: 0.0).resume(tmp_path / "cut")
    assert state.status is whole.status is Status.FINISHED
    for number, evaluation in whole.evaluations.items():
        assert state.evaluations[number].weights == evaluation.weights
        assert state.evaluations[number].score == evaluation.score


def test_a_candidate_that_the_method_refuses_is_lost_and_the_search_goes_on(
    paths: Mapping[str, str], lab_host: MergingHost, folder: Path
) -> None:
    roles = ("m001", "m002", "m003")
    search = {
        "parameters": {"shares": {"low": 0, "high": 1}},
        "start": [{f"shares.{role}": 0.0 for role in roles}],
    }
    state = start(lab_host, config(many(paths, based=False), "average", search=search), folder)
    assert state.status is Status.FINISHED
    (lost,) = (e for e in state.history if e.origin is Origin.START)
    assert lost.rejected is not None
    assert "shares" in lost.rejected
    assert state.verdict is not None


@pytest.mark.parametrize("optimizer", ["bayes", "sobol"])
def test_a_search_that_has_tried_everything_ends_with_a_verdict(
    paths: Mapping[str, str], lab_host: MergingHost, folder: Path, optimizer: str
) -> None:
    favour = {"favour": {"values": ["large", "small"]}}
    search = {"optimizer": optimizer, "evaluations": 12, "parameters": favour}
    asked = config(many(paths, based=True), "della", search=search)
    state = start(lab_host, asked, folder)
    assert state.status is Status.FINISHED
    assert state.search_ended is not None
    assert "every point" in state.search_ended.reason
    candidates = [e for e in state.history if e.origin not in GIVEN]
    assert sorted(e.weights["favour"] for e in candidates) == [0.0, 1.0]
    assert state.verdict is not None
    assert state.verdict.comparisons


def places(paths: Mapping[str, str], *values: str, **more: Any) -> RunConfig:
    favour, p = {"values": list(values)}, {"low": 0.2, "high": 0.8}
    search = {"evaluations": 9, "parameters": {"favour": favour, "p": p}, **more}
    return config(many(paths, based=True), "della", search=search)


def test_the_place_of_a_value_is_known_of_the_same_list_only(
    paths: Mapping[str, str], lab_host: MergingHost, tmp_path: Path
) -> None:
    start(lab_host, places(paths, "large", "small"), tmp_path / "first")
    warm = {"warm_start": [str(tmp_path / "first")]}
    start(lab_host, places(paths, "large", "small", **warm), tmp_path / "same")
    known = RunFolder.open(tmp_path / "same").manifest().observations
    assert len(known) == 4
    state = start(lab_host, places(paths, "small", "large", **warm), tmp_path / "other")
    manifest = RunFolder.open(tmp_path / "other").manifest()
    assert manifest.observations == ()
    assert any("another method" in text for text in state.warnings)
    tried = manifest.config.search.start
    assert {point["p"] for point in tried} <= {e.weights["p"] for e in known}
    assert {point["favour"] for point in tried} == {1.0}, "where large is, the default"


def test_recipes_that_name_nothing_that_is_searched_are_left_out(
    paths: Mapping[str, str], lab_host: MergingHost, tmp_path: Path
) -> None:
    recipes = tmp_path / "recipes.txt"
    recipes.write_text("IN00:0.5,M00:1\n")
    warm = {"warm_start": [str(recipes)], "parameters": {"k": {}}}
    state = start(lab_host, config(many(paths, based=True), "ties", search=warm), tmp_path / "run")
    assert RunFolder.open(tmp_path / "run").manifest().config.search.start == ()
    assert any("say nothing about what this run searches" in text for text in state.warnings)


def test_what_a_recipe_does_not_name_has_its_default(
    paths: Mapping[str, str], lab_host: MergingHost, tmp_path: Path
) -> None:
    recipes = tmp_path / "recipes.txt"
    recipes.write_text("IN00:0.5,M00:1\n")
    models = {"a": paths["one"], "b": paths["two"], "c": paths["three"]}
    warm = {"warm_start": [str(recipes)], "parameters": {"beta": {"per_block": True}}}
    asked = config(models, "sum_twice", parameters={"beta": 0.25}, search=warm)
    start(lab_host, asked, tmp_path / "run")
    (point,) = RunFolder.open(tmp_path / "run").manifest().config.search.start
    assert (point["M00"], point["IN01"], point["beta.M00"]) == (1.0, 0.0, 0.25)


def test_the_noise_of_a_search_of_parameters_can_be_measured(
    paths: Mapping[str, str], lab_host: MergingHost, tmp_path: Path
) -> None:
    asked = config(many(paths, based=True), "ties", search={"parameters": {"k": {}}})
    state = start(lab_host, measurement_of(asked), tmp_path / "run")
    assert state.calibrated is not None
    assert len(state.evaluations) == 5


WRONG: list[tuple[str, str, dict[str, Any], str]] = [
    ("ties", "many", {}, "no weights by block"),
    ("ties", "many", {"parameters": {"kk": {}}}, "parameter of ties: 'kk'"),
    ("ties", "many", {"parameters": {"k": {"high": 2}}}, "must be within 0 to 1"),
    ("ties", "many", {"parameters": {"k": {"low": 0.9, "high": 0.1}}}, "reversed"),
    ("ties", "many", {"parameters": {"k": {"low": 0.5, "high": 0.5}}}, "nothing is left"),
    ("ties", "many", {"parameters": {"k": {}}, "blocks": {"IN00": {"fixed": 0}}}, "no weights"),
    ("ties", "many", {"parameters": {"k": {}}, "evaluations": 5}, "5 come before.*Use 6 or"),
    ("ties", "many", {"parameters": {"k": {}}, "evaluations": 4, "calibration": 1}, "Use 5 or"),
    ("ties", "ab", {"parameters": {"k": {}}}, "no base was given"),
    ("average", "many", {"parameters": {"shares": {}}}, "a base was given"),
    ("slerp", "many", {}, "no use for model"),
    ("sum_twice", "ab", {}, "needs model 'c'"),
    ("slerp", "ab", {"parameters": {"weight": {}}}, "search.low"),
    ("slerp", "ab", {"low": -2}, "must be within"),
    ("cosine_a", "ab", {"high": 1.5}, "must be within 0 to 1"),
    ("della", "many", {"parameters": {"favour": {}}}, "values: \\[large, small\\]"),
    ("della", "many", {"parameters": {"favour": {"values": ["huge", "small"]}}}, "huge"),
    ("della", "many", {"parameters": {"favour": {"values": ["large"]}}}, "two different"),
    ("della", "many", {"parameters": {"seed": {}}}, "whole number"),
    ("della", "many", {"parameters": {"p": {}}}, "do not go together.*Narrow p"),
    ("della", "many", {"parameters": {"favour": {"per_block": True}}}, "one value"),
]


def test_blind_choices_are_between_two_models(paths: Mapping[str, str]) -> None:
    human = {"name": "human_choose"}
    search = {"parameters": {"k": {}}}
    more = {"search": search, "reward": human, "output": {"checkpoint": "gain"}}
    asked = config(many(paths, based=True), "ties", **more)
    with pytest.raises(ConfigError, match="you alone cannot judge"):
        check_settings(asked, SD1)
    two = {"base": paths["base"], "m001": paths["one"]}
    check_settings(config(two, "ties", **more), SD1)


@pytest.mark.parametrize(("method", "roles", "search", "told"), WRONG)
def test_what_cannot_be_searched_is_refused_in_words(
    paths: Mapping[str, str], method: str, roles: str, search: dict[str, Any], told: str
) -> None:
    models = many(paths, based=True)
    if roles == "ab":
        models = {"a": paths["one"], "b": paths["two"]}
    with pytest.raises(ConfigError, match=told):
        check_settings(config(models, method, search=search), SD1)


def test_models_that_do_not_go_together_are_refused_before_a_folder_is_made(
    lab_host: MergingHost, paths: Mapping[str, str], folder: Path, tmp_path: Path
) -> None:
    lacking = write_tiny(tmp_path / "lacking.safetensors", "sd1", seed=9)
    state = load_file(lacking)
    del state[SEEN]
    save_file(state, lacking)
    models = {**many(paths, based=True), "m002": str(lacking)}
    with pytest.raises(ModelError):
        start(lab_host, config(models, "ties", search={"parameters": {"k": {}}}), folder)
    assert not folder.exists()


def _events(folder: Path) -> Any:
    return read_events(folder / "journal.jsonl")


def test_the_report_shows_the_searched_parameters(
    lab_host: MergingHost, paths: Mapping[str, str], folder: Path
) -> None:
    asked = config(
        many(paths, based=True),
        "ties",
        parameters={"k": 0.3},
        search={"parameters": {"scale": {"low": 0.5, "high": 1}, "k": {"per_block": True}}},
    )
    state = start(lab_host, asked, folder)
    assert state.verdict is not None
    winner = state.evaluations[state.verdict.winner]
    page = (folder / "report.html").read_text()
    assert f"Parameters of ties, evaluation {winner.number}" in page
    assert f"<dd>{winner.weights['scale']:.4g}</dd>" in page
    assert "k by block" in page
    assert "k (" not in page
    assert "scale from 0.5 to 1, k from default to default for each block" in page
    assert "ties (k 0.3)" in page
