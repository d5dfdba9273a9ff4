"""A server for the reward `external`, on this machine: what it answers is up to the test."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

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

    class Handler(BaseHTTPRequestHandler):
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

        def log_message(self, *arguments: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Who does not wait for an answer is what is tested."""

    http = Quiet(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
