"""What tests in a real browser share: which browser, its windows on the page, the routes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for path in map(shutil.which, BROWSERS) if path), None)
NO_BROWSER = f"no browser: none of {', '.join(BROWSERS)}"
SIZES = {"wide": (1280, 900), "phone": (400, 800)}


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """A browser within the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


class Window:
    """One browser window, and every error of its scripts."""

    def __init__(self, browser: Any, *, size: str = "wide", scheme: str = "light") -> None:
        width, height = SIZES[size]
        self._context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        self.page = self._context.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    @property
    def strip(self) -> Any:
        return self.page.locator("#automerge_strip .automerge-strip").first

    def choose(self, name: str, option: str) -> None:
        """Pick from a drop-down."""
        self.page.locator(f"#automerge_{name} input").first.click()
        # the list of the drop-down before may still be fading
        self.page.locator(f'[data-testid="dropdown-option"][aria-label="{option}"]').last.click()

    def get(self, path: str) -> Any:
        """A route's answer as JSON, asked by the page itself."""
        return self.page.evaluate(
            "path => fetch('./automerge/v1/' + path).then(r => r.json())", path
        )

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """A route's answer to a body as JSON, likewise."""
        return self.page.evaluate(
            """([path, body]) => fetch('./automerge/v1/' + path, {
                method: 'POST',
                headers: {'Content-Type': 'application/json'},
                body: JSON.stringify(body),
            }).then(r => r.json())""",
            [path, body],
        )

    def start_run(self, config: dict[str, Any]) -> str:
        """Begin a run over the routes; returns its id."""
        answer = self.post("runs", config)
        assert "id" in answer, answer
        return str(answer["id"])

    def close(self) -> None:
        self._context.close()
        assert self.complaints == []
