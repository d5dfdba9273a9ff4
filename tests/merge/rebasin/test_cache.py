from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from lib_automerge.errors import StorageError
from lib_automerge.merge.rebasin import cache as cache_module
from lib_automerge.merge.rebasin.cache import Cache, cached_match, matching_key
from lib_automerge.merge.rebasin.matching import Matching, Progress, State, match
from lib_automerge.merge.rebasin.orders import shuffled
from lib_automerge.merge.rebasin.tensors import shared_symmetries
from tests.merge.rebasin.models import InMemory
from tests.tiny_pipelines import tiny_pipeline_state

LAYERS = ("input_blocks.1.", "time_embed")
BIAS = "model.diffusion_model.input_blocks.1.0.in_layers.2.bias"


@pytest.fixture(scope="module")
def pair() -> tuple[InMemory, InMemory]:
    return tuple(
        InMemory(
            {
                key: tensor
                for key, tensor in tiny_pipeline_state("sd1", seed=seed).items()
                if any(name in key for name in LAYERS)
            }
        )
        for seed in (0, 1)
    )  # type: ignore[return-value]


class KilledError(Exception):
    pass


def _same(one: Matching, two: Matching) -> bool:
    return msgspec.structs.replace(one, orders={}) == msgspec.structs.replace(
        two, orders={}
    ) and all(
        all(map(np.array_equal, orders, two.orders[name])) for name, orders in one.orders.items()
    )


def test_a_killed_matching_goes_on_where_it_was(
    pair: tuple[InMemory, InMemory], tmp_path: Path
) -> None:
    straight_steps: list[Progress] = []
    straight = cached_match(*pair, "sd1", cache=None, report=straight_steps.append)
    steps: list[Progress] = []

    def report(step: Progress) -> None:
        steps.append(step)
        if len(steps) % 3 == 0:
            raise KilledError

    while True:
        try:
            found = cached_match(*pair, "sd1", cache=tmp_path, report=report)
            break
        except KilledError:
            assert len(steps) < 1000
    assert _same(found, straight)
    # nothing was done twice, and nothing is done again
    assert [(s.sweep, s.name) for s in steps] == [(s.sweep, s.name) for s in straight_steps]
    again = cached_match(*pair, "sd1", cache=tmp_path, report=pytest.fail)  # type: ignore[arg-type]
    assert _same(again, straight)
    assert len(list(tmp_path.iterdir())) == 1


def test_whatever_decides_the_result_is_in_the_key(
    pair: tuple[InMemory, InMemory], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    found = shared_symmetries("sd1", a, b)

    def key(a: InMemory = a, b: InMemory = b, sweeps: int = 10, seed: int = 0) -> str:
        return matching_key(a, b, "sd1", found, sweeps=sweeps, seed=seed)

    def changed(model: InMemory, tensor: Tensor) -> InMemory:
        return InMemory({**model.state, BIAS: tensor})

    bias = a.state[BIAS].clone()
    bias[0] += 1
    other_keys = [
        key(a=b, b=a),
        key(a=changed(a, bias)),
        key(b=changed(b, bias)),
        key(b=changed(b, b.state[BIAS].half())),
        key(sweeps=9),
        key(seed=1),
    ]
    assert key() == key()
    monkeypatch.setattr(cache_module, "VERSION", cache_module.VERSION + 1)
    keys = [*other_keys, key()]
    monkeypatch.undo()
    assert len({key(), *keys}) == 8
    # what no symmetry touches, and what the model is called, decides nothing
    renamed = InMemory({**a.state, "first_stage_model.quant_conv.bias": torch.ones(8)}, "other")
    assert key(a=renamed) == key()


def test_the_key_does_not_depend_on_how_much_is_read_at_once(
    pair: tuple[InMemory, InMemory], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shared_symmetries("sd1", *pair)
    before = matching_key(*pair, "sd1", found, sweeps=1, seed=0)
    monkeypatch.setattr("lib_automerge.merge.rebasin.tensors.CHUNK", 100)
    assert matching_key(*pair, "sd1", found, sweeps=1, seed=0) == before


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "text", "array", "torn group", "other key", "missing"]
)
def test_damaged_files_are_not_believed(
    damage: str, pair: tuple[InMemory, InMemory], tmp_path: Path
) -> None:
    found = shared_symmetries("sd1", *pair)
    cache, key = Cache(tmp_path / "deep" / "cache"), "ab" * 32
    state = State(shuffled(found, 0), frozenset({found[0].name}), 2, 3, 1.5)
    assert cache.load(key, found) is None
    cache.save(key, state, found)
    loaded = cache.load(key, found)
    assert loaded is not None
    assert msgspec.structs.replace(loaded, orders={}) == msgspec.structs.replace(state, orders={})
    assert all(all(map(np.array_equal, loaded.orders[n], state.orders[n])) for n in state.orders)
    path = cache.path(key)
    content = path.read_bytes()
    if damage == "torn group":
        heads = next(symmetry for symmetry in found if symmetry.outer > 1 and symmetry.inner > 1)
        mixed = np.roll(np.arange(heads.size, dtype=np.int32), 1)
        orders = {**state.orders, heads.name: tuple(mixed for _ in heads.parts)}
        cache.save(key, msgspec.structs.replace(state, orders=orders), found)
    elif damage == "other key":
        key = key[:32] + "cd" * 16
        assert cache.path(key) == path
    elif damage == "missing":
        cache.save(key, state, found[1:])
    else:
        path.write_bytes(
            {
                "cut": content[: len(content) // 2],
                "empty": b"",
                "text": b"hello",
                "array": content[content.index(b"\x93NUMPY") :],
            }[damage]
        )
    assert cache.load(key, found) is None


def test_no_pickle_is_read_or_written(pair: tuple[InMemory, InMemory], tmp_path: Path) -> None:
    cached_match(*pair, "sd1", cache=tmp_path)
    (path,) = tmp_path.iterdir()
    with np.load(path, allow_pickle=False) as file:
        assert {file[name].dtype for name in file.files} == {np.dtype("int32"), np.dtype("uint8")}
    found = shared_symmetries("sd1", *pair)
    np.savez(path, about=np.array([{"a": 1}], dtype=object))
    assert Cache(tmp_path).load("00", found) is None
    key = matching_key(*pair, "sd1", found, sweeps=10, seed=0)
    assert Cache(tmp_path).load(key, found) is None


def test_a_folder_that_cannot_be_written_is_told(
    pair: tuple[InMemory, InMemory], tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError, match="cannot keep the matching in"):
        cached_match(*pair, "sd1", cache=blocked / "cache")


def test_without_a_cache_the_result_is_that_of_the_matching(
    pair: tuple[InMemory, InMemory],
) -> None:
    found = shared_symmetries("sd1", *pair)
    assert _same(cached_match(*pair, "sd1", cache=None), match(*pair, found))
