"""The merge lab over the routes: how its merge stands, and what can be done with it."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from lib_automerge.api.http import Call, Refused
from lib_automerge.app.desk import Desk
from lib_automerge.app.lab import LabSnapshot

KEPT = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}
"""Pictures never change under their address; nothing in them may be run."""


class LabRoutes:
    """Answers about the desk's merge lab."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def state(self, _call: Call) -> object:
        """The latest merge as it stands."""
        return _told(self._desk.lab.snapshot())

    def cancel(self, _call: Call) -> object:
        """End the merge in progress; what is finished is kept."""
        self._desk.lab.cancel()
        return _told(self._desk.lab.snapshot())

    def resume(self, _call: Call) -> object:
        """Go on with a cancelled merge."""
        self._desk.resume_merge()
        return _told(self._desk.lab.snapshot())

    def discard(self, _call: Call) -> object:
        """Throw away what a cancelled merge has kept."""
        self._desk.lab.discard()
        return _told(self._desk.lab.snapshot())

    def picture(self, call: Call) -> Response:
        """The latest preview; its number changes with every one."""
        picture = self._desk.lab.snapshot().picture
        if picture is None or picture.number != call.part("number"):
            raise Refused(404, "there is no such preview any longer.")
        return Response(picture.png, media_type="image/png", headers=KEPT)


def _told(now: LabSnapshot) -> dict[str, object]:
    """A snapshot as JSON: without the picture's bytes, with pace and time left."""
    raw: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(now, picture=None))
    progress = now.progress
    if progress is not None:
        raw["progress"] = {
            "done": progress.done,
            "total": progress.total,
            "bytes_per_second": progress.rate,
            "seconds_left": progress.left,
        }
    raw["picture"] = None if now.picture is None else now.picture.number
    return raw
