"""Requests in, answers out: bodies, errors and refusals, the same for every route.

Hides the web framework: handlers take a `Call` and return values; no model classes, so that every
version of fastapi and pydantic that a WebUI carries will do.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from lib_automerge.errors import AutomergeError, BusyError
from lib_automerge.study.markup import Markup

log = logging.getLogger(__name__)

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
MAX_BODY = 4 << 20
"""Bytes of a request's body; a configuration with a thousand prompts is smaller."""

LOGIN = "./automerge/v1/login"
"""Where a browser asks for name and password; relative to the page."""

RUN_ID = re.compile(r"[a-z0-9-]{3,40}")

Guard = Callable[[Request], bool]
"""Whether a request comes from somebody who may use the page."""


class Refused(Exception):  # noqa: N818 - it is no error of ours
    """An answer other than 200 with one sentence for the user."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Call(msgspec.Struct, frozen=True):
    """A request as handlers see it: its path's parts, its query, and the JSON of its body."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def run(self) -> str:
        """The run's id.

        Raises:
            Refused: it cannot be one.
        """
        found = self.path["run"]
        if not RUN_ID.fullmatch(found):
            raise Refused(404, "there is no run with this id. `GET runs` lists them.")
        return found

    def whole(self, name: str) -> int | None:
        """A whole number of the query; None if it is not there.

        Raises:
            Refused: it is not a whole number.
        """
        return _whole(name, self.query[name]) if name in self.query else None

    def part(self, name: str) -> int:
        """A whole number of the path; see `whole`."""
        return _whole(name, self.path[name], status=404)

    def text(self, name: str, default: str | None = None) -> str:
        """A text of the body.

        Raises:
            Refused: it is missing and has no default, or is no text.
        """
        value = self.body.get(name, default)
        if not isinstance(value, str):
            raise Refused(400, f"the field {name!r} is {value!r}. Send a text.")
        return value

    def number_or_none(self, name: str) -> int | None:
        """A whole number of the body, or None.

        Raises:
            Refused: it is something else.
        """
        value = self.body.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise Refused(400, f"the field {name!r} is {value!r}. Send a whole number or null.")


Handler = Callable[[Call], object]
Endpoint = Callable[[Request], Awaitable[Response]]


def endpoint(guard: Guard, **handlers: Handler) -> Endpoint:
    """A route that answers these methods (`GET=...`, `POST=...`) and refuses all others."""

    async def answer(request: Request) -> Response:
        try:
            return await _answer(request, guard, handlers)
        except Refused as refusal:
            return _problem(refusal.status, str(refusal))
        except BusyError as error:
            return _problem(409, str(error))
        except AutomergeError as error:
            return _problem(400, str(error))
        except HTTPException as error:
            return _problem(error.status_code, str(error.detail))
        except Exception:
            log.exception("a request to %s failed", request.url.path)
            return _problem(
                500, "something went wrong in Automerge itself. The details are in the console."
            )

    return answer


async def _answer(request: Request, guard: Guard, handlers: Mapping[str, Handler]) -> Response:
    if not guard(request):
        return _unknown(request)
    method = "GET" if request.method == "HEAD" else request.method
    handler = handlers.get(method)
    if handler is None:
        allowed = ", ".join(sorted(handlers))
        problem = _problem(405, f"{request.method} is not possible here. Use {allowed}.")
        problem.headers["Allow"] = allowed
        return problem
    body = await _body(request) if method == "POST" else {}
    call = Call(path=request.path_params, query=dict(request.query_params), body=body)
    result = await run_in_threadpool(handler, call)
    if isinstance(result, Response):
        return result
    if isinstance(result, Markup):
        return HTMLResponse(result, headers={"Cache-Control": "no-store"})
    return json_response(result)


async def _body(request: Request) -> Mapping[str, Any]:
    # a page of another origin can send forms and plain text here, but no JSON without being asked
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, f"the content type is {kind!r}. Send application/json.")
    too_large = f"the request has more than {MAX_BODY >> 20} MB. Send less."
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > MAX_BODY:
        raise Refused(413, too_large)
    parts = bytearray()
    async for chunk in request.stream():
        parts += chunk
        if len(parts) > MAX_BODY:
            raise Refused(413, too_large)
    if not parts.strip():
        return {}
    try:
        return msgspec.json.decode(bytes(parts), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"the body is not a JSON object: {error}. Send one.") from error


def json_response(content: object, status: int = 200) -> Response:
    """An answer in JSON that no cache keeps."""
    return Response(
        msgspec.json.encode(content, enc_hook=_plain),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _plain(value: object) -> str:
    if isinstance(value, Markup):
        return str(value)
    raise NotImplementedError(type(value))


def _problem(status: int, sentence: str) -> Response:
    return json_response({"error": sentence}, status)


def _unknown(request: Request) -> Response:
    if getattr(request.app, "auth", None) is not None:
        return _problem(401, "you are not logged in. Open the WebUI's page again and log in there.")
    # no login page: the browser itself can ask for name and password, but only when a person goes
    # to a page of ours; the script asks every two seconds, and must not raise a window each time
    sentence = "you are not logged in: the WebUI asks for the name and password of --api-auth."
    problem = json_response({"error": sentence, "login": LOGIN}, 401)
    if request.headers.get("sec-fetch-mode", "navigate") == "navigate":
        problem.headers["WWW-Authenticate"] = 'Basic realm="Automerge"'
    return problem


def _whole(name: str, text: str, status: int = 400) -> int:
    # at most ten digits: longer numbers are nobody's, and slow to read
    if not re.fullmatch(r"\d{1,10}", text):
        raise Refused(status, f"{name} is {text[:40]!r}. Give a whole number.")
    return int(text)
