"""Who may use our routes: whoever may use the WebUI.

The WebUI's own guards do not reach routes that an extension adds, so ours ask for themselves: the
cookie of gradio's login page (`--gradio-auth`), or name and password by HTTP Basic
(`--api-auth`, or those of `--gradio-auth`). Without either option everybody may, as in the WebUI.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from secrets import compare_digest
from typing import Any

from starlette.requests import Request

COOKIES = ("access-token", "access-token-unsecure")
"""Gradio's; from gradio 4 on with the id of the app behind them."""


class Guard:
    """Tells whether a request may pass; implements `api.http.Guard`.

    Args:
        credentials: password by name, of those who may come without a login page.
    """

    def __init__(self, credentials: Mapping[str, str]) -> None:
        self._credentials = dict(credentials)

    def __call__(self, request: Request) -> bool:
        """Whether the request comes from somebody who may use the WebUI."""
        app = request.app
        login = getattr(app, "auth", None) is not None
        if not login and not self._credentials:
            return True
        return (login and _logged_in(request, app)) or self._knows(request)

    def _knows(self, request: Request) -> bool:
        scheme, _, code = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            name, _, password = base64.b64decode(code, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        expected = self._credentials.get(name)
        return expected is not None and compare_digest(password.encode(), expected.encode())


def _logged_in(request: Request, app: Any) -> bool:
    """Whether gradio gave out the cookie that comes with the request."""
    suffix = f"-{app.cookie_id}" if hasattr(app, "cookie_id") else ""
    tokens: Mapping[str, str] = app.tokens
    return any(request.cookies.get(f"{name}{suffix}") in tokens for name in COOKIES)
