"""Candidates of the merge lab in the WebUI's live model, of two models and of many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lib_automerge.app.preflight import with_first
from lib_automerge.domain import architectures
from lib_automerge.domain.candidate import UNIFORM, recipe_of
from lib_automerge.domain.config import RunConfig, decode_config
from lib_automerge.domain.events import GIVEN, Origin
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.domain.run import Evaluation
from lib_automerge.host.webui import WebUIGenerator
from lib_automerge.merge.files import write_merge
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from tests.host.test_a1111_generator import left_as_found, pictures, use_other_vae
from tests.host_fake.install import FakeHost

SD1 = architectures.get("sd1")


@pytest.fixture
def pool(webui: FakeHost) -> Iterator[dict[str, Checkpoint]]:
    with ExitStack() as stack:
        opened = (
            stack.enter_context(open_checkpoint(webui.models / f"{name}.safetensors"))
            for name in "abc"
        )
        yield dict(zip(("base", "m001", "m002"), opened, strict=True))


def candidate(
    pool: Mapping[str, Checkpoint], number: int, origin: Origin, weights: Mapping[str, float]
) -> Recipe:
    refs = {role: ModelRef(m.name, m.sha256(), str(m.path)) for role, m in pool.items()}
    evaluation = Evaluation(number=number, origin=origin, weights=dict(weights))
    return recipe_of(evaluation, _config(pool), refs, SD1)


def _config(pool: Mapping[str, Checkpoint], **more: Any) -> RunConfig:
    return decode_config(
        {
            "models": {role: str(model.path) for role, model in pool.items()},
            "method": "ties",
            "payloads": [{"prompt": "a cat"}],
            "parameters": {"k": 0.5},
            "search": {"parameters": {"k": {"per_block": True}}},
            **more,
        }
    )


def test_all_that_is_scored_of_many_models_is_shown_and_undone(
    webui: FakeHost, generator: WebUIGenerator, pool: dict[str, Checkpoint], tmp_path: Path
) -> None:
    k = {f"k.{block}": 0.1 + 0.02 * n for n, block in enumerate(SD1.parameters)}
    asked = [
        *(candidate(pool, n, origin, {}) for n, origin in enumerate(GIVEN, 1)),
        candidate(pool, 5, Origin.SEARCH, k),
        candidate(pool, 6, Origin.SEARCH, {**k, "k.IN04": 0.9}),
    ]
    assert [each.method for each in asked].count("average") == 1
    assert set(UNIFORM) == set(GIVEN)
    shown = []
    with left_as_found(webui), generator.open(with_first(pool)) as session:
        for each in asked:
            session.apply(each)
            shown.append(pictures(session))
        session.apply(asked[0])
        assert pictures(session) == shown[0]
        session.apply(asked[4])
        assert pictures(session) == shown[4]
    assert len({*map(tuple, shown)}) == len(asked)
    for number in (2, 4, 5):
        path = tmp_path / f"{number}.safetensors"
        write_merge(asked[number], {}, path)
        with open_checkpoint(path) as alone, generator.open({"a": alone}) as session:
            assert pictures(session) == shown[number]


def test_a_vae_of_the_user_is_left_alone_whatever_a_parameter_is_there(
    webui: FakeHost, generator: WebUIGenerator, pool: dict[str, Checkpoint], tmp_path: Path
) -> None:
    use_other_vae(webui, tmp_path)
    asked = candidate(pool, 5, Origin.SEARCH, {f"k.{block}": 0.3 for block in SD1.parameters})
    k = asked.parameters["k"]
    assert isinstance(k, dict)
    assert k["VAE"] == 0.5 != k["IN00"]
    with left_as_found(webui), generator.open(with_first(pool)) as session:
        start = pictures(session)
        session.apply(asked)
        live = pictures(session)
        assert live != start
    write_merge(asked, {}, path := tmp_path / "merged.safetensors")
    with open_checkpoint(path) as merged, generator.open({"a": merged}) as session:
        assert pictures(session) == live
