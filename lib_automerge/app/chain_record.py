"""The journal, the state and the listener of a chain, which must always agree."""

from __future__ import annotations

from lib_automerge.app.ports import Listener
from lib_automerge.domain.chain_events import AnyChainEvent, ChainWarned
from lib_automerge.domain.chain_state import ChainState
from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import AnyEvent
from lib_automerge.domain.run import Activity, RunState
from lib_automerge.merge.lab.job import Progress
from lib_automerge.study.chain_store import OwnedChain


class Watch:
    """Told what a chain does; this one ignores it."""

    def event(self, event: AnyChainEvent, state: ChainState) -> None:
        """An event is on disk."""

    def doing(self, what: str) -> None:
        """Something begins, in words."""

    def run(self, name: str, config: RunConfig) -> Listener:  # noqa: ARG002
        """A search begins or goes on; returns who is told of its events."""
        return _ignore

    def merging(self, progress: Progress) -> None:
        """How far a merge is."""


def _ignore(event: AnyEvent | Activity, state: RunState) -> None:
    pass


class ChainRecord:
    """Takes every event of a chain.

    Args:
        chain: held by this process.
        watch: told of every event after it is on disk.
    """

    def __init__(self, chain: OwnedChain, watch: Watch) -> None:
        self._journal = chain.journal
        self.watch = watch
        self.state = ChainState(chain.journal.events)

    def add(self, *events: AnyChainEvent) -> None:
        """Write events, and wait until they are on disk.

        Raises:
            StorageError: they could not be written; nothing has changed.
        """
        for event in self._journal.append(*events):
            self.state.apply(event)
            self.watch.event(event, self.state)

    def warn(self, message: str) -> None:
        """Tell the user something, once; it stays with the chain."""
        if message not in self.state.warnings:
            self.add(ChainWarned(message=message))
