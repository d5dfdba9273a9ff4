"""Which tensors of several models go together, and what to do where they differ."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.recipe import OnMismatch
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge.lab.job import Task
from lib_automerge.merge.lab.number_types import FLOATS
from lib_automerge.merge.lab.sources import Source

_LISTED = 5


class Mismatch(msgspec.Struct, frozen=True):
    """A trained tensor of one model that does not go with the first model's.

    Attributes:
        key: its canonical name.
        model: the number of the model among all.
        told: what differs, in words.
        lacking: whether the first model lacks it.
    """

    key: str
    model: int
    told: str
    lacking: bool = False


def mismatches(sources: Sequence[Source], architecture: Architecture) -> tuple[Mismatch, ...]:
    """Return every trained tensor that is not in all models with one shape, in order."""
    first = sources[0]
    trained = {key for key in first.entries if architecture.has_block(key)}
    found = []
    for number, source in enumerate(sources[1:], 1):
        for key in sorted(trained | set(source.entries)):
            if key not in trained and not architecture.has_block(key):
                continue
            one, two = first.entries.get(key), source.entries.get(key)
            if one is None:
                told = f"is in {source.name}, not in {first.name}"
                found.append(Mismatch(key, number, told, lacking=True))
            elif two is None:
                found.append(Mismatch(key, number, f"is in {first.name}, not in {source.name}"))
            elif one.shape != two.shape:
                shapes = f"{list(one.shape)} in {first.name}, {list(two.shape)} in {source.name}"
                found.append(Mismatch(key, number, f"is {shapes}"))
    return tuple(found)


def check_policy(found: Sequence[Mismatch], policy: OnMismatch, *, based: bool) -> None:
    """Raise if mismatches are not wanted, or cannot be treated as asked.

    Raises:
        ModelError: there are some and the policy is to refuse; lists the first five.
        ModelError: they shall be filled from a base that lacks them too.
        ConfigError: they shall be filled from a base that the method does not have.
    """
    if policy == "fill-base" and not based:
        raise ConfigError(
            "--on-mismatch fill-base needs a method with a base. Use keep-a or another method."
        )
    if found and policy == "refuse":
        raise ModelError(
            f"the models differ in {_listed(found)}. Use models of one kind, "
            "or choose --on-mismatch keep-a (the first model's) or fill-base."
        )
    lacking = [each for each in found if each.lacking]
    if lacking and policy == "fill-base":
        raise ModelError(
            f"the base cannot fill what it lacks itself, {_listed(lacking)}. Use a complete base, "
            "or --on-mismatch keep-a, which leaves such tensors out."
        )


def _listed(found: Sequence[Mismatch]) -> str:
    """How many tensors there are, and the first of them."""
    keys = len({each.key for each in found})
    listed = "; ".join(f"{each.key!r} {each.told}" for each in found[:_LISTED])
    more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return f"{_counted(keys)}: {listed}{more}"


def _counted(keys: int) -> str:
    return f"{keys} tensor" if keys == 1 else f"{keys} tensors"


def plan(
    sources: Sequence[Source],
    architecture: Architecture,
    found: Sequence[Mismatch],
    policy: OnMismatch,
    number_type: str | None,
) -> tuple[Task, ...]:
    """Return what to do for every tensor of the first model, which are those of the result.

    Args:
        sources: all models.
        architecture: theirs.
        found: where they differ.
        policy: not "refuse", if anything was found.
        number_type: of all floating point tensors that are merged; None keeps the first model's.
    """
    lacking: dict[str, set[int]] = {}
    for each in found:
        lacking.setdefault(each.key, set()).add(each.model)
    everything = tuple(range(len(sources)))
    tasks = []
    for key, entry in sources[0].entries.items():
        block = architecture.block_of(key)
        stored = entry.number_type
        # schedules and the like are not weights: 8 bits would ruin them
        if number_type is not None and stored in FLOATS and block is not None:
            stored = number_type
        kept = block is None or (key in lacking and policy == "keep-a")
        members = tuple(0 if model in lacking.get(key, ()) else model for model in everything)
        tasks.append(
            Task(key, block, stored, members=() if kept else members, copied=0 if kept else None)
        )
    return tuple(tasks)


def notes(
    sources: Sequence[Source], found: Sequence[Mismatch], policy: OnMismatch
) -> tuple[str, ...]:
    """Return what was done about mismatches and what is not in the result, in sentences."""
    first = sources[0]
    told = []
    unlike = len({each.key for each in found if not each.lacking})
    if unlike:
        done = "the base's stand in where one is missing or of another shape"
        done = done if policy == "fill-base" else f"those of {first.name} are kept"
        told.append(f"{_counted(unlike)} of {first.name} are not alike in all models: {done}.")
    left = sorted({key for each in sources[1:] for key in each.entries} - set(first.entries))
    if left:
        named = ", ".join(left[:_LISTED])
        more = f" and {len(left) - _LISTED} more" if len(left) > _LISTED else ""
        told.append(f"{first.name} lacks what others have, so it is left out: {named}{more}.")
    return tuple(told)
