"""What `python -m lib_automerge rewards` does: lists rewards, gets their files, checks them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from lib_automerge import reward
from lib_automerge.errors import AutomergeError, ConfigError
from lib_automerge.reward.download import fetch
from lib_automerge.reward.files import WeightFile, in_bytes
from lib_automerge.reward.selftest import selftest as check
from lib_automerge.reward.status import RewardStatus, status, to_download


def statuses(name: str | None, folder: Path) -> list[RewardStatus]:
    """One reward, or all.

    Raises:
        ConfigError: no reward has that name.
    """
    return [status(one, folders=[folder]) for one in _names(name)]


def listed(found: Sequence[RewardStatus]) -> str:
    """The rewards with their readiness and files, for a terminal."""
    lines = []
    for one in found:
        ready = "ready" if one.ready else "not ready"
        lines.append(f"{one.name:16} {ready:10} {one.label}: {one.help}")
        lines += [
            f"    {each.file}: {each.found or f'missing; from {each.file.address}'}"
            for each in one.files
        ]
        if not one.ready and not one.files:
            lines.append(f"    {one.told}")
    return "\n".join(lines)


def download(name: str | None, folder: Path) -> None:
    """Get what a reward lacks, and tell how far that is.

    Raises:
        ConfigError: no reward is named, or none has that name.
        RewardError: a file cannot be had.
    """
    if name is None:
        raise ConfigError("--download needs the name of a reward. Give one of those listed.")
    wanted = to_download(name, [folder])
    if not wanted:
        print(f"{name}: nothing to download.")
    for file in wanted:
        print(f"{file.name} comes from {file.address} ({file.licence}).")
        try:
            path = fetch(file, folder, _Progress(file))
        finally:
            print(file=sys.stderr)
        print(path)


class _Progress:
    """One line of the terminal that is written again with every further per cent."""

    def __init__(self, file: WeightFile) -> None:
        self._name = file.name
        self._shown = -1

    def __call__(self, have: int, size: int) -> None:
        percent = 100 * have // size
        if percent != self._shown:
            self._shown = percent
            told = f"{self._name}: {in_bytes(have)} of {in_bytes(size)}, {percent} %"
            print(f"\r{told:70}", end="", file=sys.stderr, flush=True)


def selftest(name: str | None, folder: Path, device: str | None) -> bool:
    """Load one reward, or all that are ready, and check their scores; tells what it found.

    Returns:
        Whether all that were checked are sound.

    Raises:
        AutomergeError: the one that is named is not ready or not sound.
    """
    if name is not None:
        print(_checked(name, folder, device))
        return True
    sound = True
    for one in statuses(None, folder):
        if not one.ready:
            print(f"{one.name} was not checked: {one.told}")
            continue
        try:
            print(_checked(one.name, folder, device))
        except AutomergeError as error:
            sound = False
            print(f"{one.name} is not sound: {error}", file=sys.stderr)
    return sound


def _checked(name: str, folder: Path, device: str | None) -> str:
    options = {option.name for option in reward.describe(name).options}
    given = {"device": device} if device is not None and "device" in options else {}
    with closing(reward.create(name, folders=[folder], **given)) as judge:
        return check(judge)


def _names(name: str | None) -> list[str]:
    return reward.names() if name is None else [name]
