from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
from pathlib import Path

import pytest

from lib_automerge.app.lab import LabPhase
from lib_automerge.errors import BusyError, ConfigError, StorageError
from lib_automerge.merge.lab import catalogue
from lib_automerge.ui import lab_words
from lib_automerge.ui.lab_fields import FORMATS
from lib_automerge.ui.lab_setup import LabSetup
from tests.api.bench import make_desk
from tests.checkpoints import write_tiny
from tests.lab_desk import LONG_S


@pytest.fixture
def desk(tmp_path: Path):
    return make_desk(tmp_path)


@pytest.fixture
def setup(desk) -> LabSetup:
    return LabSetup(desk)


def filled(setup: LabSetup, **changes: object) -> dict[str, object]:
    return setup.fill() | {"lab_a": "a.safetensors", "lab_b": "b.safetensors"} | changes


def add(desk, name: str, architecture: str) -> None:
    from lib_automerge.app.ports import ModelChoice

    folder = Path(desk.catalogue.models()[0].path).parent
    path = write_tiny(folder / name, architecture, seed=9)
    desk.catalogue.found.append(ModelChoice(name, str(path)))


def test_the_form_comes_back_as_it_was_left(setup: LabSetup, desk) -> None:
    values = filled(setup, lab_method="TIES", lab_models=["b.safetensors"], lab_ties_k=0.3)
    setup.keep(values)
    again = LabSetup(desk).fill()
    assert again == values
    # the search has a draft of its own
    assert desk.draft() == {}
    desk.catalogue.found.pop()
    gone = LabSetup(desk).fill()
    assert (gone["lab_b"], gone["lab_models"]) == ("", [])


def test_what_is_missing_is_said_and_nothing_can_start(setup: LabSetup, desk) -> None:
    values = filled(setup, lab_method="TIES", lab_models=["b.safetensors"])
    view = setup.view(values)
    assert "TIES needs a base model: choose it as Base." in view.checks
    assert not view.ready
    assert not view.previewable
    with pytest.raises(ConfigError, match="needs a base model"):
        setup.save(values)
    assert desk.lab.snapshot().phase is LabPhase.NONE
    assert "as soon as all models are chosen" in view.text.shown


def test_families_do_not_mix(setup: LabSetup, desk) -> None:
    add(desk, "big.safetensors", "sdxl")
    view = setup.view(filled(setup, lab_b="big.safetensors"))
    assert not view.ready
    assert "Choose models of one family" in view.checks
    assert "big.safetensors is" in view.checks


def test_a_damaged_file_is_named(setup: LabSetup, desk) -> None:
    path = Path(desk.catalogue.models()[1].path)
    path.write_bytes(b"no model")
    view = setup.view(filled(setup))
    assert not view.ready
    assert "b.safetensors" in view.checks


def test_the_name_of_the_file_is_free_and_can_be_one(setup: LabSetup, desk) -> None:
    values = filled(setup)
    assert "a-b-weighted_sum.safetensors" in setup.view(values).checks
    setup.save(values)
    desk.lab.wait(LONG_S)
    assert desk.lab.snapshot().phase is LabPhase.DONE
    # the next one does not take its name
    assert "a-b-weighted_sum-2.safetensors" in setup.view(values).checks
    for name in ("a-b-weighted_sum", "../x", "b.safetensors"):
        view = setup.view(values | {"lab_name": name})
        assert not view.ready
        # a preview has no name
        assert view.previewable
    with pytest.raises(StorageError, match="exists already"):
        setup.save(values | {"lab_name": "b"})


def test_memory_and_policies_are_checked(setup: LabSetup) -> None:
    for memory, told in ((0.001, "Give it"), (None, "is empty")):
        view = setup.view(filled(setup, lab_memory=memory))
        assert not view.ready
        assert told in view.checks
    fill = filled(setup, lab_mismatch="Fill from the base")
    assert "needs a method with a base" in setup.view(fill).checks


def test_what_the_form_says_is_what_is_merged(setup: LabSetup, desk) -> None:
    values = filled(
        setup,
        lab_method="Slerp",
        lab_slerp_weight=0.25,
        lab_values='{"weight": {"M00": 1}}',
        lab_dtype="bf16",
        lab_name="mine",
    )
    setup.save(values)
    desk.lab.wait(LONG_S)
    path = Path(desk.catalogue.models()[0].path).with_name("mine.safetensors")
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        recipe = json.loads(file.metadata()["automerge_recipe"])
        assert str(file.get_tensor("model.diffusion_model.out.2.weight").dtype).endswith("bfloat16")
    assert recipe["method"] == "slerp"
    assert recipe["weights"]["M00"] == 1.0
    assert recipe["weights"]["IN00"] == 0.25
    # a dropped checkpoint gives the form again, and the models' contents are checked
    loaded = setup.load(json.dumps(recipe), setup.fill())
    again = setup.fill() | loaded.values
    assert again["lab_a"] == "a.safetensors"
    assert again["lab_slerp_weight"] == 0.25
    write_tiny(Path(desk.catalogue.models()[1].path), "sd1", seed=77)
    setup.save(again | {"lab_name": "other"})
    desk.lab.wait(LONG_S)
    assert "is not the model of the recipe" in desk.lab.snapshot().told


def test_a_preview_takes_the_chosen_prompt(setup: LabSetup, desk) -> None:
    view = setup.view(filled(setup))
    assert len(view.payloads) > 1
    setup.preview(filled(setup, lab_payload=view.payloads[1]))
    desk.lab.wait(LONG_S)
    picture = desk.lab.snapshot().picture
    assert picture is not None
    starter = desk.sets.get("Starter (SD1, 512)").payloads
    assert picture.prompt == starter[1].prompt


def test_one_merge_at_a_time(setup: LabSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.lab_desk import HalfWay

    half_way = HalfWay(monkeypatch)
    setup.save(filled(setup))
    half_way.wait()
    with pytest.raises(BusyError, match="Wait until it is done"):
        setup.preview(filled(setup))
    half_way.open()
    setup.desk.lab.wait(LONG_S)


@pytest.mark.parametrize("name", catalogue.names())
def test_every_method_tells_its_formula_what_it_takes_and_its_source(name: str) -> None:
    method = catalogue.get(name)
    told = lab_words.about(method)
    assert "<code>" in told
    assert "Takes " in told
    if "." in method.source and "(2" in method.source:
        assert "https://arxiv.org/abs/" in told


# --- the recipe as text -------------------------------------------------------------------------


def test_the_recipe_names_contents_as_soon_as_they_are_known(setup: LabSetup, desk) -> None:
    values = filled(setup)
    first, second = desk.catalogue.models()
    before = setup.view(values).text
    assert before.unread
    assert "SHA-256 of a.safetensors and b.safetensors is not known yet" in before.shown
    assert setup.read_contents(values) == "Reading a.safetensors and b.safetensors."
    desk.digests.wait(LONG_S)
    after = setup.view(values).text
    assert not after.unread
    for model in (first, second):
        assert hashlib.sha256(Path(model.path).read_bytes()).hexdigest() in after.shown
    assert setup.read_contents(values) == "The contents of all chosen models are known."
    with pytest.raises(ConfigError, match="no model is chosen"):
        setup.read_contents(setup.fill())


def test_the_recipe_says_the_number_type_of_the_file(setup: LabSetup) -> None:
    shown = setup.view(filled(setup, lab_dtype="bf16")).text.shown
    assert "&quot;dtype&quot;: &quot;bf16&quot;" in shown
    assert "dtype" not in setup.view(filled(setup)).text.shown


def test_a_format_that_cannot_say_all_says_so_and_can_be_told_to_give_up(setup: LabSetup) -> None:
    values = filled(setup, lab_format=FORMATS.label("nat"))
    refused = setup.view(values).text
    assert refused.lossy
    assert "no place of its own for BASE 0.5" in refused.shown
    assert "tick &quot;Give up what the format cannot say&quot;" in refused.shown
    given_up = setup.view(values | {"lab_give_up": True}).text
    assert given_up.lossy
    assert "0.5,0.5" in given_up.shown
    assert "given up" in given_up.shown
    assert not setup.view(filled(setup)).text.lossy


def test_what_is_not_known_is_read_in_the_words_of_the_form(setup: LabSetup) -> None:
    values = filled(setup, lab_format=FORMATS.label("supermerger-metadata"))
    shown = setup.view(values).text.shown
    assert "Press &quot;Read their contents&quot;" in shown
    assert "--" not in shown


def test_a_saved_merge_is_pasted_again_and_gives_the_same_bytes(setup: LabSetup, desk) -> None:
    values = filled(
        setup,
        lab_method="TIES",
        lab_base="a.safetensors",
        lab_models=["b.safetensors"],
        lab_dtype="fp32",
        lab_name="first",
    )
    setup.save(values)
    desk.lab.wait(LONG_S)
    written = setup.view(values | {"lab_format": FORMATS.label("yaml"), "lab_name": "x"}).text.shown
    text = html.unescape(re.search(r"<pre[^>]*>(.*)</pre>", written, re.DOTALL)[1])
    assert "sha256: ''" not in text
    loaded = setup.load(text, setup.fill())
    setup.save(setup.fill() | loaded.values | {"lab_name": "second"})
    desk.lab.wait(LONG_S)
    folder = Path(desk.catalogue.models()[0].path).parent
    first, second = (folder / f"{name}.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


# --- what stands in the way ----------------------------------------------------------------------


def test_a_model_that_is_chosen_twice_is_told(setup: LabSetup) -> None:
    view = setup.view(filled(setup, lab_b="a.safetensors"))
    assert "a.safetensors is chosen as Model A and Model B." in view.checks
    # N copies of a model are that model
    assert view.ready
    many = {"lab_method": "TIES", "lab_base": "a.safetensors"}
    view = setup.view(filled(setup, lab_models=["b.safetensors", "a.safetensors"], **many))
    assert "SHA-256 of a.safetensors and b.safetensors is not known" in view.text.shown
    assert "a.safetensors is chosen as Base and number 2 of Models." in view.checks


def test_an_unfinished_merge_of_the_name_is_told(setup: LabSetup, desk) -> None:
    folder = Path(desk.catalogue.models()[0].path).parent
    for kind in ("partial", "journal"):
        (folder / f".mine.safetensors.{kind}").write_bytes(b"")
    view = setup.view(filled(setup, lab_name="mine"))
    assert "unfinished merge into mine.safetensors is kept" in view.checks
    assert view.ready


def test_a_disk_that_is_too_small_is_told(setup: LabSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    view = setup.view(filled(setup))
    assert "has 0 MB free" in view.checks
    assert not view.ready
    assert view.previewable


def test_while_a_merge_is_made_no_other_can_start(
    setup: LabSetup, desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.lab_desk import HalfWay

    half_way = HalfWay(monkeypatch)
    setup.save(filled(setup))
    half_way.wait()
    view = setup.view(filled(setup))
    half_way.open()
    assert "A merge is in progress" in view.checks
    assert "unfinished" not in view.checks
    assert not view.ready
    assert not view.previewable
    desk.lab.wait(LONG_S)
    assert setup.view(filled(setup)).ready
