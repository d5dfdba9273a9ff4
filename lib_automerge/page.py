"""The stand-alone page: the WebUI's tab without a WebUI, for this machine's own browser."""

from __future__ import annotations

import inspect
import os
import signal
import socket
import sys
import webbrowser
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from lib_automerge import demo
from lib_automerge.app.desk import Desk
from lib_automerge.errors import ConfigError
from lib_automerge.host.detect import standalone_desk
from lib_automerge.host.guard import Guard
from lib_automerge.host.standalone import StandaloneCatalogue

HOST = "127.0.0.1"
"""Nobody but this machine's users: the page has no login."""
NEEDED = ("gradio", "fastapi", "uvicorn", "diffusers", "transformers", "accelerate")
SCRIPT, STYLE = "automerge.js", "style.css"
SHARED = "share/lib_automerge"
"""Where an installed distribution has script and style."""
GRACE_S = 2
"""How long open connections may delay the end."""


def serve(models: Sequence[Path], data: Path, port: int, *, browser: bool) -> None:
    """Serve the page until Ctrl+C; a run in hand is then stopped, with every score kept.

    Args:
        models: folders with checkpoints; the demo pair is offered besides.
        data: for runs, payload sets and the draft; made when it is needed.
        port: on 127.0.0.1; 0 takes any that is free.
        browser: open one when the page is there.

    Raises:
        ConfigError: a folder does not exist, the port is taken, or a package is missing.
        KeyboardInterrupt: Ctrl+C or SIGTERM, when all is cleaned up.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the page needs packages that are not installed: {', '.join(missing)}. Install them "
            "with: pip install 'lib_automerge[standalone,ui]'"
        )
    if data.exists() and not data.is_dir():
        raise ConfigError(f"the data folder is a file: {data}. Give a folder.")
    pair = {"Demo A": demo.MODEL_A, "Demo B": demo.MODEL_B}
    catalogue = StandaloneCatalogue(data, models, pair)
    with _listen(port) as listening:
        desk = standalone_desk(catalogue)
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            _run(desk, listening, browser=browser)
        finally:
            signal.signal(signal.SIGTERM, previous)
            _end(desk)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    if sys.platform != "win32":
        # a port that a page before this one has just left; Windows would share one in use
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(
            f"port {port} cannot be used: {error}. Is the page running already? Choose another "
            "with --port, or 0 for any that is free."
        ) from error
    return listening


def _run(desk: Desk, listening: socket.socket, *, browser: bool) -> None:
    import uvicorn

    url = f"http://{HOST}:{listening.getsockname()[1]}/"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(f"Automerge: {url}", flush=True)
            print(f"Runs and prompts are kept in {desk.catalogue.data}. Ctrl+C ends.", flush=True)
            if browser:
                webbrowser.open(url)

    config = uvicorn.Config(
        build(desk), log_level="warning", timeout_graceful_shutdown=GRACE_S, ws="none"
    )
    Server(config).run(sockets=[listening])


def _end(desk: Desk) -> None:
    """Stop a run or a merge in hand; Ctrl+C does not wait for the images in the air."""
    busy = desk.worker.busy_with()
    if busy is not None:
        print(f"\nStopping the run {busy.name} after the images in the air; Ctrl+C ends at once.")
        desk.worker.stop()
        desk.worker.wait()
    if desk.lab.snapshot().working:
        print("\nCancelling the merge; Ctrl+C ends at once.")
        desk.lab.cancel()
        desk.lab.wait()


def build(desk: Desk) -> Any:
    """The ASGI application: our routes, script and style, and the tab at `/`."""
    # gradio tells its makers about every start otherwise, and looks for newer versions
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import FileResponse

    from lib_automerge import api
    from lib_automerge.ui import tab

    app = FastAPI(title="Automerge", docs_url=None, redoc_url=None)
    # a page from elsewhere whose name was made to mean this machine must not reach the routes
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    api.register(app, desk, Guard({}))
    for name in (SCRIPT, STYLE):
        app.add_route(f"/automerge/page/{name}", _sender(FileResponse, asset(name)))
    blocks = tab.build(desk)
    blocks.title = "Automerge"
    head = (
        f'<link rel="stylesheet" href="automerge/page/{STYLE}">'
        f'<script src="automerge/page/{SCRIPT}" defer></script>'
    )
    if "head" in inspect.signature(gradio.mount_gradio_app).parameters:
        return gradio.mount_gradio_app(app, blocks, path="/", head=head, footer_links=[])
    blocks.head = head
    return gradio.mount_gradio_app(app, blocks, path="/")


def _sender(response: Any, path: Path) -> Any:
    async def send(_request: Any) -> Any:
        return response(path, headers={"Cache-Control": "no-cache"})

    return send


def asset(name: str) -> Path:
    """The page's script or style: of the checkout, or of the installed distribution.

    Raises:
        ConfigError: this installation lacks it.
    """
    root = Path(__file__).parents[1]
    for path in (root / "javascript" / name, root / name, *_installed(name)):
        if path.is_file():
            return path
    raise ConfigError(f"the page's {name} is missing: the installation is damaged. Install again.")


def _installed(name: str) -> list[Path]:
    try:
        files = metadata.files("lib_automerge") or []
    except metadata.PackageNotFoundError:
        return []
    return [Path(str(f.locate())) for f in files if f.as_posix().endswith(f"{SHARED}/{name}")]
