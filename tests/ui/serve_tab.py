"""Serve the stand-alone page under whatever Gradio this Python has, over a host of fakes.

    python tests/ui/serve_tab.py FOLDER

Prints its address. Run by `test_turns.py` under every Gradio in use; needs no test framework.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import msgspec
import torch
import uvicorn

from lib_automerge import demo, page
from lib_automerge.app.desk import Desk
from lib_automerge.study.payload_sets import PayloadSet
from tests.api.bench import make_desk
from tests.merging_host import MergingHost

FEW = "Two prompts and one kept back"
ONE = "One prompt"


def add_sets(desk: Desk) -> None:
    """Two small sets of prompts."""
    payloads = [msgspec.structs.replace(p, seeds=p.seeds[:1]) for p in demo.load_payloads()]
    searched = [payload for payload in payloads if not payload.held_out][:2]
    held_out = [payload for payload in payloads if payload.held_out][:1]
    desk.sets.save(PayloadSet(name=FEW, payloads=(*searched, *held_out)))
    desk.sets.save(PayloadSet(name=ONE, payloads=(searched[0],)))


def main(folder: Path) -> None:
    """Serve until killed."""
    desk = make_desk(folder, MergingHost(torch.ones(())))
    add_sets(desk)
    app = page.build(desk)
    with socket.socket() as listening:
        listening.bind((page.HOST, 0))
        # who reads the address may come before the server is there, and is then kept waiting
        listening.listen()
        port = listening.getsockname()[1]
        sys.stdout.write(f"gradio {gr.__version__} http://{page.HOST}:{port}/\n")
        sys.stdout.flush()
        config = uvicorn.Config(app, log_level="warning", ws="none")
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
