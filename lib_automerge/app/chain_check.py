"""Everything that can be wrong with a chain, found before anything is written."""

from __future__ import annotations

import contextlib
import glob
import itertools
import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from lib_automerge.app.chain_plan import chain_jobs
from lib_automerge.app.ports import Host
from lib_automerge.app.preflight import check_models, check_settings
from lib_automerge.app.service import versions
from lib_automerge.domain import architectures
from lib_automerge.domain.chain import (
    POOL,
    ChainConfig,
    MergeStep,
    RankStep,
    SearchStep,
    Step,
    TreeStep,
    check_chain,
    is_winner_name,
    named_by,
)
from lib_automerge.domain.chain_events import Purpose
from lib_automerge.domain.detection import check_mergeable
from lib_automerge.domain.payload import named
from lib_automerge.domain.recipe import ModelRef
from lib_automerge.errors import ConfigError, ModelError, StorageError, unknown_name
from lib_automerge.generate.base import Generator
from lib_automerge.merge.containers import container
from lib_automerge.merge.lab.recipes import check_recipe, recipe_for
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from lib_automerge.reward import panel
from lib_automerge.study.chain_store import ChainManifest, Member

ENDINGS = (".safetensors", ".ckpt")
_GLOB = frozenset("*?[")


def check(config: ChainConfig, host: Host) -> tuple[ChainManifest, tuple[str, ...]]:
    """Check a chain against its pool; returns what is frozen, and what the user should know.

    Raises:
        AutomergeError: something is wrong; says what, and in which step.
    """
    config = msgspec.structs.replace(config, payloads=named(config.payloads))
    check_chain(config)
    if config.shows:
        for payload in config.payloads:
            host.check_payload(payload)
    files = _files(config.pool)
    names = _names(files, config.steps)
    _check_references(config, names)
    generator = host.generator(config.generator) if config.shows else None
    fingerprint = {} if generator is None else generator.fingerprint()
    if "threads" in fingerprint:
        # how a matrix product is cut decides its last bits: a resumed chain cuts it alike
        threads = int(fingerprint["threads"])
        frozen = msgspec.structs.replace(config.generator, threads=threads)
        config = msgspec.structs.replace(config, generator=frozen)
    with contextlib.ExitStack() as stack:
        models = [stack.enter_context(open_checkpoint(path)) for path in files]
        found = {n: (m.header, m.detection) for n, m in zip(names, models, strict=True)}
        notes = check_mergeable(found)
        _check_models(config, names, models, generator)
        pool = _frozen(names, models)
        architecture = models[0].detection.architecture
    reward = ""
    if config.scores:
        _check_counts(config)
        with closing(panel.assemble(config.reward, host.reward)) as judges:
            reward = judges.fingerprint
    manifest = ChainManifest(
        config=config,
        pool=pool,
        architecture=architecture,
        reward=reward,
        generator=fingerprint,
        versions=versions(),
    )
    return manifest, tuple(dict.fromkeys(notes))


def _files(entries: Sequence[str]) -> list[Path]:
    """The files that a pool names: files, the checkpoints of a folder, or what a glob finds."""
    files: list[Path] = []
    for entry in entries:
        path = Path(entry)
        try:
            if path.is_dir():
                found = sorted(p for p in path.iterdir() if p.suffix.lower() in ENDINGS)
            elif path.is_file() or not _GLOB & set(entry):
                found = [path]
            else:
                hits = sorted(map(Path, glob.glob(entry, recursive=True)))  # noqa: PTH207
                found = [p for p in hits if p.is_file() and p.suffix.lower() in ENDINGS]
        except OSError as error:
            raise StorageError(
                f"cannot look into {path}: {error.strerror}. Check the pool and its permissions."
            ) from error
        if not found:
            raise ConfigError(
                f"there is no checkpoint in {entry!r}. The pool needs files that end in "
                ".safetensors (or .ckpt)."
            )
        files += found
    twice = next((p for n, p in enumerate(files) if any(_same(p, q) for q in files[:n])), None)
    if twice is not None:
        raise ConfigError(f"the pool has a file twice: {twice}. Name every file once.")
    if len(files) < 2:
        raise ConfigError(
            f"the pool has {len(files)} model: {files[0]}. A chain needs two or more."
        )
    return files


def _same(one: Path, two: Path) -> bool:
    try:
        return one.samefile(two)
    except OSError:
        return one == two


def _names(files: Sequence[Path], steps: Sequence[Step]) -> list[str]:
    """The models' names: those of their files, with the folder where that is taken."""
    names: list[str] = []
    taken = {step.name.casefold() for step in steps} | {POOL}
    for path in files:
        first = (path.stem, f"{path.absolute().parent.name}/{path.stem}")
        options = itertools.chain(first, (f"{path.stem} ({n})" for n in itertools.count(2)))
        free = (o for o in options if o.casefold() not in taken and not is_winner_name(o, steps))
        name = next(free)
        taken.add(name.casefold())
        names.append(name)
    return names


def _check_references(config: ChainConfig, names: Sequence[str]) -> None:
    steps = [step.name for step in config.steps]
    known = [*names, *steps, POOL]
    for step in config.steps:
        for name in named_by(step):
            if name not in known:
                told = unknown_name("model or step", name, known)
                raise ConfigError(f"step {step.name!r}: {told}")
    for step in config.steps:
        counts = [_count(name, config, names) for name in named_by(step)]
        if isinstance(step, TreeStep) and sum(counts) < 2:
            raise ConfigError(f"step {step.name!r}: a tree needs two models or more.")


def _count(name: str, config: ChainConfig, names: Sequence[str]) -> int:
    """How many models a name stands for at most."""
    if name == POOL:
        return len(names)
    for step in config.steps:
        if step.name == name and isinstance(step, RankStep):
            within = sum(_count(part, config, names) for part in step.models)
            return min(step.keep, within)
    return 1


def _check_models(
    config: ChainConfig,
    names: Sequence[str],
    models: Sequence[Checkpoint],
    generator: Generator | None,
) -> None:
    """Check every step by the models' headers."""
    architecture = architectures.get(models[0].detection.architecture)
    if generator is not None:
        for model in models:
            generator.check(model)
    for step in config.steps:
        try:
            if isinstance(step, MergeStep):
                _check_merge(step, config, names, models, architecture.name)
            elif isinstance(step, SearchStep | TreeStep):
                assert generator is not None
                roles = ["a", "b", *(["c"] if isinstance(step, SearchStep) and step.c else [])]
                run = config.run(dict.fromkeys(roles, ""), step)
                check_settings(run, architecture)
                for model in models[1:]:
                    others = {"a": models[0], "b": model, "c": models[0]}
                    check_models(run, {role: others[role] for role in roles}, generator)
        except ConfigError as error:
            raise ConfigError(f"step {step.name!r}: {error}") from error


def _check_merge(
    step: MergeStep,
    config: ChainConfig,
    names: Sequence[str],
    models: Sequence[Checkpoint],
    architecture: str,
) -> None:
    total = sum(_count(name, config, names) for name in step.models)
    refs = [ModelRef(f"model {number}") for number in range(total)]
    base = None if step.base is None else ModelRef(step.base)
    recipe = recipe_for(
        step.method, refs, base, step.parameters, architecture=architecture, dtype=step.dtype
    )
    check_recipe(recipe)
    wanted = {*named_by(step)}
    for name, model in zip(names, models, strict=True):
        if {name, POOL} & wanted and container(model.path) != "safetensors":
            raise ModelError(
                f"step {step.name!r}: {model.path} is not a safetensors file, and the merge lab "
                "reads only those. Save it as safetensors first."
            )


def _frozen(names: Sequence[str], models: Sequence[Checkpoint]) -> tuple[Member, ...]:
    """The pool with the models' SHA-256; reads every file once."""
    pool: list[Member] = []
    for name, model in zip(names, models, strict=True):
        digest = model.sha256()
        twin = next((member for member in pool if member.ref.sha256 == digest), None)
        if twin is not None:
            raise ModelError(
                f"{twin.ref.path} and {model.path} have the same content. Name only one of them."
            )
        ref = ModelRef(model.path.stem, digest, str(model.path.absolute()))
        numbers = sum(math.prod(info.shape) for info in model.header.tensors.values())
        pool.append(Member(name, ref, model.path.stat().st_size, numbers))
    return tuple(pool)


def _check_counts(config: ChainConfig) -> None:
    images = len(chain_jobs(config, Purpose.RANK))
    if images < 2:
        raise ConfigError(
            f"a model would be ranked by {images} image. Raise rank_seeds, or add held-out "
            "payloads."
        )
