"""How far the models of a pool are apart: all pairs, in one pass over their files.

Every file is read once, a piece of every model at a time, in the order of the first file; so memory
depends on the number of models alone, never on their size. Sums are in float64 over fixed pieces,
in a fixed order. Models are compared by their difference from one of them, and those that are far
closer to each other by their own difference, so that distances of close relatives keep their
digits; models that hold the same values are at distance 0 exactly.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from lib_automerge.domain import architectures
from lib_automerge.domain.architectures import Architecture
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge.readers import DTYPES, Checkpoint, open_checkpoint

PIECE = 1 << 15
"""Elements of one model that are read at once: 13 MB in all for 50 models."""

Matrix = NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Called with bytes read so far and bytes to read."""


class Apart(msgspec.Struct, frozen=True):
    """All pairs of a pool in one block or component.

    Attributes:
        parameters: how many numbers of each model were compared.
        l2: row and column per model: the Euclidean distance; symmetric, 0 on the diagonal.
        cosine: the cosine between the models' differences from the base, or between the models
            themselves if there is no base. NaN for a model without any difference or weight, whose
            direction is not defined.
    """

    parameters: int
    l2: Matrix
    cosine: Matrix


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about a pool.

    Attributes:
        files: in the order of rows and columns; the base, if there is one, is the first.
        architecture: the family of all of them.
        based: whether the first file is the base that cosines are relative to.
        components: denoiser, every text encoder, VAE and `all`, as far as every file holds them.
        blocks: every block that all files hold, in canonical order.
        left_out: weights that some file lacks or holds in another shape, which no sum contains.
    """

    files: tuple[Path, ...]
    architecture: str
    based: bool
    components: dict[str, Apart]
    blocks: dict[str, Apart]
    left_out: tuple[str, ...]


_CLOSE = 1e-4
"""Share of two models' squared distances from the first below which theirs is summed directly: the
difference of dot products would lose more than four of sixteen digits."""


class _Sums:
    """Dot products of all pairs in one block, squared distances, and which models are equal so far.

    Args:
        count: of the models.
    """

    def __init__(self, count: int) -> None:
        self.parameters = 0
        self.squares = torch.zeros(count, count, dtype=torch.float64)
        self.gram = torch.zeros(count + 1, count + 1, dtype=torch.float64)
        self.twins = [0] * count  # model -> the first that holds the same values

    def add(self, rows: Tensor) -> None:
        """Add a piece: each model's difference from the first, and the first one's own values."""
        self.parameters += rows.shape[1]
        gram = rows @ rows.T
        self.gram += gram
        self.squares += self._squares(rows, gram)
        self._split(rows)

    def _squares(self, rows: Tensor, gram: Tensor) -> Tensor:
        """Return the squared distances of all pairs in this piece; 0 below the diagonal."""
        count = len(self.twins)
        norms = gram.diagonal()[:count]
        both = norms[:, None] + norms[None, :]
        squares = (both - 2.0 * gram[:count, :count]).clamp_(min=0.0).triu_(1)
        close = (squares < _CLOSE * both).triu_(1)
        for model in close.any(dim=1).nonzero().flatten().tolist():
            others = close[model].nonzero().flatten()
            gaps = rows[others] - rows[model]
            squares[model, others] = gaps.square_().sum(dim=1)
        return squares

    def _split(self, rows: Tensor) -> None:
        """Part models that were equal so far and differ in this piece."""
        leaders: dict[int, list[int]] = {}
        for model, twin in enumerate(self.twins):
            for leader in leaders.setdefault(twin, []):
                if torch.equal(rows[model], rows[leader]):
                    self.twins[model] = leader
                    break
            else:
                leaders[twin].append(model)
                self.twins[model] = model


def sampled(files: Sequence[Path], count: int, seed: int) -> list[Path]:
    """Return `count` of the files, drawn at random; the same ones for the same seed and names.

    The order in which the files are given plays no part.

    Raises:
        ConfigError: there are fewer files, or fewer than two are asked for; the seed is negative.
    """
    if seed < 0:
        raise ConfigError(f"the seed is {seed}. Use a whole number from 0.")
    if not 2 <= count <= len(files):
        raise ConfigError(
            f"cannot draw {count} of {len(files)} files. Ask for 2 to {len(files)} of them."
        )
    ordered = sorted(files)
    drawn = np.random.default_rng(seed).permutation(len(ordered))[:count]
    return [ordered[index] for index in sorted(drawn)]


def without(files: Sequence[Path], base: Path | None) -> list[Path]:
    """Return the files that are not the base, by whatever name it is called there."""
    return [path for path in files if base is None or _identity(path) != _identity(base)]


def _check_once(paths: Sequence[Path]) -> None:
    """Raise ConfigError if two of the paths lead to one file."""
    known: dict[object, Path] = {}
    for path in paths:
        found = _identity(path)
        first = known.get(found)
        known[found] = path
        if first is not None:
            names = str(path) if first == path else f"{first} and {path}"
            raise ConfigError(f"a file is named twice: {names}. Name every file once.")


def _identity(path: Path) -> object:
    """What is the same for all names of a file."""
    try:
        status = path.stat()
    except OSError:  # opening it says why
        return path.absolute()
    return status.st_dev, status.st_ino


def pool_distances(
    files: Sequence[Path], *, base: Path | None = None, progress: Progress | None = None
) -> Pool:
    """Return the distances of all pairs of models.

    Args:
        files: checkpoints of one family.
        base: the model they were all trained from; it becomes the first of the pool.
        progress: called after every weight.

    Raises:
        ConfigError: fewer than two files, or one is named twice.
        ModelError: a file cannot be used, is of another family, or holds NaN or infinite values,
            or such whose squares are.
    """
    paths = [*([] if base is None else [base]), *without(files, base)]
    if len(paths) < 2:
        raise ConfigError(f"{len(paths)} file has no distance. Give two files or more.")
    _check_once(paths)
    with contextlib.ExitStack() as stack:
        models = [stack.enter_context(open_checkpoint(path)) for path in paths]
        architecture = _common_family(models)
        readers = [stack.enter_context(_Reader(model)) for model in models]
        keys, left_out = _common_keys(models, architecture)
        # One thread: products of small pieces wait longer for threads than they compute, and how
        # threads cut a product decides its last bits.
        stack.enter_context(threadpool_limits(1))
        sums = _sums(models, readers, architecture, keys, progress)
    return Pool(
        files=tuple(paths),
        architecture=architecture.name,
        based=base is not None,
        components={
            name: _apart([sums[block] for block in blocks], based=base is not None)
            for name, blocks in _components(architecture, sums).items()
        },
        blocks={
            block: _apart([sums[block]], based=base is not None)
            for block in architecture.blocks
            if block in sums
        },
        left_out=left_out,
    )


def _common_family(models: Sequence[Checkpoint]) -> Architecture:
    first = models[0].detection.architecture
    for model in models:
        if model.detection.architecture != first:
            labels = [architectures.get(m.detection.architecture).label for m in (models[0], model)]
            raise ModelError(
                f"models of different families: {models[0].path.name} is {labels[0]}, "
                f"{model.path.name} is {labels[1]}. Choose models of one family."
            )
    return architectures.get(first)


def _common_keys(
    models: Sequence[Checkpoint], architecture: Architecture
) -> tuple[list[str], tuple[str, ...]]:
    """Return the weights that all models hold in one shape, in the first file's order."""
    held: list[Mapping[str, tuple[int, ...]]] = [
        {
            key: model.header.tensors[name].shape
            for key, name in model.detection.keys.items()
            if architecture.block_of(key) is not None
        }
        for model in models
    ]
    common = {
        key for key, shape in held[0].items() if all(other.get(key) == shape for other in held[1:])
    }
    first = models[0]

    def position(key: str) -> tuple[int, str]:
        return first.header.tensors[first.detection.keys[key]].start, key

    everything = {key for keys in held for key in keys}
    return sorted(common, key=position), tuple(sorted(everything - common))


class _Reader:
    """Reads ranges of a model's weights; keeps nothing of them in memory."""

    def __init__(self, model: Checkpoint) -> None:
        self.model = model
        self._plain = model.path.suffix == ".safetensors"
        self._buffer = bytearray(PIECE * 8)

    def __enter__(self) -> _Reader:
        self._file = self.model.path.open("rb", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, key: str, start: int, out: Tensor) -> None:
        """Write the elements of a weight from `start` into the flat `out`, as float64."""
        if not self._plain:
            out.copy_(self.model.tensor(key).reshape(-1)[start : start + out.numel()])
            return
        info = self.model.header.tensors[self.model.detection.keys[key]]
        dtype = DTYPES[info.dtype]
        view = memoryview(self._buffer)[: out.numel() * dtype.itemsize]
        self._file.seek(info.start + start * dtype.itemsize)
        done = 0
        while done < len(view):
            count = self._file.readinto(view[done:])
            if not count:
                raise ModelError(
                    f"{self.model.path.name}: it ended while it was read. Do not change files "
                    "that are being compared."
                )
            done += count
        out.copy_(torch.frombuffer(view, dtype=dtype))


def _sums(
    models: Sequence[Checkpoint],
    readers: Sequence[_Reader],
    architecture: Architecture,
    keys: Sequence[str],
    progress: Progress | None,
) -> dict[str, _Sums]:
    """Go through all weights once."""
    count = len(models)
    rows = torch.empty(count + 1, PIECE, dtype=torch.float64)
    sums: dict[str, _Sums] = {}
    sizes = [_bytes(models, key) for key in keys]
    done = 0
    for key, size in zip(keys, sizes, strict=True):
        block = architecture.block_of(key)
        assert block is not None
        found = sums.setdefault(block, _Sums(count))
        for start, stop in _ranges(models[0], key):
            piece = rows[:, : stop - start]
            for row, reader in zip(piece, readers, strict=False):
                reader.read(key, start, row)
            if not piece[:count].sum().isfinite():
                _refuse(models, key, piece)
            piece[count] = piece[0]
            piece[:count] -= piece[count]
            found.add(piece)
        if not found.gram.isfinite().all():
            raise ModelError(_too_large(models, key))
        done += size
        if progress is not None:
            progress(done, sum(sizes))
    return sums


def _ranges(model: Checkpoint, key: str) -> Iterator[tuple[int, int]]:
    size = math.prod(model.header.tensors[model.detection.keys[key]].shape)
    for start in range(0, size, PIECE):
        yield start, min(start + PIECE, size)


def _bytes(models: Sequence[Checkpoint], key: str) -> int:
    infos = [model.header.tensors[model.detection.keys[key]] for model in models]
    return sum(info.end - info.start for info in infos)


def _refuse(models: Sequence[Checkpoint], key: str, piece: Tensor) -> None:
    for model, row in zip(models, piece, strict=False):
        if not row.isfinite().all():
            raise ModelError(
                f"{model.path.name}: it holds NaN or infinite values: first in {key!r}. "
                "The model is broken; leave it out of the pool."
            )


def _too_large(models: Sequence[Checkpoint], key: str) -> str:
    largest = {model.path.name: model.tensor(key).double().abs().max().item() for model in models}
    name = max(largest, key=lambda model: largest[model])
    return (
        f"{name}: {key!r} holds {largest[name]:.1g}, which is no weight of a trained model and too "
        "large to be compared. The model is broken; leave it out of the pool."
    )


def _components(architecture: Architecture, sums: Mapping[str, _Sums]) -> dict[str, list[str]]:
    groups = {architecture.denoiser: architecture.parameters}
    groups |= {f"text encoder {name}": (name,) for name in architecture.text_encoders}
    groups |= {name: (name,) for name in architecture.vae} | {"all": architecture.blocks}
    present = {name: [b for b in blocks if b in sums] for name, blocks in groups.items()}
    return {name: blocks for name, blocks in present.items() if blocks}


def _apart(sums: Sequence[_Sums], *, based: bool) -> Apart:
    """Turn dot products into distances; see `Apart`."""
    gram = torch.stack([part.gram for part in sums]).sum(0).numpy()
    count = len(gram) - 1
    deltas, along, own = gram[:count, :count], gram[:count, count], gram[count, count]
    squares = torch.stack([part.squares for part in sums]).sum(0).numpy()
    squares = squares + squares.T
    equal = np.ones((count, count), dtype=bool)
    for part in sums:
        twins = np.asarray(part.twins)
        equal &= twins[:, None] == twins[None, :]
    dots = deltas if based else deltas + along[:, None] + along[None, :] + own
    lengths = np.sqrt(np.maximum(np.diag(dots), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = dots / np.outer(lengths, lengths)
    cosine = np.clip((cosine + cosine.T) / 2.0, -1.0, 1.0)
    cosine[equal & (lengths[:, None] > 0.0)] = 1.0
    return Apart(
        parameters=sum(part.parameters for part in sums),
        l2=np.where(equal, 0.0, np.sqrt(squares)),
        cosine=cosine,
    )
