from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lib_automerge.domain.events import (
    AnyEvent,
    Evaluated,
    Origin,
    Proposed,
    Scored,
    Stage,
    Started,
)
from lib_automerge.errors import StorageError
from lib_automerge.study.journal import Journal, read_events


def clock() -> float:
    return 1700000000.0


def events() -> list[AnyEvent]:
    return [
        Started(config="c0ffee"),
        Proposed(evaluation=1, origin=Origin.MODEL_A, weights={"IN00": 0.0}),
        *(
            Scored(
                evaluation=1,
                stage=Stage.SEARCH,
                job=job,
                payload='a "ΩÜ\n" prompt',
                seed=job,
                digest="d",
                file="f",
                score=0.1 * job - 1,
            )
            for job in range(3)
        ),
        Evaluated(evaluation=1, mean=-0.9, standard_error=0.1, images=3, per_payload={"p": -0.9}),
    ]


def stamped(written: list[AnyEvent]) -> list[AnyEvent]:
    import msgspec

    return [msgspec.structs.replace(event, time=clock()) for event in written]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "journal.jsonl"
    with Journal(target, clock) as journal:
        for event in events():
            journal.append(event)
    return target


def test_what_is_appended_is_read(path: Path) -> None:
    assert read_events(path) == stamped(events())


def test_a_cut_at_every_byte_loses_at_most_the_unfinished_line(path: Path) -> None:
    whole = path.read_bytes()
    expected = stamped(events())
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        # a line is complete with its last brace; the newline after it may be missing
        complete = sum(length >= end for end in ends)
        assert read_events(path) == expected[:complete], length
        with Journal(path, clock) as journal:
            assert list(journal.events) == expected[:complete]
            journal.append(*events()[complete:])
        assert path.read_bytes() == whole, length


def test_damage_before_the_last_line_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for position in range(0, last, 3):
        damaged = bytearray(whole)
        damaged[position] ^= 0x01
        path.write_bytes(bytes(damaged))
        with pytest.raises(StorageError, match="damaged in line"):
            read_events(path)
        with pytest.raises(StorageError, match="damaged in line"):
            Journal(path, clock)
        assert path.read_bytes() == bytes(damaged), "a damaged journal must not be touched"


def test_a_line_from_the_middle_cannot_go_missing(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(StorageError, match="damaged in line 3"):
        read_events(path)


def test_a_full_disk_leaves_the_journal_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    with Journal(path, clock) as journal:

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            journal.append(Started(config="more"))
        monkeypatch.undo()
        assert path.read_bytes() == before
        journal.append(Started(config="later"))
    assert [type(event) for event in read_events(path)][-1] is Started
    assert len(read_events(path)) == len(events()) + 1


def test_a_missing_journal_is_empty(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none.jsonl") == []
