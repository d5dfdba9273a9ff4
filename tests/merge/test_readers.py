from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lib_automerge.domain import architectures
from lib_automerge.domain.detection import Header
from lib_automerge.errors import ModelError
from lib_automerge.merge.readers import open_checkpoint, read_header
from tests.checkpoints import tiny_state, write_tiny

NORM = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"


def write_raw(path: Path, header: object, data: bytes = b"", pad: int = 0) -> Path:
    """Write a file in safetensors form from parts; `pad` spaces follow the JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * pad
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def repack(source: Path, target: Path, pad: int) -> Path:
    """Rewrite a safetensors file so that its header is `pad` bytes longer."""
    raw = source.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return write_raw(target, raw[8 : 8 + length], raw[8 + length :], pad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_reads_what_safetensors_reads(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "model.safetensors", name, dtype=dtype, metadata={"a": "b"})
    expected = load_file(path)
    with open_checkpoint(path) as model:
        assert model.keys() == tuple(sorted(expected))
        assert model.name == "model"
        assert model.header.metadata == {"a": "b"}
        for key, tensor in expected.items():
            read = model.tensor(key)
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor)


def test_position_ids_and_empty_markers_are_readable(tmp_path: Path) -> None:
    path = write_tiny(
        tmp_path / "m.safetensors", "sdxl", extra={"v_pred": torch.zeros(0), "n": torch.tensor(7)}
    )
    with open_checkpoint(path) as model:
        ids = model.tensor("conditioner.embedders.0.transformer.text_model.embeddings.position_ids")
        assert ids.dtype == torch.int64
        assert ids.tolist() == [list(range(77))]
        assert model.tensor("v_pred").shape == (0,)
        assert model.tensor("n").item() == 7


def test_tensors_are_views_of_the_file(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.safetensors", "sd1")
    with open_checkpoint(path) as model:
        one, two = (model.tensor(NORM) for _ in range(2))
        assert one.data_ptr() == two.data_ptr()
        before = path.read_bytes()
        one.fill_(3.0)
        assert torch.equal(two, torch.full_like(two, 3.0))
        assert path.read_bytes() == before


def test_other_names_are_read_by_their_canonical_ones(tmp_path: Path) -> None:
    prefix = "model.diffusion_model."
    usual = write_tiny(tmp_path / "usual.safetensors", "sd1")
    bare = write_tiny(
        tmp_path / "bare.safetensors",
        "sd1",
        rename=lambda key: key.removeprefix(prefix).replace(".text_model.", "."),
    )
    with open_checkpoint(usual) as a, open_checkpoint(bare) as b:
        assert "time_embed.0.weight" in b.header.tensors
        assert a.keys() == b.keys()
        keys = a.keys()
        assert all(torch.equal(a.tensor(key), b.tensor(key)) for key in keys)


@pytest.mark.parametrize("pad", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_headers_of_any_length(pad: int, dtype: torch.dtype, tmp_path: Path) -> None:
    """Files from before safetensors 0.3 start their weights at odd offsets."""
    path = write_tiny(tmp_path / "m.safetensors", "sd1", dtype=dtype)
    odd = repack(path, tmp_path / "odd.safetensors", pad)
    expected = load_file(path)
    with open_checkpoint(odd) as model:
        for key, tensor in expected.items():
            assert torch.equal(model.tensor(key), tensor)
        mixed = torch.lerp(model.tensor(NORM), model.tensor(NORM).flip(0), 0.25)
        assert torch.equal(mixed, torch.lerp(expected[NORM], expected[NORM].flip(0), 0.25))


def test_mixed_number_types_off_their_grid(tmp_path: Path) -> None:
    state = tiny_state("sd1", dtype=torch.float16)
    entries: dict[str, Any] = {}
    data = b""
    # 3-byte "flag" first: every later weight lies off the grid of its own type.
    state = {"flag": torch.zeros(3, dtype=torch.uint8), **state}
    state["betas"] = torch.arange(5, dtype=torch.float64)
    names = {torch.uint8: "U8", torch.float16: "F16", torch.int64: "I64", torch.float64: "F64"}
    for key, tensor in state.items():
        raw = tensor.numpy().tobytes()
        entries[key] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    with open_checkpoint(write_raw(tmp_path / "m.safetensors", entries, data)) as model:
        for key, tensor in state.items():
            assert torch.equal(model.tensor(key), tensor)
        assert model.detection.strays == ("flag",)


def test_run_joins_neighbours_only(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.safetensors", "sd1")
    with open_checkpoint(path) as model:
        infos = model.header.tensors
        order = sorted(
            (key for key in infos if infos[key].dtype == "F16"), key=lambda key: infos[key].start
        )
        first = order[100:140]
        flat = model.run(first)
        assert flat is not None
        assert torch.equal(flat, torch.cat([model.tensor(key).flatten() for key in first]))
        assert flat.data_ptr() == model.tensor(first[0]).data_ptr()
        assert model.run(first[:1]) is not None
        assert model.run([first[1], first[0]]) is None
        assert model.run([first[0], first[2]]) is None
        assert model.run([]) is None


def test_run_needs_one_number_type(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.safetensors", "sd1")
    with open_checkpoint(path) as model:
        infos = model.header.tensors
        order = sorted(infos, key=lambda key: infos[key].start)
        border = next(n for n, key in enumerate(order) if infos[key].dtype == "F16")
        assert infos[order[border - 1]].dtype == "I64"
        assert model.run(order[border - 1 : border + 1]) is None


def test_tensors_outlive_close(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.safetensors", "sd1")
    expected = load_file(path)[NORM]
    with open_checkpoint(path) as model:
        kept = model.tensor(NORM)
    assert torch.equal(kept, expected)
    with pytest.raises(ModelError, match="closed"):
        model.tensor(NORM)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_close_ends_the_mapping(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.safetensors", "sd1")
    maps = Path("/proc/self/maps")
    with open_checkpoint(path) as model:
        kept = model.tensor(NORM)
        assert str(path) in maps.read_text()
    del kept
    assert str(path) not in maps.read_text()


def test_absent_key(tmp_path: Path) -> None:
    with (
        open_checkpoint(write_tiny(tmp_path / "m.safetensors", "sd1")) as model,
        pytest.raises(ModelError, match=r"m.safetensors: it has no weight 'x'"),
    ):
        model.tensor("x")


def test_sha256_is_that_of_the_file_and_read_once(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.safetensors", "sd1")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with open_checkpoint(path) as model:
        assert model.sha256() == digest
        path.write_bytes(b"other")
        assert model.sha256() == digest


def test_offsets_count_from_the_start_of_the_file(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.safetensors", "sd1")
    header = read_header(path)
    info = header.tensors[NORM]
    raw = path.read_bytes()[info.start : info.end]
    assert raw == load_file(path)[NORM].numpy().tobytes()
    assert max(info.end for info in header.tensors.values()) == path.stat().st_size


def test_metadata_that_is_not_text_is_kept_as_json(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "m.safetensors", {"__metadata__": {"a": {"b": 1}, "c": "d"}})
    assert read_header(path) == Header({}, {"a": '{"b":1}', "c": "d"})


@pytest.mark.parametrize(("scale", "prediction"), [(0.2, "v"), (0.05, "epsilon")])
def test_sd2_prediction_type_is_told_by_one_weight(
    scale: float, prediction: str, tmp_path: Path
) -> None:
    zero = torch.zeros(())  # stored once, however large the tensors that share it
    shapes = architectures.get("sd2").reference_keys
    state = {key: zero.expand(shape) for key, shape in shapes.items()}
    state[NORM] = torch.randn(320, generator=torch.Generator().manual_seed(0)) * scale
    path = tmp_path / "m.ckpt"
    torch.save(state, path)
    with open_checkpoint(path) as model:
        assert model.detection.standard_size
        assert model.detection.prediction == prediction


@pytest.mark.parametrize("length", [0x013C, 0x0280, 0x4B50, 0x10280])
def test_length_of_a_header_may_spell_another_signature(length: int, tmp_path: Path) -> None:
    """As bytes these lengths start like a web page, a pickle, and a zip archive."""
    path = tmp_path / "m.safetensors"
    header = json.dumps({"w": entry(0, 8, [4])}).encode()
    write_raw(path, header, bytes(8), pad=length - len(header))
    assert path.read_bytes()[:2] == length.to_bytes(8, "little")[:2]
    assert read_header(path).tensors["w"].shape == (4,)


def entry(start: int, end: int, shape: list[int], dtype: str = "F16") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def cut(path: Path) -> Path:
    whole = write_tiny(path, "sd1").read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    return path


def folder(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).write_text("{}")
    return path


def raw(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


BAD_FILES: dict[str, Callable[[Path], Path]] = {
    "no such file": lambda path: path,
    "it cannot be read: Not a directory": lambda path: raw(b"x")(path) / "inner.safetensors",
    "it is empty. Download it again": raw(b""),
    "neither a safetensors file nor": raw(b"abc"),
    "it is neither": raw(b"\x00" * 500),
    "it is a web page": raw(b"<!DOCTYPE html><html>404</html>"),
    "Git LFS pointer": raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
    "quantised GGUF": raw(b"GGUF\x03\x00\x00\x00" + b"\x00" * 64),
    "it is cut off: .* bytes are there": cut,
    "it is cut off: 130 of 1008": lambda path: raw(struct.pack("<Q", 1000) + b'{"a":' + b" " * 117)(
        path
    ),
    "it is neither a safetensors file nor a": raw(struct.pack("<Q", 1 << 40) + b'{"a": 1}'),
    "header is damaged: .*(JSON|character)": lambda path: write_raw(path, b'{"a": nonsense}'),
    "header is damaged: .*recursion": lambda path: write_raw(path, b'{"a":' + b"[" * 90_000),
    "header is damaged: .*dtype": lambda path: write_raw(path, {"w": {"shape": [1]}}),
    "header is damaged: .*array": lambda path: write_raw(path, {"w": [1, 2]}),
    "header is damaged at 'w': bytes 0 to 8": lambda path: write_raw(
        path, {"w": entry(0, 8, [5])}, bytes(8)
    ),
    "header is damaged at 'v': bytes 4 to 12": lambda path: write_raw(
        path, {"u": entry(0, 8, [4]), "v": entry(4, 12, [4])}, bytes(12)
    ),
    "header is damaged at 'v': bytes 12 to 20": lambda path: write_raw(
        path, {"u": entry(0, 8, [4]), "v": entry(12, 20, [4])}, bytes(20)
    ),
    "header is damaged at 'w'.*-2": lambda path: write_raw(
        path, {"w": entry(0, 8, [-2, -2])}, bytes(8)
    ),
    "4 bytes follow the last weight": lambda path: write_raw(
        path, {"w": entry(0, 8, [4])}, bytes(12)
    ),
    "unknown number type: 'Q7'": lambda path: write_raw(
        path, {"w": entry(0, 8, [4], "Q7")}, bytes(8)
    ),
    "it is a folder": folder,
    "it is a diffusers folder": lambda path: folder(path, "model_index.json"),
}


@pytest.mark.parametrize("reason", BAD_FILES)
def test_bad_files_are_refused_in_one_sentence(reason: str, tmp_path: Path) -> None:
    path = BAD_FILES[reason](tmp_path / "model.safetensors")
    for reader in (read_header, open_checkpoint):
        with pytest.raises(ModelError, match=reason) as error:
            reader(path)
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)
        assert str(error.value).endswith(".")


def test_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny(tmp_path / "m.safetensors", "sd1")
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser may read everything

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelError, match=r"m.safetensors: it cannot be read: Permission denied"):
        read_header(path)


def test_detection_errors_name_the_file(tmp_path: Path) -> None:
    path = write_raw(
        tmp_path / "lora.safetensors", {"x.lora_up.weight": entry(0, 8, [4])}, bytes(8)
    )
    with pytest.raises(ModelError, match=r"^lora.safetensors: it is an adapter"):
        open_checkpoint(path)


# Pickled checkpoints


class Attack:
    """Runs a command when an unsuspecting program loads it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"echo executed > {self.trace}",)


formats = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "plain"])


@formats
@pytest.mark.parametrize("nested", [True, False])
def test_pickled_checkpoint(zipped: bool, nested: bool, tmp_path: Path) -> None:
    state = tiny_state("sd1")
    content = {"state_dict": state, "epoch": 3, "note": "x"} if nested else state | {"step": 4}
    path = tmp_path / "model.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    safe = write_tiny(tmp_path / "same.safetensors", "sd1")
    headers = [read_header(file).tensors for file in (path, safe)]
    assert headers[0].keys() == headers[1].keys()
    for key, info in headers[0].items():
        assert (info.dtype, info.shape) == (headers[1][key].dtype, headers[1][key].shape)
    with open_checkpoint(path) as model:
        assert model.detection.architecture == "sd1"
        assert all(torch.equal(model.tensor(key), tensor) for key, tensor in state.items())
        assert model.run(model.keys()[:1]) is None
    with pytest.raises(ModelError, match="closed"):
        model.tensor(NORM)


@formats
def test_pickle_under_a_safetensors_name(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save(tiny_state("sd1"), path, _use_new_zipfile_serialization=zipped)
    for reader in (read_header, open_checkpoint):
        with pytest.raises(ModelError, match=r"under a safetensors name\. Rename it"):
            reader(path)


@formats
def test_code_in_a_pickle_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "evil.ckpt"
    content = {"state_dict": tiny_state("sd1"), "x": Attack(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for reader in (read_header, open_checkpoint):
        with pytest.raises(ModelError, match=r"evil\.ckpt: it (would|may) run code") as error:
            reader(path)
        assert "\n" not in str(error.value)
        if zipped:
            assert "posix.system" in str(error.value) or "nt.system" in str(error.value)
    assert not trace.exists()


def test_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps({"w": Attack(trace)}, protocol=2))
    with pytest.raises(ModelError, match=r"evil\.ckpt"):
        open_checkpoint(path)
    assert not trace.exists()


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class under the name that training checkpoints of Lightning hold; gone when loading."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": name})
    for parent in ("pytorch_lightning", "pytorch_lightning.callbacks", name):
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    sys.modules[name].ModelCheckpoint = callback  # type: ignore[attr-defined]
    return callback


def test_training_checkpoint_of_lightning(
    lightning: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trained.ckpt"
    callback = lightning()
    callback.best = torch.tensor(3.0)
    content = {
        "state_dict": tiny_state("sd1"),
        "callbacks": {lightning: {"best_model_score": np.float64(0.5)}, "state": callback},
    }
    torch.save(content, path)
    monkeypatch.delitem(sys.modules, lightning.__module__)
    with open_checkpoint(path) as model:
        assert torch.equal(model.tensor(NORM), tiny_state("sd1")[NORM])
    allowed = torch.serialization.get_safe_globals()
    assert not any("lightning" in str(item) for item in allowed)


def test_lightning_beside_code_is_still_refused(lightning: type, tmp_path: Path) -> None:
    path = tmp_path / "evil.ckpt"
    trace = tmp_path / "trace"
    torch.save({"state_dict": {}, "callbacks": lightning(), "x": Attack(trace)}, path)
    with pytest.raises(ModelError, match=r"would run code: (posix|nt)\.system\. It was not"):
        open_checkpoint(path)
    assert not trace.exists()


def test_damaged_and_foreign_archives(tmp_path: Path) -> None:
    whole = tmp_path / "whole.ckpt"
    torch.save(tiny_state("sd1"), whole)
    short = tmp_path / "short.ckpt"
    short.write_bytes(whole.read_bytes()[:-5000])
    with pytest.raises(ModelError, match=r"short\.ckpt: it is damaged or cut off"):
        open_checkpoint(short)
    other = tmp_path / "other.ckpt"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match=r"other\.ckpt: it is an archive, but no checkpoint"):
        open_checkpoint(other)
    plain = tmp_path / "plain.ckpt"
    plain.write_bytes(pickle.dumps([1, 2, 3], protocol=2))
    with pytest.raises(ModelError, match=r"plain\.ckpt: it"):
        open_checkpoint(plain)


@formats
def test_damaged_pickles_are_refused_without_other_errors(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    key = "model.diffusion_model.out.0.bias"
    torch.save({key: torch.zeros(3)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    refusals = []
    for position in random.integers(5, len(whole), 150):
        damaged = bytearray(whole)
        damaged[position] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read_header(path)
        except ModelError as error:
            refusals.append(str(error))
    assert 10 < len(refusals) < 150
    assert not any("\n" in text for text in refusals)


def test_programs_are_not_loaded(tmp_path: Path) -> None:
    """torch.load would hand them to a loader that ignores weights_only."""
    path = tmp_path / "program.ckpt"
    torch.save(tiny_state("sd1"), path)
    with zipfile.ZipFile(path, "a") as archive:  # what makes an archive a TorchScript program
        archive.writestr("program/constants.pkl", pickle.dumps(()))
    with pytest.raises(ModelError, match="it is an archive, but no checkpoint of weights"):
        open_checkpoint(path)


def test_tar_archive_under_a_pickle_signature(tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("\udc80\x02name"), io.BytesIO())
    path.write_bytes(buffer.getvalue())
    assert path.read_bytes()[:2] == b"\x80\x02"
    with pytest.raises(ModelError, match=r"old\.ckpt: it is a tar archive"):
        open_checkpoint(path)


def test_pickle_without_weights(tmp_path: Path) -> None:
    path = tmp_path / "list.ckpt"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ModelError, match="it holds list, not a set of named weights"):
        read_header(path)
    torch.save({}, path)
    with pytest.raises(ModelError, match=r"list\.ckpt: it holds no weights"):
        open_checkpoint(path)
