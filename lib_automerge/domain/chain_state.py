"""How a chain stands: its journal, folded."""

from __future__ import annotations

from collections.abc import Iterable

from lib_automerge.domain.chain_events import (
    AnyChainEvent,
    ChainFailed,
    ChainFinished,
    ChainResumed,
    ChainStarted,
    ChainStopped,
    ChainWarned,
    Compared,
    Decided,
    Made,
    Paired,
    Pictured,
    Purpose,
    Ranked,
    Removed,
    StepBegan,
    StepDone,
)
from lib_automerge.domain.recipe import ModelRef
from lib_automerge.domain.run import Status


class ChainState:
    """Everything that a chain's events say.

    Attributes:
        status: how it stands.
        began: step -> its event.
        made: model -> how it was made.
        removed: models whose files are gone.
        pictures: (SHA-256, purpose) -> job -> image.
        ranked: (step, level) -> the ranking.
        paired: (step, level) -> who meets whom.
        decided: (step, a, b) -> what a search came to.
        compared: step -> the final verdict of a tree.
        done: step -> what it hands on, in the order in which steps were done.
        warnings: in order, each once.
    """

    def __init__(self, events: Iterable[AnyChainEvent] = ()) -> None:
        self.status = Status.STARTING
        self.started: ChainStarted | None = None
        self.finished: ChainFinished | None = None
        self.failure: str | None = None
        self.began: dict[str, StepBegan] = {}
        self.made: dict[str, Made] = {}
        self.removed: set[str] = set()
        self.pictures: dict[tuple[str, Purpose], dict[int, Pictured]] = {}
        self.ranked: dict[tuple[str, int | None], Ranked] = {}
        self.paired: dict[tuple[str, int], Paired] = {}
        self.decided: dict[tuple[str, str, str], Decided] = {}
        self.compared: dict[str, Compared] = {}
        self.done: dict[str, StepDone] = {}
        self.warnings: list[str] = []
        for event in events:
            self.apply(event)

    def apply(self, event: AnyChainEvent) -> None:
        """Fold one more event."""
        self.status = Status.UNFINISHED
        match event:
            case ChainStarted():
                self.started = event
            case ChainResumed():
                self.failure = None
            case ChainWarned():
                if event.message not in self.warnings:
                    self.warnings.append(event.message)
            case StepBegan():
                self.began[event.step] = event
            case Made():
                self.made[event.model] = event
            case Pictured():
                found = self.pictures.setdefault((event.sha256, event.purpose), {})
                found[event.job] = event
            case Ranked():
                self.ranked[event.step, event.level] = event
            case Paired():
                self.paired[event.step, event.level] = event
            case Decided():
                self.decided[event.step, event.a, event.b] = event
            case Compared():
                self.compared[event.step] = event
            case StepDone():
                self.done[event.step] = event
            case Removed():
                self.removed.add(event.model)
            case ChainStopped():
                self.status = Status.STOPPED
            case ChainFailed():
                self.status = Status.FAILED
                self.failure = event.message
            case ChainFinished():
                self.status = Status.FINISHED
                self.finished = event

    def ref(self, model: str) -> ModelRef | None:
        """The file of a model that the chain made; its path is relative to the chain's folder."""
        made = self.made.get(model)
        return None if made is None else made.ref
