from __future__ import annotations

import pytest

from lib_automerge.errors import ConfigError
from lib_automerge.search.randomness import generator


def test_is_the_same_on_every_machine() -> None:
    # Written down once: a change would silently change the proposals of every resumed run.
    drawn = generator(7, "acquisition", 13).integers(0, 1000, 5).tolist()
    assert drawn == [64, 382, 703, 493, 288]


def test_seed_purpose_and_index_each_make_another_stream() -> None:
    streams = [
        generator(seed, purpose, index).integers(0, 2**62)
        for seed in (0, 1, 2**32)
        for purpose in ("a", "b")
        for index in (0, 1)
    ]
    assert len(set(streams)) == len(streams)


def test_repeats_itself() -> None:
    assert generator(1, "a", 2).random() == generator(1, "a", 2).random()


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1)])
def test_negative_numbers_are_refused(seed: int, index: int) -> None:
    with pytest.raises(ConfigError, match="negative"):
        generator(seed, "a", index)
