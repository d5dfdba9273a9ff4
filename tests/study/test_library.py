from __future__ import annotations

import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from lib_automerge.errors import StorageError
from lib_automerge.study.library import Library
from tests.run_folders import Plan, build


@pytest.fixture
def library(tmp_path: Path) -> Library:
    root = tmp_path / "runs"
    for name in ("20260101-aaaa", "20260102-bbbb"):
        build(root / name, Plan(evaluations=6, size=0))
    return Library(root)


def test_runs_are_listed_newest_first(library: Library) -> None:
    assert [entry.id for entry in library.entries()] == ["20260102-bbbb", "20260101-aaaa"]


def test_no_folder_is_an_empty_list(tmp_path: Path) -> None:
    assert Library(tmp_path / "nothing").entries() == []
    with pytest.raises(StorageError, match="there is no run"):
        Library(tmp_path / "nothing").find("20260101-aaaa")


def test_new_ids_fit_the_routes_and_do_not_repeat(library: Library) -> None:
    ids = {library.new_folder().name for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch(r"[a-z0-9-]{3,40}", name) for name in ids)


def test_a_grown_journal_is_read_again_and_an_unchanged_one_is_not(library: Library) -> None:
    first = library.find("20260101-aaaa")
    assert library.find("20260101-aaaa") is first
    journal = first.folder.path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    again = library.find("20260101-aaaa")
    assert again is not first
    assert again.state is not None
    assert first.state is not None
    assert again.state.status is not first.state.status


def test_a_damaged_run_is_listed_with_its_problem(library: Library) -> None:
    folder = library.root / "20260101-aaaa"
    (folder / "run.json").write_text("{")
    entry = library.find("20260101-aaaa")
    assert entry.manifest is None
    assert "Restore it from a backup" in entry.problem
    assert len(library.entries()) == 2


def test_a_name_changes_neither_id_nor_files(library: Library) -> None:
    before = (library.root / "20260101-aaaa" / "run.json").read_bytes()
    library.rename("20260101-aaaa", "  my <b>best</b>\n run " + "x" * 200)
    entry = library.find("20260101-aaaa")
    assert entry.name.startswith("my <b>best</b> run xxx")
    assert len(entry.name) == 80
    assert (library.root / "20260101-aaaa" / "run.json").read_bytes() == before
    library.rename("20260101-aaaa", "")
    assert library.find("20260101-aaaa").name != ""
    (library.root / "20260101-aaaa" / "label.json").write_text("{")
    assert library.find("20260101-aaaa").id == "20260101-aaaa"


def test_the_trash_keeps_everything_twice_over(library: Library) -> None:
    first = library.trash("20260101-aaaa")
    assert (first / "journal.jsonl").is_file()
    assert [entry.id for entry in library.entries()] == ["20260102-bbbb"]
    build(library.root / "20260101-aaaa", Plan(evaluations=6, size=0))
    second = library.trash("20260101-aaaa")
    assert second != first
    assert (first / "journal.jsonl").is_file()
    assert (second / "journal.jsonl").is_file()


def test_a_run_in_progress_is_not_moved(library: Library) -> None:
    with (
        library.find("20260101-aaaa").folder.owned(lambda: 0.0),
        pytest.raises(StorageError, match="Stop it before you delete it"),
    ):
        library.trash("20260101-aaaa")
    assert library.find("20260101-aaaa")


def test_an_export_holds_the_run_but_no_checkpoint(library: Library, tmp_path: Path) -> None:
    folder = library.root / "20260101-aaaa"
    (folder / "merged-e0007.safetensors").write_bytes(b"x")
    target = library.export("20260101-aaaa", tmp_path / "run.zip")
    names = zipfile.ZipFile(target).namelist()
    assert "20260101-aaaa/run.json" in names
    assert "20260101-aaaa/journal.jsonl" in names
    assert not any(name.endswith((".safetensors", ".lock")) for name in names)
    with pytest.raises(StorageError):
        library.export("20260101-aaaa", tmp_path / "no" / "run.zip")


def test_a_folder_of_runs_that_cannot_be_listed_is_told(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refused)
    with pytest.raises(StorageError, match="cannot list the runs in"):
        library.entries()
    with pytest.raises(StorageError, match="cannot list the runs in"):
        library.stamp()


def test_free_space_of_a_drive_that_is_gone_is_told(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert library.free_space() > 0

    def gone(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(shutil, "disk_usage", gone)
    with pytest.raises(StorageError, match="Input/output error"):
        library.free_space()
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(StorageError, match=r"the drive of .* is not there"):
        library.free_space()


def test_a_run_that_is_mended_is_read_again(library: Library) -> None:
    run_json = library.root / "20260101-aaaa" / "run.json"
    content, found = run_json.read_bytes(), run_json.stat()
    stamp = library.stamp()
    run_json.write_bytes(b"{" + b" " * (len(content) - 1))
    assert library.stamp() != stamp
    assert library.find("20260101-aaaa").problem
    # the same size and time as before
    times = run_json.stat()
    run_json.write_bytes(content)
    os.utime(run_json, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not library.find("20260101-aaaa").problem
    run_json.write_bytes(b"{")
    os.utime(run_json, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert library.find("20260101-aaaa").problem


def test_the_size_does_without_files_that_vanish(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = library.find("20260101-aaaa")
    whole = library.size(entry)
    assert whole == sum(p.stat().st_size for p in entry.folder.path.rglob("*") if p.is_file())
    vanishing = entry.folder.path / "images" / "vanishing.png"
    vanishing.parent.mkdir(exist_ok=True)
    vanishing.write_bytes(b"12345")
    (vanishing.parent / "vanished.png").symlink_to(vanishing.parent / "nothing")
    original = Path.stat

    def once(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = original(path, follow_symlinks=follow_symlinks)
        if path == vanishing:
            vanishing.unlink()
        return found

    monkeypatch.setattr(Path, "stat", once)
    assert library.size(entry) == whole + 5
    assert library.size(entry) == whole


def test_runs_that_are_gone_are_forgotten(library: Library) -> None:
    assert len(library.entries()) == 2
    assert len(library._known) == 2
    shutil.rmtree(library.root / "20260101-aaaa")
    assert len(library.entries()) == 1
    assert [path.name for path in library._known] == ["20260102-bbbb"]
    shutil.rmtree(library.root)
    assert library.entries() == []
    assert not library._known


def test_files_older_than_zip_are_exported(library: Library, tmp_path: Path) -> None:
    os.utime(library.root / "20260101-aaaa" / "run.json", (0, 0))
    target = library.export("20260101-aaaa", tmp_path / "run.zip")
    assert "20260101-aaaa/run.json" in zipfile.ZipFile(target).namelist()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*run\.zip"):
        library.export("20260101-aaaa", tmp_path / "file" / "run.zip")
