"""A server for the reward `external`, on this machine: what it answers is up to the test."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from tests.reward.local_server import Quiet, listening

Answer = tuple[int, bytes]


def judged(request: dict[str, object]) -> list[float]:
    """Brightness plus the length of the prompt."""
    scores = []
    for text, prompt in zip(request["images"], request["prompts"], strict=True):  # type: ignore[call-overload]
        image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
        assert (image.format, image.mode) == ("PNG", "RGB")
        scores.append(float(np.asarray(image).mean()) + len(prompt))
    return scores


def sound(request: dict[str, object]) -> Answer:
    return 200, json.dumps({"scores": judged(request)}).encode()


class Server:
    """What it answers, and what it was asked."""

    def __init__(self) -> None:
        self.info: Answer = (200, b'{"name": "HPSv3", "version": "1.0"}')
        self.answer: Callable[[dict[str, object]], Answer] = sound
        self.requests: list[dict[str, object]] = []
        self.url = ""


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server within the block."""
    state = Server()

    class Handler(Quiet):
        def do_GET(self) -> None:
            self.reply(state.info if self.path == "/info" else (404, b""))

        def do_POST(self) -> None:
            assert self.path == "/score"
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append(request)
            self.reply(state.answer(request))

        def reply(self, answer: Answer) -> None:
            self.send_response(answer[0])
            if answer[0] == 302:
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.send_header("Content-Length", str(len(answer[1])))
            self.end_headers()
            self.wfile.write(answer[1])

    with listening(Handler) as state.url:
        yield state
