"""Everything that can be wrong with a run, found before anything is loaded or written."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from lib_automerge.app import earlier, searched
from lib_automerge.app.ports import Host
from lib_automerge.domain import architectures
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.candidate import recipe_of
from lib_automerge.domain.config import RunConfig, check_config
from lib_automerge.domain.detection import SMALL_FLOATS
from lib_automerge.domain.events import GIVEN, Origin
from lib_automerge.domain.payload import Payload, named
from lib_automerge.domain.recipe import ModelRef, Recipe, parents, primary
from lib_automerge.domain.run import Evaluation
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.generate.base import Generator
from lib_automerge.merge.inspection import scan
from lib_automerge.merge.live import LiveMerger
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from lib_automerge.search import proposers, rejection
from lib_automerge.search.randomness import generator as randomness


@contextlib.contextmanager
def open_models(paths: Mapping[str, str]) -> Iterator[dict[str, Checkpoint]]:
    """Open the checkpoints of a run; they close with the context.

    Raises:
        ModelError: one cannot be used, or two roles name the same file.
    """
    with contextlib.ExitStack() as stack:
        models: dict[str, Checkpoint] = {}
        for role, path in paths.items():
            for other, known in models.items():
                if _same_file(Path(path), known.path):
                    raise ModelError(
                        f"models {other!r} and {role!r} are the same file: {path}. "
                        "Choose two different checkpoints."
                    )
            models[role] = stack.enter_context(open_checkpoint(Path(path)))
        yield models


def _same_file(one: Path, two: Path) -> bool:
    try:
        return one.samefile(two)
    except OSError:
        return False


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration that can run: with all seeds and names filled in, and what was found out.

    `sources` are what its warm start names.
    """

    config: RunConfig
    models: dict[str, ModelRef]
    distances: dict[str, float]
    sources: tuple[earlier.Source, ...] = ()


def check_models(config: RunConfig, models: Mapping[str, Checkpoint], generator: Generator) -> None:
    """Check by their headers that models can be merged, and that the result makes images.

    Raises:
        ConfigError: a role of the method has no model, or its parameters are wrong.
        ModelError: they do not fit together, the generator makes no images of their family, or
            their weights are too coarse to be searched.
    """
    loaded = with_first(models)
    architecture = architectures.get(loaded["a"].detection.architecture)
    searched.check(config, architecture)
    LiveMerger(loaded).effects(_example(config, models, architecture))
    generator.check(loaded["a"])
    for model in models.values():
        architecture = architectures.get(model.detection.architecture)
        stored = {
            model.header.tensors[name].dtype
            for key, name in model.detection.keys.items()
            if architecture.block_of(key) is not None
        }
        coarse = next(iter(sorted(stored & set(SMALL_FLOATS))), None)
        if coarse is not None:
            raise ModelError(
                f"{model.path.name} stores weights in 8 bits ({coarse}), which rounds away most of "
                "what a search changes. Use its 16-bit version, or convert the file with: "
                "python -m lib_automerge edit FILE -o NEW --dtype fp16"
            )


def with_first(models: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """The models as a generator opens them: "a" is what is loaded, the first of any number."""
    return {**models, "a": models[primary(models)]}


def _example(
    config: RunConfig, models: Mapping[str, Checkpoint], architecture: Architecture
) -> Recipe:
    """Any candidate of a run: all of them ask for the same models, blocks and parameters."""
    space = searched.space(config, architecture)
    named = space.weights(space.low + 0.5 * (space.high - space.low))
    candidate = Evaluation(number=len(GIVEN), origin=Origin.SEARCH, weights=named)
    refs = {role: ModelRef(model.name) for role, model in models.items()}
    return recipe_of(candidate, config, refs, architecture)


def check_run(
    config: RunConfig, models: Mapping[str, Checkpoint], host: Host, generator: Generator
) -> Checked:
    """Check a configuration against its open models, and fill in what it leaves open.

    Raises:
        ConfigError: settings that are unknown, out of range or contradict each other.
        ModelError: models that do not fit together, are equal, or hold NaN or infinite values.
    """
    _check_output(config)
    check_models(config, models, generator)
    first = primary(models)
    architecture = architectures.get(models[first].detection.architecture)
    check_settings(config, architecture)
    sources = earlier.read(config.search.warm_start, architecture)
    payloads = with_seeds(named(config.payloads), config)
    for payload in payloads:
        host.check_payload(payload)
    digests = {role: checkpoint.sha256() for role, checkpoint in models.items()}
    for role in models:
        twin = next((r for r in models if r < role and digests[r] == digests[role]), None)
        if twin is not None:
            raise ModelError(
                f"models {twin!r} and {role!r} have the same content: {models[role].path}. "
                "Choose two different checkpoints."
            )
    scans = {
        role: scan(models[first], models[role], architecture.blocks)
        for role in models
        if role != first
    }
    others = [scans[role] for role in parents(config.method, models) if role != first]
    distances = _apart(others)
    if not any(distances.get(name) for name in architecture.blocks):
        names = " and ".join(model.name for model in models.values())
        raise ModelError(
            f"{names} hold the same weights in every block. There is nothing to search; choose "
            "different checkpoints."
        )
    return Checked(
        config=msgspec.structs.replace(config, payloads=payloads),
        models={
            role: ModelRef(checkpoint.name, digests[role], str(checkpoint.path.absolute()))
            for role, checkpoint in models.items()
        },
        distances=distances,
        sources=sources,
    )


def _apart(distances: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """How far models are from the first one per block: the root mean square over them."""
    if len(distances) == 1:
        return dict(distances[0])
    blocks = dict.fromkeys(block for each in distances for block in each)
    count = len(distances)
    return {
        block: math.sqrt(math.fsum(each.get(block, 0.0) ** 2 for each in distances) / count)
        for block in blocks
    }


def _check_output(config: RunConfig) -> None:
    """A checkpoint that cannot be written must be known before the night, not after it."""
    if config.output.path is None or config.output.checkpoint == "never":
        return
    path = Path(config.output.path)
    try:
        exists = path.exists()
    except OSError as error:
        raise ConfigError(f"output.path cannot be used: {path}: {error.strerror}.") from error
    if exists:
        raise ConfigError(
            f"output.path exists already: {path}. Choose another name or move it away."
        )
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}. Create it or change output.path.")


def check_settings(config: RunConfig, architecture: Architecture) -> None:
    """Check what a configuration says about method and search; reads no model.

    Raises:
        ConfigError: settings that are unknown, out of range or contradict each other.
    """
    check_config(config)
    searched.check(config, architecture)
    prompts = sum(not payload.held_out for payload in config.payloads)
    if config.search.early_reject and prompts <= rejection.FEWEST_PAYLOADS:
        raise ConfigError(
            f"search.early_reject needs more than {rejection.FEWEST_PAYLOADS} prompts in the "
            f"search: there are {prompts}. Add prompts, or switch it off."
        )
    space = searched.space(config, architecture)
    for weights in config.search.start:
        space.point(weights)
    proposers.create(
        config.search.optimizer,
        space,
        seed=config.search.seed,
        coarse_first=config.search.coarse_first,
    )


def with_seeds(payloads: tuple[Payload, ...], config: RunConfig) -> tuple[Payload, ...]:
    """Give the search's payloads seeds where they have none, from the run's seed."""
    result = []
    for index, payload in enumerate(payloads):
        if not payload.seeds and not payload.held_out:
            seeds = fresh_seeds(config, "search seeds", index, config.search.seeds_per_payload)
            payload = msgspec.structs.replace(payload, seeds=seeds)
        result.append(payload)
    return tuple(result)


def fresh_seeds(
    config: RunConfig, purpose: str, index: int, count: int, used: tuple[int, ...] = ()
) -> tuple[int, ...]:
    """`count` image seeds for the `index`-th payload that are not among `used`."""
    random = randomness(config.search.seed, purpose, index)
    seeds: list[int] = []
    while len(seeds) < count:
        seed = int(random.integers(0, 2**32))
        if seed not in used and seed not in seeds:
            seeds.append(seed)
    return tuple(seeds)


def baseline_weights(
    architecture: Architecture, distances: Mapping[str, float], weight: float
) -> dict[str, float]:
    """The weights that make all of A (0), all of B (1) or their uniform merge.

    Blocks in which the models do not differ are left at 0: it makes no difference to the model
    and keeps the baselines inside a search space that leaves those blocks alone.
    """
    return {name: weight if distances.get(name) else 0.0 for name in architecture.blocks}


def check_unchanged(recorded: Mapping[str, ModelRef], models: Mapping[str, Checkpoint]) -> None:
    """Raise ConfigError unless the open models are the ones that a run began with."""
    for role, ref in recorded.items():
        found = models[role].sha256()
        if found != ref.sha256:
            raise ConfigError(
                f"model {role!r} has changed since the run began: {ref.path} has SHA-256 "
                f"{found[:12]}..., it was {ref.sha256[:12]}.... Restore the file, or start a new "
                "run."
            )
