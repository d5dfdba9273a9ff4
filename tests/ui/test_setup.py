from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import msgspec
import pytest
import torch

from lib_automerge.app.desk import Desk
from lib_automerge.app.measuring import measurement_of
from lib_automerge.domain.config import SearchConfig
from lib_automerge.domain.payload import named
from lib_automerge.errors import BusyError, ConfigError
from lib_automerge.search import proposers
from lib_automerge.study.findings import summarize
from lib_automerge.study.payload_sets import PayloadSet
from lib_automerge.ui.search_fields import LIMITS, PATIENT
from lib_automerge.ui.setup import STARTERS, Setup, trial_of
from lib_automerge.ui.texts import payloads_of
from lib_automerge.ui.views.learned import learned
from tests.checkpoints import write_tiny
from tests.fake_host import FakeHost
from tests.merging_host import MergingHost
from tests.run_folders import Plan, Until, build
from tests.ui.fake_desk import FakeCatalogue

NOW = datetime(2026, 5, 3, 22, 30, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("a", "b")):
        write_tiny(folder / f"{name}.safetensors", "sd1", seed=seed)
    write_tiny(folder / "xl.safetensors", "sdxl", seed=3)
    (folder / "broken.safetensors").write_bytes(b"12345678")
    return folder


@pytest.fixture
def setup(tmp_path: Path, models: Path) -> Setup:
    catalogue = FakeCatalogue(tmp_path / "data", models)
    catalogue.loaded = "a.safetensors"
    return Setup(Desk(FakeHost(), catalogue), now=lambda: NOW)


def ready(setup: Setup, **changes: object) -> dict[str, object]:
    return setup.fill() | {"model_b": "b.safetensors", "reward": "Demo"} | changes


def test_a_fresh_form_needs_only_b(setup):
    values = setup.fill()
    assert values["model_a"] == "a.safetensors"
    assert values["payload_set"] == "Starter (SD1, 512)"
    view = setup.view(values)
    assert not view.ready
    assert "Model B is not chosen" in view.checks
    assert "Images per try: 8 (8 prompts x 1 seed)" in view.count
    assert setup.view(ready(setup)).ready


def test_every_architecture_has_a_starter_set(setup):
    for name in set(STARTERS.values()):
        payloads = named(setup.desk.sets.get(name).payloads)
        assert sum(p.held_out for p in payloads) == sum(not p.held_out for p in payloads) == 8


def test_the_starter_set_follows_model_a_until_it_is_edited(setup):
    values = setup.fill() | {"model_a": "xl.safetensors"}
    changed = setup.model_a_changed(values)
    assert changed["payload_set"] == "Starter (SDXL, 1024)"
    assert payloads_of(str(changed["payloads"]))[0].cfg_scale == 6.0
    assert setup.model_a_changed(values | changed) == {}
    edited = values | {"payloads": '[{"prompt": "mine"}]'}
    assert setup.model_a_changed(edited) == {}
    assert setup.model_a_changed(values | {"payload_set": "Demo (64)"}) == {}


def test_the_form_comes_back_as_it_was_left(setup):
    values = ready(setup, name="night", seed=7, rules='{"M00": {"fixed": 1}}')
    setup.keep(values | {"payload_prompt": "not part of the form"})
    assert setup.fill() == {name: values[name] for name in setup.fill()}


def test_what_is_gone_is_not_filled_in(setup):
    values = ready(setup, model_a="old.safetensors", model_b="old.safetensors", payload_set="Old")
    setup.keep(values)
    again = setup.fill()
    assert (again["model_a"], again["model_b"]) == ("a.safetensors", "")
    assert again["payload_set"] == ""
    assert again["payloads"] == values["payloads"]


def test_a_loaded_model_that_is_not_offered_is_not_filled_in(setup):
    setup.desk.catalogue.loaded = "elsewhere"
    assert setup.fill()["model_a"] == ""


def test_a_chosen_set_replaces_the_prompts(setup):
    setup.desk.sets.save(PayloadSet(name="Mine", payloads=payloads_of('[{"prompt": "x"}]')))
    changed = setup.choose_set(setup.fill() | {"payload_set": "Mine"})
    assert [p.prompt for p in payloads_of(str(changed["payloads"]))] == ["x"]
    with pytest.raises(ConfigError, match="no payload set 'Gone'"):
        setup.choose_set(setup.fill() | {"payload_set": "Gone"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_b": "a.safetensors"}, "same file"),
        ({"model_b": "xl.safetensors"}, "Stable Diffusion XL"),
        ({"model_b": "broken.safetensors"}, "broken.safetensors"),
        ({"model_a": "broken.safetensors"}, "broken.safetensors"),
        ({"reward": "ImageReward"}, "needs the file ImageReward.pt"),
        ({"payloads": "[]"}, "There are no payloads"),
        ({"payloads": '[{"prompt": "x", "held_out": true}]'}, "held out"),
        ({"payloads": '[{"prompt": "x", "seeds": [-1]}]'}, "seed -1 is out of range"),
        ({"payloads": '[{"prompt": "x", "steps": 0}]'}, "steps is 0"),
        ({"payloads": "{"}, "prompts as text cannot be read"),
        ({"budget": "Custom", "evaluations": 3}, "&quot;Evaluations&quot; is 3"),
        ({"low": 1, "high": 0}, "reversed"),
        ({"rules": '{"IN00": {"fixed": 7}}'}, "between -1 and 2"),
        ({"rules": '{"IN77": {}}'}, "IN77"),
        ({"start": "IN00:3"}, "outside its range"),
        ({"coarse_first": True, "optimizer": "Random"}, "searches single blocks only"),
        ({"warm_start": "/gone/log.csv"}, "arm start from /gone/log.csv: there is no such file"),
        (
            {"early_reject": True, "payloads": '[{"prompt": "x"}]'},
            "&quot;Give up on poor candidates early&quot; needs more than 4 prompts",
        ),
        ({"calibration": -1}, "&quot;Seed sets to measure the noise&quot; is -1"),
        ({"budget": "Custom", "images": "0"}, "&quot;Images&quot; is 0"),
        ({"stop": PATIENT, "patience": "0"}, "&quot;Evaluations without a better one&quot; is 0"),
    ],
)
def test_trouble_is_told_and_start_is_closed(setup, changes, words):
    view = setup.view(ready(setup, **changes))
    assert words in view.checks
    assert not view.ready


def test_an_optimizer_whose_package_is_missing_is_told_before_start(setup, monkeypatch):
    values = ready(setup, optimizer="CMA-ES")
    monkeypatch.setattr(proposers, "missing", lambda name: ("cma",) if name == "cma" else ())
    view = setup.view(values)
    assert not view.ready
    assert "pip install cma" in view.checks
    assert "Not installed here: cma." in view.optimizer
    with pytest.raises(ConfigError, match="pip install cma"):
        setup.start(values)
    monkeypatch.setattr(proposers, "missing", lambda name: ())
    assert "Not installed" not in setup.view(values).optimizer


def test_unreadable_prompts_are_told_where_the_table_is(setup):
    view = setup.view(ready(setup, payloads="["))
    assert "cannot be read" in view.table
    assert view.names == ()


def test_the_view_follows_method_and_budget(setup):
    view = setup.view(ready(setup))
    assert (view.needs_c, view.custom) == (False, False)
    view = setup.view(ready(setup, method="Add difference", budget="Custom"))
    assert (view.needs_c, view.custom) == (True, True)
    assert "(B - C)" in view.method


def test_the_view_follows_the_models_and_parameters_of_the_method(setup):
    seen = {}
    for method in ("Weighted sum", "Sum twice", "TIES", "Average (uniform soup)", "Model Stock"):
        view = setup.view(ready(setup, method=method))
        seen[method] = (view.needs_c, view.needs_many, view.weighted, view.parameters)
        assert view.parametric == bool(view.parameters)
    assert seen == {
        "Weighted sum": (False, False, True, ()),
        "Sum twice": (True, False, True, ("beta",)),
        "TIES": (False, True, False, ("k", "scale")),
        "Average (uniform soup)": (False, True, False, ("shares",)),
        "Model Stock": (False, True, False, ("scope",)),
    }
    assert "A is the base" in setup.view(ready(setup, method="TIES")).method
    text = '{"k": {"low": 0.125}}'
    assert "searched from 0.125 to 1" in (
        setup.view(ready(setup, method="TIES", parameters=text)).parameter_table
    )
    view = setup.view(ready(setup, parameters=text))
    assert view.parametric
    assert "Weighted sum has no such parameter" in view.parameter_table
    assert not view.ready
    assert "cannot be read" in setup.view(ready(setup, parameters="[")).parameter_table


@pytest.fixture
def merging(setup: Setup) -> Setup:
    """A form over a host that merges any number of models."""
    return Setup(Desk(MergingHost(torch.ones(())), setup.desk.catalogue), now=lambda: NOW)


def many(setup: Setup, method: str = "TIES", **changes: object) -> dict[str, object]:
    """A form for three models and a base: copies count as models of their own."""
    folder = Path(setup.desk.catalogue.models()[0].path).parent
    for seed, name in enumerate(("c", "d"), 20):
        if not (folder / f"{name}.safetensors").exists():
            write_tiny(folder / f"{name}.safetensors", "sd1", seed=seed)
    more = {"method": method, "more_models": ["c.safetensors", "d.safetensors"]}
    return ready(setup, **more) | {"parameters": '{"k": {}}'} | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": "{}"}, "nothing is left to search"),
        ({"parameters": '{"k": {"high": 2}}'}, "must be within 0 to 1"),
        ({"model_b": "a.safetensors"}, "same file"),
        ({"more_models": ["b.safetensors"]}, "same file"),
        ({"more_models": ["xl.safetensors"]}, "Stable Diffusion XL"),
        ({"more_models": ["gone"]}, "there is no checkpoint"),
        ({"start": "k:3"}, "outside its range"),
        ({"start": "IN00:0.5"}, "IN00"),
        ({"coarse_first": True, "optimizer": "Random"}, "searches single blocks only"),
        ({"budget": "Custom", "evaluations": 3}, "&quot;Evaluations&quot; is 3"),
    ],
)
def test_trouble_with_many_models_is_told_and_start_is_closed(setup, changes, words):
    assert setup.view(many(setup)).ready
    view = setup.view(many(setup, **changes))
    assert words.lower() in view.checks.lower()
    assert not view.ready


def test_groups_first_for_a_method_without_weights(setup):
    text = '{"k": {"per_block": true}, "scale": {}}'
    assert setup.view(many(setup, coarse_first=True, parameters=text)).ready
    assert setup.view(many(setup, coarse_first=True)).ready


def test_a_trial_of_many_models_tries_a_candidate(merging):
    setup = merging
    values = many(setup)
    trial = trial_of(setup.config(values))
    assert trial.search.parameters.keys() == {"k"}
    assert trial.search.evaluations == 6
    assert setup.view(values).trial == 6
    assert "6 evaluations" in setup.trial(values)
    assert setup.desk.worker.wait(60)
    opened = setup.desk.open(setup.desk.library.entries()[0].id)
    assert opened.status == "finished"
    assert "k" in opened.state.evaluations[6].weights


def test_the_noise_is_measured_for_many_models(merging):
    setup = merging
    values = many(setup, reward="Demo")
    config = measurement_of(setup.config(values))
    assert config.search.parameters == setup.config(values).search.parameters
    assert "has started" in setup.measure(values)
    assert setup.desk.worker.wait(60)
    opened = setup.desk.open(setup.desk.library.entries()[0].id)
    assert opened.status == "finished"
    assert len(opened.state.history) == 5
    assert opened.state.calibrated is not None


def test_a_model_of_many_that_is_gone_is_told_at_the_next_visit(setup):
    setup.keep(many(setup, more_models=["c.safetensors", "gone.safetensors"]))
    assert setup.fill()["more_models"] == ["c.safetensors"]
    assert setup.gone() == ("gone.safetensors",)
    setup.keep(setup.fill())
    assert setup.gone() == ()


def test_a_number_that_counts_is_in_sight(setup):
    assert not setup.view(ready(setup)).waits
    assert setup.view(ready(setup, stop=PATIENT)).waits
    assert setup.view(ready(setup, patience="7")).waits
    assert not setup.view(ready(setup, stop=LIMITS, patience="7")).waits


def test_the_time_is_not_promised_before_it_is_known(setup):
    custom = ready(setup, budget="Custom", hours="8")
    assert "more is known after the first one" in setup.view(custom).checks
    assert "the time is known after the first one" in setup.view(ready(setup)).checks


def test_the_picture_shows_what_is_opted_in(setup):
    assert "28 weights" in setup.view(ready(setup, vae=True)).space
    assert "Choose model A" in setup.view(ready(setup, model_a="")).space


def test_blocks_that_will_be_left_out_are_told_where_the_space_is(setup):
    assert "A and B are equal will be left out" in setup.view(ready(setup)).space
    assert "left out" not in setup.view(ready(setup, method="Add difference")).space


def test_a_trial_is_the_shortest_run(setup):
    payloads = '[{"prompt": "x", "seeds": [1, 2]}, {"prompt": "y"}, {"prompt": "z"}, '
    payloads += (
        '{"prompt": "h", "held_out": true, "seeds": [3, 4, 5]}, {"prompt": "i", "held_out": true}]'
    )
    config = setup.config(
        ready(
            setup,
            start="IN00:0.5",
            seeds_per_payload=3,
            payloads=payloads,
            budget="Custom",
            images="1",
            stop=PATIENT,
            warm_start="/gone",
            coarse_first=True,
            early_reject=True,
            calibration=4,
        )
    )
    trial = trial_of(config)
    assert trial.name == "trial"
    assert trial.search.evaluations == 4
    assert [p.prompt for p in trial.payloads] == ["x", "y", "h"]
    assert [p.seeds for p in trial.payloads] == [(1,), (), ()]
    assert trial.output.checkpoint == "never"
    assert trial.search == SearchConfig(evaluations=4, stop="never", seeds_per_payload=1)
    assert trial.models == config.models
    assert trial.generator == config.generator
    assert msgspec.structs.replace(trial, payloads=()).search.hours is None


def test_start_runs_and_its_pace_is_used(setup):
    values = ready(setup)
    assert "has started" in setup.trial(values)
    with pytest.raises(BusyError, match="in progress"):
        setup.start(values)
    assert setup.desk.worker.wait(60)
    opened = setup.desk.open(setup.desk.library.entries()[0].id)
    assert opened.status == "finished"
    assert len(opened.state.history) == 4
    # the trial's own run can be learned from
    (name,) = setup.earlier_runs(values)
    assert name.startswith("trial (")
    assert name.endswith("), 4 evaluations")
    assert setup.view(values).earlier == (name,)
    checks = setup.view(values).checks
    assert "done around" in checks
    assert "more is known" not in checks


def test_an_earlier_run_is_added_once(setup, tmp_path):
    build(tmp_path / "data" / "runs" / "20260101-abcd", Plan(evaluations=5, size=0))
    values = ready(setup, warm_start="/other/log.csv")
    (name,) = setup.earlier_runs(values)
    assert name == "meadow-1 (20260101-abcd), 5 evaluations"
    folder = str(tmp_path / "data" / "runs" / "20260101-abcd")
    changed = setup.add_earlier_run(values, name)
    assert changed == {"warm_start": f"/other/log.csv\n{folder}"}
    assert setup.add_earlier_run(values | changed, name) == changed
    with pytest.raises(ConfigError, match="no run 'x' to learn from"):
        setup.add_earlier_run(values, "x")


def test_runs_that_cannot_be_learned_from_are_not_offered(setup, tmp_path):
    runs = tmp_path / "data" / "runs"
    build(runs / "20260101-aaaa", Plan(evaluations=5, size=0, until=Until.STARTED))
    build(runs / "20260101-bbbb", Plan(evaluations=5, size=0, architecture="sdxl"))
    (runs / "20260101-cccc").mkdir()
    assert setup.earlier_runs(ready(setup)) == {}
    assert len(setup.earlier_runs(ready(setup, model_a="xl.safetensors"))) == 1


def test_the_noise_is_measured_on_the_images_of_the_run(setup):
    values = ready(setup, seeds_per_payload=2, stop=PATIENT, start="IN00:0.5", budget="Custom")
    config = measurement_of(setup.config(values))
    assert config.search == SearchConfig(
        evaluations=3, stop="never", calibration=4, seeds_per_payload=2
    )
    assert config.output.checkpoint == "never"
    assert config.payloads == setup.config(values).payloads
    assert measurement_of(setup.config(values | {"calibration": 6})).search.calibration == 6
    assert "on 4 sets of fresh seeds" in setup.measure(values)
    assert setup.desk.worker.wait(60)
    opened = setup.desk.open(setup.desk.library.entries()[0].id)
    assert opened.status == "finished"
    assert len(opened.state.history) == 3
    assert opened.state.calibrated is not None
    assert opened.state.verdict is None
    made = sum(len(images) for images in opened.state.scores.values())
    assert made == setup.desk.forecast(config).images == (3 + 4) * 8 * 2
    found = summarize(opened.path, opened.manifest, opened.state)
    told = learned(found)
    assert "How exact a score is" in told
    assert "Why it ended" not in told


def test_start_refuses_what_the_checks_refuse(setup):
    with pytest.raises(ConfigError, match="same file"):
        setup.start(ready(setup, model_b="a.safetensors"))
    assert setup.desk.library.entries() == []
