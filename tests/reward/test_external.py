"""A judge behind HTTP, on a real server on this machine."""

from __future__ import annotations

import contextlib
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from lib_automerge.errors import ConfigError, RewardError
from lib_automerge.reward import create, external
from lib_automerge.reward.base import Reward
from lib_automerge.reward.external import ExternalReward
from tests.contracts.reward import Prompts, RewardContract, sample_images
from tests.reward.judge_server import Answer, Server, judged, serving, sound


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(external, "PAUSE_S", 0.01)
    with serving() as state:
        yield state


class TestTheContract(RewardContract):
    @pytest.fixture
    def reward(self, server: Server) -> Reward:
        return create("external", url=server.url)

    @pytest.fixture
    def prompts(self) -> Prompts:
        return ("a cat", "", "東京 🦊", "a " * 5000, 'quotes " and \\')


def test_asks_as_agreed_in_batches(server: Server) -> None:
    reward = ExternalReward(server.url + "/", batch_size=2)
    assert reward.score(sample_images()[:3], ["a", "b", "c"]) == pytest.approx(
        [float(np.asarray(image).mean()) + 1 for image in sample_images()[:3]]
    )
    assert [request["prompts"] for request in server.requests] == [["a", "b"], ["c"]]
    assert {request["version"] for request in server.requests} == {1}


def test_the_fingerprint_is_what_the_server_says_it_is(server: Server) -> None:
    assert ExternalReward(server.url).fingerprint == "external:1:HPSv3:1.0"
    for status in (404, 405, 501):
        server.info = (status, b"not here")
        assert ExternalReward(server.url).fingerprint == f"external:1:{server.url}"
    server.info = (403, b"log in first")
    with pytest.raises(RewardError, match="/info answered 403: 'log in first'"):
        ExternalReward(server.url)


@pytest.mark.parametrize(
    "info", [b'{"name": "HPSv3"}', b'{"name": 3, "version": "1"}', b'{"name": "", "version": "1"}']
)
def test_an_identity_that_is_incomplete_is_refused(info: bytes, server: Server) -> None:
    server.info = (200, info)
    with pytest.raises(RewardError, match="/info must give a name and a version"):
        ExternalReward(server.url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org:80",
        "https://127.0.0.1:8000",
        "http://127.0.0.1.example.org",
        "http://user:secret@127.0.0.1:8000",
        "http://169.254.169.254/",
        "http://0.0.0.0:8000",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:8000/?key=1",
        "file:///etc/passwd",
        "127.0.0.1:8000",
        "",
    ],
)
def test_only_this_machine_is_asked(url: str) -> None:
    with pytest.raises(ConfigError, match="must be on this machine"):
        ExternalReward(url)


@pytest.mark.parametrize("host", ["localhost", "[::1]", "127.0.0.1"])
def test_every_name_of_this_machine_will_do(host: str) -> None:
    with pytest.raises(RewardError, match=r"failed 1 times: .*Start it"):
        ExternalReward(f"http://{host}:9", attempts=1, timeout_s=1)


def test_a_redirect_is_not_followed_and_no_proxy_is_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    reward = ExternalReward(server.url)
    server.answer = lambda _: (302, b"")
    with pytest.raises(RewardError, match="it answered 302: nothing"):
        reward.score(sample_images()[:1], ["x"])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, b"<html>"), "its answer is not JSON: '<html>'"),
        ((200, b""), "its answer is not JSON: nothing"),
        ((200, b"[1]"), "its answer is not an object"),
        ((200, b'{"score": [1]}'), "it gave no list of scores"),
        ((200, b'{"scores": [1]}'), "it gave 1 scores for 2 images"),
        ((200, b'{"scores": [1, 2, 3]}'), "it gave 3 scores for 2 images"),
        ((200, b'{"scores": [1, NaN]}'), "it gave no number: nan"),
        ((200, b'{"scores": [1, Infinity]}'), "it gave no number: inf"),
        ((200, b'{"scores": [1, null]}'), "it gave no number: None"),
        ((200, b'{"scores": [1, true]}'), "it gave no number: True"),
        ((200, b'{"scores": [1, "2"]}'), "it gave no number: 2"),
        ((200, b'{"scores": [1, 1' + b"0" * 400 + b"]}"), "it gave no number: 1000"),
        ((200, b"[" * 100_000), "its answer is not JSON"),
        ((400, b'{"error": "no GPU here"}'), "it answered 400: no GPU here"),
        ((404, b"nothing here"), "it answered 404: 'nothing here'"),
    ],
)
def test_an_answer_against_the_contract_is_a_sentence_at_once(
    answer: Answer, words: str, server: Server
) -> None:
    reward = ExternalReward(server.url)
    server.answer = lambda _: answer
    with pytest.raises(RewardError) as failure:
        reward.score(sample_images()[:2], ["x", "y"])
    assert f"at {server.url} does not keep the contract: {words}" in str(failure.value)
    assert len(server.requests) == 1


def test_a_server_that_recovers_is_asked_again(server: Server) -> None:
    reward = ExternalReward(server.url)
    answers: list[Callable[[dict[str, object]], Answer]] = [
        lambda _: (503, b'{"error": "loading"}'),
        lambda _: (500, b""),
        sound,
    ]
    server.answer = lambda request: answers.pop(0)(request)
    assert len(reward.score(sample_images()[:2], ["x", "y"])) == 2
    assert len(server.requests) == 3


def test_a_server_that_does_not_recover_is_named(server: Server) -> None:
    reward = ExternalReward(server.url, attempts=2)
    server.answer = lambda _: (503, b'{"error": "still loading"}')
    with pytest.raises(RewardError, match="failed 2 times: it answered 503: still loading"):
        reward.score(sample_images()[:1], ["x"])
    assert len(server.requests) == 2


def test_a_server_that_is_slow_is_named(server: Server) -> None:
    reward = ExternalReward(server.url, timeout_s=0.1, attempts=2)

    def late(request: dict[str, object]) -> Answer:
        time.sleep(0.3)
        return sound(request)

    server.answer = late
    with pytest.raises(RewardError, match=r"failed 2 times: no answer within 0.1 seconds.*timeout"):
        reward.score(sample_images()[:1], ["x"])


@pytest.fixture
def raw() -> Iterator[Callable[[list[bytes], float], str]]:
    """Start a server that answers any request with these parts, so many seconds apart, and hangs
    up; returns its address.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def start(parts: list[bytes], apart_s: float) -> str:
        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listening.accept()[0] as client, contextlib.suppress(OSError):
                        client.recv(65536)
                        for part in parts:
                            client.sendall(part)
                            time.sleep(apart_s)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    # wakes up who waits for a client
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("parts", "apart_s", "words"),
    [
        # never late with a part, and never done
        ([b"HTTP/1.1 200 OK\r\n\r\n", *[b" "] * 9], 0.1, "no answer within 0.3 seconds"),
        ([b"HTTP/1.1 503 x\r\nContent-Length: 9\r\n\r\n", b"x"], 0.5, "no answer within 0.3 sec"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"], 0.0, "IncompleteRead"),
        ([b"HTTP/1.1 302 x\r\nLocation: http://[x\r\n\r\n"], 0.0, "Invalid IPv6 URL"),
    ],
)
def test_an_answer_that_never_ends_or_breaks_off_is_asked_for_again(
    raw: Callable[[list[bytes], float], str],
    monkeypatch: pytest.MonkeyPatch,
    parts: list[bytes],
    apart_s: float,
    words: str,
) -> None:
    monkeypatch.setattr(external, "PAUSE_S", 0.01)
    with pytest.raises(RewardError, match=f"failed 2 times: {re.escape(words)}"):
        ExternalReward(raw(parts, apart_s), timeout_s=0.3, attempts=2)


def test_a_server_that_is_down_is_named() -> None:
    with pytest.raises(RewardError, match=r"http://127.0.0.1:9 failed 1 times: .*refused"):
        ExternalReward("http://127.0.0.1:9", attempts=1)


def test_what_the_server_says_reaches_the_user_once(server: Server) -> None:
    reward = ExternalReward(server.url)
    server.answer = lambda r: (
        200,
        json.dumps({"scores": judged(r), "warnings": ["prompt cut"]}).encode(),
    )
    reward.score(sample_images()[:1], ["x"])
    reward.score(sample_images()[:1], ["y"])
    assert reward.warnings() == ["external: prompt cut"]
    assert reward.warnings() == []


@pytest.mark.parametrize(
    "options",
    [{"timeout_s": value} for value in (0.0, math.nan, math.inf)]
    + [{"attempts": 0}, {"batch_size": 0}],
)
def test_impossible_options_are_refused(options: dict[str, Any], server: Server) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        create("external", url=server.url, **options)


def test_a_closed_reward_asks_no_more(server: Server) -> None:
    reward = ExternalReward(server.url)
    reward.close()
    with pytest.raises(RewardError, match="closed"):
        reward.score(sample_images()[:1], ["x"])
    assert server.requests == []
