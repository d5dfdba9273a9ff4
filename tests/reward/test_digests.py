"""Digests of weight files on disk: a saving that is never trusted too far."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lib_automerge import reward
from lib_automerge.reward import digests, files
from tests.reward.tiny_image_reward import TinyImageReward, write_tiny

OLD_NS = 1_700_000_000_000_000_000
CONTENT = b"weights of a judge"


@pytest.fixture(autouse=True)
def new_process() -> Iterator[None]:
    digests._memory.clear()
    yield
    digests._memory.clear()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read to be hashed."""
    read: list[Path] = []
    to_hash = files._hashed

    def watched(path: Path) -> str:
        read.append(path)
        return to_hash(path)

    monkeypatch.setattr(files, "_hashed", watched)
    return read


def settled(path: Path, content: bytes = CONTENT, at: int = OLD_NS) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(at, at))
    return path


def digest(path: Path, store: Path) -> str:
    """As a process of its own would compute it."""
    digests._memory.clear()
    with digests.kept_in(store):
        return files.sha256_of_weights(path)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_later_process_does_not_read_the_file_again(tmp_path: Path, hashed: list[Path]) -> None:
    path, store = settled(tmp_path / "judge.pt"), tmp_path / "digests.json"
    assert digest(path, store) == digest(path, store) == sha256(CONTENT)
    assert hashed == [path]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digests.json", "judge.pt"]


def test_a_link_is_the_file_that_it_leads_to(tmp_path: Path, hashed: list[Path]) -> None:
    path, store = settled(tmp_path / "blob"), tmp_path / "digests.json"
    link = tmp_path / "judge.pt"
    link.symlink_to(path)
    assert digest(link, store) == digest(path, store)
    assert hashed == [link]
    link.unlink()
    link.symlink_to(settled(tmp_path / "other", b"another judge once"))
    assert digest(link, store) == sha256(b"another judge once")


@pytest.mark.parametrize(
    ("content", "at"),
    [(b"weights of a thief", OLD_NS + 100), (b"longer than it was before", OLD_NS)],
)
def test_a_changed_file_is_hashed_again(tmp_path: Path, content: bytes, at: int) -> None:
    path, store = settled(tmp_path / "judge.pt"), tmp_path / "digests.json"
    digest(path, store)
    settled(path, content, at)
    assert digest(path, store) == sha256(content)
    assert digest(path, store) == sha256(content)


def test_a_file_put_in_its_place_with_its_size_and_time_is_hashed_again(tmp_path: Path) -> None:
    path, store = settled(tmp_path / "judge.pt"), tmp_path / "digests.json"
    digest(path, store)
    settled(tmp_path / "other.pt", b"weights of a thief").replace(path)
    assert path.stat().st_mtime_ns == OLD_NS
    assert digest(path, store) == sha256(b"weights of a thief")


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no time that programs cannot set")
def test_a_file_overwritten_and_given_its_time_back_is_hashed_again(tmp_path: Path) -> None:
    path, store = settled(tmp_path / "judge.pt"), tmp_path / "digests.json"
    digest(path, store)
    time.sleep(0.05)  # the grain of the file system's clock
    settled(path, b"weights of a thief")
    assert digest(path, store) == sha256(b"weights of a thief")


def test_a_file_that_was_just_written_may_change_within_the_same_instant(tmp_path: Path) -> None:
    path, store = tmp_path / "judge.pt", tmp_path / "digests.json"
    now = time.time_ns()
    assert digest(settled(path, b"first", now), store) == sha256(b"first")
    with digests.kept_in(store):
        assert files.sha256_of_weights(settled(path, b"other", now)) == sha256(b"other")
    assert not store.exists()


def test_a_file_that_changes_while_it_is_hashed_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store = settled(tmp_path / "judge.pt"), tmp_path / "digests.json"
    to_hash = files._hashed

    def changed(some: Path) -> str:
        found = to_hash(some)
        settled(some, b"weights of a thief", OLD_NS + 1)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(files, "_hashed", changed)
        digest(path, store)
    os.utime(path, ns=(OLD_NS, OLD_NS))
    assert digest(path, store) == sha256(b"weights of a thief")


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"[" * 100_000,
        b'{"version": 1, "files": {}}',
        b'{"version": 2, "files": {"%s": {"stamp": %s, "sha256": "f00"}}}',
        b'{"version": 2, "files": {"%s": {"stamp": %s}}}',
    ],
)
def test_a_damaged_store_is_begun_anew(tmp_path: Path, hashed: list[Path], damage: bytes) -> None:
    path, store = settled(tmp_path / "judge.pt"), tmp_path / "digests.json"
    stamp = msgspec.json.encode(digests.Stamp.of(path))
    store.write_bytes(damage % (bytes(path), stamp) if b"%" in damage else damage)
    assert digest(path, store) == digest(path, store) == sha256(CONTENT)
    assert hashed == [path]


def test_a_store_that_cannot_be_written_breaks_nothing(tmp_path: Path) -> None:
    path = settled(tmp_path / "judge.pt")
    folder = tmp_path / "digests.json"
    folder.mkdir()
    for store in (folder, tmp_path / "nowhere" / "digests.json", path / "digests.json"):
        assert digest(path, store) == sha256(CONTENT)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digests.json", "judge.pt"]


def test_a_path_that_is_no_text_is_not_kept(tmp_path: Path) -> None:
    store = tmp_path / "digests.json"
    try:
        path = settled(tmp_path / "judge\udcff.pt")
    except (OSError, UnicodeEncodeError):
        pytest.skip("no such names in this file system")
    assert digest(path, store) == sha256(CONTENT)


def test_the_oldest_digests_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "LIMIT", 2)
    store = tmp_path / "digests.json"
    paths = [settled(tmp_path / f"{number}.pt") for number in range(3)]
    for path in paths:
        digest(path, store)
    kept = digests._read(store)
    assert list(kept) == [str(path.resolve()) for path in paths[1:]]


def test_what_is_no_weights_file_is_always_read(tmp_path: Path, hashed: list[Path]) -> None:
    path = settled(tmp_path / "plugin.py", b"one")
    assert files.sha256_of_file(path) == sha256(b"one")
    settled(path, b"two")
    assert files.sha256_of_file(path) == sha256(b"two")


def test_digests_lie_beside_the_scores(tmp_path: Path) -> None:
    assert files.file_of_digests([tmp_path / "x", tmp_path / "rewards"]) == tmp_path / digests.FILE
    assert files.file_of_digests([tmp_path / "x"]) is None


def test_a_reward_of_the_registry_is_hashed_once_for_all_processes(
    tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib_automerge.reward.image_reward.ImageReward", TinyImageReward)
    weights = write_tiny(tmp_path).rename(tmp_path / "mine.pt")
    os.utime(weights, ns=(OLD_NS, OLD_NS))
    prints = []
    for _ in range(2):
        digests._memory.clear()
        made = reward.create("image_reward", folders=[tmp_path / "rewards"], weights=weights)
        prints.append(made.fingerprint)
        made.close()
    assert prints[0] == prints[1]
    assert sha256(weights.read_bytes())[:16] in prints[0]
    assert hashed == [weights]
