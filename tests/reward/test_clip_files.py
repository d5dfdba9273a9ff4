"""Every layout of a CLIP gives the same numbers; what is no CLIP is refused in a sentence."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from lib_automerge.errors import RewardError
from lib_automerge.reward import backbone
from lib_automerge.reward.clip import Clip
from lib_automerge.reward.clip_files import read_clip
from lib_automerge.reward.torchscript import is_program, read_program
from tests.contracts.reward import sample_images
from tests.reward.tiny_clip import (
    AESTHETIC,
    COSINE,
    TINY_LAION,
    TINY_OPENAI,
    TinyClipScore,
    TinyHpsV2,
    TinyPickScore,
    as_open_clip,
    random_encoder,
    random_head,
    write_program,
    write_tiny,
)

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "clip.json").read_text(encoding="utf-8")
)
PROMPTS: list[str] = GOLDEN["prompts"]
# Writing programs is deprecated in torch; reading those that were published is not our choice.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
EVERY = (*COSINE, *AESTHETIC)

Tensors = dict[str, Tensor]


def openai_extras(tensors: Tensors) -> Tensors:
    """What OpenAI's files hold beside the weights."""
    numbers = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    return {**tensors, **{key: torch.tensor(value) for key, value in numbers.items()}}


def with_prefix(tensors: Tensors) -> Tensors:
    """As training on several GPUs leaves it."""
    return {f"module.{key}": tensor for key, tensor in tensors.items()}


def with_positions(tensors: Tensors) -> Tensors:
    """As older versions of transformers save it."""
    positions = torch.arange(77)[None]
    return {
        **tensors,
        "text_model.embeddings.position_ids": positions,
        "vision_model.embeddings.position_ids": positions,
    }


def write_pt(tensors: Any, path: Path) -> Path:
    torch.save(tensors, path)
    return path


def write_safetensors(tensors: Tensors, path: Path) -> Path:
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    return path


LAYOUTS: dict[str, Callable[[Tensors, Path], Path]] = {
    "open_clip.safetensors": lambda t, f: write_safetensors(as_open_clip(t), f / "a.safetensors"),
    "open_clip.bin": lambda t, f: write_pt(as_open_clip(t), f / "a.bin"),
    "checkpoint.pt": lambda t, f: write_pt(
        {"epoch": 1, "state_dict": with_prefix(as_open_clip(t))}, f / "a.pt"
    ),
    "openai program": lambda t, f: write_program(openai_extras(as_open_clip(t)), f / "a.pt"),
    "openai state dict": lambda t, f: write_pt(openai_extras(as_open_clip(t)), f / "a.pt"),
    "hugging_face.safetensors": lambda t, f: write_safetensors(t, f / "a.safetensors"),
    "hugging_face.bin": lambda t, f: write_pt(with_positions(t), f / "pytorch_model.bin"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cls", [TinyClipScore, TinyHpsV2, TinyPickScore])
def test_every_layout_scores_the_same(layout: str, cls: Any, tmp_path: Path) -> None:
    path = LAYOUTS[layout](random_encoder(cls.sizes), tmp_path)
    reward = cls(path, device="cpu")
    scores = reward.score(sample_images(), [PROMPTS[0]] * 5)
    assert scores == pytest.approx(GOLDEN["scores"][cls.name][0], abs=1e-5)
    reward.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_holds_the_same_bits(layout: str, tmp_path: Path) -> None:
    tensors = random_encoder(TINY_OPENAI)
    read = read_clip(LAYOUTS[layout](tensors, tmp_path))
    assert all(torch.equal(read[key], tensor) for key, tensor in tensors.items())


def test_half_precision_files_are_widened(tmp_path: Path) -> None:
    tensors = {key: t.half() for key, t in as_open_clip(random_encoder(TINY_OPENAI)).items()}
    reward = TinyClipScore(write_program(tensors, tmp_path / "ViT-L-14.pt"), device="cpu")
    scores = reward.score(sample_images(), [PROMPTS[0]] * 5)
    assert scores == pytest.approx(GOLDEN["scores"]["clip_score"][0], abs=1e-3)
    assert reward._backbone is not None
    assert {p.dtype for p in reward._backbone._loaded().parameters()} == {torch.float32}
    reward.close()


@pytest.mark.parametrize("layout", ["open_clip.bin", "openai program", "hugging_face.bin"])
def test_tensors_are_mapped_not_copied(layout: str, tmp_path: Path) -> None:
    path = LAYOUTS[layout](random_encoder(TINY_OPENAI), tmp_path)
    read = read_clip(path)
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no list of mapped files on this system")
    assert str(path) in maps.read_text()
    ranges = [
        tuple(int(end, 16) for end in line.split(" ")[0].split("-"))
        for line in maps.read_text().splitlines()
        if line.endswith(str(path))
    ]
    big = [t for t in read.values() if t.numel() > 1000]
    assert len(big) > 20
    assert all(any(low <= t.data_ptr() < high for low, high in ranges) for t in big)


# Programs.


def test_a_program_is_told_from_other_archives(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(2)}
    assert is_program(write_program(tensors, tmp_path / "program.pt"))
    assert not is_program(write_pt(tensors, tmp_path / "plain.pt"))
    assert not is_program(write_safetensors(tensors, tmp_path / "a.safetensors"))
    assert not is_program(tmp_path / "missing.pt")


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool],
)
def test_a_program_s_tensors_are_read_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {
        "a.b.c": torch.arange(12).reshape(3, 4).to(dtype),
        "a.d": torch.tensor(1).to(dtype),
        "e": torch.zeros(0, 3, dtype=dtype),
    }
    read = read_program(write_program(tensors, tmp_path / "a.pt"))
    assert {key: (t.dtype, t.tolist()) for key, t in read.items()} == {
        key: (t.dtype, t.tolist()) for key, t in tensors.items()
    }


def test_a_traced_program_reads_as_torch_loads_it(tmp_path: Path) -> None:
    class Towers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = torch.nn.MultiheadAttention(8, 2)
            self.norm = torch.nn.LayerNorm(8)
            self.register_buffer("size", torch.tensor(224))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.norm(self.block(x, x, x)[0])
            return out

    path = tmp_path / "traced.pt"
    torch.jit.save(torch.jit.trace(Towers().eval(), torch.zeros(3, 1, 8)), str(path))
    expected = torch.jit.load(str(path)).state_dict()
    read = read_program(path)
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[key], tensor) for key, tensor in expected.items())


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def program_of(description: bytes, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", description)
        archive.writestr("a/constants.pkl", pickle.dumps(()))
    return path


def test_code_in_a_program_is_not_run(tmp_path: Path) -> None:
    path = program_of(pickle.dumps({"a": Trap(tmp_path / "sprung")}), tmp_path / "a.pt")
    with pytest.raises(RewardError, match=r"holds more than tensors.*asks for \w+\.mkdir.*safeten"):
        TinyClipScore(path, device="cpu")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval",
        "builtins getattr",
        "os system",
        "torch load",
        "torch._utils _rebuild_tensor",
        "torch.storage _load_from_bytes",
        "torch.jit._pickle build_other",
        "__torch__evil x",
    ],
)
def test_a_program_may_not_name_anything_else(name: str, tmp_path: Path) -> None:
    module, function = name.split()
    description = f"c{module}\n{function}\n.".encode()
    with pytest.raises(RewardError, match="holds more than tensors"):
        read_program(program_of(description, tmp_path / "a.pt"))


def test_a_program_s_own_code_is_not_looked_at(tmp_path: Path) -> None:
    tensors = openai_extras(as_open_clip(random_encoder(TINY_OPENAI)))
    path = write_program(tensors, tmp_path / "a.pt")
    other = tmp_path / "b.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for entry in old.infolist():
            code = entry.filename.endswith(".py")
            new.writestr(entry.filename, b"nonsense(" if code else old.read(entry))
    with pytest.raises(RuntimeError):
        torch.jit.load(str(other))
    assert read_clip(other).keys() == read_clip(path).keys()


@pytest.mark.parametrize(
    "tensor",
    [
        # a storage of 4 numbers: too many, the same one too often, from too far, with too long a
        # step, with a negative size
        "0, (100,), (1,)",
        "0, (1 << 40,), (0,)",
        "3, (2,), (1,)",
        "0, (2,), (100,)",
        "0, (-1,), (1,)",
    ],
)
def test_a_program_s_tensor_stays_inside_its_storage(tensor: str, tmp_path: Path) -> None:
    offset, shape, stride = eval(f"({tensor})")

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if obj is storage else None

    class Tensorish:
        def __reduce__(self) -> Any:
            rebuild = torch._utils._rebuild_tensor_v2
            return rebuild, (storage, offset, shape, stride, False, None)

    storage = object()
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(Tensorish())
    path = program_of(buffer.getvalue(), tmp_path / "a.pt")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/data/0", b"\0" * 16)
    with pytest.raises(RewardError, match=r"a\.pt"):
        read_program(path)


def test_a_damaged_program_is_refused(tmp_path: Path) -> None:
    path = write_program(as_open_clip(random_encoder(TINY_OPENAI)), tmp_path / "a.pt")
    other = tmp_path / "b.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith("data/3"):
                new.writestr(entry.filename, old.read(entry))
    with pytest.raises(RewardError, match=r"cannot be read: .*b\.pt.*ownload it again"):
        TinyClipScore(other, device="cpu")


# Wrong files: each reward refuses each of them, for its encoder and for its head.


def spoil_nothing_there(good: Path) -> Path:
    return good.with_name("nothing.pt")


def spoil_empty(good: Path) -> Path:
    path = good.with_name(f"empty{good.suffix}")
    path.write_bytes(b"")
    return path


def spoil_truncated(good: Path) -> Path:
    path = good.with_name(f"cut{good.suffix}")
    path.write_bytes(good.read_bytes()[: good.stat().st_size * 2 // 3])
    return path


def spoil_renamed(good: Path) -> Path:
    """The other kind of file under this name."""
    suffix = ".pt" if good.suffix == ".safetensors" else ".safetensors"
    path = good.with_name(f"renamed{suffix}")
    path.write_bytes(good.read_bytes())
    return path


def spoil_text(good: Path) -> Path:
    """A page that says that the file is not there."""
    path = good.with_name(f"page{good.suffix}")
    path.write_text("<!DOCTYPE html><html>Not found</html>" * 100)
    return path


def spoil_another_model(good: Path) -> Path:
    return write_pt({"a.weight": torch.zeros(3, 3)}, good.with_name("another.pt"))


def spoil_no_tensors(good: Path) -> Path:
    return write_pt({}, good.with_name("none.pt"))


def spoil_not_a_dictionary(good: Path) -> Path:
    return write_pt([1, 2], good.with_name("list.pt"))


def spoil_code(good: Path) -> Path:
    return write_pt({"a": Trap(good.with_name("sprung"))}, good.with_name("trap.pt"))


def spoil_plain_pickle(good: Path) -> Path:
    path = good.with_name("plain.pt")
    path.write_bytes(pickle.dumps({"a": Trap(good.with_name("sprung"))}))
    return path


def spoil_folder(good: Path) -> Path:
    path = good.with_name("folder.safetensors")
    path.mkdir()
    return path


SPOILS = (
    spoil_nothing_there,
    spoil_empty,
    spoil_truncated,
    spoil_renamed,
    spoil_text,
    spoil_another_model,
    spoil_no_tensors,
    spoil_not_a_dictionary,
    spoil_code,
    spoil_plain_pickle,
    spoil_folder,
)


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__[6:])
@pytest.mark.parametrize("name", EVERY)
def test_a_wrong_file_is_refused_in_a_sentence(
    name: str, spoil: Callable[[Path], Path], tmp_path: Path
) -> None:
    cls: Any = {**COSINE, **AESTHETIC}[name]
    files = write_tiny(name, tmp_path)
    before = dict(backbone._open)
    for position, good in enumerate(files):
        bad = spoil(good)
        with pytest.raises(RewardError) as caught:
            cls(*files[:position], bad, *files[position + 1 :], device="cpu")
        text = str(caught.value)
        assert str(bad) in text
        assert text.endswith(".")
        assert "\n" not in text
        assert backbone._open == before
        if bad.is_file():
            bad.unlink()
        elif bad.is_dir():
            bad.rmdir()
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", EVERY)
def test_a_file_of_another_architecture_is_refused(name: str, tmp_path: Path) -> None:
    cls: Any = {**COSINE, **AESTHETIC}[name]
    files = write_tiny(name, tmp_path)
    other = TINY_LAION if cls.sizes == TINY_OPENAI else TINY_OPENAI
    bad = write_safetensors(random_encoder(other), tmp_path / "other.safetensors")
    with pytest.raises(RewardError, match=r"another structure: .*other\.safetensors"):
        cls(*files[:-1], bad, device="cpu")


@pytest.mark.parametrize("name", AESTHETIC)
def test_a_head_of_another_reward_is_refused(name: str, tmp_path: Path) -> None:
    wrong = "laion_v1" if name != "laion_v1" else "laion_v2"
    _, encoder = write_tiny(name, tmp_path)
    bad = write_pt(random_head(wrong), tmp_path / "wrong.pth")
    with pytest.raises(RewardError, match=r"another structure: .*wrong\.pth: missing"):
        AESTHETIC[name](bad, encoder, device="cpu")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "lost", ["text_model.final_layer_norm.bias", "vision_model.encoder.layers.1.mlp.fc1.weight"]
)
def test_a_missing_tensor_is_named(layout: str, lost: str, tmp_path: Path) -> None:
    tensors = random_encoder(TINY_OPENAI)
    del tensors[lost]
    path = LAYOUTS[layout](tensors, tmp_path)
    with pytest.raises(RewardError, match=f"missing '{lost}'. ") as caught:
        TinyClipScore(path, device="cpu")
    assert str(path) in str(caught.value)


def test_a_missing_joined_matrix_is_missing_three_times(tmp_path: Path) -> None:
    tensors = as_open_clip(random_encoder(TINY_OPENAI))
    del tensors["visual.transformer.resblocks.1.attn.in_proj_weight"]
    with pytest.raises(RewardError, match=r"missing 'vision_model\.encoder\.layers\.1\..* 2 more"):
        TinyClipScore(write_pt(tensors, tmp_path / "a.pt"), device="cpu")


def test_a_missing_last_layer_is_not_a_smaller_model(tmp_path: Path) -> None:
    tensors = {k: v for k, v in random_encoder(TINY_OPENAI).items() if "layers.1." not in k}
    with pytest.raises(RewardError, match=r"missing .* and 31 more"):
        TinyClipScore(write_pt(tensors, tmp_path / "a.pt"), device="cpu")


@pytest.mark.parametrize("key", ["visual.extra", "transformer.resblocks.2.ln_1.bias", "bias"])
def test_an_unexpected_tensor_is_named(key: str, tmp_path: Path) -> None:
    tensors = {**as_open_clip(random_encoder(TINY_OPENAI)), key: torch.zeros(1)}
    with pytest.raises(RewardError, match="unexpected '"):
        TinyClipScore(write_pt(tensors, tmp_path / "a.pt"), device="cpu")


def test_nothing_is_left_of_a_head_whose_encoder_is_refused(tmp_path: Path) -> None:
    head, encoder = write_tiny("laion_v2", tmp_path)
    with pytest.raises(RewardError):
        AESTHETIC["laion_v2"](head, spoil_truncated(encoder), device="cpu")
    reward = AESTHETIC["laion_v2"](head, encoder, device="cpu")
    assert reward.score(sample_images(), [""] * 5) == pytest.approx(
        GOLDEN["scores"]["laion_v2"][0], abs=1e-5
    )
    reward.close()


def test_the_layout_is_that_of_the_network(tmp_path: Path) -> None:
    with torch.device("meta"):
        expected = Clip(TINY_OPENAI).state_dict()
    read = read_clip(write_pt(as_open_clip(random_encoder(TINY_OPENAI)), tmp_path / "a.pt"))
    assert {k: tuple(t.shape) for k, t in read.items()} == {
        k: tuple(t.shape) for k, t in expected.items()
    }
