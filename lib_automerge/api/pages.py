"""The views as HTML fragments, which the page's script puts into its places."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from lib_automerge.api.http import Call, Refused
from lib_automerge.app.desk import Desk, Opened
from lib_automerge.app.insights import insights_or_none
from lib_automerge.app.standing import state_word
from lib_automerge.domain.insights import Insights
from lib_automerge.errors import AutomergeError
from lib_automerge.study.findings import Findings, summarize
from lib_automerge.study.library import Entry
from lib_automerge.study.markup import Markup
from lib_automerge.ui import reward_list
from lib_automerge.ui.views import judge, lab, rewards
from lib_automerge.ui.views.live import live, nothing_yet
from lib_automerge.ui.views.machine import Usage, log_tail, process_memory, resources
from lib_automerge.ui.views.parts import address
from lib_automerge.ui.views.results import no_results, results, taught
from lib_automerge.ui.views.runs import Row, runs


class Pages:
    """Draws views of the desk's runs."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._sizes: dict[str, tuple[tuple[int, int], int]] = {}
        self._taught: dict[str, tuple[tuple[int, int | None], Insights | None]] = {}
        self._views: Mapping[str, Callable[[Opened], Markup]] = {
            "live": self._live,
            "results": self._results,
            "importance": self._importance,
            "log": self._log,
            "resources": self._resources,
            judge.VIEW: self._judge,
        }

    def general(self, call: Call) -> Markup:
        """A view that belongs to no run: of none, of all, or of the rewards of the form."""
        match call.path["view"]:
            case "live":
                return nothing_yet()
            case "results":
                return no_results()
            case "runs":
                return self._runs()
            case rewards.LIST:
                return reward_list.of_draft(self._desk)
            case rewards.TRY:
                return rewards.tried(self._desk.reward_try.snapshot())
            case lab.VIEW:
                now, reading = self._desk.lab.snapshot(), self._desk.digests.snapshot()
                return lab.lab(now, time.time(), reading)
        known = f"live, results, runs, {lab.VIEW}, {rewards.LIST}, {rewards.TRY}"
        raise Refused(404, f"there is no such view. Known: {known}.")

    def of_run(self, call: Call) -> Markup:
        """A view of one run."""
        draw = self._views.get(call.path["view"])
        if draw is None:
            raise Refused(404, f"there is no such view. Known: {', '.join(self._views)}.")
        return draw(self.opened(call))

    def opened(self, call: Call) -> Opened:
        """The run of a request.

        Raises:
            Refused: there is none, or it is damaged.
        """
        try:
            return self._desk.open(call.run)
        except AutomergeError as error:
            raise Refused(404, str(error)) from error

    def _live(self, opened: Opened) -> Markup:
        return live(opened, _found(opened))

    def _judge(self, opened: Opened) -> Markup:
        return judge.judge(opened, self._desk.worker.questions.question)

    def _results(self, opened: Opened) -> Markup:
        return results(opened, _found(opened))

    def _log(self, opened: Opened) -> Markup:
        return log_tail(opened.path / "log.txt", address("runs", opened.id, "log"))

    def _resources(self, opened: Opened) -> Markup:
        usage = Usage(
            memory=process_memory(),
            device=self._desk.catalogue.device_memory(),
            disk_free=self._desk.library.free_space(),
        )
        return resources(_found(opened), usage)

    def _runs(self) -> Markup:
        snapshot = self._desk.worker.snapshot()
        busy = self._desk.worker.busy_with()
        rows = []
        for entry in self._desk.entries(snapshot):
            found = None
            if entry.manifest is not None and entry.state is not None:
                found = summarize(entry.folder.path, entry.manifest, entry.state)
            rows.append(
                Row(
                    id=entry.id,
                    name=entry.name,
                    state=state_word(entry, snapshot),
                    found=found,
                    size=None if entry.folder.path == busy else self._size(entry),
                    problem=entry.problem,
                )
            )
        return runs(rows)

    def _size(self, entry: Entry) -> int:
        """Bytes of a run's folder; counted again only when its journal has grown."""
        stamp = entry.folder.stamp()
        known = self._sizes.get(entry.id)
        if known is None or known[0] != stamp:
            known = (stamp, self._desk.library.size(entry))
            self._sizes[entry.id] = known
        return known[1]

    def _importance(self, opened: Opened) -> Markup:
        """What the run taught; computed again only when there is more to learn from."""
        found = _found(opened)
        # while a run goes on it would be computed for every evaluation: it is not worth that
        if opened.live:
            return taught(found, None)
        merge = found.contest.merge
        stamp = (len(opened.state.history), merge.number if merge else None)
        known = self._taught.get(opened.id)
        if known is None or known[0] != stamp:
            known = (stamp, insights_or_none(opened.manifest, opened.state))
            self._taught[opened.id] = known
        return taught(found, known[1])


def _found(opened: Opened) -> Findings:
    return summarize(opened.path, opened.manifest, opened.state)
