from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lib_automerge.domain.dialects.sketch import Hint
from lib_automerge.errors import ModelError, StorageError
from lib_automerge.merge import lookup


def write(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def test_a_renamed_file_is_found_by_its_content(tmp_path: Path) -> None:
    write(tmp_path / "old.safetensors", b"another")
    digest = write(tmp_path / "deep" / "er" / "renamed.ckpt", b"content")
    found = lookup.find({"a": Hint(name="old", sha256=digest)}, [tmp_path])
    ref = found.models["a"]
    assert (ref.name, ref.sha256) == ("old", digest)
    assert ref.path == str(tmp_path / "deep" / "er" / "renamed.ckpt")
    assert found.notes == ()


def test_files_of_the_same_name_are_read_first(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", b"a")
    digest = write(tmp_path / "wanted.safetensors", b"w")
    read: list[str] = []
    lookup.find({"a": Hint(name="wanted", sha256=digest)}, [tmp_path], told=read.append)
    assert len(read) == 1
    assert "wanted" in read[0]


def test_the_first_digits_are_enough(tmp_path: Path) -> None:
    digest = write(tmp_path / "a.safetensors", b"a")
    found = lookup.find({"a": Hint(sha256=digest[:10])}, [tmp_path])
    assert found.models["a"].sha256 == digest
    assert found.models["a"].name == "a"


def test_a1111s_old_hash_looks_at_64_kb_after_the_first_mb(tmp_path: Path) -> None:
    content = bytes(1 << 20) + b"x" * 0x10000 + b"tail"
    write(tmp_path / "a.safetensors", content)
    write(tmp_path / "b.safetensors", bytes(1 << 20) + b"y" * 0x10000)
    old = hashlib.sha256(b"x" * 0x10000).hexdigest()[:8]
    assert lookup.legacy_hash(tmp_path / "a.safetensors") == old
    found = lookup.find({"a": Hint(name="any", legacy_hash=old)}, [tmp_path])
    assert found.models["a"].path.endswith("a.safetensors")
    assert "by its old hash alone" in found.notes[0]
    write(tmp_path / "c.safetensors", content + b"more")
    with pytest.raises(ModelError, match=r"2 files have the old hash .*different content"):
        lookup.find({"a": Hint(name="any", legacy_hash=old)}, [tmp_path])


def test_a_name_must_lead_to_one_content(tmp_path: Path) -> None:
    digest = write(tmp_path / "one" / "a.safetensors", b"a")
    write(tmp_path / "two" / "a.safetensors", b"a")
    found = lookup.find({"a": Hint(name="a")}, [tmp_path])
    assert found.models["a"].sha256 == digest
    assert "by its name alone" in found.notes[0]
    write(tmp_path / "three" / "a.ckpt", b"other")
    with pytest.raises(ModelError, match="3 files have the name 'a'"):
        lookup.find({"a": Hint(name="a")}, [tmp_path])


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", b"a")
    write(tmp_path / "notes.txt", b"a")
    with pytest.raises(ModelError, match=r"'a' \(a\).*none of 1 files.*its content is another"):
        lookup.find({"a": Hint(name="a", sha256="0" * 64)}, [tmp_path])
    with pytest.raises(ModelError, match="none of 1 files has the name 'gone'"):
        lookup.find({"b": Hint(name="gone")}, [tmp_path])
    with pytest.raises(StorageError, match="no folder"):
        lookup.find({"b": Hint(name="gone")}, [tmp_path / "nowhere"])
