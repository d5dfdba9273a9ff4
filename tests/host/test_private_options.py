from __future__ import annotations

import json
from threading import Thread
from typing import Any

import pytest

from lib_automerge.host.private_options import PrivateOptions


def elsewhere(work: Any) -> Any:
    result: list[Any] = []
    thread = Thread(target=lambda: result.append(work()))
    thread.start()
    thread.join()
    return result[0]


def test_only_the_owner_sees_the_view() -> None:
    options = PrivateOptions({"a": 1, "b": 2})
    options.enter({"a": 10, "c": 30})
    assert (options["a"], options.get("c"), "b" in options) == (10, 30, False)
    assert elsewhere(lambda: (options["a"], options.get("c"), "b" in options)) == (1, None, True)
    with pytest.raises(KeyError):
        options["b"]


def test_what_the_owner_writes_stays_private_and_what_others_write_is_kept() -> None:
    options = PrivateOptions({"a": 1, "b": 2})
    options.enter({"a": 1, "b": 2})
    options["a"] = 5
    options.setdefault("new", 7)
    del options["b"]
    elsewhere(lambda: options.__setitem__("b", 20))
    assert elsewhere(lambda: options.pop("a")) == 1
    assert (options.pop("a"), options.pop("missing", "no")) == (5, "no")
    options.leave()
    assert dict(options) == options.shared() == {"b": 20}
    assert options.setdefault("b", 0) == 20


def test_a_saved_file_holds_what_all_see() -> None:
    options = PrivateOptions({"checkpoint": "mine"})
    options.enter({"checkpoint": "the run's", "more": 1})
    assert json.loads(json.dumps(options)) == {"checkpoint": "mine"}
    assert dict(options) == {**options} == {"checkpoint": "mine"}


def test_entering_again_forgets_what_was_written() -> None:
    view = {"a": 1}
    options = PrivateOptions({})
    options.enter(view)
    options["a"] = options["leak"] = 2
    options.enter(view)
    assert options["a"] == 1
    assert "leak" not in options
    assert view == {"a": 1}
