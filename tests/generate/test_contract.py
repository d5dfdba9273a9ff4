"""The contract of generators, on every one there is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lib_automerge import demo
from lib_automerge.generate.diffusers_ import DiffusersGenerator
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from tests.contracts.generator import GeneratorContract
from tests.fake_host import FakeGenerator, FakeHost


@pytest.fixture
def models() -> Iterator[dict[str, Checkpoint]]:
    with open_checkpoint(demo.MODEL_A) as a, open_checkpoint(demo.MODEL_B) as b:
        yield {"a": a, "b": b}


class TestDiffusers(GeneratorContract):
    @pytest.fixture
    def generator(self) -> DiffusersGenerator:
        return DiffusersGenerator(device="cpu", threads=1)


class TestFake(GeneratorContract):
    @pytest.fixture
    def generator(self) -> FakeGenerator:
        return FakeGenerator(FakeHost())
