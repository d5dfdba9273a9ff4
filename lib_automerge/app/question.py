"""The question that a run waits with: asked by the run's thread, answered from any page."""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from lib_automerge.domain.blind import Asked, Trial
from lib_automerge.errors import ConfigError


class Answer(msgspec.Struct, frozen=True):
    """What the user said; see `domain.events.Judged` and `domain.blind.Trial`.

    None takes back what they said before. `enough` ends the choices of the verdict without one.
    """

    value: float | None
    enough: bool = False


Over = Callable[[], bool]
"""Whether the run need not wait any longer."""

Ask = Callable[[Asked, Over], "Answer | None"]
"""Waits for the user's answer; None if the run need not wait any longer."""


class QuestionDesk:
    """One question at a time.

    Args:
        changed: notified when the question changes, and by whoever changes what `Over` tells.
        tell: called, while `changed` is held, when the question changes.
    """

    def __init__(self, changed: threading.Condition, tell: Callable[[], None]) -> None:
        self._changed = changed
        self._tell = tell
        self._question: Asked | None = None
        self._answer: Answer | None = None

    @property
    def question(self) -> Asked | None:
        """What the user is asked now."""
        return self._question

    def ask(self, question: Asked, over: Over) -> Answer | None:
        """See `Ask`."""
        with self._changed:
            self._question, self._answer = question, None
            self._tell()
            try:
                self._changed.wait_for(lambda: self._answer is not None or over())
                return self._answer
            finally:
                self._question = None
                self._tell()

    def answer(self, key: str, answer: Answer) -> None:
        """Answer the question of this key.

        Raises:
            ConfigError: it is not asked, or not any longer, or this cannot be its answer.
        """
        with self._changed:
            asked = self._question
            if asked is None or asked.key != key or self._answer is not None:
                raise ConfigError(
                    "this question is answered already, or the run has gone on. Nothing was "
                    "changed: look at the current one."
                )
            _check(asked, answer)
            self._answer = answer
            self._changed.notify_all()


def _check(asked: Asked, answer: Answer) -> None:
    value = answer.value
    if answer.enough:
        if not isinstance(asked, Trial):
            raise ConfigError("this is no choice of the verdict. End the search with Finish.")
    elif value is None:
        if (asked.made if isinstance(asked, Trial) else asked.number) == 0:
            raise ConfigError("nothing was judged yet: there is nothing to take back.")
    elif asked.other is not None and value not in (0.0, 0.5, 1.0):
        raise ConfigError(
            f"the choice is {value}. Use 1 (the first), 0 (the second) or 0.5 (neither)."
        )
    elif not 0 <= value <= 1:
        raise ConfigError(f"the rating is {value}. Use a number from 0 to 1.")
