"""The checks before Start can be pressed: quick, complete, each with what to do.

They read headers, not weights: hashes, NaN values and distances take minutes and are checked when
the run starts (`app.preflight.check_run`).
"""

from __future__ import annotations

import contextlib
import enum
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from lib_automerge.app import blind, earlier, wildcards
from lib_automerge.app.estimate import images_in_stage, images_per_evaluation
from lib_automerge.app.ports import Catalogue, Host
from lib_automerge.app.preflight import check_models, check_settings, open_models
from lib_automerge.domain import architectures
from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import Stage
from lib_automerge.domain.human import expected_questions
from lib_automerge.domain.payload import named
from lib_automerge.errors import AutomergeError, StorageError
from lib_automerge.merge.readers import Checkpoint
from lib_automerge.reward import registry
from lib_automerge.reward.files import FOLDER
from lib_automerge.study.formats import listed, plural, size

BYTES_PER_PIXEL = 1.5
"""What a saved picture takes, generously: PNG of photographic content."""

LOW_DISK = 5 << 30
FEW_PROMPTS = 4


class Level(str, enum.Enum):
    """What a finding means for Start."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Check(msgspec.Struct, frozen=True):
    """One finding: a short subject ("Models"), and a sentence that says what to do."""

    level: Level
    subject: str
    text: str


class Preflight(msgspec.Struct, frozen=True, kw_only=True):
    """All findings; `ready` if none of them is an error. `architecture` is None if unknown."""

    checks: tuple[Check, ...]
    architecture: str | None

    @property
    def ready(self) -> bool:
        """Whether a run of this configuration can be started."""
        return all(check.level is not Level.ERROR for check in self.checks)


def preflight(
    config: RunConfig, host: Host, catalogue: Catalogue, *, free_space: int, root: Path
) -> Preflight:
    """Look at everything that can be wrong with a configuration without loading anything."""
    checks: list[Check] = []
    architecture: str | None = None
    with _reported(checks, "Payloads"):
        config, _ = wildcards.expand(config, catalogue.wildcards)
    with contextlib.ExitStack() as stack:
        models: Mapping[str, Checkpoint] = {}
        with _reported(checks, "Models"):
            models = stack.enter_context(open_models(config.models))
            _models(config, models, host, checks)
            architecture = models["a"].detection.architecture
        with _reported(checks, "Search"):
            if architecture is not None:
                check_settings(config, architectures.get(architecture))
                _warm_start(config, architecture, checks)
        _payloads(config, host, checks)
        _reward(config, catalogue, checks)
        _disk(config, models, catalogue, free_space, root, checks)
    checks += [Check(Level.WARNING, "Host", text) for text in catalogue.notices()]
    return Preflight(checks=tuple(checks), architecture=architecture)


@contextlib.contextmanager
def _reported(checks: list[Check], subject: str) -> Iterator[None]:
    """What goes wrong inside becomes a finding instead of ending the checks."""
    try:
        yield
    except AutomergeError as error:
        checks.append(Check(Level.ERROR, subject, str(error)))


def _models(
    config: RunConfig, models: Mapping[str, Checkpoint], host: Host, checks: list[Check]
) -> None:
    check_models(config, models, host.generator(config.generator))
    found = architectures.get(models["a"].detection.architecture)
    searched = len(found.parameters)
    checks.append(Check(Level.OK, "Models", f"{found.label}: {searched} blocks can be searched."))


def _warm_start(config: RunConfig, architecture: str, checks: list[Check]) -> None:
    sources = earlier.read(config.search.warm_start, architectures.get(architecture))
    found = [f"{plural(len(source.recipes), 'recipe')} of {source.name}" for source in sources]
    if found:
        checks.append(Check(Level.OK, "Warm start", f"{listed(found)}."))


def _payloads(config: RunConfig, host: Host, checks: list[Check]) -> None:
    with _reported(checks, "Payloads"):
        payloads = named(config.payloads)
        for payload in payloads:
            host.check_payload(payload)
        searched = [p for p in payloads if not p.held_out]
        held_out = len(payloads) - len(searched)
        each = images_per_evaluation(config)
        checks.append(
            Check(
                Level.OK,
                "Payloads",
                f"{plural(len(searched), 'prompt')}, {plural(each, 'image')} for each candidate, "
                f"{plural(held_out, 'held-out prompt')} for the verdict.",
            )
        )
        if 0 < len(searched) < FEW_PROMPTS:
            checks.append(
                Check(
                    Level.WARNING,
                    "Payloads",
                    f"the search has only {plural(len(searched), 'prompt')}: the winner may be "
                    "good at nothing else. Use eight or more.",
                )
            )
        silent = [payload.name for payload in payloads if not payload.judged_prompt.strip()]
        if silent:
            checks.append(
                Check(
                    Level.WARNING,
                    "Payloads",
                    f"rewards read nothing of {listed(silent)}: the prompt is empty once its "
                    "syntax is removed. Write what they are to read into its score prompt.",
                )
            )
        if not held_out:
            checks.append(
                Check(
                    Level.WARNING,
                    "Payloads",
                    "no prompt is held out: the verdict can only use fresh seeds of the same "
                    "prompts. Mark a few as held out.",
                )
            )


def _reward(config: RunConfig, catalogue: Catalogue, checks: list[Check]) -> None:
    for member in config.reward.judges:
        with _reported(checks, "Reward"):
            folders = [catalogue.data / FOLDER]
            told = registry.readiness(member.name, member.options, folders=folders)
            checks.append(Check(Level.OK, "Reward", told))
    with _reported(checks, "Reward"):
        _human(config, checks)


def _human(config: RunConfig, checks: list[Check]) -> None:
    human = config.reward.human
    if human is None:
        return
    asked = plural(expected_questions(human, config.search.evaluations), "question")
    told = f"You judge: the run waits for you after every candidate, {asked} at most."
    checks.append(Check(Level.OK, "Reward", f"{told} Leave the tab open, or come back to it."))
    if human.alone:
        checks.append(_choices(config))


def _choices(config: RunConfig) -> Check:
    """Of a run that nobody but the user judges: how its winner is proved."""
    images = images_in_stage(config, Stage.VERDICT)
    most = blind.planned(images)
    if most:
        told = f"After the search, {most} blind choices at most tell whether the merge is better."
        if images < most:
            told += f" Pictures of the merge come again, as there are only {images} unseen ones."
        return Check(Level.OK, "Reward", told)
    told = (
        f"{plural(images, 'image')} of each model are too few for a verdict by choices: the merge "
        "that you like most is found, and nothing proved. Hold more prompts out."
    )
    return Check(Level.WARNING, "Reward", told)


def _disk(
    config: RunConfig,
    models: Mapping[str, Checkpoint],
    catalogue: Catalogue,
    free_space: int,
    root: Path,
    checks: list[Check],
) -> None:
    searched = [p for p in config.payloads if not p.held_out]
    pixels = sum(
        p.width * p.height * (len(p.seeds) or config.search.seeds_per_payload) for p in searched
    )
    needed = int(config.search.evaluations * pixels * BYTES_PER_PIXEL)
    told = f"{size(free_space)} are free in {root}, the run needs at most {size(needed)}."
    if needed > free_space:
        level, told = Level.ERROR, f"{told} Free some space, or search with fewer images."
    elif free_space - needed < LOW_DISK:
        level, told = Level.WARNING, f"{told} That is tight."
    else:
        level = Level.OK
    checks.append(Check(level, "Disk", told))
    if config.output.checkpoint != "never" and models:
        _check_checkpoint_folder(models["a"], catalogue, checks)


def _check_checkpoint_folder(
    model_a: Checkpoint, catalogue: Catalogue, checks: list[Check]
) -> None:
    """The merged checkpoint is written in the morning; that it cannot be is told in the evening."""
    with _reported(checks, "Disk"):
        folder = catalogue.checkpoint_folder(model_a.path)
        advice = "Free some space there, or choose not to save a checkpoint under When finished."
        if not os.access(folder, os.W_OK):
            raise StorageError(f"checkpoints cannot be written to {folder}. {advice}")
        free, needed = shutil.disk_usage(folder).free, model_a.path.stat().st_size
        if free < needed:
            raise StorageError(
                f"{size(free)} are free in {folder}, the checkpoint needs {size(needed)}. {advice}"
            )
