"""What every route does alike: ids, methods, bodies, credentials, errors."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from lib_automerge import api
from lib_automerge.api import pages
from lib_automerge.api.http import METHODS
from lib_automerge.api.routes import routes
from lib_automerge.app.insights import insights_or_none
from lib_automerge.domain.insights import Insights
from lib_automerge.domain.run import RunState
from lib_automerge.host.guard import Guard
from lib_automerge.study.store import RunManifest
from tests.api.bench import NASTY, ROOT, add_run, anybody, make_client, make_desk
from tests.run_folders import Plan, payloads

RUN = "20260101-abcd"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    found = make_desk(tmp_path_factory.mktemp("desk") / "d")
    add_run(found, RUN, Plan(evaluations=5, size=16))
    return found


@pytest.fixture(scope="module")
def client(desk):
    return make_client(desk)


def every_path(desk) -> list[str]:
    """The path of every route, with values for its parts."""
    values = {"run": RUN, "evaluation": "1", "stage": "search", "job": "0", "view": "live"}
    values |= {"question": "pair-0", "side": "left", "number": "1"}
    # one that has nothing to download
    values["reward"] = "demo"
    paths = [r.path.replace("{rest:path}", "nothing") for r in routes(desk, anybody)]
    return [ROOT + path.format(**values) for path in paths]


BAD_IDS = [
    "..%2f..",
    "..%2f..%2fetc",
    "%2e%2e",
    "a",
    "UPPER-case",
    "under_score",
    "x" * 41,
    "abc%00",
    "abc%0a",
    "run.json",
    "trash",
    "20260101-none",
]


@pytest.mark.parametrize("run", BAD_IDS)
@pytest.mark.parametrize("rest", ["", "/journal", "/report", "/views/live", "/images/1/search/0"])
def test_bad_ids_are_not_found(client, run: str, rest: str) -> None:
    answer = client.get(f"{ROOT}/runs/{run}{rest}")
    assert answer.status_code == 404
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("run", BAD_IDS)
def test_bad_ids_change_nothing(desk, client, run: str) -> None:
    before = sorted(p.name for p in desk.library.root.iterdir())
    for action in ("delete", "rename", "resume", "duplicate", "save"):
        answer = client.post(f"{ROOT}/runs/{run}/{action}", json={"name": "x"})
        assert answer.status_code == 404, action
    assert sorted(p.name for p in desk.library.root.iterdir()) == before


def test_unknown_addresses_are_not_found(client) -> None:
    for path in ("", "/", "/x", f"/runs/{RUN}/x", f"/runs/{RUN}/views/x", "/views/x"):
        answer = client.get(ROOT + path)
        assert answer.status_code in (404, 307), path
        if answer.status_code == 404:
            assert answer.json()["error"]


@pytest.mark.parametrize("path", ["/images/1/search/99", "/images/99/search/0", "/images/1/x/0"])
def test_unknown_pictures_are_not_found(client, path: str) -> None:
    for kind in ("images", "thumbs"):
        answer = client.get(f"{ROOT}/runs/{RUN}{path.replace('images', kind)}")
        assert answer.status_code == 404
    for number in ("-1", "1e3", "9" * 40, "..", "0x1"):
        assert client.get(f"{ROOT}/runs/{RUN}/images/{number}/search/0").status_code == 404


def test_wrong_methods_say_which_is_right(desk, client) -> None:
    for path in every_path(desk):
        for method in ("PUT", "DELETE", "PATCH"):
            answer = client.request(method, path)
            assert answer.status_code == 405, (method, path)
            assert answer.headers["Allow"] in ("GET", "POST", "GET, POST")
            assert answer.json()["error"]
    assert client.get(f"{ROOT}/runs/{RUN}/delete").status_code == 405
    assert client.post(f"{ROOT}/status", json={}).status_code == 405
    assert client.head(f"{ROOT}/status").status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_other_pages_cannot_post(desk, client, kind: str) -> None:
    """A page of another origin can send these types without asking; JSON it cannot."""
    headers = {"content-type": kind} if kind else {}
    answer = client.post(f"{ROOT}/runs/{RUN}/delete", content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert desk.library.find(RUN)


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"7", b'"x"', b"\xff\xfe", b"nul", b"[" * 100_000, b'{"a":1}x']
)
def test_bad_json_gives_one_sentence(client, body: bytes) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    answer = client.post(f"{ROOT}/runs/{RUN}/rename", content=body, headers=headers)
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]


def test_huge_bodies_are_refused(client) -> None:
    headers = {"content-type": "application/json"}
    huge = b'{"name": "' + b"x" * (5 << 20) + b'"}'
    assert client.post(f"{ROOT}/runs", content=huge, headers=headers).status_code == 413

    def parts():
        for _ in range(50):
            yield b" " * 100_000

    # sent in pieces, without a length to look at first
    assert client.post(f"{ROOT}/runs", content=parts(), headers=headers).status_code == 413


@pytest.mark.parametrize("body", [{"name": 7}, {"name": None}, {}, {"name": ["x"]}])
def test_wrong_types_name_the_field(client, body) -> None:
    answer = client.post(f"{ROOT}/runs/{RUN}/rename", json=body)
    assert answer.status_code == 400
    assert "'name'" in answer.json()["error"]


def test_unexpected_errors_show_no_trace(desk, client, monkeypatch, caplog) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(desk.worker, "snapshot", broken)
    answer = client.get(f"{ROOT}/status")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "secret of the house" in caplog.text


def test_nothing_is_kept_by_caches_but_pictures(client) -> None:
    assert client.get(f"{ROOT}/status").headers["cache-control"] == "no-store"
    assert client.get(f"{ROOT}/runs/{RUN}/views/live").headers["cache-control"] == "no-store"
    picture = client.get(f"{ROOT}/runs/{RUN}/images/1/search/0")
    assert "private" in picture.headers["cache-control"]
    assert picture.headers["x-content-type-options"] == "nosniff"


# --- credentials ------------------------------------------------------------------------------


class GradioApp(Starlette):
    """What the guard looks at, as gradio 3.41 has it; from 4 on with `cookie_id`."""

    def __init__(self, auth: object, cookie_id: str | None = None) -> None:
        super().__init__()
        self.auth = auth
        self.tokens = {"good-token": "anna"}
        if cookie_id is not None:
            self.cookie_id = cookie_id


def with_login(desk, auth, cookie_id=None, credentials=()):
    app = GradioApp(auth, cookie_id)
    api.register(app, desk, Guard(dict(credentials)))
    return TestClient(app, raise_server_exceptions=False)


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def test_every_route_asks_for_the_login(desk) -> None:
    client = with_login(desk, {"anna": "pw"})
    for path in every_path(desk):
        for method in METHODS:
            answer = client.request(method, path, headers={"content-type": "application/json"})
            assert answer.status_code == 401, (method, path)
            assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize(
    ("cookie_id", "name"),
    [
        (None, "access-token"),
        (None, "access-token-unsecure"),
        ("xyz", "access-token-xyz"),
        ("xyz", "access-token-unsecure-xyz"),
    ],
)
def test_gradios_cookie_opens(desk, cookie_id, name) -> None:
    client = with_login(desk, {"anna": "pw"}, cookie_id)
    client.cookies.set(name, "wrong-token")
    assert client.get(f"{ROOT}/status").status_code == 401
    client.cookies.set(name, "good-token")
    assert client.get(f"{ROOT}/status").status_code == 200


def test_a_cookie_of_another_app_does_not_open(desk) -> None:
    client = with_login(desk, {"anna": "pw"}, "xyz")
    client.cookies.set("access-token", "good-token")
    assert client.get(f"{ROOT}/status").status_code == 401


def test_api_credentials(desk) -> None:
    client = with_login(desk, None, credentials={"api": "p:w"})
    refused = client.get(f"{ROOT}/status")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic")
    # the page's script asks again and again: the browser must not raise a window each time
    by_script = client.get(f"{ROOT}/status", headers={"sec-fetch-mode": "cors"})
    assert by_script.status_code == 401
    assert "www-authenticate" not in by_script.headers
    assert by_script.json()["login"] == "./automerge/v1/login"
    assert "logged in" in client.get(f"{ROOT}/login", headers=basic("api:p:w")).text
    assert client.get(f"{ROOT}/status", headers=basic("api:p:w")).status_code == 200
    for wrong in ("api:p", "api:", "API:p:w", ":", "", "api"):
        assert client.get(f"{ROOT}/status", headers=basic(wrong)).status_code == 401
    for odd in ("Basic", "Basic ###", "Bearer x", "Basic //79"):
        headers = {"authorization": odd}
        assert client.get(f"{ROOT}/status", headers=headers).status_code == 401
    # the cookie of a login page that is not in use opens nothing
    client.cookies.set("access-token", "good-token")
    assert client.get(f"{ROOT}/status").status_code == 401


def test_registering_again_replaces_the_routes(desk, tmp_path: Path) -> None:
    async def page(request):
        return PlainTextResponse("page")

    app = Starlette(routes=[Route("/{path:path}", page)])
    api.register(app, make_desk(tmp_path / "other"), anybody)
    api.register(app, desk, anybody)
    client = TestClient(app)
    assert client.get(f"{ROOT}/status").json()["run"]["id"] == RUN
    assert client.get("/anything").text == "page"
    assert len([r for r in app.router.routes if getattr(r, "name", "") == "automerge"]) == 1


def test_what_a_run_taught_is_shown_when_it_has_ended_and_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_desk(tmp_path)
    add_run(desk, RUN)
    client = make_client(desk)
    calls = []

    def counted(manifest: RunManifest, state: RunState) -> Insights | None:
        calls.append(len(state.history))
        return insights_or_none(manifest, state)

    monkeypatch.setattr(pages, "insights_or_none", counted)
    url = f"{ROOT}/runs/{RUN}/views/importance"
    first, again = client.get(url), client.get(url)
    assert first.text == again.text
    assert calls == [14]
    assert "Predicted best" in first.text
    assert "effects-wide-title" in first.text
    assert "What the search learned" in client.get(f"{ROOT}/runs/{RUN}/report").text


def test_user_text_in_views_is_text(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    nasty = tuple(msgspec.structs.replace(p, prompt=NASTY + p.name) for p in payloads(3, 3))
    plan = Plan(
        evaluations=6,
        size=16,
        name=NASTY,
        models=(NASTY.replace("/", ""), "b"),
        payloads=nasty,
        warnings=(NASTY,),
        rejected=(5,),
    )
    add_run(desk, RUN, plan)
    (desk.library.root / RUN / "log.txt").write_text(f"2026-01-01 00:00:00 ERROR {NASTY}\n")
    client = make_client(desk)
    views = ("live", "results", "log", "resources", "importance")
    pages = [client.get(f"{ROOT}/runs/{RUN}/views/{view}") for view in views]
    pages += [client.get(f"{ROOT}/views/runs"), client.get(f"{ROOT}/runs/{RUN}/report")]
    for page in pages:
        assert page.status_code == 200
        assert "<img src=x" not in page.text
        assert "onerror=alert(1)&gt;" in page.text or NASTY[:8] not in page.text
    assert "&lt;img src=x" in pages[0].text
    assert "&lt;img src=x" in pages[1].text
