from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lib_automerge.domain.chain import (
    ChainConfig,
    MergeStep,
    RankStep,
    SearchStep,
    TreeStep,
    decode_chain,
)
from lib_automerge.errors import ConfigError

PAYLOADS = [{"prompt": "a ball"}, {"prompt": "a moon", "held_out": True}]


def decoded(*steps: dict[str, Any], **sections: Any) -> ChainConfig:
    raw = {"pool": ["models"], "payloads": PAYLOADS, "steps": list(steps), **sections}
    return decode_chain(raw)


MERGE = {"kind": "merge", "name": "soup"}
RANK = {"kind": "rank", "name": "best"}
SEARCH = {"kind": "search", "name": "final", "a": "soup", "b": "best"}


def test_a_step_has_its_kind_and_defaults() -> None:
    config = decoded(MERGE, RANK, SEARCH, {"kind": "tree", "name": "tree", "models": ["final"]})
    merge, rank, search, tree = config.steps
    assert merge == MergeStep(name="soup")
    assert rank == RankStep(name="best")
    assert isinstance(search, SearchStep)
    assert isinstance(tree, TreeStep)
    assert tree.models == ("final",)
    assert config.keep_intermediate


def test_a_steps_search_says_what_differs_from_the_chains() -> None:
    config = decoded(
        MERGE,
        RANK,
        {**SEARCH, "search": {"evaluations": 12}},
        search={"evaluations": 40, "optimizer": "sobol", "seed": 3},
    )
    search = config.steps[2]
    assert isinstance(search, SearchStep)
    assert (search.search.evaluations, search.search.optimizer) == (12, "sobol")
    assert search.search.seed == 3
    assert config.run({"a": "x", "b": "y"}, search).search == search.search


def test_presets_generate_their_steps() -> None:
    raw = {"pool": "models", "payloads": PAYLOADS, "search": {"evaluations": 9}}
    soup = decode_chain({**raw, "preset": "soup"})
    assert [type(step) for step in soup.steps] == [MergeStep, RankStep, SearchStep]
    assert soup.pool == ("models",)
    search = soup.steps[2]
    assert isinstance(search, SearchStep)
    assert (search.a, search.b, search.search.evaluations) == ("soup", "best", 9)
    tree = decode_chain({**raw, "preset": "tree"})
    assert [type(step) for step in tree.steps] == [TreeStep]


def test_it_is_the_same_after_a_round_trip_through_json() -> None:
    config = decoded(MERGE, RANK, SEARCH)
    assert msgspec.json.decode(msgspec.json.encode(config), type=ChainConfig) == config


@pytest.mark.parametrize(
    ("steps", "sections", "message"),
    [
        ([{**MERGE, "metod": "ties"}], {}, r"step 'soup': unknown key: 'metod'.*'method'"),
        ([{**MERGE, "kind": "murge"}], {}, r"step 'soup': unknown kind of step: 'murge'.*'merge'"),
        ([{"kind": "merge"}], {}, r"step 1: .*`name`"),
        ([MERGE], {"pol": []}, r"unknown key: 'pol'. Did you mean 'pool'"),
        ([MERGE], {"serch": {}}, r"unknown key: 'serch'. Did you mean 'search'"),
        ([MERGE], {"reward": {"nam": "x"}}, r"unknown key in reward: 'nam'. Did you mean 'name'"),
        (
            [MERGE, RANK, {**SEARCH, "search": {"evalutions": 3}}],
            {},
            r"step 'final': unknown key in search: 'evalutions'.*'evaluations'",
        ),
        (
            [MERGE, RANK, {**SEARCH, "search": {"evaluations": 2}}],
            {},
            r"step 'final': search.evaluations is 2",
        ),
        ([MERGE], {"search": {"evaluations": 2}}, r"^search.evaluations is 2"),
        ([MERGE, MERGE], {}, "the name 'soup' is taken"),
        ([{"kind": "tree", "name": "t"}, {**MERGE, "name": "t-1-2"}], {}, "'t-1-2' is taken"),
        ([{**MERGE, "name": "pool"}], {}, "a step has the name 'pool'"),
        ([{**MERGE, "name": "a/b"}], {}, "a step has the name 'a/b'"),
        ([SEARCH, MERGE, RANK], {}, "step 'final' names 'soup', which comes later"),
        ([{**RANK, "models": ["best"]}], {}, "step 'best' names itself"),
        ([MERGE, {**SEARCH, "b": "soup"}], {}, "a and b are both 'soup'"),
        ([{**RANK, "keep": 0}], {}, "step 'best': keep is 0"),
        ([{"kind": "tree", "name": "t", "prune": 1.0}], {}, "prune is 1"),
        ([{"kind": "tree", "name": "t", "keep": 1}], {}, "keep is 1. It must be 2"),
        ([{**MERGE, "models": []}], {}, "models is empty"),
        ([MERGE], {"pool": []}, "the pool is empty"),
        ([], {}, "List one step or more"),
        ([MERGE], {"preset": "soup"}, "both is given"),
        ([MERGE], {"previews": -1}, "previews is -1"),
        ([MERGE], {"reward": {"name": "human_rate"}}, "nobody can be asked"),
        (
            [MERGE, RANK, {**SEARCH, "search": {"warm_start": ["x"]}}],
            {},
            "step 'final': search.warm_start",
        ),
    ],
)
def test_what_cannot_be_is_named(
    steps: list[dict[str, Any]], sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        decoded(*steps, **sections)


def test_no_steps_and_an_unknown_preset_are_refused() -> None:
    with pytest.raises(ConfigError, match="neither is given"):
        decode_chain({"pool": ["x"], "payloads": PAYLOADS})
    with pytest.raises(ConfigError, match=r"unknown preset: 'supe'. Did you mean 'soup'"):
        decode_chain({"pool": ["x"], "payloads": PAYLOADS, "preset": "supe"})
    with pytest.raises(ConfigError, match="not a mapping"):
        decode_chain(["x"])


def test_a_tree_keeps_half_of_enough_held_out_prompts_for_its_final_verdict() -> None:
    held_out = [{"prompt": f"held out {n}", "name": f"h{n}", "held_out": True} for n in range(4)]
    payloads = [{"prompt": "a ball", "name": "ball"}, *held_out]
    tree = decoded({"kind": "tree", "name": "t"}, payloads=payloads)
    assert [p.name for p in tree.reserved] == ["h1", "h3"]
    run = tree.run({"a": "x", "b": "y"}, None)
    assert [p.name for p in run.payloads] == ["ball", "h0", "h2"]
    few = decoded({"kind": "tree", "name": "t"}, payloads=payloads[:4])
    assert few.reserved == ()
    assert decoded(MERGE, payloads=payloads).reserved == ()
