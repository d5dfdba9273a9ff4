"""The page in a real browser under every Gradio in use, over a host of fakes.

The environments are made by `python tasks.py test`, which names their interpreters in
AUTOMERGE_GRADIO_ENVS; without it there are none.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.browser import Window

INTERPRETERS = [
    path for path in os.environ.get("AUTOMERGE_GRADIO_ENVS", "").split(os.pathsep) if path
]
SCRIPT = Path(__file__).with_name("serve_tab.py")
HEAD = (
    '<link rel="stylesheet" href="automerge/page/style.css">'
    '<script src="automerge/page/automerge.js" defer></script>'
)
FORM_REQUEST = re.compile(r"/run/\w+")
QUIET_S = 1.0


class Site:
    """The page under one Gradio, in a process of its own."""

    def __init__(self, interpreter: str, folder: Path) -> None:
        self.folder = folder
        self._log = (folder / "log.txt").open("w+")
        self.process = subprocess.Popen(
            [interpreter, str(SCRIPT), str(folder / "desk")],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        told = self.process.stdout.readline().split()
        assert told, (folder / "log.txt").read_text()
        _, self.version, self.url = told
        # what gradio prints goes nowhere, and must not fill the pipe
        self.major = int(self.version.split(".")[0])

    def draft(self) -> dict[str, Any]:
        """The form as the server keeps it for the next visit."""
        return dict(json.loads((self.folder / "desk" / "data" / "draft.json").read_text()))

    def errors(self) -> str:
        """What the server has printed of errors."""
        return (self.folder / "log.txt").read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._log.close()


class FormPage(Window):
    """A browser window on a site that knows which requests of the form are under way."""

    def __init__(
        self, browser: Any, site: Site, *, size: str = "wide", scheme: str = "light"
    ) -> None:
        super().__init__(browser, size=size, scheme=scheme)
        self._under_way = 0
        self._last = time.monotonic()
        self.page.on("request", lambda request: self._count(request, 1))
        self.page.on("requestfinished", lambda request: self._count(request, -1))
        self.page.on("requestfailed", lambda request: self._count(request, -1))
        # fonts that a Gradio wants from elsewhere
        self.page.route(re.compile("^https://"), lambda route: route.abort())
        self.page.route(site.url, self._with_script)
        self.site = site

    def open(self) -> FormPage:
        """Go there and wait until the form is filled."""
        self.page.goto(self.site.url)
        self.strip.filter(has_not_text="Loading").wait_for()
        self.drawn()
        self.settle()
        return self

    def _with_script(self, route: Any) -> None:
        """Gradio 3 has no word for what belongs into a page's head; the WebUI puts it there."""
        answer = route.fetch()
        body = answer.text()
        if "automerge.js" not in body:
            body = body.replace("</head>", HEAD + "</head>", 1)
        route.fulfill(response=answer, body=body)

    def _count(self, request: Any, change: int) -> None:
        if FORM_REQUEST.search(request.url):
            self._under_way += change
            self._last = time.monotonic()

    @property
    def checks(self) -> Any:
        return self.page.locator("#automerge_checks").first

    def drawn(self) -> None:
        """Wait until the checks say something."""
        self.checks.filter(has_text=re.compile(r"\w")).wait_for()

    def value(self, name: str) -> str:
        """What a field shows."""
        return str(self.page.locator(f"#automerge_{name} input").first.input_value())

    def settle(self) -> None:
        """Wait until no request of the form is under way, nor comes."""
        self._last = time.monotonic()
        deadline = self._last + 60
        while self._under_way or time.monotonic() - self._last < QUIET_S:
            assert time.monotonic() < deadline, f"{self._under_way} requests are not answered"
            self.page.wait_for_timeout(50)
