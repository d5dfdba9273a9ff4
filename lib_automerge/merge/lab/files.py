"""Recipes of the merge lab: models and parameters in, a checkpoint out."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import lib_automerge
from lib_automerge.domain import architectures
from lib_automerge.domain.detection import Detection, Header, check_mergeable
from lib_automerge.domain.recipe import BASE, OnMismatch, Recipe, policies, recipe_json
from lib_automerge.errors import CancelledError, ConfigError, ModelError
from lib_automerge.merge import methods as searched
from lib_automerge.merge.containers import container
from lib_automerge.merge.edits import EDITED_MERGE, Edits, edited_metadata
from lib_automerge.merge.lab import catalogue, components, matching
from lib_automerge.merge.lab.budget import DEFAULT, own_memory
from lib_automerge.merge.lab.engine import run
from lib_automerge.merge.lab.job import Job, Listener, Progress, Task
from lib_automerge.merge.lab.methods import LabMethod, Preparation
from lib_automerge.merge.lab.number_types import NUMBER_TYPES, output_type
from lib_automerge.merge.lab.output import Output
from lib_automerge.merge.lab.parameters import Given, Settings
from lib_automerge.merge.lab.sources import Entry, FileSource, Stamp, stamp_of
from lib_automerge.merge.lab.stack import CHUNK
from lib_automerge.merge.metadata import merged_metadata
from lib_automerge.merge.recorded import open_recorded
from lib_automerge.merge.sinks import FileLayout


class LabOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a merge of the lab is carried out; only the policies decide bytes, and are recorded.

    Attributes:
        memory: cap for the whole process, in bytes; None is 2 GiB besides what it holds already.
        threads: tensors that are merged at once; None is one for each core, up to 4.
        chunk: elements that are combined at once.
        on_mismatch: what to do where tensors are missing or of another shape; None does what the
            recipe says, another value takes its place in the recipe.
        zero_bad: take NaN and infinite numbers as 0, or refuse them; None likewise.
        resume: go on with what a cancelled merge has kept.
        cache: folder for what takes long to find, such as the order of channels; it is found there
            again. None keeps nothing.
        progress: told of every step.
        cancelled: asked all the time; the merge ends with CancelledError.
        tell: told of what the user should know, in sentences.
    """

    memory: int | None = None
    threads: int | None = None
    chunk: int = CHUNK
    on_mismatch: OnMismatch | None = None
    zero_bad: bool | None = None
    resume: bool = False
    cache: Path | None = None
    progress: Listener = lambda _progress: None
    cancelled: Callable[[], bool] = lambda: False
    tell: Callable[[str], None] = lambda _sentence: None


def is_lab(recipe: Recipe) -> bool:
    """Whether a recipe is for the lab: computed in fp64, or by a method that only the lab has."""
    return recipe.precision == "fp64" or recipe.method not in searched.METHODS


def write_lab(
    recipe: Recipe,
    output: Path,
    *,
    dtype: str | None = None,
    options: LabOptions = LabOptions(),  # noqa: B008 -- frozen
    edits: Edits = Edits(),  # noqa: B008 -- frozen
) -> tuple[str, ...]:
    """Write the merge of a checked recipe; see `merge_files`.

    Returns:
        What the edits did, in words.

    Raises:
        ConfigError: the recipe's method, models, parameters or blocks are wrong.
        ModelError: a model is missing, changed, damaged or does not fit.
        StorageError: the output exists or cannot be written.
        CancelledError: the options cancelled the merge; tells what was kept.
    """
    # as it will be read from the file: 0 and 0.0 are two texts for one weight
    recipe = msgspec.convert(msgspec.to_builtins(_with_policies(recipe, options)), Recipe)
    method = catalogue.get(recipe.method)
    roles = roles_of(recipe, method)
    number_type = None if dtype is None else output_type(dtype)
    threads = min(os.cpu_count() or 1, 4) if options.threads is None else options.threads
    memory = own_memory() + DEFAULT if options.memory is None else options.memory
    with contextlib.ExitStack() as stack:
        models = _Models(recipe, roles, stack, options.cancelled)
        job, found = job_of(recipe, models.sources, models.architecture, number_type)
        # 3 and 3.0 are one value, and must give the same bytes
        parameters = {name: job.settings.given[name] for name in recipe.parameters}
        complete = msgspec.structs.replace(models.recipe, parameters=parameters)
        metadata = merged_metadata(complete, models.metadata)
        told: tuple[str, ...] = ()
        if edits != Edits():
            job, done = components.edited(job, edits, models.detection, stack)
            metadata, told = edited_metadata(metadata, EDITED_MERGE, done), done.told
        layout = _layout(job, metadata)
        digest = _digest(complete, layout)
        opened = Output(output, layout, digest, resume=options.resume)
        with opened:
            if opened.replaced:
                options.tell("The unfinished file of an earlier merge was replaced.")
            bad = run(
                prepared(job, models.architecture, options, {}, memory=memory, threads=threads),
                opened,
                memory=memory,
                threads=threads,
                chunk=options.chunk,
                progress=options.progress,
                cancelled=options.cancelled,
            )
    for sentence in matching.notes(models.sources, found, recipe.on_mismatch):
        options.tell(sentence)
    for each in bad:
        options.tell(f"{each.model}: NaN or infinite numbers in {each.key} were taken as 0.")
    return told


def _with_policies(recipe: Recipe, options: LabOptions) -> Recipe:
    """The recipe with the policies of the options, which says so where it had others."""
    given = {"on_mismatch": recipe.on_mismatch, "on_nan": recipe.on_nan}
    if options.on_mismatch is not None:
        given["on_mismatch"] = options.on_mismatch
    if options.zero_bad is not None:
        given["on_nan"] = "zero" if options.zero_bad else "refuse"
    for name, said in policies(recipe).items():
        if given[name] != said:
            options.tell(f"The recipe's {name} is {said}; {given[name]} takes its place.")
    return msgspec.structs.replace(recipe, **given)


class _Models:
    """The models of a recipe, opened and known to be of one kind.

    Attributes:
        sources: in the order of roles.
        recipe: with every model's SHA-256.
        architecture: the name of theirs.
        detection: of the first model.
        metadata: of the first model's file.
    """

    def __init__(
        self,
        recipe: Recipe,
        roles: tuple[str, ...],
        stack: contextlib.ExitStack,
        cancelled: Callable[[], bool],
    ) -> None:
        sources: list[FileSource] = []
        refs = dict(recipe.models)
        first: tuple[str, Header, Detection] | None = None
        for role in roles:
            if cancelled():
                raise CancelledError("the merge was cancelled before it wrote anything.")
            if recipe.models[role].path:
                check_container(Path(recipe.models[role].path))
            # what is recorded, what is checked and what is merged must be the same bytes
            since = stamp_of(Path(refs[role].path)) if refs[role].path else None
            with open_recorded(recipe.models[role]) as model:
                refs[role] = msgspec.structs.replace(refs[role], sha256=model.sha256())
                source = source_of(model.path, model.header, model.detection, since)
                stack.callback(source.close)
                sources.append(source)
                if first is None:
                    first = model.path.name, model.header, model.detection
                else:
                    check_kinds(first, (model.path.name, model.header, model.detection))
        assert first is not None
        self.sources = tuple(sources)
        self.recipe = msgspec.structs.replace(recipe, models=refs)
        self.architecture = first[2].architecture
        self.detection = first[2]
        self.metadata: Mapping[str, str] = first[1].metadata
        if self.architecture != recipe.architecture:
            raise ModelError(
                f"the recipe is for {recipe.architecture}, but {first[0]} is "
                f"{self.architecture}. Point to the models that the recipe names."
            )


def roles_of(recipe: Recipe, method: LabMethod) -> tuple[str, ...]:
    """Return the roles of a recipe's models in the order in which a method takes them.

    Raises:
        ConfigError: the method takes other models.
    """
    models = [role for role in recipe.models if role != BASE]
    based = BASE in recipe.models
    if based != method.based:
        told = "a base" if based else "no base"
        raise ConfigError(f"{method.name} takes {method.takes}; {told} was given.")
    roles = catalogue.roles_for(method, len(models))
    if set(roles) != set(recipe.models):
        raise ConfigError(
            f"{method.name} takes {method.takes}; the recipe has {sorted(recipe.models)}."
        )
    return roles


def job_of(
    recipe: Recipe,
    sources: tuple[FileSource, ...],
    kind: str,
    number_type: str | None = None,
) -> tuple[Job, tuple[matching.Mismatch, ...]]:
    """Return what a recipe asks for, and where its models differ in keys or shapes.

    Args:
        recipe: of the lab.
        sources: its models in the order of roles.
        kind: their architecture.
        number_type: of the result; None keeps the first model's.

    Raises:
        ConfigError: the recipe's method, models, parameters or blocks are wrong.
        ModelError: the models do not go together.
    """
    method = catalogue.get(recipe.method)
    architecture = architectures.get(kind)
    found = matching.mismatches(sources, architecture)
    matching.check_policy(found, recipe.on_mismatch, based=method.based)
    roles = roles_of(recipe, method)
    settings = Settings(
        method.name,
        method.parameters,
        _given(recipe, method),
        blocks=architecture.blocks,
        roles=roles[method.based :],
    )
    for block in architecture.blocks:
        method.check(settings.at(block))
    _check_unnamed(recipe, method, settings, architecture.blocks)
    tasks = matching.plan(sources, architecture, found, recipe.on_mismatch, number_type)
    job = Job(method, settings, sources, roles, tasks, recipe.on_nan == "zero")
    return job, found


def prepared(
    job: Job,
    architecture: str,
    options: LabOptions,
    found: MutableMapping[str, Any],
    *,
    memory: int,
    threads: int,
) -> Job:
    """Let the method look at whole models first; its `merge` sees the models that this returns.

    Args:
        job: with open sources.
        architecture: of the models.
        options: of the merge.
        found: see `Preparation`; merges that share it must have the same models and values.
        memory: cap for the whole process, in bytes.
        threads: to use.

    Raises:
        CancelledError: the options cancelled it.
        ConfigError: the memory is too small for it.
        ModelError: the method does not know this family, or a model is damaged.
    """
    before = job.method.before
    if before is None or not any(_is_merged(job, task) for task in job.tasks):
        return job
    begun = time.monotonic()

    def step(done: int, total: int, note: str) -> None:
        options.progress(Progress(done, total, time.monotonic() - begun, note=note))

    preparation = Preparation(
        architecture=architecture,
        values=job.settings.at(None),
        memory=memory,
        threads=threads,
        cache=options.cache,
        zero_bad=job.zero_bad,
        cancelled=options.cancelled,
        step=step,
        tell=options.tell,
        found=found,
    )
    models = len(job.roles)
    seen = tuple(before(job.sources[:models], preparation))
    sources = (*seen[:models], *job.sources[models:], *seen[models:])
    more = tuple(range(len(job.sources), len(sources)))
    tasks = tuple(
        msgspec.structs.replace(task, members=(*task.members, *more)) if task.members else task
        for task in job.tasks
    )
    return msgspec.structs.replace(job, sources=sources, tasks=tasks)


def _is_merged(job: Job, task: Task) -> bool:
    """Whether a tensor is not just one model's."""
    if task.copied is not None:
        return False
    values = job.settings.at(task.block)
    return job.method.identity(values, len(job.roles) - job.method.based) is None


def _given(recipe: Recipe, method: LabMethod) -> Mapping[str, Given]:
    """The parameters, with the recipe's weights in the one that they stand for."""
    if recipe.weights and method.weight is None:
        raise ConfigError(f"{method.name} has no weights by block. Leave out the weights.")
    if recipe.weights and method.weight in recipe.parameters:
        raise ConfigError(
            f"weights and the parameter {method.weight!r} are the same. Give one of them."
        )
    if method.weight is None or method.weight in recipe.parameters:
        return recipe.parameters
    return {**recipe.parameters, method.weight: recipe.weights}


def _check_unnamed(
    recipe: Recipe, method: LabMethod, settings: Settings, blocks: Sequence[str]
) -> None:
    """Raise ConfigError if a block that the weights do not name would not be the first model's."""
    if method.weight is None or method.weight in recipe.parameters:
        return
    for block in blocks:
        values = settings.at(block)
        role = method.identity(values, len(method.roles))
        if block not in recipe.weights and role != method.roles[0]:
            raise ConfigError(
                f"the weights do not name {block}, which is then {method.roles[0].upper()}'s, but "
                f"{method.name} with these parameters changes it. Name every block, or give the "
                f"parameter {method.weight!r} instead of weights."
            )


def check_container(path: Path) -> None:
    """Raise ModelError if a file cannot be read in parts."""
    if container(path) != "safetensors":
        raise ModelError(
            f"{path} is not a safetensors file, and only those can be read in parts, in any "
            "amount of memory. Save it as safetensors first."
        )


def source_of(
    path: Path, header: Header, detection: Detection, since: Stamp | None = None
) -> FileSource:
    """Return a model as the lab reads it; close it.

    Raises:
        ModelError: a number type that cannot be merged, or the file has changed `since`.
    """
    _check_number_types(path, header)
    return FileSource(path, _entries(header, detection), since)


def _check_number_types(path: Path, header: Header) -> None:
    for key, info in header.tensors.items():
        if info.dtype not in NUMBER_TYPES:
            raise ModelError(
                f"{path.name}: {key!r} is stored as {info.dtype}, which cannot be merged. Use the "
                "fp16, bf16 or fp32 version of this model."
            )


def _entries(header: Header, detection: Detection) -> dict[str, Entry]:
    infos = {key: header.tensors[name] for key, name in detection.keys.items()}
    return {key: Entry(info.dtype, info.shape, info.start) for key, info in infos.items()}


def check_kinds(one: tuple[str, Header, Detection], two: tuple[str, Header, Detection]) -> None:
    """Raise ModelError if two models are not of one kind; their keys are compared elsewhere."""
    shared = {
        key: name
        for key, name in two[2].keys.items()
        if key in one[2].keys
        and one[1].tensors[one[2].keys[key]].shape == two[1].tensors[name].shape
    }
    common = {
        one[0]: (one[1], _only(one[2], shared)),
        two[0]: (two[1], _only(two[2], shared)),
    }
    check_mergeable(common)


def _only(detection: Detection, keys: Mapping[str, str]) -> Detection:
    kept = {key: detection.keys[key] for key in keys}
    return msgspec.structs.replace(detection, keys=kept)


def _layout(job: Job, metadata: Mapping[str, str]) -> FileLayout:
    tensors = {
        task.key: (NUMBER_TYPES[task.number_type], job.source_of(task).entries[task.key].shape)
        for task in job.tasks
    }
    return FileLayout(tensors, metadata)


def _digest(recipe: Recipe, layout: FileLayout) -> str:
    """What decides the bytes of a merge: a kept part is of the same one or of no use."""
    digest = hashlib.sha256(recipe_json(recipe).encode())
    digest.update(lib_automerge.__version__.encode())
    digest.update(layout.header)
    return digest.hexdigest()
