"""What `python -m lib_automerge rewards` does: lists rewards, gets their files, checks them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from lib_automerge import reward
from lib_automerge.errors import AutomergeError, ConfigError
from lib_automerge.reward.download import fetch
from lib_automerge.reward.files import WeightFile, in_bytes
from lib_automerge.reward.registry import from_text
from lib_automerge.reward.selftest import selftest as check
from lib_automerge.reward.status import RewardStatus, status, to_download


def read_options(name: str | None, written: Sequence[str]) -> dict[str, object]:
    """Options of a reward from "url=http://127.0.0.1:8123" and the like.

    Raises:
        ConfigError: no reward is named or has that name, or one of them is no option of it.
    """
    if name is None and written:
        raise ConfigError(f"{written[0]!r} is an option of which reward? Give its name as well.")
    texts: dict[str, str] = {}
    for text in written:
        option, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"not an option: {text!r}. Write it as NAME=VALUE.")
        texts[option] = value
    return {} if name is None else from_text(name, texts)


def statuses(name: str | None, folder: Path, options: Mapping[str, object]) -> list[RewardStatus]:
    """One reward with these options, or all.

    Raises:
        ConfigError: no reward has that name.
    """
    return [status(one, options, folders=[folder]) for one in _names(name)]


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


def download(name: str | None, folder: Path, options: Mapping[str, object]) -> None:
    """Get what a reward with these options lacks, and tell how far that is.

    Raises:
        ConfigError: no reward is named, or none has that name.
        RewardError: a file cannot be had.
    """
    if name is None:
        raise ConfigError("--download needs the name of a reward. Give one of those listed.")
    wanted = to_download(name, [folder], options)
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


def selftest(
    name: str | None,
    folder: Path,
    device: str | None,
    options: Mapping[str, object],
) -> bool:
    """Load one reward, or all that are ready, and check their scores; tells what it found.

    Args:
        name: the reward; None for all.
        folder: a models folder.
        device: where to compute, if the reward has a choice.
        options: of the one that is named.

    Returns:
        Whether all that were checked are sound.

    Raises:
        AutomergeError: the one that is named is not ready or not sound.
    """
    if name is not None:
        print(_checked(name, folder, device, options))
        return True
    sound = True
    for one in statuses(None, folder, {}):
        if not one.ready:
            print(f"{one.name} was not checked: {one.told}")
            continue
        try:
            print(_checked(one.name, folder, device, {}))
        except AutomergeError as error:
            sound = False
            print(f"{one.name} is not sound: {error}", file=sys.stderr)
    return sound


def _checked(name: str, folder: Path, device: str | None, options: Mapping[str, object]) -> str:
    known = {option.name for option in reward.describe(name).options}
    where = {"device": device} if device is not None and "device" in known else {}
    with closing(reward.create(name, folders=[folder], **{**where, **options})) as judge:
        return check(judge)


def _names(name: str | None) -> list[str]:
    return reward.names() if name is None else [name]
