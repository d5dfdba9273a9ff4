"""A server on this machine that answers as the Hugging Face hub does for one big file.

The `resolve` address answers with the file's size and SHA-256 and sends on to another address, as
the hub does to its storage, and that one understands `Range`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from tests.reward.local_server import Quiet, listening

RESOLVE = "/people/judge/resolve/main/sub/weights.pt"


class Hub:
    """What is served, how it misbehaves, and what was asked.

    Attributes:
        content: the bytes of the file.
        drops: after how many bytes of the body each of the next connections is cut.
        said_size: the size that `resolve` says, if not the true one.
        said_digest: likewise.
        ranges: whether the storage understands `Range`.
        location: where `resolve` sends on to, if not to the storage.
        asked: the `Range` of every request for the bytes; "" without one.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.drops: list[int] = []
        self.said_size: int | None = None
        self.said_digest: str | None = None
        self.ranges = True
        self.location = ""
        self.status = 200
        self.asked: list[str] = []
        self.address = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve on a free port while in the context; `hub.address` is where."""

    class Handler(Quiet):
        def do_HEAD(self) -> None:
            if self.path == "/storage":
                self.send_response(200)
                self.send_header("Content-Length", str(len(hub.content)))
                self.end_headers()
                return
            if self.path != RESOLVE:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.end_headers()
                return
            self.send_response(302)
            # another host, as the hub's storage is: its client follows to the same host by itself
            storage = hub.address.replace("127.0.0.1", "localhost")
            self.send_header("Location", hub.location or f"{storage}/storage")
            self.send_header("X-Repo-Commit", "abc")
            digest = hub.said_digest or hashlib.sha256(hub.content).hexdigest()
            self.send_header("X-Linked-ETag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(hub.said_size or len(hub.content)))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            if self.path != "/storage":
                # the client asks for lists of its own
                self.send_error(404)
                return
            wanted = self.headers.get("Range", "")
            hub.asked.append(wanted)
            begin = int(wanted.removeprefix("bytes=").rstrip("-") or 0) if hub.ranges else 0
            body = hub.content[begin:]
            self.send_response(206 if begin and hub.status == 200 else hub.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if hub.drops:
                body = body[: hub.drops.pop(0)]
            self.wfile.write(body)
            self.close_connection = True

    with listening(Handler) as hub.address:
        yield hub
