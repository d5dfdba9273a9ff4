"""What every reward is: a model that maps (image, prompt) to a number, higher is better."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from lib_automerge.errors import RewardError

if TYPE_CHECKING:
    from PIL.Image import Image

# Characters of a prompt in a sentence.
_QUOTED = 100

_log = logging.getLogger(__name__)


class Reward(Protocol):
    """A model that judges images.

    Scores are finite, of any sign and on the reward's own scale: compare them only with scores of
    the same `fingerprint`, and, for rewards that read the prompt, of the same prompt. The same
    image and prompt always get the same score, up to floating-point noise below 1e-4 when they
    are scored in another batch.
    """

    @property
    def name(self) -> str:
        """The name under which the registry knows this reward."""

    @property
    def fingerprint(self) -> str:
        """Identity of the numbers that `score` returns: name, version, precision, weights digest.

        Two rewards with equal fingerprints give equal scores, so it belongs into a run's frozen
        configuration and into the key of any score cache. It stays readable after `close`.
        """

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Score `images[i]` against `prompts[i]`.

        Args:
            images: Any sizes, and any modes that `lib_automerge.reward.rgb.as_rgb` takes. They are
                not modified.
            prompts: As many as images. They are judged exactly as given: whoever wants prompt
                syntax such as `(word:1.2)` removed does so before.

        Returns:
            One score per image, in order; an empty list for no images.

        Raises:
            RewardError: The lengths differ, an image cannot be read, a score is not finite, or the
                model failed.
        """

    def read(self, prompts: Sequence[str]) -> None:
        """Have `warnings` say of prompts what `score` would, without scoring anything.

        For whoever knows the scores already; takes little time. A reward that has nothing to say of
        prompts ignores it.
        """

    def place(self, device: str) -> None:
        """Move the model to a device; from then on scores are computed there.

        A reward without a model on a device ignores it, and so does one that was closed.

        Args:
            device: torch's name of it: "cpu", "cuda", "cuda:1", "mps".

        Raises:
            ConfigError: there is no such device.
            RewardError: it lacks memory; the model is then where it was.
        """

    def warnings(self) -> list[str]:
        """What the user should know that came up since the last call, in sentences; then forgotten.

        For example a prompt that is longer than the model reads, told once per prompt.
        """

    def close(self) -> None:
        """Free the model's memory. A second call does nothing; scoring afterwards is an error."""


class Told:
    """Sentences for `Reward.warnings`: each is said once, however often it comes up."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._new: list[str] = []

    def say(self, sentence: str) -> None:
        """Log the sentence and keep it for `take`, unless it was said before."""
        if sentence not in self._said:
            self._said.add(sentence)
            self._new.append(sentence)
            _log.warning("%s", sentence)

    def take(self) -> list[str]:
        """What is new since the last call."""
        new, self._new = self._new, []
        return new


def cut_off(reward: str, pieces: int, dropped: int, prompt: str) -> str:
    """Say that a reward reads only the beginning of a prompt.

    Args:
        reward: its name.
        pieces: how many word pieces it reads.
        dropped: how many at the end it does not.
        prompt: all of it.
    """
    return (
        f"{reward} reads only the first {pieces} word pieces of a prompt; the last {dropped} are "
        f"ignored: {quoted(prompt)}"
    )


def quoted(prompt: str) -> str:
    """A prompt in quotes for a sentence; of a long one the beginning."""
    return repr(prompt if len(prompt) <= _QUOTED else f"{prompt[:_QUOTED]}…")


def check_lengths(images: Sequence[Image], prompts: Sequence[str]) -> None:
    """Refuse to score unless there is one prompt per image.

    Raises:
        RewardError: The lengths differ.
    """
    if len(images) != len(prompts):
        raise RewardError(
            f"images and prompts do not pair up: {len(images)} images, {len(prompts)} prompts. "
            "Give one prompt per image."
        )


def require_finite(
    reward: str, scores: Sequence[float], prompts: Sequence[str], dtype: str
) -> None:
    """Refuse scores that are not numbers.

    Args:
        reward: the name of the reward.
        scores: what it computed.
        prompts: as many.
        dtype: the precision of its weights, by name.

    Raises:
        RewardError: One is infinite or NaN.
    """
    for index, (score, prompt) in enumerate(zip(scores, prompts, strict=True)):
        if not math.isfinite(score):
            advice = (
                "Check the weights file."
                if dtype == "fp32"
                else f"Use dtype='fp32' instead of {dtype!r}."
            )
            raise RewardError(
                f"{reward!r} gave no number: {score} for image {index}, prompt {quoted(prompt)}. "
                f"{advice}"
            )


def reason(error: BaseException) -> str:
    """Return the first line of a library's error, for use in ours."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
