from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lib_automerge.domain.payload import Payload
from lib_automerge.errors import ConfigError, StorageError
from lib_automerge.study.payload_sets import PayloadSet, PayloadSets, read_set


@pytest.fixture
def sets(tmp_path: Path) -> PayloadSets:
    return PayloadSets(tmp_path / "payloads")


def a_set(name: str, prompt: str = "a cat") -> PayloadSet:
    return PayloadSet(name=name, payloads=(Payload(prompt=prompt), Payload(prompt="b")))


def test_a_set_comes_back_as_it_was_saved(sets: PayloadSets) -> None:
    sets.save(a_set("My <set>: Ünïcode / café"))
    found = sets.get("My <set>: Ünïcode / café")
    assert [p.prompt for p in found.payloads] == ["a cat", "b"]
    assert [p.name for p in found.payloads] == ["p01", "p02"]
    assert "My <set>: Ünïcode / café" in sets.names()


def test_saving_again_replaces_and_similar_names_do_not_meet(sets: PayloadSets) -> None:
    first = sets.save(a_set("cats!"))
    assert sets.save(a_set("cats!", "a lion")) == first
    assert sets.get("cats!").payloads[0].prompt == "a lion"
    assert sets.save(a_set("cats?", "a tiger")) != first
    assert sets.get("cats!").payloads[0].prompt == "a lion"


def test_names_never_become_paths(sets: PayloadSets, tmp_path: Path) -> None:
    path = sets.save(a_set("../../evil"))
    assert path.parent == sets.folder
    assert sets.save(a_set("...")).parent == sets.folder
    with pytest.raises(ConfigError, match="there is no payload set"):
        sets.get("../evil")
    for bad in ("", "   ", "x" * 61):
        with pytest.raises(ConfigError, match="Use 1 to 60"):
            sets.save(a_set(bad))


def test_a_wrong_payload_is_not_saved(sets: PayloadSets) -> None:
    sets.save(a_set("mine"))
    with pytest.raises(ConfigError, match="empty prompt"):
        sets.save(a_set("mine", " "))
    assert sets.get("mine").payloads[0].prompt == "a cat"


def test_a_damaged_file_is_offered_and_explains_itself(sets: PayloadSets) -> None:
    sets.save(a_set("good"))
    (sets.folder / "bad.json").write_text('{"name": "x", "payloads": [{"promt": "a"}]}')
    assert {"good", "bad"} <= set(sets.names())
    with pytest.raises(ConfigError, match=r"bad\.json is not a payload set.*promt"):
        sets.get("bad")


def test_a_bare_list_is_a_set_named_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "from a friend.json"
    path.write_text(json.dumps([{"prompt": "a cat"}]))
    assert read_set(path).name == "from a friend"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not a payload set"):
        read_set(path)
    path.write_bytes(b"[" + b" " * (5 << 20) + b"]")
    with pytest.raises(ConfigError, match="larger than 4 MB"):
        read_set(path)


def test_deleting_keeps_the_file(sets: PayloadSets) -> None:
    path = sets.save(a_set("mine"))
    sets.delete("mine")
    assert "mine" not in sets.names()
    assert path.with_suffix(".deleted").is_file()
    with pytest.raises(ConfigError, match="you have no payload set"):
        sets.delete("mine")


def test_sets_that_come_with_automerge_can_be_used_but_not_replaced(sets: PayloadSets) -> None:
    shipped = sets.names()
    assert shipped
    for name in shipped:
        found = sets.get(name)
        searched = [p for p in found.payloads if not p.held_out]
        assert len(searched) >= 8
        assert len(found.payloads) - len(searched) >= 4
        with pytest.raises(ConfigError, match="comes with Automerge"):
            sets.save(a_set(name))
        with pytest.raises(ConfigError):
            sets.delete(name)


def test_a_set_that_cannot_be_deleted_is_told_and_stays(sets: PayloadSets) -> None:
    path = sets.save(a_set("mine"))
    path.with_suffix(".deleted").mkdir()
    with pytest.raises(StorageError, match=r"cannot rename .*mine\.json.*Close programs"):
        sets.delete("mine")
    assert "mine" in sets.names()


def test_two_who_save_one_set_do_not_disturb_each_other(sets: PayloadSets, meeting: None) -> None:
    with ThreadPoolExecutor(2) as threads:
        saved = [threads.submit(sets.save, a_set("mine", prompt)) for prompt in ("x", "y")]
        assert [one.result().name for one in saved] == ["mine.json"] * 2
    assert sets.get("mine").payloads[0].prompt in ("x", "y")
    assert len(list(sets.folder.iterdir())) == 1
