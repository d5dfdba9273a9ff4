"""A reward that the user serves on this machine, asked over HTTP: HPSv3, UnifiedReward, anything.

The contract, version 1; `docs/rewards.md` has a server that keeps it.

    POST URL/score  {"version": 1, "prompts": ["a cat", ...], "images": ["<base64 of a PNG>", ...]}
             200    {"scores": [0.7, ...], "warnings": ["...", ...]}     warnings may be left out
             else   {"error": "one sentence"}                            or any text
    GET  URL/info   {"name": "HPSv3", "version": "1.0"}        or 404, 405, 501

Images are RGB. `scores` has one finite number per image, in order, higher is better.

Only this machine is asked, whatever proxies are set and wherever the server redirects to: prompts
and images are the user's own.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lib_automerge.errors import ConfigError, RewardError
from lib_automerge.reward.base import Told, check_lengths, reason
from lib_automerge.reward.rgb import as_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1
PAUSE_S = 1.0
"""Before the second attempt; twice as long before each further one."""

_HOSTS = ("127.0.0.1", "localhost", "::1")
_LONGEST_ANSWER = 1 << 22
_LONGEST_WAIT_S = 86_400
_NO_INFO = (404, 405, 501)
_PASSING = (408, 429, 500, 502, 503, 504)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: object) -> None:
        """Redirects are answers like any other that is not 200."""


class ExternalReward:
    """A server of the user's."""

    name = "external"

    def __init__(
        self, url: str, timeout_s: float = 120.0, attempts: int = 3, batch_size: int = 4
    ) -> None:
        """Ask the server who it is.

        Args:
            url: where it listens, with its port: "http://127.0.0.1:8123".
            timeout_s: how long one answer may take, at most a day.
            attempts: how often it is asked before it counts as failed.
            batch_size: images in one request.

        Raises:
            ConfigError: an option has an impossible value, or the address is another machine's.
            RewardError: the server does not answer, or not as agreed.
        """
        self._url = _checked_url(url)
        if not 0 < timeout_s <= _LONGEST_WAIT_S or attempts < 1 or batch_size < 1:
            raise ConfigError(
                "timeout_s, attempts and batch_size of the external reward must be above 0, and "
                f"timeout_s at most {_LONGEST_WAIT_S}: {timeout_s}, {attempts}, {batch_size}. Use "
                "120, 3 and 4."
            )
        self._timeout_s, self._attempts, self._batch_size = timeout_s, attempts, batch_size
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
        self._told = Told()
        self._closed = False
        self.fingerprint = f"external:{VERSION}:{self._identity()}"

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Score `images[i]` against `prompts[i]`; see `lib_automerge.reward.base.Reward.score`."""
        check_lengths(images, prompts)
        if self._closed:
            raise RewardError("reward is closed: 'external'. Create it again to score.")
        scores: list[float] = []
        for start in range(0, len(images), self._batch_size):
            part = slice(start, start + self._batch_size)
            scores += self._scored(images[part], prompts[part])
        return scores

    def read(self, prompts: Sequence[str]) -> None:
        """Nothing: the server says with its scores what it has to say."""

    def place(self, device: str) -> None:
        """Nothing: the server decides where it computes."""

    def warnings(self) -> list[str]:
        """What the server said; see `lib_automerge.reward.base.Reward.warnings`."""
        return self._told.take()

    def close(self) -> None:
        """Ask no more."""
        self._closed = True

    def _identity(self) -> str:
        """What the server says it is, or, if it says nothing, its address."""
        status, body = self._asked("/info", None)
        if status in _NO_INFO:
            return self._url
        if status != http.client.OK:
            raise self._wrong(f"/info answered {status}: {_complaint(body)}")
        info = self._read(body)
        name, version = info.get("name"), info.get("version")
        if not (isinstance(name, str) and name and isinstance(version, str) and version):
            raise self._wrong(f"/info must give a name and a version, it gave {_cut(body)}")
        return f"{name}:{version}"

    def _scored(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        request = {
            "version": VERSION,
            "prompts": list(prompts),
            "images": [_png(image) for image in images],
        }
        status, body = self._asked("/score", json.dumps(request).encode())
        if status != http.client.OK:
            raise self._wrong(f"it answered {status}: {_complaint(body)}")
        answer = self._read(body)
        scores = answer.get("scores")
        if not isinstance(scores, list):
            raise self._wrong(f"it gave no list of scores: {_cut(body)}")
        if len(scores) != len(images):
            raise self._wrong(f"it gave {len(scores)} scores for {len(images)} images")
        said = answer.get("warnings")
        for sentence in said if isinstance(said, list) else []:
            self._told.say(f"external: {str(sentence)[:500]}")
        return [self._number(score) for score in scores]

    def _number(self, score: object) -> float:
        try:
            number = float(score) if type(score) in (int, float) else math.nan  # type: ignore[arg-type]
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._wrong(f"it gave no number: {str(score)[:100]}")
        return number

    def _asked(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        """Ask until there is an answer that another attempt would not change.

        Raises:
            RewardError: every attempt failed.
        """
        trouble = ""
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(PAUSE_S * 2 ** (attempt - 1))
            request = urllib.request.Request(
                self._url + path, data=body, headers={"Content-Type": "application/json"}
            )
            try:
                status, said = self._answer(request)
            except (OSError, http.client.HTTPException, ValueError) as error:
                cause = getattr(error, "reason", error)
                timed_out = isinstance(cause, TimeoutError)
                trouble = (
                    f"no answer within {self._timeout_s:g} seconds"
                    if timed_out
                    else reason(cause if isinstance(cause, BaseException) else error)
                )
            else:
                if status not in _PASSING:
                    return status, said
                trouble = f"it answered {status}: {_complaint(said)}"
        raise RewardError(
            f"the reward server at {self._url} failed {self._attempts} times: {trouble}. Start it, "
            "correct its address, or give it more time with timeout_s."
        )

    def _answer(self, request: urllib.request.Request) -> tuple[int, bytes]:
        """Return the status and the whole body.

        Raises:
            OSError, HTTPException: there was none in time, or it broke off.
            ValueError: it sends the client to an address that is none.
        """
        deadline = time.monotonic() + self._timeout_s
        try:
            answer = self._opener.open(request, timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            answer = error
        body = b""
        with answer:
            while len(body) < _LONGEST_ANSWER and (part := answer.read1(_LONGEST_ANSWER)):
                body += part
                # the timeout of the connection is one for each part
                if time.monotonic() > deadline:
                    raise TimeoutError
            if len(body) < _LONGEST_ANSWER and answer.length:
                raise http.client.IncompleteRead(body, answer.length)
        return answer.status, body

    def _read(self, body: bytes) -> dict[str, object]:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self._wrong(f"its answer is not JSON: {_cut(body)}") from error
        if not isinstance(answer, dict):
            raise self._wrong(f"its answer is not an object: {_cut(body)}")
        return answer

    def _wrong(self, what: str) -> RewardError:
        return RewardError(
            f"the reward server at {self._url} does not keep the contract: {what}. Correct it; "
            "docs/rewards.md has an example."
        )


def _checked_url(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        ConfigError: it is not http, not this machine's, or has more than a host, port and path.
    """
    try:
        parts = urlsplit(url)
        sound = parts.scheme == "http" and parts.hostname in _HOSTS and (parts.port or 80) > 0
    except ValueError:
        sound = False
    if not sound or parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"external reward must be on this machine: {url!r}. Give an address such as "
            "http://127.0.0.1:8123."
        )
    return url.rstrip("/")


def _png(image: Image) -> str:
    stream = io.BytesIO()
    as_rgb(image).save(stream, "PNG", compress_level=1)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _complaint(body: bytes) -> str:
    """What a server says went wrong."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return _cut(body)
    said = answer.get("error") if isinstance(answer, dict) else None
    return said[:300] if isinstance(said, str) else _cut(body)


def _cut(body: bytes) -> str:
    text = " ".join(body[:300].decode("utf-8", "replace").split())
    return repr(text) if text else "nothing"
