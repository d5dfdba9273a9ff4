from __future__ import annotations

from pathlib import Path

import pytest

from lib_automerge.errors import StorageError
from lib_automerge.study.store import check_new, list_runs, nearest
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
