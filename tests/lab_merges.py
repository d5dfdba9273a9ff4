"""Small real files merged by the lab's engine, for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_automerge.merge.containers import read_safetensors_header
from lib_automerge.merge.lab import catalogue
from lib_automerge.merge.lab.engine import run
from lib_automerge.merge.lab.job import Job, Task
from lib_automerge.merge.lab.number_types import NUMBER_TYPES
from lib_automerge.merge.lab.output import Output
from lib_automerge.merge.lab.parameters import Settings
from lib_automerge.merge.lab.sources import Entry, FileSource
from lib_automerge.merge.sinks import FileLayout

Array = NDArray[np.float64]

PLAIN = tuple(name for name in catalogue.names() if catalogue.get(name).before is None)
"""Methods that can merge any tensors; the others must know the family's layers first, and have
tests of their own."""


def write(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write tensors as safetensors."""
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def source(path: Path) -> FileSource:
    """Open a file as a source, by the keys that it has."""
    header = read_safetensors_header(path)
    return FileSource(
        path,
        {key: Entry(info.dtype, info.shape, info.start) for key, info in header.tensors.items()},
    )


def merge_to(
    output: Path,
    method: str,
    paths: Sequence[Path],
    parameters: Mapping[str, Any] | None = None,
    *,
    number_type: str | None = "F64",
    zero_bad: bool = False,
    resume: bool = False,
    **options: Any,
) -> Path:
    """Merge files, the base first; every tensor belongs to the block "X"."""
    found = catalogue.get(method)
    sources = tuple(source(path) for path in paths)
    roles = catalogue.roles_for(found, len(paths) - found.based)
    settings = Settings(
        method, found.parameters, parameters or {}, blocks=("X",), roles=roles[found.based :]
    )
    found.check(settings.at("X"))
    everything = tuple(range(len(sources)))
    tasks = tuple(
        Task(key, "X", number_type or entry.number_type, members=everything)
        for key, entry in sources[0].entries.items()
    )
    shapes = {
        task.key: (NUMBER_TYPES[task.number_type], sources[0].entries[task.key].shape)
        for task in tasks
    }
    job = Job(found, settings, sources, roles, tasks, zero_bad)
    try:
        with Output(output, FileLayout(shapes, {}), "test", resume=resume) as opened:
            run(job, opened, **options)
    finally:
        for each in sources:
            each.close()
    return output


def merged(
    folder: Path,
    method: str,
    models: Sequence[Mapping[str, Tensor]],
    parameters: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Tensor]:
    """Write models, merge them and return what was stored."""
    paths = [write(folder / f"in{n}.safetensors", model) for n, model in enumerate(models)]
    output = folder / "out.safetensors"
    output.unlink(missing_ok=True)
    return load_file(merge_to(output, method, paths, parameters, **options))


def merged_array(
    folder: Path,
    method: str,
    arrays: Sequence[Array],
    parameters: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    key: str = "w",
    **options: Any,
) -> Array:
    """Merge one tensor given as arrays; returns float64 unless the output is stored otherwise."""
    models = [{key: torch.tensor(array, dtype=dtype)} for array in arrays]
    stored = merged(folder, method, models, parameters, **options)[key]
    result: Array = stored.to(torch.float64).numpy()
    return result


def random_models(
    count: int, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, seed: int = 0
) -> list[dict[str, Tensor]]:
    """A base and fine-tunes of it: small changes, many of them the same in size."""
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: tuple[int, ...], scale: float) -> Tensor:
        return torch.randn(shape, generator=generator).mul_(scale)

    base = {key: normal(shape, 0.05) for key, shape in shapes.items()}
    tuned = [
        {key: value + normal(tuple(value.shape), 0.004) for key, value in base.items()}
        for _ in range(count - 1)
    ]
    models = [base, *tuned]
    return [{key: value.to(dtype) for key, value in model.items()} for model in models]


Reference = Callable[[Sequence[Array], Mapping[str, Any]], Array]
