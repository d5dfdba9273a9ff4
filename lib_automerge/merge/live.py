"""Merges for a model that is loaded: any recipe, and only the blocks that it changes.

Hides whether a recipe is computed as a search always did or by the merge lab, and which of the open
models it means. What is put into a sink has the bits that `merge.files` writes for the recipe.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Hashable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from lib_automerge.domain import architectures
from lib_automerge.domain.detection import Detection, Header
from lib_automerge.domain.recipe import Recipe
from lib_automerge.errors import ConfigError, GenerationError, ModelError
from lib_automerge.merge import methods
from lib_automerge.merge.engine import Merger
from lib_automerge.merge.lab import budget, catalogue
from lib_automerge.merge.lab.engine import run
from lib_automerge.merge.lab.files import (
    LabOptions,
    check_container,
    check_kinds,
    is_lab,
    job_of,
    prepared,
    roles_of,
    source_of,
)
from lib_automerge.merge.lab.job import Job
from lib_automerge.merge.lab.number_types import NUMBER_TYPES, Raw, size_of
from lib_automerge.merge.lab.sources import FileSource, stamp_of
from lib_automerge.merge.readers import Checkpoint
from lib_automerge.merge.sinks import Sink

MEMORY = 1 << 30
"""Bytes that a merge of the lab may use besides what the process holds already."""

THREADS = 2
"""Tensors that the lab merges at once; more would take the cores that make images."""

Effects = Mapping[str, Hashable]
"""Block -> what decides the weights in it; blocks that are the live model's own are not named."""


def changed(previous: Effects | None, wanted: Effects) -> set[str] | None:
    """The blocks that two merges make different; None, for all, if the first is not known."""
    if previous is None:
        return None
    names = set(previous) | set(wanted)
    return {name for name in names if previous.get(name) != wanted.get(name)}


class _Planned(msgspec.Struct, frozen=True):
    """A recipe of the lab, and what is to be done for it."""

    recipe: Recipe
    job: Job


class LiveMerger:
    """Merges recipes of a fixed set of models, whose first one is loaded.

    Args:
        models: open checkpoints by role; "a" is the loaded one.
        cache: see `LabOptions`.
        tell: told of what the user should know, in sentences.

    Raises:
        ModelError: a file is gone.
    """

    def __init__(
        self,
        models: Mapping[str, Checkpoint],
        cache: Path | None = None,
        tell: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self._models = dict(models)
        # a file that changes in a session would make its later candidates something else
        self._stamps = {model.path: stamp_of(model.path) for model in models.values()}
        self._cache = cache
        self._tell = tell
        self._found: dict[Hashable, dict[str, Any]] = {}
        self._merger: tuple[Hashable, Merger] | None = None
        self._planned: _Planned | None = None

    def effects(self, recipe: Recipe) -> dict[str, Hashable]:
        """What a recipe does to the loaded model.

        Raises:
            ConfigError: it names an unknown method or role.
            GenerationError: its numbers, blocks or parameters are not for the method.
            ModelError: the models do not hold what it asks for, or do not go together.
        """
        if not is_lab(recipe):
            merger = self._plain(recipe)
            merger.check(recipe.weights)
            who = (recipe.method, *self._files(recipe))
            return {block: (*who, weight) for block, weight in recipe.weights.items() if weight}
        job = self._lab(recipe).job
        models = len(job.roles) - job.method.based
        found: dict[str, Hashable] = {}
        for block in {task.block for task in job.tasks if task.block is not None}:
            values = job.settings.at(block)
            if job.method.identity(values, models) != job.roles[0]:
                known = tuple(sorted((name, repr(value)) for name, value in values.items()))
                found[block] = (job.method.name, *self._files(recipe), known)
        return found

    def merge(self, recipe: Recipe, sink: Sink, blocks: Collection[str] | None) -> None:
        """Put the merge of all keys of these blocks (None: of all keys) into the sink.

        Raises:
            ConfigError, ModelError: see `effects`.
            GenerationError: likewise; or the merge overflows the type in which weights are stored,
                or a file has changed.
        """
        if not is_lab(recipe):
            self._plain(recipe).merge(recipe.weights, sink, blocks=blocks)
            return
        job = self._lab(recipe).job
        with contextlib.ExitStack() as stack:
            sources = tuple(self._source(recipe, role, stack) for role in job.roles)
            job = msgspec.structs.replace(job, sources=sources)
            into = _Into(sink, job, blocks)
            try:
                # what the process holds already is the images' and not the lab's
                memory = budget.own_memory() + MEMORY
                run(self._prepared(recipe, job, memory), into, memory=memory, threads=THREADS)
            except ModelError as error:
                raise GenerationError(str(error)) from error

    def _prepared(self, recipe: Recipe, job: Job, memory: int) -> Job:
        """What the method merges once it has looked at whole models: once in a session."""
        values = job.settings.at(None)
        decides = sorted(item for item in values.items() if item[0] != job.method.weight)
        found = self._found.setdefault(
            (job.method.name, *self._files(recipe), job.zero_bad, *decides), {}
        )
        options = LabOptions(cache=self._cache, tell=self._tell)
        kind = self._open(recipe, job.roles[0]).detection.architecture
        return prepared(job, kind, options, found, memory=memory, threads=THREADS)

    def put_first(self, sink: Sink, blocks: Collection[str]) -> None:
        """Put what the loaded model's own file has in these blocks into the sink."""
        model = self._models["a"]
        architecture = architectures.get(model.detection.architecture)
        for key in model.keys():  # noqa: SIM118
            if architecture.block_of(key) in blocks:
                tensor = model.tensor(key)
                target = sink.target(key, tensor.dtype)
                if target is None:
                    sink.put(key, tensor)
                else:
                    target.copy_(tensor)

    def _plain(self, recipe: Recipe) -> Merger:
        methods.check_parameters(recipe.method, recipe.parameters)
        who = (recipe.method, *self._files(recipe))
        if self._merger is None or self._merger[0] != who:
            models = {role: self._open(recipe, role) for role in recipe.models}
            self._merger = (who, Merger(models, recipe.method))
        return self._merger[1]

    def _lab(self, recipe: Recipe) -> _Planned:
        """The job of a recipe, whose sources are closed: it is a plan."""
        recipe = msgspec.structs.replace(recipe, provenance={})
        if self._planned is not None and self._planned.recipe == recipe:
            return self._planned
        roles = roles_of(recipe, catalogue.get(recipe.method))
        first = self._open(recipe, roles[0])
        with contextlib.ExitStack() as stack:
            for role in roles:
                model = self._open(recipe, role)
                check_container(model.path)
                if model is not first:
                    check_kinds(_kind(first), _kind(model))
            sources = tuple(self._source(recipe, role, stack) for role in roles)
            try:
                job, _ = job_of(recipe, sources, first.detection.architecture)
            except ConfigError as error:
                # whatever is wrong with all candidates is known before the first one
                raise GenerationError(str(error)) from error
        self._planned = _Planned(recipe, job)
        return self._planned

    def _source(self, recipe: Recipe, role: str, stack: contextlib.ExitStack) -> FileSource:
        model = self._open(recipe, role)
        since = self._stamps[model.path]
        source = source_of(model.path, model.header, model.detection, since)
        stack.callback(source.close)
        return source

    def _open(self, recipe: Recipe, role: str) -> Checkpoint:
        """The open model that a role of a recipe means.

        Baselines give models other roles than candidates do; the content tells which is meant.
        """
        digest = recipe.models[role].sha256 if role in recipe.models else ""
        own = self._models.get(role)
        if own is not None and (not digest or own.sha256() == digest):
            return own
        for model in self._models.values():
            if digest and model.sha256() == digest:
                return model
        raise ConfigError(
            f"the recipe needs model {role!r}, but only {sorted(self._models)} are open. Open it "
            "with the others."
        )

    def _files(self, recipe: Recipe) -> tuple[str, ...]:
        return tuple(str(self._open(recipe, role).path) for role in sorted(recipe.models))


class _Into:
    """What the lab writes to in place of a file: a sink, tensor by tensor."""

    def __init__(self, sink: Sink, job: Job, blocks: Collection[str] | None) -> None:
        self._sink = sink
        self._tasks = {task.key: task for task in job.tasks}
        self._job = job
        self._open: dict[str, Raw] = {}
        self._turn = threading.Lock()
        self.finished = {
            task.key for task in job.tasks if blocks is not None and task.block not in blocks
        }

    def write(self, key: str, offset: int, raw: Raw) -> None:
        """Take bytes of a tensor."""
        task = self._tasks[key]
        if key not in self._open:
            size = int(np.prod(self._shape(key), dtype=np.int64)) * size_of(task.number_type)
            self._open[key] = np.empty(size, np.uint8)
        self._open[key][offset : offset + raw.size] = raw

    def finish(self, key: str) -> None:
        """Hand a complete tensor over."""
        dtype = NUMBER_TYPES[self._tasks[key].number_type]
        raw = self._open.pop(key, np.empty(0, np.uint8))
        tensor = torch.from_numpy(raw).view(dtype).view(self._shape(key))
        with self._turn:
            self._sink.put(key, tensor)
            self.finished.add(key)

    def _shape(self, key: str) -> tuple[int, ...]:
        return self._job.source_of(self._tasks[key]).entries[key].shape


def _kind(model: Checkpoint) -> tuple[str, Header, Detection]:
    return model.path.name, model.header, model.detection
