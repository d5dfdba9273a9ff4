"""Warm start through whole runs: what earlier work is worth to a new run, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from lib_automerge.app import earlier
from lib_automerge.app.checks import Level, preflight
from lib_automerge.app.configfile import read_config
from lib_automerge.app.service import Service
from lib_automerge.app.warm_start import START_POINTS, begin
from lib_automerge.domain import architectures, weights
from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import BASELINES, Origin, Stage
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.run import Evaluation, RunState
from lib_automerge.errors import ConfigError
from lib_automerge.study.store import RunFolder, RunManifest
from tests.fake_host import BrightnessReward, FakeCatalogue, FakeHost, tiny_config
from tests.score_logs import FIRST, HEADER, PUBLISHED, synthetic_log

SD1 = architectures.get("sd1")
Models = Mapping[str, str]


def run(host: FakeHost, config: RunConfig, folder: Path) -> RunState:
    return Service(host, clock=lambda: 0.0).start(config, folder)


def manifest(folder: Path) -> RunManifest:
    return RunFolder.open(folder).manifest()


def told(state: RunState) -> list[str]:
    return [text for text in state.warnings if text.startswith("Warm start")]


def own(state: RunState, *origins: Origin) -> list[Evaluation]:
    return [e for e in state.history if e.origin in origins]


def points(evaluations: list[Evaluation] | tuple[Evaluation, ...]) -> set[tuple[float, ...]]:
    return {tuple(e.weights[block] for block in SD1.parameters) for e in evaluations}


@pytest.fixture
def cold(host: FakeHost, models: Models, tmp_path: Path) -> Path:
    """A finished run of nine evaluations, one of them rejected."""

    def sixth_is_black(weights: Mapping[str, float], job: ImageJob) -> str | None:
        return "black" if len(host.applied) == 7 and job.number == 3 else None

    host.broken = sixth_is_black
    state = run(host, tiny_config(models, evaluations=9), tmp_path / "cold")
    host.broken = lambda weights, job: None
    assert sum(e.rejected is not None for e in state.history) == 1
    return tmp_path / "cold"


# --- the same scale ---------------------------------------------------------------------------


def test_an_equal_run_goes_on_where_the_earlier_one_ended(
    host: FakeHost, models: Models, cold: Path, folder: Path
) -> None:
    before = RunFolder.open(cold).state()
    host.applied.clear()
    config = tiny_config(models, evaluations=11, warm_start=[str(cold)])
    state = run(host, config, folder)
    known = [e for e in before.history if e.origin not in BASELINES]
    found = manifest(folder).observations

    assert [(e.weights, e.score, e.rejected) for e in found] == [
        (e.weights, e.score, e.rejected) for e in known
    ]
    assert [e.number for e in found] == list(range(-6, 0))
    assert {e.origin for e in found} == {Origin.EARLIER}
    assert found[0].images == 6
    assert not any(e.seconds for e in found)  # this run's hours are its own
    assert found[0].per_payload == known[0].per_payload
    assert found[0].standard_error == known[0].standard_error
    assert told(state) == [
        "Warm start: 6 evaluations of the run cold count as known, 1 of them rejected."
    ]
    fresh = own(state, Origin.SEARCH, Origin.DESIGN, Origin.START)
    assert fresh
    assert not points(fresh) & points(known)
    assert len({*points(fresh)}) == len(fresh)


def test_the_best_known_ones_are_taken_over_without_images_and_can_win(
    host: FakeHost, models: Models, cold: Path, folder: Path
) -> None:
    before = RunFolder.open(cold).state()
    known = [e for e in before.history if e.origin not in BASELINES and e.score is not None]
    known.sort(key=lambda e: -(e.score or 0.0))
    state = run(host, tiny_config(models, evaluations=6, warm_start=[str(cold)]), folder)
    adopted = own(state, Origin.EARLIER)
    assert [e.number for e in adopted] == [4, 5]
    assert [(e.weights, e.score) for e in adopted] == [(e.weights, e.score) for e in known[:2]]
    assert not any((Stage.SEARCH, e.number) in state.scores for e in adopted)
    # nothing but the baselines and one new candidate was scored in the search
    assert {n for stage, n in state.scores if stage is Stage.SEARCH} == {1, 2, 3, 6}
    assert state.verdict is not None
    assert state.verdict.winner in {4, 5, 6}
    assert (Stage.FINALISTS, 4) in state.stages
    assert json.loads((folder / "recipe.json").read_text())["weights"]
    assert (folder / "report.html").is_file()


def test_a_warm_run_proposes_other_points_than_a_cold_one(
    host: FakeHost, models: Models, tmp_path: Path
) -> None:
    first = tiny_config(models, optimizer="bayes", evaluations=14)
    before = run(host, first, tmp_path / "first")
    warm = tiny_config(
        models, optimizer="bayes", evaluations=14, warm_start=[str(tmp_path / "first")]
    )
    state = run(host, warm, tmp_path / "warm")
    fresh = own(state, Origin.SEARCH, Origin.DESIGN)
    assert len(fresh) == 14 - len(BASELINES) - 2
    assert not points(fresh) & points(before.history)
    # the earlier run's design stands for the new one's: the model is asked from the start
    assert own(state, Origin.DESIGN) == []
    assert max(e.score or 0.0 for e in fresh) > max(e.score or 0.0 for e in before.history)


def test_what_an_earlier_run_knew_from_another_is_passed_on(
    host: FakeHost, models: Models, cold: Path, tmp_path: Path
) -> None:
    second = tiny_config(models, evaluations=8, warm_start=[str(cold)])
    run(host, second, tmp_path / "second")
    third = tiny_config(models, evaluations=8, warm_start=[str(tmp_path / "second")])
    run(host, third, tmp_path / "third")
    counts = [len(manifest(tmp_path / name).observations) for name in ("second", "third")]
    # 6 of the first; the second adds its own three, and takes two over without counting them twice
    assert counts == [6, 9]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_runs_that_know_a_recipe_the_one_with_a_score_counts(
    order: int, host: FakeHost, models: Models, cold: Path, tmp_path: Path
) -> None:
    run(host, tiny_config(models, evaluations=9), tmp_path / "sound")
    sources = [str(cold), str(tmp_path / "sound")][::order]
    state = run(host, tiny_config(models, evaluations=7, warm_start=sources), tmp_path / "new")
    found = manifest(tmp_path / "new").observations
    assert len(found) == 6
    assert all(e.score is not None for e in found)
    assert len(told(state)) == 2


def test_a_resumed_warm_run_ends_as_an_uninterrupted_one(
    host: FakeHost, models: Models, cold: Path, tmp_path: Path
) -> None:
    config = tiny_config(models, optimizer="bayes", evaluations=9, warm_start=[str(cold)])
    whole = run(host, config, tmp_path / "whole")
    batches = 0

    def interrupt(jobs: object) -> None:
        nonlocal batches
        batches += 1
        if batches == 18:
            raise KeyboardInterrupt

    host.before_batch = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(host, config, folder := tmp_path / "killed")
    host.before_batch = lambda jobs: None
    for path in cold.iterdir():
        if path.is_file():
            path.unlink()
    resumed = Service(host, clock=lambda: 0.0).resume(folder)
    assert [(e.origin, e.weights, e.score) for e in resumed.history] == [
        (e.origin, e.weights, e.score) for e in whole.history
    ]


def changed_reward(host: FakeHost, config: RunConfig) -> RunConfig:
    host.judge = BrightnessReward("brightness-2")
    return config


def changed_method(host: FakeHost, config: RunConfig) -> RunConfig:
    payloads = tuple(msgspec.structs.replace(p, steps=9) for p in config.payloads)
    return msgspec.structs.replace(config, payloads=payloads)


def changed_seeds(host: FakeHost, config: RunConfig) -> RunConfig:
    payloads = tuple(
        msgspec.structs.replace(p, seeds=p.seeds and (9, *p.seeds[1:])) for p in config.payloads
    )
    return msgspec.structs.replace(config, payloads=payloads)


def swapped_models(host: FakeHost, config: RunConfig) -> RunConfig:
    models = {"a": config.models["b"], "b": config.models["a"]}
    return msgspec.structs.replace(config, models=models)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (changed_reward, "it was judged by another reward"),
        (changed_method, "it had other prompts or image settings"),
        (changed_seeds, "its images had other seeds"),
        (swapped_models, "it merged other models"),
    ],
)
def test_scores_of_another_scale_do_not_count(
    change: object, why: str, host: FakeHost, models: Models, cold: Path, folder: Path
) -> None:
    assert callable(change)
    config = change(host, tiny_config(models, evaluations=9, warm_start=[str(cold)]))
    state = run(host, config, folder)
    assert manifest(folder).observations == ()
    assert told(state) == [
        "Warm start: the 3 best of 5 recipes of the run cold are scored first. Its scores do not "
        f"count: {why}."
    ]
    started = own(state, Origin.START)
    assert [e.number for e in started] == [4, 5, 6]
    assert all((Stage.SEARCH, e.number) in state.scores for e in started)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"method": "other"}, "it used another method"),
        ({"parameters": {"t": 0.5}}, "it used another method"),
        ({"generator": {"backend": "other"}}, "its images came from another generator"),
    ],
)
def test_other_ways_to_make_images_are_another_scale(
    change: dict[str, object], why: str, cold: Path
) -> None:
    now = manifest(cold)
    if "generator" in change:
        now = msgspec.structs.replace(now, **change)
    else:
        config = msgspec.structs.replace(now.config, **change)
        now = msgspec.structs.replace(now, config=config)
    sources = earlier.read([str(cold)], SD1)
    begun, notes = begin(now, sources)
    assert begun.observations == ()
    assert why in notes[0]
    assert len(begin(manifest(cold), sources)[0].observations) == 6


def test_another_version_is_told_and_counts(cold: Path) -> None:
    fingerprint = {"backend": "fake", "torch": "2.0", "device": "cpu"}
    now = msgspec.structs.replace(manifest(cold), generator=fingerprint)
    begun, notes = begin(now, earlier.read([str(cold)], SD1))
    assert len(begun.observations) == 6
    assert "made with another device and torch: scores may differ a little" in notes[1]


def test_what_a_run_held_for_its_best_comes_first(cold: Path) -> None:
    folder = RunFolder.open(cold)
    state = folder.state()
    assert state.verdict is not None
    scored = [e for e in state.history if e.origin not in BASELINES and e.score is not None]
    last = min(scored, key=lambda e: e.score or 0.0)
    with folder.owned(lambda: 0.0) as owned:
        owned.journal.append(msgspec.structs.replace(state.verdict, winner=last.number))
    (source,) = earlier.read([str(cold)], SD1)
    by_score = sorted(scored, key=lambda e: -(e.score or 0.0))
    assert source.recipes == tuple(e.weights for e in [last, *by_score[:-1]])


def test_only_batches_and_held_out_prompts_may_differ(
    host: FakeHost, models: Models, cold: Path, folder: Path
) -> None:
    config = tiny_config(models, evaluations=7, warm_start=[str(cold)], seed=5)
    payloads = tuple(
        msgspec.structs.replace(p, batch_size=1, prompt=f"{p.prompt}!" if p.held_out else p.prompt)
        for p in config.payloads
    )
    run(host, msgspec.structs.replace(config, payloads=payloads), folder)
    assert len(manifest(folder).observations) == 6


def test_known_recipes_outside_the_ranges_are_moved_and_scored(
    host: FakeHost, models: Models, cold: Path, folder: Path
) -> None:
    rule = {"IN00": {"fixed": 0.5}, "OUT05": {"low": 0.4, "high": 0.45}}
    config = tiny_config(models, evaluations=12, warm_start=[str(cold)], blocks=rule)
    state = run(host, config, folder)
    assert manifest(folder).observations == ()
    started = own(state, Origin.START)
    assert len(started) == START_POINTS
    assert all(e.weights["IN00"] == 0.5 for e in started)
    assert all(0.4 <= e.weights["OUT05"] <= 0.45 for e in started)
    notes = "\n".join(told(state))
    assert "6 evaluations of the run cold lie outside this run's search space" in notes
    assert "left this run's ranges in OUT05: moved to the nearest end" in notes
    assert "IN00 follows this run's rules instead of the run cold" in notes


# --- logs and recipes -------------------------------------------------------------------------


def test_a_replayed_published_log_begins_the_search(
    host: FakeHost, models: Models, tmp_path: Path
) -> None:
    warm = run(
        host,
        tiny_config(models, optimizer="bayes", evaluations=16, warm_start=[str(PUBLISHED)]),
        tmp_path / "warm",
    )
    started = own(warm, Origin.START)
    (source,) = earlier.read([str(PUBLISHED)], SD1)
    assert len(started) == START_POINTS
    assert [{block: e.weights[block] for block in source.recipes[0]} for e in started] == list(
        source.recipes[:START_POINTS]
    )
    assert told(warm) == [
        "Warm start: the 3 best of 96 recipes of auto_mbw_15b.csv are scored first. Its scores do "
        "not count: they were not made by a run with this one's models, prompts and reward."
    ]
    assert manifest(tmp_path / "warm").observations == ()
    # scored anew, by this run's reward and not by the log's
    assert all(e.images == 6 and (e.score or 0.0) != 0.0 for e in started)
    fresh = own(warm, Origin.DESIGN, Origin.SEARCH)
    assert len(fresh) == 16 - len(BASELINES) - START_POINTS
    assert not points(fresh) & points(started)


def test_equal_rows_are_one_recipe_and_the_best_come_first(
    host: FakeHost, models: Models, tmp_path: Path, folder: Path
) -> None:
    log = tmp_path / "log.csv"
    better = FIRST.replace("0.3,", "0.4,", 1).replace("0.5374", "0.6374")
    log.write_text("\n".join([HEADER, FIRST, FIRST, better, better, FIRST.replace("0.5374", "x")]))
    state = run(host, tiny_config(models, warm_start=[str(log)]), folder)
    assert [e.weights["IN00"] for e in own(state, Origin.START)] == [0.4, 0.3]
    assert told(state)[0] == (
        "Warm start: 1 row of log.csv could not be read or had no finite score."
    )


def test_recipes_of_all_dialects_are_scored_first(
    host: FakeHost, models: Models, cold: Path, tmp_path: Path, folder: Path
) -> None:
    vector = [n / 100 for n in range(27)]
    files = {
        "mine.json": '{"IN00": 0.11, "M00": 0.9}',
        "sm.txt": "PRESET\t" + ",".join(str(n / 100) for n in range(1, 27)),
        "made.recipe.txt": "modelA=a\nmodelB=b\n" + ",".join(map(str, vector)),
        "list.txt": ",".join(map(str, vector)),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    entries = [str(cold / "recipe.json"), str(cold / "best.json")]
    entries += [str(tmp_path / name) for name in files if name != "list.txt"]
    entries += [f"nat:{tmp_path / 'list.txt'}", str(tmp_path / "mine.json")]
    state = run(host, tiny_config(models, evaluations=12, warm_start=entries), folder)
    started = own(state, Origin.START)
    by_file = [
        json.loads((cold / "recipe.json").read_text())["weights"],
        {"IN00": 0.11, "M00": 0.9},
        weights.parse(files["sm.txt"].partition("\t")[2], "supermerger", SD1),
        weights.from_list(vector, "recipe", SD1),
        weights.from_list(vector, "nat", SD1),
    ]
    expected = [tuple(w.get(block, 0.0) for block in SD1.parameters) for w in by_file]
    found = [tuple(e.weights[block] for block in SD1.parameters) for e in started]
    best = json.loads((cold / "best.json").read_text())["weights"]
    if best != by_file[0]:
        expected.insert(1, tuple(best[block] for block in SD1.parameters))
    assert found == expected
    assert "Warm start: BASE and VAE follow this run's rules instead of sm.txt." in told(state)


def test_own_start_points_come_before_and_are_not_repeated(
    host: FakeHost, models: Models, cold: Path, tmp_path: Path
) -> None:
    (tmp_path / "r.json").write_text('{"IN00": 0.5}')
    config = tiny_config(
        models, start=[{"IN00": 0.7}, {"IN00": 0.5}], warm_start=[str(tmp_path / "r.json")]
    )
    state = run(host, config, tmp_path / "one")
    assert [e.weights["IN00"] for e in own(state, Origin.START)] == [0.7, 0.5]
    assert told(state) == [
        "Warm start: no recipe of r.json is scored: all are known or tried already."
    ]
    known = RunFolder.open(cold).state().evaluations[5].weights
    again = tiny_config(models, start=[known], warm_start=[str(cold)])
    other = run(host, again, tmp_path / "two")
    assert own(other, Origin.START) == []
    assert "Warm start: 1 start point of the configuration: scored already." in told(other)


def test_the_start_leaves_the_budget_in_peace(
    host: FakeHost, models: Models, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / "log.csv").write_text(synthetic_log(12))
    (tmp_path / "b.json").write_text('{"IN00": 0.5}')
    entries = [str(tmp_path / "log.csv"), str(tmp_path / "b.json")]
    state = run(host, tiny_config(models, evaluations=5, warm_start=entries), folder)
    assert len(own(state, Origin.START)) == 2
    assert len(state.history) == 5
    assert "the budget has no room" in told(state)[-1]


# --- what goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("gone.csv", None, "there is no such file or folder"),
        ("empty.csv", b" \n", "the file is empty"),
        ("text.txt", b"once upon a time", "not a number"),
        ("photo.png", b"\x89PNG\xff\xfe\x00", "it is not text"),
        ("list.csv", FIRST.encode(), "its first line has no column 'score'"),
        ("short.csv", f"{HEADER[4:]}\n{FIRST}".encode(), "25 numbered columns"),
        ("nan.csv", f"{HEADER}\n{FIRST.replace('0.5374', 'nan#')}".encode(), "no usable row"),
        ("27.txt", b",".join([*[b"0.2"] * 26, b"0.9"]), "Write it before the path: ORDER:"),
        ("28.txt", b",".join([b"0.1"] * 28), "No known order has 28 numbers"),
        ("x.json", b'{"IN0O": 1}', "Did you mean 'IN"),
        ("folder", b"", "no run in"),
    ],
)
def test_bad_sources_are_told_before_anything_is_loaded(
    name: str, content: bytes | None, why: str, host: FakeHost, models: Models, tmp_path: Path
) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    config = tiny_config(models, warm_start=[str(path)])
    with pytest.raises(ConfigError, match=why) as raised:
        run(host, config, tmp_path / "run")
    assert str(raised.value).startswith(f"warm start from {path}: ")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()
    assert host.open_sessions == 0
    assert host.applied == []
    found = preflight(
        config, host, FakeCatalogue(tmp_path, models), free_space=1 << 40, root=tmp_path
    )
    assert [c.text for c in found.checks if c.level is Level.ERROR] == [str(raised.value)]


def test_a_run_with_baselines_only_has_nothing_to_begin_with(
    host: FakeHost, models: Models, cold: Path, tmp_path: Path
) -> None:
    journal = cold / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    third = [n for n, line in enumerate(lines) if b'"event":"evaluated"' in line][2]
    journal.write_bytes(b"".join(lines[: third + 1]))
    with pytest.raises(ConfigError, match="no scored candidate besides its baselines"):
        earlier.read([str(cold)], SD1)
    journal.write_bytes(b"\n".join(lines))
    with pytest.raises(ConfigError, match="is damaged in line"):
        earlier.read([str(cold)], SD1)


def test_a_run_of_other_models_than_these_can_be_of_another_kind(cold: Path) -> None:
    with pytest.raises(ConfigError, match="models of 'sd1', these are 'sdxl'"):
        earlier.read([str(cold)], architectures.get("sdxl"))


def test_only_blocks_that_differ_are_missed(cold: Path, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"IN00": 0.5, "VAE": 0.5, "BASE": 0.5}')
    before = manifest(cold)
    now = msgspec.structs.replace(before, distances={**before.distances, "VAE": 0.0})
    notes = begin(now, earlier.read([str(tmp_path / "r.json")], SD1))[1]
    assert notes == (
        "Warm start: 1 recipe of r.json is scored first.",
        "Warm start: BASE follows this run's rules instead of r.json.",
    )


def test_a_source_named_twice_counts_once(cold: Path) -> None:
    assert len(earlier.read([str(cold), str(cold)], SD1)) == 1


def test_a_checkpoint_is_not_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(earlier.MAX_BYTES + 1)
    with pytest.raises(ConfigError, match="17 MB, which no recipe or log has"):
        earlier.read([str(path)], SD1)


def test_the_quick_check_says_what_there_is(
    host: FakeHost, models: Models, cold: Path, tmp_path: Path
) -> None:
    (tmp_path / "log.csv").write_text(synthetic_log(30))
    config = tiny_config(models, warm_start=[str(cold), str(tmp_path / "log.csv")])
    found = preflight(
        config, host, FakeCatalogue(tmp_path, models), free_space=1 << 40, root=tmp_path
    )
    assert [c.text for c in found.checks if c.subject == "Warm start"] == [
        "5 recipes of the run cold and 30 recipes of log.csv."
    ]


def test_old_run_folders_have_no_observations(cold: Path) -> None:
    raw = json.loads((cold / "run.json").read_text())
    del raw["observations"]
    (cold / "run.json").write_text(json.dumps(raw))
    assert manifest(cold).observations == ()


def test_paths_in_a_configuration_file_are_relative_to_it(models: Models, tmp_path: Path) -> None:
    raw = msgspec.to_builtins(tiny_config(models, warm_start=["old/run", "nat:my/list.txt"]))
    (tmp_path / "run.json").write_text(json.dumps(raw))
    assert read_config(tmp_path / "run.json").search.warm_start == (
        str(tmp_path / "old/run"),
        f"nat:{tmp_path / 'my/list.txt'}",
    )
