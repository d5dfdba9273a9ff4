"""The table of routes, and how it is put into a host's application."""

from __future__ import annotations

from typing import Any

from starlette.routing import Mount, Route

from lib_automerge.api.actions import Actions
from lib_automerge.api.files import Files
from lib_automerge.api.http import METHODS, Call, Guard, Handler, Refused, endpoint
from lib_automerge.api.lab import LabRoutes
from lib_automerge.api.lists import Lists
from lib_automerge.api.pages import Pages
from lib_automerge.api.status import StatusBoard
from lib_automerge.app.desk import Desk
from lib_automerge.study.markup import element

PREFIX = "/automerge/v1"
NAME = "automerge"
KEPT_POSTS = ("resume", "discard")


def register(app: Any, desk: Desk, guard: Guard) -> None:
    """Put the routes into an application, in front of all others; once, however often it is called.

    Args:
        app: a fastapi or starlette application.
        desk: whose runs the routes are about.
        guard: whether a request comes from somebody who may use the page.
    """
    known = app.router.routes
    known[:] = [route for route in known if getattr(route, "name", None) != NAME]
    # in front, because a host may have a route that takes every path
    known.insert(0, Mount(PREFIX, routes=routes(desk, guard), name=NAME))


def routes(desk: Desk, guard: Guard) -> list[Route]:
    """Every route, relative to the prefix."""
    lists, pages, files = Lists(desk), Pages(desk), Files(desk)
    actions, board, lab = Actions(desk), StatusBoard(desk), LabRoutes(desk)

    def route(path: str, **handlers: Handler) -> Route:
        return Route(path, endpoint(guard, **handlers), methods=METHODS)

    one = "/runs/{run}"
    picture = "{evaluation}/{stage}/{job}"
    posts = (
        "pause",
        "stop",
        "finish",
        "judge",
        "resume",
        "rename",
        "delete",
        "duplicate",
        "save",
    )
    downloads = (
        "report",
        "recipe",
        "weights",
        "infotext",
        "journal",
        "log",
        "csv",
        "export",
    )
    return [
        route("/status", GET=board.answer),
        route("/login", GET=_logged_in),
        route("/models", GET=lists.models),
        route("/methods", GET=lists.methods),
        route("/rewards", GET=lists.rewards),
        route("/rewards/cancel", POST=actions.cancel_download),
        route("/rewards/{reward}/download", POST=actions.download),
        route("/lab", GET=lab.state),
        route("/lab/cancel", POST=lab.cancel),
        route("/lab/optimise", POST=lab.optimise),
        route("/lab/reading/cancel", POST=lab.cancel_reading),
        *(route(f"/lab/kept/{{number}}/{name}", POST=getattr(lab, name)) for name in KEPT_POSTS),
        route("/lab/pictures/{number}", GET=lab.picture),
        route("/payload-sets", GET=lists.payload_sets),
        route("/preflight", POST=actions.preflight),
        route("/runs", GET=lists.runs, POST=actions.start),
        route(one, GET=lists.run),
        *(route(f"{one}/{name}", POST=getattr(actions, name)) for name in posts),
        *(route(f"{one}/{name}", GET=getattr(files, name)) for name in downloads),
        route(f"{one}/pairs/{{question}}/{{side}}", GET=files.pair),
        route(f"{one}/images/{picture}", GET=files.image),
        route(f"{one}/thumbs/{picture}", GET=files.thumb),
        route(f"{one}/views/{{view}}", GET=pages.of_run),
        route("/views/{view}", GET=pages.general),
        route("/{rest:path}", GET=_nothing, POST=_nothing),
    ]


def _logged_in(_call: Call) -> object:
    return element("p", "You are logged in. Close this page and go back to the WebUI.")


def _nothing(_call: Call) -> object:
    raise Refused(404, "there is nothing at this address. docs/api.md lists all routes.")
