from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from lib_automerge.host.guard import Guard

OPEN = SimpleNamespace()
GRADIO3 = SimpleNamespace(auth={"ann": "pw"}, tokens={"t0k": "ann"})
GRADIO4 = SimpleNamespace(auth={"ann": "pw"}, tokens={"t0k": "ann"}, cookie_id="c1")


def request(app: Any, **headers: str) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "app": app, "headers": raw})


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.mark.parametrize("app", [OPEN, SimpleNamespace(auth=None, tokens={})])
def test_without_credentials_everybody_may(app: Any) -> None:
    assert Guard({})(request(app))


@pytest.mark.parametrize(
    ("app", "cookie", "admitted"),
    [
        (GRADIO3, "access-token=t0k", True),
        (GRADIO3, "access-token-unsecure=t0k", True),
        (GRADIO3, "access-token=other", False),
        (GRADIO3, "x=1", False),
        (GRADIO4, "access-token-c1=t0k", True),
        (GRADIO4, "access-token-unsecure-c1=t0k", True),
        (GRADIO4, "access-token=t0k", False),
        (GRADIO4, "access-token-c2=t0k", False),
    ],
)
def test_gradios_login_counts(app: Any, cookie: str, admitted: bool) -> None:
    assert Guard({})(request(app, cookie=cookie)) is admitted
    assert not Guard({})(request(app))


@pytest.mark.parametrize("app", [OPEN, GRADIO3, GRADIO4])
def test_name_and_password_count_where_they_are_set(app: Any) -> None:
    guard = Guard({"bob": "secret:with ü", "eve": ""})
    assert guard(request(app, authorization=basic("bob", "secret:with ü")))
    assert guard(request(app, authorization=basic("eve", "")))
    for header in (
        basic("bob", "secret"),
        basic("ann", "pw"),
        basic("", ""),
        "Basic not base64",
        "Basic /////w==",
        "Bearer " + basic("bob", "secret:with ü").split()[1],
        "",
    ):
        assert not guard(request(app, authorization=header)), header


def test_credentials_of_the_api_do_not_open_what_only_has_a_login_page() -> None:
    assert not Guard({})(request(GRADIO3, authorization=basic("ann", "pw")))
