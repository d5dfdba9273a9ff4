"""Wildcards and variants in prompts, drawn once for a run: `__animal__`, `{red|blue}`.

Every candidate must meet the same prompts, so they are drawn before a run begins and recorded as
they came out. A prompt without such syntax is never touched. The syntax is that of dynamicprompts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.payload import NETWORK_TAG, Payload
from lib_automerge.errors import ConfigError
from lib_automerge.search.randomness import generator as randomness

WILDCARD = re.compile(r"__(?!_)[^\s{}]+?__")
VARIANTS = re.compile(r"(?<!\\)\{[^{}]*\|[^{}]*\}")

_MARK = "\ue000{}\ue001"
"""Stands for an extra network's tag while the rest of its prompt is drawn."""


def expand(config: RunConfig, folders: Sequence[Path]) -> tuple[RunConfig, tuple[str, ...]]:
    """Draw all wildcards and variants of a run's prompts, by the run's seed.

    The prompts for the reward and for the second pass are drawn like the prompt, so that the same
    choices in them come out the same.

    Args:
        config: the run.
        folders: of wildcard files; where two hold the same name, the first counts.

    Returns:
        The run with prompts as they came out, and a sentence for each that was drawn.

    Raises:
        ConfigError: a wildcard has no file, the syntax is wrong, or dynamicprompts is missing.
    """
    payloads: list[Payload] = []
    notes: list[str] = []
    for index, payload in enumerate(config.payloads):
        name = payload.name or f"p{index + 1:02d}"
        drawn = _expanded(payload, _Draw(config.search.seed, index, name, folders))
        payloads.append(drawn)
        if drawn.prompt != payload.prompt:
            notes.append(f"The prompt {name!r} was drawn as: {drawn.prompt}")
    return msgspec.structs.replace(config, payloads=tuple(payloads)), tuple(notes)


def has_syntax(text: str) -> bool:
    """Whether a prompt holds a wildcard or a variant."""
    plain = NETWORK_TAG.sub("", text)
    return bool(WILDCARD.search(plain) or VARIANTS.search(plain))


class _Draw:
    """Draws the texts of one payload."""

    def __init__(self, seed: int, index: int, name: str, folders: Sequence[Path]) -> None:
        self._seed, self._index, self._name, self._folders = seed, index, name, folders

    def text(self, text: str, purpose: str) -> str:
        """The text as it comes out; the same text of the same purpose comes out the same."""
        if not has_syntax(text):
            return text
        tags: list[str] = []

        def hide(tag: re.Match[str]) -> str:
            tags.append(tag[0])
            return _MARK.format(len(tags) - 1)

        seed = int(randomness(self._seed, purpose, self._index).integers(2**32))
        result = _sampled(NETWORK_TAG.sub(hide, text), seed, self._folders, self._name)
        missing = WILDCARD.search(result)
        if missing is not None:
            where = ", ".join(map(str, self._folders)) or "any folder of wildcards"
            raise ConfigError(
                f"the wildcard {missing[0]} of the prompt {self._name!r} has no file in {where}. "
                f"Add {missing[0].strip('_')}.txt there, or write the prompt without it."
            )
        for number, tag in enumerate(tags):
            result = result.replace(_MARK.format(number), tag)
        return result

    def optional(self, text: str | None, purpose: str) -> str | None:
        """Like `text`; None stays None."""
        return None if text is None else self.text(text, purpose)


def _expanded(payload: Payload, draw: _Draw) -> Payload:
    hires = payload.hires
    if hires is not None:
        hires = msgspec.structs.replace(
            hires,
            prompt=draw.optional(hires.prompt, "wildcards"),
            negative_prompt=draw.optional(hires.negative_prompt, "negative wildcards"),
        )
    return msgspec.structs.replace(
        payload,
        prompt=draw.text(payload.prompt, "wildcards"),
        negative_prompt=draw.text(payload.negative_prompt, "negative wildcards"),
        score_prompt=draw.optional(payload.score_prompt, "wildcards"),
        hires=hires,
    )


def _sampled(template: str, seed: int, folders: Sequence[Path], name: str) -> str:
    try:
        from dynamicprompts.generators import RandomPromptGenerator
        from dynamicprompts.wildcards import WildcardManager
    except ImportError as error:
        raise ConfigError(
            f"the prompt {name!r} has wildcards or variants in it, and the package dynamicprompts "
            "is not installed. Install it, or write the prompt without them."
        ) from error
    # the last of its folders wins
    existing = [folder for folder in reversed(folders) if folder.is_dir()]
    roots: Any = {"": existing}
    manager = WildcardManager(root_map=roots)
    try:
        return str(RandomPromptGenerator(manager, seed=seed).generate(template, 1)[0])
    except Exception as error:
        # its parser raises whatever its grammar's library does
        raise ConfigError(
            f"the wildcards or variants of the prompt {name!r} cannot be read: {error}. Correct "
            "them."
        ) from error
