from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import pytest

from lib_automerge.errors import StorageError
from lib_automerge.study.store import RunFolder, check_new, list_runs, nearest
from tests.run_folders import Plan, build


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        build(tmp_path / "runs" / name, Plan(evaluations=3, size=0))
    return tmp_path / "runs"


def refuse(monkeypatch: pytest.MonkeyPatch, method: str, refused: Path) -> None:
    """Let a method of this path raise PermissionError, also for a user who may do everything."""
    original = getattr(Path, method)

    def refusing(path: Path, *args: object, **kwargs: object) -> object:
        if path == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(Path, method, refusing)


def test_a_folder_that_may_not_be_read_hides_no_other(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "is_file", root / "a" / "run.json")
    assert [folder.path.name for folder in list_runs(root)] == ["b"]


@pytest.mark.parametrize("method", ["iterdir", "is_dir"])
def test_a_root_that_may_not_be_read_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    refuse(monkeypatch, method, root)
    with pytest.raises(StorageError, match=r"cannot list the runs in .*Permission denied"):
        list_runs(root)


def test_a_new_run_on_a_drive_that_is_gone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nearest(tmp_path / "not" / "yet") == tmp_path
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(StorageError, match=r"the drive of .* is not there"):
        check_new(tmp_path / "run")


def test_a_new_run_in_a_folder_that_may_not_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "exists", tmp_path / "run")
    with pytest.raises(StorageError, match=r"cannot look into .*Permission denied"):
        check_new(tmp_path / "run")


def test_two_who_ask_at_once_do_not_take_each_other_for_the_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(filelock.FileLock):  # type: ignore[misc, valid-type, unused-ignore]
        def __enter__(self) -> Slow:
            super().__enter__()
            time.sleep(0.05)
            return self

    folder = RunFolder(root / "a")
    with monkeypatch.context() as patch, ThreadPoolExecutor(3) as threads:
        patch.setattr(filelock, "FileLock", Slow)
        asked = [threads.submit(folder.running) for _ in range(3)]
        assert [answer.result() for answer in asked] == [False] * 3
    with folder.owned(lambda: 0.0):
        assert folder.running()


def test_the_stamp_tells_a_change_of_either_file(root: Path) -> None:
    folder = RunFolder(root / "a")
    stamps = {folder.stamp()}
    for name in ("run.json", "journal.jsonl"):
        path = folder.path / name
        found = path.stat()
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1_000_000_000))
        stamps.add(folder.stamp())
        path.write_bytes(path.read_bytes() + b"\n")
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
        stamps.add(folder.stamp())
    assert len(stamps) == 5
    assert RunFolder(root / "none").stamp() == (0, 0)


def test_two_writers_of_one_file_do_not_disturb_each_other(root: Path, meeting: None) -> None:
    folder = RunFolder(root / "a")
    with ThreadPoolExecutor(2) as threads:
        written = [threads.submit(folder.write, "label.json", d) for d in (b"one", b"two")]
        assert [one.result().name for one in written] == ["label.json"] * 2
    assert (folder.path / "label.json").read_bytes() in (b"one", b"two")
    assert not list(folder.path.glob(".*"))


def test_half_written_files_are_removed_and_never_in_the_way(root: Path) -> None:
    folder = RunFolder(root / "a")
    (folder.path / ".label.json.1-2.partial").write_bytes(b"{")
    (folder.path / ".other.partial").mkdir()
    with folder.owned(lambda: 0.0):
        assert not (folder.path / ".label.json.1-2.partial").exists()
