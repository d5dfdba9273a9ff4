"""Chains over tiny models whose merges are really better; see `tests.chain_host`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from lib_automerge.app import chain_estimate
from lib_automerge.app.chain_plan import chain_jobs, paired, staying
from lib_automerge.app.chains import ChainService
from lib_automerge.app.rebuild import rebuild
from lib_automerge.domain.chain import TreeStep
from lib_automerge.domain.chain_events import Purpose, Standing
from lib_automerge.domain.chain_state import ChainState
from lib_automerge.domain.lineage import Lineage, read_lineage
from lib_automerge.domain.payload import ImageJob, named
from lib_automerge.domain.recipe import read_recipe
from lib_automerge.domain.run import Status
from lib_automerge.errors import (
    AutomergeError,
    ConfigError,
    ModelError,
    RunFailedError,
    StorageError,
)
from lib_automerge.merge.lookup import sha256
from lib_automerge.study.chain_store import ChainFolder
from lib_automerge.study.store import RunFolder
from tests.chain_host import POOL, PROBES, ContentHost, chain_config, write_model, write_pool
from tests.checkpoints import write_tiny
from tests.fake_host import BrightnessReward

SOUP = {"kind": "merge", "name": "soup"}


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_pool(tmp_path_factory.mktemp("pool"))


def carried_out(
    folder: Path, pool: Sequence[str], host: ContentHost | None = None, **sections: Any
) -> ChainState:
    service = ChainService(host or ContentHost(), clock=lambda: 0.0)
    return service.start(service.prepare(chain_config(pool, **sections)), folder)


@pytest.fixture(scope="module")
def soup(pool: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished chain: soup of the pool, then a search against its best member."""
    folder = tmp_path_factory.mktemp("chains") / "soup"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib_automerge.search.insights.insights", lambda *_, **__: None)
        carried_out(folder, pool, preset="soup")
    return folder


@pytest.fixture(scope="module")
def tree(pool: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tree over five models."""
    folder = tmp_path_factory.mktemp("chains") / "tree"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib_automerge.search.insights.insights", lambda *_, **__: None)
        carried_out(folder, pool, preset="tree")
    return folder


def skill(path: Path) -> list[float]:
    state = load_file(path)
    return [float(state[key].float().mean()) for key in PROBES.values()]


def test_a_soup_is_searched_against_the_best_of_its_pool(soup: Path, pool: list[str]) -> None:
    state = ChainFolder(soup).state()
    assert state.status is Status.FINISHED
    merged = skill(soup / "steps/01-soup/soup.safetensors")
    expected = [sum(values) / len(POOL) for values in zip(*POOL.values(), strict=True)]
    assert merged == pytest.approx(expected, abs=1e-3)
    ranking = state.ranked["best", None]
    assert [s.model for s in ranking.standings] == ["m1", "m2", "m3", "m4", "m5"]
    assert ranking.kept == ("m1",)
    means = [s.mean for s in ranking.standings]
    assert means == sorted(means, key=lambda mean: -(mean or 0.0))
    decided = state.decided["search", "soup", "m1"]
    assert decided.gain
    assert decided.means["merge"] > max(decided.means[role] for role in ("a", "b", "half"))
    assert state.finished is not None
    assert state.finished.model == "search"
    # a run like any other: it can be looked at by itself
    run = RunFolder(soup / "steps/03-search")
    assert run.state().status is Status.FINISHED
    assert run.report.is_file()
    assert [Path(p).stat().st_size for p in pool] == [
        member.size for member in ChainFolder(soup).manifest().pool
    ]


def test_every_step_shows_the_same_images_of_what_it_made_and_of_its_inputs(soup: Path) -> None:
    state = ChainFolder(soup).state()
    models = {*POOL, "soup", "search"}
    shown = {}
    for (_, purpose), images in state.pictures.items():
        if purpose is Purpose.PREVIEW:
            found = [(image.payload, image.seed) for _, image in sorted(images.items())]
            shown[images[0].model] = found
            assert all((soup / image.file).is_file() for image in images.values())
    assert shown.keys() == models
    assert len({tuple(found) for found in shown.values()}) == 1
    assert [payload for payload, _ in shown["soup"]] == ["p01", "p02"]
    report = (soup / "report.html").read_text()
    assert report.count('src="data:image/png') >= 2 * (6 + 5 + 3)
    for told in ("1. soup: merge", "2. best: ranking", "3. search: search", "SHA-256"):
        assert told in report
    assert 'href="steps/03-search/report.html"' in report
    assert "<script" not in report


def test_the_result_is_rebuilt_from_the_pool_alone_bit_for_bit(
    soup: Path, pool: list[str], tmp_path: Path
) -> None:
    lineage = read_lineage(soup / "recipes/whole.json")
    assert [model.name for model in lineage.models()].count("m1") == 1
    moved = tmp_path / "elsewhere"
    shutil.copytree(Path(pool[0]).parent, moved)
    lost = _without_paths(lineage)
    told: list[str] = []
    made = rebuild(lost, tmp_path / "again.safetensors", [moved], told=told.append)
    state = ChainFolder(soup).state()
    assert made.read_bytes() == (soup / state.made["search"].ref.path).read_bytes()
    assert [t for t in told if t.startswith("making")] == ["making soup", "making search"]
    assert [path.name for path in tmp_path.glob("*") if path.name.startswith(".")] == []
    with pytest.raises(StorageError, match="exists already"):
        rebuild(lost, made, [moved])
    with pytest.raises(ModelError, match="is not in the folders"):
        rebuild(lost, tmp_path / "other.safetensors", [])
    # each recipe is one that `merge` takes as it is
    assert read_recipe(soup / "recipes/search.json").models["a"].sha256 == sha256(
        soup / "steps/01-soup/soup.safetensors"
    )


def _without_paths(lineage: Lineage) -> Lineage:
    import msgspec

    inputs = {role: _without_paths(model) for role, model in lineage.inputs.items()}
    return msgspec.structs.replace(lineage, inputs=inputs, path="")


def test_a_rebuilt_file_that_is_another_is_refused(soup: Path, tmp_path: Path) -> None:
    import msgspec

    lineage = read_lineage(soup / "recipes/whole.json")
    assert lineage.recipe is not None
    weights = {**lineage.recipe.weights, "IN00": 0.25}
    changed = msgspec.structs.replace(lineage.recipe, weights=weights)
    with pytest.raises(ModelError, match="is another file"):
        rebuild(msgspec.structs.replace(lineage, recipe=changed), tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_tree_merges_level_by_level_and_proves_its_last_winner(tree: Path) -> None:
    state = ChainFolder(tree).state()
    assert state.status is Status.FINISHED
    assert state.ranked["tree", 0].kept == ("m1", "m2", "m3", "m4", "m5")
    first = state.paired["tree", 1]
    assert first.pairs == (("m1", "m2"), ("m3", "m4"))
    assert first.bye == "m5"
    level = state.ranked["tree", 1]
    assert {s.model for s in level.standings} == {"tree-1-1", "tree-1-2", "m5"}
    # m5 won nothing and is clearly worse
    assert level.kept == ("tree-1-1", "tree-1-2")
    assert state.paired["tree", 2].pairs == (("tree-1-1", "tree-1-2"),)
    compared = state.compared["tree"]
    assert (compared.winner, compared.best, compared.gain) == ("tree-2-1", "m1", True)
    assert not compared.held_out
    assert "seeds that no step saw" in compared.sentence
    assert state.finished is not None
    assert state.finished.model == "tree-2-1"
    made = tree / state.made["tree-2-1"].ref.path
    assert made.parent == tree / "steps/01-tree/level-2-pair-1"
    assert sum(skill(made)) > 2.0
    report = (tree / "report.html").read_text()
    for told in ("The pool", "Level 1", "After level 1", "Level 2", "m5 had no partner"):
        assert told in report


def test_the_tree_of_a_pool_is_rebuilt_bit_for_bit(tree: Path, tmp_path: Path) -> None:
    state = ChainFolder(tree).state()
    made = rebuild(read_lineage(tree / "recipes/whole.json"), tmp_path / "again.safetensors")
    assert made.read_bytes() == (tree / state.made["tree-2-1"].ref.path).read_bytes()


def test_images_by_which_models_are_chosen_prove_nothing(pool: list[str]) -> None:
    config = chain_config(pool, preset="tree")
    config = _named(config)
    seeds = {
        purpose: {(job.payload.name, job.seed) for job in chain_jobs(config, purpose)}
        for purpose in Purpose
    }
    assert not seeds[Purpose.RANK] & seeds[Purpose.FINAL]
    assert not seeds[Purpose.RANK] & seeds[Purpose.PREVIEW]
    assert {name for name, _ in seeds[Purpose.RANK]} == {"p03"}
    assert {name for name, _ in seeds[Purpose.PREVIEW]} == {"p01", "p02"}


def test_without_held_out_prompts_models_are_ranked_by_fresh_seeds_of_the_others(
    pool: list[str],
) -> None:
    payloads = [{"prompt": "a ball", "seeds": [1, 2]}, {"prompt": "a star"}]
    config = _named(chain_config(pool, preset="soup", payloads=payloads, rank_seeds=None))
    jobs = chain_jobs(config, Purpose.RANK)
    assert len(jobs) == 24
    assert {job.payload.name for job in jobs} == {"p01", "p02"}
    assert not {1, 2} & {job.seed for job in jobs}


def _named(config: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(config, payloads=named(config.payloads))


def test_near_ranks_meet_and_the_last_of_an_odd_number_waits() -> None:
    assert paired("abcde") == ((("a", "b"), ("c", "d")), "e")
    assert paired("ab") == ((("a", "b"),), None)


def standings(*p_values: float | None, broken: int = 0) -> list[Standing]:
    found = [Standing(model=str(n), mean=1.0 - n, behind_p=p) for n, p in enumerate(p_values)]
    return found + [Standing(model=f"broken{n}", mean=None) for n in range(broken)]


@pytest.mark.parametrize(
    ("options", "levels", "kept"),
    [
        ({}, standings(None, 0.01, 0.01, 0.01), "012"),
        ({}, standings(None, 0.3, 0.2, 0.2), "0123"),
        ({}, standings(None, 0.01), "01"),
        ({}, standings(None, 0.01, 0.001), "01"),
        ({"prune": 0.5}, standings(None, 0.3, 0.01, 0.01, 0.2, 0.01), "0124"),
        ({"prune": 0.0}, standings(None, 0.01, 0.01, 0.01), "0123"),
        ({"prune": 0.9}, standings(None, 0.01, 0.01, 0.01), "01"),
        ({"keep": 2}, standings(None, 0.3, 0.3, 0.3), "01"),
        ({"keep": 8}, standings(None, 0.3), "01"),
        ({}, standings(None, 0.3, broken=2), "01"),
        ({}, standings(None, broken=1), "0"),
    ],
)
def test_the_clearly_worse_of_a_level_leave(
    options: dict[str, Any], levels: list[Standing], kept: str
) -> None:
    assert "".join(staying(TreeStep(name="t", **options), levels)) == kept


def test_a_search_without_a_gain_hands_on_the_better_model_and_says_so(
    pool: list[str], tmp_path: Path
) -> None:
    """With hardly any skill to gain, the parent goes on; nothing is merged or copied."""
    good = write_model(tmp_path / "good.safetensors", (1.0, 1.0, 1.0))
    files = [str(good), *pool[:1]]
    state = carried_out(
        tmp_path / "chain", files, steps=[{"kind": "search", "name": "s", "a": "m1", "b": "good"}]
    )
    decided = state.decided["s", "m1", "good"]
    assert not decided.gain
    assert "No significant gain" in decided.sentence
    assert "the better of the two goes on, good" in decided.sentence
    assert state.finished is not None
    assert state.finished.model == "good"
    assert state.made == {}
    lineage = read_lineage(tmp_path / "chain/recipes/whole.json")
    assert lineage.recipe is None
    with pytest.raises(ConfigError, match="good was not made by the chain"):
        rebuild(lineage, tmp_path / "x.safetensors")


def test_a_tree_without_a_gain_ends_with_the_best_of_the_pool(
    pool: list[str], tmp_path: Path
) -> None:
    good = write_model(tmp_path / "good.safetensors", (1.0, 1.0, 1.0))
    state = carried_out(tmp_path / "chain", [pool[4], str(good)], preset="tree")
    assert state.finished is not None
    assert state.finished.model == "good"
    assert "No merge of the tree was proved better" in state.finished.sentence


def test_a_last_winner_that_is_not_proved_is_not_the_result(
    pool: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lib_automerge.search.statistics import Difference

    doubt = Difference(difference=0.1, standard_error=0.1, low=-0.1, high=0.3, p_value=0.2, pairs=6)
    monkeypatch.setattr(
        "lib_automerge.app.chain_studio.Studio.comparison", lambda *_: (doubt, {"m1": 0.1})
    )
    state = carried_out(tmp_path / "chain", pool[:2], preset="tree", keep_intermediate=False)
    assert state.finished is not None
    assert state.finished.model == "m1"
    assert "No significant gain" in state.finished.sentence
    assert "So m1 is the result" in state.finished.sentence
    # what was nearly proved is not thrown away
    assert (tmp_path / "chain" / state.made["tree-1-1"].ref.path).is_file()


def test_intermediate_checkpoints_are_removed_if_asked(pool: list[str], tmp_path: Path) -> None:
    before = [sha256(Path(path)) for path in pool]
    folder = tmp_path / "chain"
    state = carried_out(folder, pool, preset="tree", keep_intermediate=False)
    assert state.finished is not None
    left = [path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")]
    assert left == [state.made[state.finished.model].ref.path]
    assert state.removed == {"tree-1-1", "tree-1-2"}
    assert [sha256(Path(path)) for path in pool] == before
    made = rebuild(read_lineage(folder / "recipes/whole.json"), tmp_path / "again.safetensors")
    assert made.read_bytes() == (folder / left[0]).read_bytes()


def black(weights: Mapping[str, float], job: ImageJob) -> str | None:
    return "black" if weights["IN00"] < -0.5 else None


def test_a_model_that_breaks_in_a_search_leaves_the_tree_and_not_the_night(
    pool: list[str], tmp_path: Path
) -> None:
    """A parent is whole where models are ranked, and black where they are searched."""
    broken = write_model(tmp_path / "broken.safetensors", (-1.0, 0.9, 0.9))
    host = ContentHost()
    host.broken = lambda weights, job: None if job.payload.held_out else black(weights, job)
    state = carried_out(tmp_path / "chain", [str(broken), pool[0]], host, preset="tree")
    (decided,) = state.decided.values()
    assert decided.model == "m1"
    assert "itself makes a black image" in decided.sentence
    assert decided.sentence.endswith("So m1 goes on.")
    assert state.finished is not None
    assert state.finished.model == "m1"


def test_a_winner_that_breaks_on_unseen_images_is_not_the_result(
    pool: list[str], tmp_path: Path
) -> None:
    seeds = {
        job.seed for job in chain_jobs(_named(chain_config(pool, preset="tree")), Purpose.FINAL)
    }
    for broken in (seeds, {min(seeds)}):
        host = ContentHost()
        host.broken = lambda weights, job, bad=broken: (
            "NaN" if job.seed in bad and weights["M00"] + weights["IN00"] > 1.5 else None
        )
        state = carried_out(tmp_path / str(len(broken)), pool[:2], host, preset="tree")
        assert state.decided["tree", "m1", "m2"].gain
        assert state.finished is not None
        assert state.finished.model == "m1"
        assert "So m1 is the result" in state.finished.sentence


def test_models_with_broken_images_leave_and_the_user_is_told(
    pool: list[str], tmp_path: Path
) -> None:
    broken = write_model(tmp_path / "broken.safetensors", (-1.0, 0.0, 0.0))
    host = ContentHost()
    host.broken = black
    state = carried_out(
        tmp_path / "chain",
        [str(broken), *pool[:2]],
        host,
        steps=[
            {"kind": "rank", "name": "best", "keep": 3},
            {"kind": "merge", "name": "soup", "models": ["best"]},
        ],
    )
    assert state.ranked["best", None].standings[-1].mean is None
    assert state.done["best"].models == ("m1", "m2")
    assert any("ranked last and left: broken" in warning for warning in state.warnings)
    recipe = read_recipe(tmp_path / "chain/recipes/soup.json")
    assert [ref.name for ref in recipe.models.values()] == ["m1", "m2"]


def test_a_chain_of_merges_alone_needs_no_generator(pool: list[str], tmp_path: Path) -> None:
    class Nothing(ContentHost):
        def generator(self, config: object) -> Any:
            raise AssertionError

        def reward(self, member: object) -> Any:
            raise AssertionError

    steps = [
        {"kind": "merge", "name": "ties", "method": "ties", "base": "m1", "models": ["m2", "m3"]},
        {"kind": "merge", "name": "both", "method": "slerp", "models": ["ties", "m4"]},
    ]
    state = carried_out(tmp_path / "chain", pool, Nothing(), steps=steps, previews=0)
    assert [*state.made] == ["ties", "both"]
    recipe = read_recipe(tmp_path / "chain/recipes/both.json")
    assert recipe.models["a"].sha256 == state.made["ties"].ref.sha256


def test_several_rewards_rank_in_units_of_the_ranked_models(
    pool: list[str], tmp_path: Path
) -> None:
    reward = {
        "name": "ensemble",
        "members": [{"name": "demo"}, {"name": "aesthetic", "weight": 0.5}],
        "guards": [],
    }
    steps = [{"kind": "rank", "name": "best", "keep": 2}]
    state = carried_out(tmp_path / "chain", pool, steps=steps, reward=reward)
    means = {s.model: s.mean or 0.0 for s in state.ranked["best", None].standings}
    assert [*means] == [*POOL]
    assert abs(sum(means.values())) < 1e-6 * max(means.values())


def test_a_search_of_models_with_the_same_weights_is_none(pool: list[str], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    twin = tmp_path / "twin.safetensors"
    save_file(load_file(pool[0]), twin, metadata={"told": "otherwise"})
    state = carried_out(
        tmp_path / "chain",
        [pool[0], str(twin)],
        steps=[{"kind": "search", "name": "s", "a": "m1", "b": "twin"}],
    )
    assert state.finished is not None
    assert state.finished.model == "m1"
    assert "hold the same weights" in state.finished.sentence


def test_what_it_takes_is_told_before(pool: list[str]) -> None:
    service = ChainService(ContentHost())
    soup = service.prepare(chain_config(pool, preset="soup"))
    assert (soup.toll.runs, soup.toll.files) == (1, 2)
    # five models and the soup are shown and the five ranked; then the run, and its winner's
    previews, ranked = 2 * (5 + 1 + 1), 4 * 5
    run = 9 * 2 + 2 + 4 * 6
    assert soup.toll.images == previews + ranked + run
    assert "2 checkpoints to write" in soup.sentence
    assert "all are kept" in soup.sentence
    tree = service.prepare(chain_config(pool, preset="tree", keep_intermediate=False))
    assert (tree.toll.runs, tree.toll.files) == (4, 4)
    assert tree.toll.images == 2 * 9 + 4 * 9 + 4 * run + 2 * 6
    assert "removed on the way" in tree.sentence
    # of four merges, three are there at once
    kept = service.prepare(chain_config(pool, preset="tree")).toll
    largest = max(Path(path).stat().st_size for path in pool)
    assert kept.bytes - tree.toll.bytes == largest


def test_what_was_told_is_never_exceeded(pool: list[str], soup: Path, tree: Path) -> None:
    service = ChainService(ContentHost())
    for folder, preset in ((soup, "soup"), (tree, "tree")):
        toll = service.prepare(chain_config(pool, preset=preset)).toll
        state = ChainFolder(folder).state()
        images = sum(len(found) for found in state.pictures.values())
        for decided in state.decided.values():
            run = RunFolder(folder / decided.run).state()
            images += sum(len(found) for found in run.scores.values())
        assert images <= toll.images
        written = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        assert written <= toll.bytes
        assert len(state.made) <= toll.files


# --- what is wrong is found before anything is written ------------------------------------------


def refused(tmp_path: Path, pool: Sequence[str], message: str, **sections: Any) -> None:
    folder = tmp_path / "never"
    with pytest.raises(AutomergeError, match=message):
        carried_out(folder, pool, **({"preset": "soup"} | sections))
    assert not folder.exists()


def test_pools_that_cannot_be_are_refused(pool: list[str], tmp_path: Path) -> None:
    copy = shutil.copy(pool[0], tmp_path / "copy.safetensors")
    link = tmp_path / "link.safetensors"
    link.hardlink_to(pool[0])
    other = write_tiny(tmp_path / "other.safetensors", "sdxl")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(tmp_path, pool[:1], "the pool has 1 model")
    refused(tmp_path, [*pool, pool[0]], "the pool has a file twice")
    refused(tmp_path, [*pool, str(link)], "the pool has a file twice")
    refused(tmp_path, [*pool, str(copy)], "have the same content")
    refused(tmp_path, [*pool, str(other)], "models of different families: m1 is Stable Diffusion 1")
    refused(tmp_path, [str(empty)], "there is no checkpoint in")
    refused(tmp_path, [str(tmp_path / "*.ckpt")], "there is no checkpoint in")
    refused(tmp_path, [*pool, str(tmp_path / "none.safetensors")], "none.safetensors")


def test_a_pool_is_files_folders_and_globs(pool: list[str], tmp_path: Path) -> None:
    folder = Path(pool[0]).parent
    service = ChainService(ContentHost())
    for entries in (
        [str(folder)],
        [str(folder / "*.safetensors")],
        [pool[0], str(folder / "m[2-5]*")],
    ):
        manifest = service.prepare(chain_config(entries, preset="soup")).manifest
        assert [member.name for member in manifest.pool] == [*POOL]
        assert manifest.pool[0].ref.sha256 == sha256(Path(pool[0]))
    deeper = tmp_path / "v2"
    deeper.mkdir()
    twin = write_model(deeper / "m1.safetensors", (0.2, 0.2, 0.2))
    manifest = service.prepare(chain_config([*pool[:2], str(twin)], preset="soup")).manifest
    assert [member.name for member in manifest.pool] == ["m1", "m2", "v2/m1"]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{**SOUP, "method": "ties_suop"}], r"step 'soup': unknown merge method.*'ties_soup'"),
        ([{**SOUP, "method": "ties"}], "step 'soup': ties needs a base"),
        ([{**SOUP, "base": "m1"}], "step 'soup': average takes no base"),
        ([{**SOUP, "method": "slerp"}], "step 'soup': slerp takes 2 models"),
        ([{**SOUP, "parameters": {"k": 1}}], "step 'soup': .*'k'"),
        ([{**SOUP, "dtype": "fp17"}], "step 'soup': unknown dtype: 'fp17'"),
        ([{**SOUP, "models": ["m1", "m22"]}], r"step 'soup': unknown model or step: 'm22'.*'m2'"),
        ([{"kind": "tree", "name": "t", "models": ["m1"]}], "a tree needs two models"),
        (
            [{"kind": "search", "name": "s", "a": "m1", "b": "m2", "c": "m3"}],
            "no use for model 'c'",
        ),
        (
            [{"kind": "search", "name": "s", "a": "m1", "b": "m2", "search": {"optimizer": "x"}}],
            "step 's': .*optimizer",
        ),
    ],
)
def test_steps_that_cannot_be_are_refused(
    pool: list[str], tmp_path: Path, steps: list[dict[str, Any]], message: str
) -> None:
    folder = tmp_path / "never"
    with pytest.raises(ConfigError, match=message):
        carried_out(folder, pool, steps=steps)
    assert not folder.exists()


def test_a_folder_with_something_in_it_is_refused(pool: list[str], tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(StorageError, match="not empty"):
        carried_out(tmp_path, pool, preset="soup")


def test_a_disk_that_is_too_small_stops_a_step_before_its_first_byte(
    pool: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage
    full = real(tmp_path)._replace(free=1000)
    monkeypatch.setattr(chain_estimate.shutil, "disk_usage", lambda _path: full)
    folder = tmp_path / "chain"
    with pytest.raises(RunFailedError, match=r"not enough space .* step 1 of 3, 'soup'.*GB"):
        carried_out(folder, pool, preset="soup")
    assert list((folder / "steps").iterdir()) == []
    monkeypatch.setattr(chain_estimate.shutil, "disk_usage", real)
    state = ChainService(ContentHost()).resume(folder)
    assert state.status is Status.FINISHED


def test_a_pool_that_changed_between_two_sittings_is_refused(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", {name: POOL[name] for name in ("m1", "m2")})
    folder = tmp_path / "chain"
    service = ChainService(ContentHost())
    prepared = service.prepare(chain_config(pool, preset="soup"))
    asked = iter([False] * 3)
    state = service.start(prepared, folder, stop=lambda: next(asked, True))
    assert state.status is Status.STOPPED
    kept = Path(pool[1]).read_bytes()
    write_model(Path(pool[1]), (0.5, 0.5, 0.5))
    with pytest.raises(ConfigError, match="model 'm2' has changed since the chain began"):
        service.resume(folder)
    Path(pool[1]).unlink()
    with pytest.raises(ConfigError, match="the file of model 'm2' is gone"):
        service.resume(folder)
    Path(pool[1]).write_bytes(kept)
    assert service.resume(folder).status is Status.FINISHED


def test_a_changed_configuration_or_reward_is_refused(pool: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "chain"
    service = ChainService(ContentHost())
    prepared = service.prepare(chain_config(pool[:2], preset="soup"))
    asked = iter([False] * 2)
    service.start(prepared, folder, stop=lambda: next(asked, True))
    other = ContentHost()
    other.judge = BrightnessReward("brightness-2")
    with pytest.raises(RunFailedError, match="the reward has changed since the chain began"):
        ChainService(other).resume(folder)
    manifest = folder / "chain.json"
    manifest.write_text(manifest.read_text().replace('"rank_seeds": 4', '"rank_seeds": 5'))
    with pytest.raises(ConfigError, match=r"chain\.json has been changed"):
        service.resume(folder)


def test_only_one_process_works_on_a_chain(soup: Path, tmp_path: Path) -> None:
    folder = ChainFolder(tmp_path / "copy")
    shutil.copytree(soup, folder.path)
    service = ChainService(ContentHost())
    with folder.owned(lambda: 0.0):
        assert folder.running()
        with pytest.raises(StorageError, match="another process is working on the chain"):
            service.resume(folder.path)
    assert not folder.running()


def test_a_finished_chain_is_left_alone(soup: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(soup, folder)
    before = (folder / "journal.jsonl").read_bytes()
    (folder / "report.html").unlink()
    (folder / "recipes/whole.json").unlink()
    host = ContentHost()
    assert ChainService(host).resume(folder).status is Status.FINISHED
    assert host.batches == []
    assert (folder / "journal.jsonl").read_bytes() == before
    assert (folder / "report.html").is_file()
    assert (folder / "recipes/whole.json").read_bytes() == (
        soup / "recipes/whole.json"
    ).read_bytes()


def test_the_manifest_freezes_hashes_and_versions(soup: Path, pool: list[str]) -> None:
    content = json.loads((soup / "chain.json").read_text())
    assert [member["ref"]["sha256"] for member in content["pool"]] == [
        sha256(Path(path)) for path in pool
    ]
    assert {"automerge", "python", "torch"} <= content["versions"].keys()
    assert content["config"]["steps"][0]["kind"] == "merge"
