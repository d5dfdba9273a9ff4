"""Downloads from a hub on this machine. No network."""

from __future__ import annotations

import builtins
import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock
import msgspec
import pytest

from lib_automerge.errors import ConfigError, RewardError
from lib_automerge.reward import download
from lib_automerge.reward.download import DownloadCancelledError, fetch
from lib_automerge.reward.files import WeightFile
from tests.reward.hub_server import Hub, serving

pytest.importorskip("huggingface_hub")

CONTENT = bytes(range(256)) * 12_000
"""3 MB, so that there are several chunks."""

FILE = WeightFile(
    option="weights",
    name="Judge.pt",
    repo="people/judge",
    path="sub/weights.pt",
    size=len(CONTENT),
    licence="MIT",
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    with serving(Hub(CONTENT)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "rewards"


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.part"))


def test_a_file_arrives_whole_under_its_own_name(hub: Hub, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    path = fetch(FILE, folder, lambda have, size: told.append((have, size)))
    assert path == folder / "Judge.pt"
    assert path.read_bytes() == CONTENT
    assert parts(folder) == []
    assert hub.asked == [""]
    size = len(CONTENT)
    assert told[0] == (0, size)
    assert told[-1] == (size, size)
    assert len({have for have, _ in told}) >= 4
    assert [have for have, _ in told] == sorted(have for have, _ in told)


def test_a_file_that_is_there_is_left_alone(hub: Hub, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "Judge.pt").write_bytes(b"mine")
    assert fetch(FILE, folder).read_bytes() == b"mine"
    assert hub.asked == []


def test_a_cut_connection_is_taken_up_where_it_ended(hub: Hub, folder: Path) -> None:
    hub.drops = [1_000_000, 0, 500_000]
    assert fetch(FILE, folder).read_bytes() == CONTENT
    assert hub.asked == ["", "bytes=1000000-", "bytes=1000000-", "bytes=1500000-"]


def test_a_server_without_ranges_begins_again(hub: Hub, folder: Path) -> None:
    hub.ranges = False
    hub.drops = [1_000_000]
    assert fetch(FILE, folder).read_bytes() == CONTENT
    assert hub.asked == ["", "bytes=1000000-"]


def test_a_cancelled_download_goes_on_the_next_time(hub: Hub, folder: Path) -> None:
    at: list[int] = []
    with pytest.raises(DownloadCancelledError, match=r"cancelled: .* are kept as .*\.part"):
        fetch(FILE, folder, lambda have, _: at.append(have), lambda: at[-1] >= 1_000_000)
    assert not (folder / "Judge.pt").exists()
    (part,) = parts(folder)
    kept = part.stat().st_size
    assert 0 < kept < len(CONTENT)
    assert fetch(FILE, folder).read_bytes() == CONTENT
    assert hub.asked == ["", f"bytes={kept}-"]


def test_parts_of_two_versions_are_not_put_together(hub: Hub, folder: Path) -> None:
    at: list[int] = []
    with pytest.raises(DownloadCancelledError):
        fetch(FILE, folder, lambda have, _: at.append(have), lambda: at[-1] >= 1_000_000)
    hub.content = CONTENT[::-1]
    assert fetch(FILE, folder).read_bytes() == CONTENT[::-1]
    assert hub.asked == ["", ""]


def test_a_connection_that_never_brings_a_byte_is_given_up(hub: Hub, folder: Path) -> None:
    hub.drops = [1_000_000] + [0] * 99
    with pytest.raises(RewardError, match=r"Judge.pt failed 5 times in a row: the connection"):
        fetch(FILE, folder)
    (part,) = parts(folder)
    assert part.stat().st_size == 1_000_000


def test_a_server_in_trouble_is_named_and_tried_again(hub: Hub, folder: Path) -> None:
    hub.status = 503
    with pytest.raises(RewardError, match="5 times in a row: the server answered 503"):
        fetch(FILE, folder)
    assert len(hub.asked) == 5


def test_a_file_that_is_not_on_the_hub_is_an_error_with_its_address(hub: Hub, folder: Path) -> None:
    gone = msgspec.structs.replace(FILE, path="gone.pt")
    address = "https://huggingface.co/people/judge/blob/main/gone.pt"
    with pytest.raises(RewardError, match=f"Judge.pt cannot be downloaded: .*{address}"):
        fetch(gone, folder)
    assert parts(folder) == []


def test_a_hub_that_cannot_be_reached_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RewardError, match=r"cannot be downloaded: .*Check the network"):
        fetch(FILE, folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"said_size": len(CONTENT) - 5}, f"it has {len(CONTENT)} bytes instead of"),
        ({"said_digest": "0" * 64}, "its SHA-256 begins with .* instead of 00000000"),
    ],
)
def test_what_is_not_the_published_file_is_deleted(
    changes: dict[str, object], words: str, hub: Hub, folder: Path
) -> None:
    for name, value in changes.items():
        setattr(hub, name, value)
    with pytest.raises(RewardError, match=f"not the published file: {words}"):
        fetch(FILE, folder)
    assert parts(folder) == []
    assert not (folder / "Judge.pt").exists()


def test_a_known_hash_counts_besides_the_hubs_own(hub: Hub, folder: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    fetch(msgspec.structs.replace(FILE, sha256=digest[:8]), folder)
    (folder / "Judge.pt").unlink()
    with pytest.raises(RewardError, match="instead of 12345678"):
        fetch(msgspec.structs.replace(FILE, sha256="12345678"), folder)


def test_a_server_that_promises_more_than_it_has_is_given_up(hub: Hub, folder: Path) -> None:
    hub.said_size = len(CONTENT) + 5
    with pytest.raises(RewardError, match="5 times in a row"):
        fetch(FILE, folder)
    assert not (folder / "Judge.pt").exists()


def test_a_mirror_cannot_send_on_to_a_local_file(hub: Hub, folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    hub.location = secret.as_uri()
    with pytest.raises(RewardError, match="5 times in a row: the server sent on to file:"):
        fetch(FILE, folder)
    assert not (folder / "Judge.pt").exists()


def test_the_disk_is_looked_at_before(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1_000_000))
    with pytest.raises(RewardError, match=r"1.0 MB are free in .* the download needs 3.1 MB"):
        fetch(FILE, folder)
    assert hub.asked == []


def test_a_disk_that_fills_up_keeps_the_part(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RewardError, match=r"cannot be written .*No space left.*is kept"):
        fetch(FILE, folder)
    assert len(hub.asked) == 1
    assert len(parts(folder)) == 1
    assert not (folder / "Judge.pt").exists()


def test_a_folder_that_cannot_be_written_is_an_error(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RewardError, match="cannot be written to"):
        fetch(FILE, tmp_path / "file" / "below")


def test_one_file_is_downloaded_once_at_a_time(hub: Hub, folder: Path) -> None:
    folder.mkdir(parents=True)
    with (
        filelock.FileLock(folder / "Judge.pt.lock"),
        pytest.raises(RewardError, match="is being downloaded already"),
    ):
        fetch(FILE, folder)


def test_a_file_that_is_not_on_the_hub_comes_from_its_address(hub: Hub, folder: Path) -> None:
    elsewhere = msgspec.structs.replace(FILE, repo="", path=f"{hub.address}/storage")
    hub.drops = [1_000_000]
    assert fetch(elsewhere, folder).read_bytes() == CONTENT
    assert hub.asked == ["", "bytes=1000000-"]
    gone = msgspec.structs.replace(FILE, repo="", name="gone.pt", path=f"{hub.address}/gone")
    with pytest.raises(RewardError, match=r"gone.pt cannot be downloaded: the server answered 404"):
        fetch(gone, folder)


def test_without_the_hubs_client_a_sentence_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "huggingface_hub")
    importing = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == "huggingface_hub":
            raise ImportError(name)
        return importing(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install huggingface_hub .* or get Judge.pt from"):
        fetch(FILE, folder)
