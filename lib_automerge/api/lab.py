"""The merge lab over the routes: how its merge stands, and what can be done with it."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from lib_automerge.api.http import Call, Refused
from lib_automerge.app.desk import Desk
from lib_automerge.app.digests import Reading
from lib_automerge.app.lab import LabSnapshot
from lib_automerge.ui.lab_setup import LabSetup

KEPT = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}
"""Pictures never change under their address; nothing in them may be run."""


class LabRoutes:
    """Answers about the desk's merge lab."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def state(self, _call: Call) -> object:
        """The latest merge as it stands."""
        return self._told()

    def cancel(self, _call: Call) -> object:
        """End the merge in progress; what is finished is kept."""
        self._desk.lab.cancel()
        return self._told()

    def resume(self, call: Call) -> object:
        """Go on with an unfinished merge."""
        self._desk.resume_merge(call.part("number"))
        return self._told()

    def discard(self, call: Call) -> object:
        """Throw away what an unfinished merge has kept."""
        self._desk.lab.discard(call.part("number"))
        return self._told()

    def optimise(self, _call: Call) -> object:
        """Make the lab's form, as it was left, what the search form searches."""
        self._desk.save_draft(LabSetup(self._desk).optimise())
        return self._told()

    def cancel_reading(self, _call: Call) -> object:
        """End the reading of models for their SHA-256; what is read is known."""
        self._desk.digests.cancel()
        return self._told()

    def _told(self) -> dict[str, object]:
        return _told(self._desk.lab.snapshot(), self._desk.digests.snapshot())

    def picture(self, call: Call) -> Response:
        """The latest preview; its number changes with every one."""
        picture = self._desk.lab.snapshot().picture
        if picture is None or picture.number != call.part("number"):
            raise Refused(404, "there is no such preview any longer.")
        return Response(picture.png, media_type="image/png", headers=KEPT)


def _told(now: LabSnapshot, reading: Reading) -> dict[str, object]:
    """A snapshot as JSON: without the picture's bytes, with pace and time left."""
    raw: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(now, picture=None))
    progress = now.progress
    if progress is not None:
        raw["progress"] = {
            "done": progress.done,
            "total": progress.total,
            "bytes_per_second": progress.rate,
            "seconds_left": progress.left,
            "note": progress.note,
        }
    raw["reading"] = msgspec.to_builtins(reading)
    raw["picture"] = None if now.picture is None else now.picture.number
    return raw
