"""Where weights are looked for, and whether they are the published ones. No network."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from lib_automerge.errors import RewardError
from lib_automerge.reward import files
from lib_automerge.reward.files import WeightFile
from tests.empty_home import empty_home

CONTENT = b"weights"
FILE = WeightFile(
    option="weights",
    name="Judge.pt",
    repo="people/judge",
    path="sub/weights.pt",
    size=3_940_000_000,
    licence="MIT",
    sha256=hashlib.sha256(CONTENT).hexdigest()[:8],
    kept=".cache/judge/weights.pt",
)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return empty_home(monkeypatch, tmp_path)


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def cache(root: Path, file: WeightFile, revision: str = "abc") -> Path:
    """The file as the hub's client keeps it: a link into the blobs."""
    repository = root / f"models--{file.repo.replace('/', '--')}"
    put(repository / "refs" / "main", revision.encode())
    blob = put(repository / "blobs" / f"blob-{revision}")
    path = repository / "snapshots" / revision / file.path
    path.parent.mkdir(parents=True)
    path.symlink_to(os.path.relpath(blob, path.parent))
    return path


def test_the_models_folders_come_first_in_their_order(tmp_path: Path, home: Path) -> None:
    cache(home / ".cache" / "huggingface" / "hub", FILE)
    second = put(tmp_path / "two" / "Judge.pt")
    assert files.find([FILE], [tmp_path / "one", tmp_path / "two"]) == second
    first = put(tmp_path / "one" / "Judge.pt")
    assert files.find([FILE], [tmp_path / "one", tmp_path / "two"]) == first


def test_a_copy_in_safetensors_will_do(tmp_path: Path) -> None:
    copy = put(tmp_path / "Judge.safetensors")
    assert files.find([FILE], [tmp_path]) == copy
    published = put(tmp_path / "Judge.pt")
    assert files.find([FILE], [tmp_path]) == published


def test_alternatives_are_taken_in_their_order(tmp_path: Path) -> None:
    other = msgspec.structs.replace(FILE, name="other.pt")
    second = put(tmp_path / "other.pt")
    assert files.find([FILE, other], [tmp_path]) == second
    first = put(tmp_path / "Judge.pt")
    assert files.find([FILE, other], [tmp_path]) == first


@pytest.mark.parametrize(
    ("variable", "below"),
    [
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ],
)
def test_the_hub_cache_is_where_its_variables_say(
    variable: str, below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache(tmp_path / "hub" / below, FILE)
    assert files.find([FILE]) is None
    monkeypatch.setenv(variable, str(tmp_path / "hub"))
    assert files.find([FILE]) == path


def test_the_hub_cache_of_the_home_folder_is_the_default(home: Path) -> None:
    path = cache(home / ".cache" / "huggingface" / "hub", FILE)
    assert files.find([FILE]) == path


def test_the_newest_revision_that_has_the_file_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    old = cache(tmp_path, FILE, "aaa")
    new = cache(tmp_path, FILE, "bbb")
    assert files.find([FILE]) == new
    new.unlink()
    assert files.find([FILE]) == old


def test_agrees_with_the_hubs_own_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    def by_client() -> object:
        return client.try_to_load_from_cache(FILE.repo, FILE.path, cache_dir=tmp_path)

    assert files.find([FILE]) is by_client() is None
    path = cache(tmp_path, FILE)
    assert files.find([FILE]) == Path(str(by_client())) == path


def test_a_download_of_the_models_own_package_is_the_last_resort(home: Path) -> None:
    kept = put(home / ".cache" / "judge" / "weights.pt")
    assert files.find([FILE]) == kept
    cached = cache(home / ".cache" / "huggingface" / "hub", FILE)
    assert files.find([FILE]) == cached


def test_what_is_missing_is_one_sentence_with_size_licence_and_place(tmp_path: Path) -> None:
    assert files.missing("Judge", "judge", [FILE], [tmp_path]) == (
        f"Judge needs the file Judge.pt (3.9 GB, MIT): it is not in {tmp_path} or the Hugging Face "
        "cache. Download it (python -m lib_automerge rewards --download judge), or get it from "
        f"https://huggingface.co/people/judge/blob/main/sub/weights.pt and put it into {tmp_path}."
    )


def test_without_a_models_folder_none_is_named() -> None:
    elsewhere = msgspec.structs.replace(FILE, repo="", path="https://example.org/judge.pt")
    assert files.missing("Judge", "judge", [elsewhere], []) == (
        "Judge needs the file Judge.pt (3.9 GB, MIT): it is not in the Hugging Face cache. "
        "Download it (python -m lib_automerge rewards --download judge), or get it from "
        "https://example.org/judge.pt."
    )


def test_a_published_name_with_other_content_is_refused(tmp_path: Path) -> None:
    files.check(FILE, put(tmp_path / "Judge.pt"))
    other = put(tmp_path / "other" / "Judge.pt", b"other")
    with pytest.raises(RewardError, match=r"is not the published Judge.pt: its SHA-256 begins"):
        files.check(FILE, other)


def test_a_copy_under_another_name_and_an_unknown_hash_are_let_through(tmp_path: Path) -> None:
    files.check(FILE, put(tmp_path / "Judge.safetensors", b"converted"))
    unknown = msgspec.structs.replace(FILE, sha256=None)
    files.check(unknown, put(tmp_path / "Judge.pt", b"other"))


def test_a_damaged_download_in_the_hub_cache_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    path = cache(tmp_path, FILE)
    files.check(FILE, path)
    put(path.resolve(), b"truncat")
    with pytest.raises(RewardError, match="not the published"):
        files.check(FILE, path)


def test_a_digest_is_computed_once_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "big.pt")
    os.utime(path, ns=(1, 1))
    assert files.sha256_of_weights(path) == hashlib.sha256(CONTENT).hexdigest()
    with monkeypatch.context() as patched:
        patched.setattr(files, "_hashed", lambda _path: pytest.fail("it was read again"))
        assert files.sha256_of_weights(path) == hashlib.sha256(CONTENT).hexdigest()
    put(path, b"changed")
    os.utime(path, ns=(2, 2))
    assert files.sha256_of_weights(path) == hashlib.sha256(b"changed").hexdigest()


def test_a_file_that_cannot_be_read_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"cannot be read: .*gone"):
        files.sha256_of_file(tmp_path / "gone")
    with pytest.raises(RewardError, match=r"cannot be read: .*gone"):
        files.sha256_of_weights(tmp_path / "gone")


@pytest.mark.parametrize(
    ("size", "text"),
    [(1_790_000_000, "1.8 GB"), (3_714_759, "3.7 MB"), (12_345, "12 kB"), (3, "1 kB")],
)
def test_sizes_are_in_words(size: int, text: str) -> None:
    assert files.in_bytes(size) == text
