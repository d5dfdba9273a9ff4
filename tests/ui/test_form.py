from __future__ import annotations

from pathlib import Path

import pytest

from lib_automerge.app.ports import ModelChoice
from lib_automerge.domain.config import (
    BlockRule,
    GeneratorConfig,
    OutputConfig,
    ParameterRule,
    RewardConfig,
    RunConfig,
    SearchConfig,
    VerdictConfig,
)
from lib_automerge.domain.payload import Hires, Payload
from lib_automerge.errors import ConfigError
from lib_automerge.search import proposers
from lib_automerge.ui import form_fields, reward_fields, search_fields
from lib_automerge.ui.fields import clean, defaults
from lib_automerge.ui.form import Place, config_of, values_of
from lib_automerge.ui.form_fields import FIELDS
from lib_automerge.ui.search_fields import (
    CUSTOM,
    LIMITS,
    PATIENCE,
    PATIENT,
    QUICK,
    STANDARD,
    STOPS,
    THOROUGH,
)

MODELS = (
    ModelChoice("one.safetensors [12ab]", "/models/one.safetensors"),
    ModelChoice("two", "/models/two.safetensors"),
    ModelChoice("three", "/models/three.safetensors"),
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(models=MODELS, generator="fake", data=tmp_path, architecture="sd1")


def filled(**changes: object) -> dict[str, object]:
    values = defaults(FIELDS) | {
        "model_a": MODELS[0].title,
        "model_b": "two",
        "payloads": '[{"prompt": "a cat"}]',
    }
    return values | changes


def test_two_models_are_enough(place):
    config = config_of(filled(), place)
    assert config.models == {"a": MODELS[0].path, "b": MODELS[1].path}
    assert config.search == SearchConfig(evaluations=80, stop="regret", seeds_per_payload=1)
    assert config.output == OutputConfig(checkpoint="gain")
    assert config.generator.name == "fake"
    assert config.reward.name == "image_reward"
    assert config.reward.options == {}


def full(place: Place) -> RunConfig:
    return RunConfig(
        models={"a": MODELS[0].path, "b": MODELS[1].path, "c": MODELS[2].path},
        payloads=(
            Payload(
                prompt='a "cat"\nwith <b>, ü',
                name="cat",
                seeds=(1, 2**32 - 1),
                hires=Hires(scale=1.5, sampler="Euler"),
                override_settings={"eta": 1},
                cfg_scale=6.125,
                styles=("photo",),
            ),
            Payload(prompt="x", held_out=True, weight=0.3),
        ),
        name="a night",
        method="add_difference",
        reward=RewardConfig(
            name="image_reward", options={"weights": "/w.pt", "device": "cuda:1", "batch_size": 4}
        ),
        search=SearchConfig(
            optimizer="sobol",
            evaluations=33,
            hours=1.1,
            images=1_000_000,
            target=-0.125,
            patience=7,
            stop="improvement",
            low=-0.5,
            high=1.25,
            blocks={
                "IN00": BlockRule(low=0.1, high=0.3),
                "M00": BlockRule(fixed=1.0),
                "OUT11": BlockRule(tied_to="OUT10"),
                "BASE": BlockRule(),
                "VAE": BlockRule(fixed=0.5),
            },
            seed=2**32 - 1,
            seeds_per_payload=3,
            start=({"IN00": 0.1, "M00": 1.0}, {}, {"BASE": 1 / 3}),
            warm_start=("/runs/20260101-abcd", "C:\\logs\\my log.csv"),
            coarse_first=True,
            early_reject=True,
            calibration=5,
        ),
        verdict=VerdictConfig(finalists=5, finalist_seeds=1, seeds=2),
        generator=GeneratorConfig(name="fake"),
        output=OutputConfig(checkpoint="never", dtype="bf16"),
    )


def test_there_and_back_gives_the_same_run(place):
    config = full(place)
    values = values_of(config, place)
    assert config_of(values, place) == config
    assert values["text_encoder"] is True
    assert values["vae"] is False
    assert set(values) == {field.name for field in FIELDS}
    assert clean(FIELDS, values) == values


FOUR = (*MODELS, ModelChoice("four", "/models/four.safetensors"))
PATHS = [model.path for model in FOUR]
OF_METHODS: dict[str, dict[str, object]] = {
    "slerp": {"models": dict(zip("ab", PATHS, strict=False))},
    "slerp of one weight": {
        "method": "slerp",
        "models": dict(zip("ab", PATHS, strict=False)),
        "parameters": {"weight": 0.25},
    },
    "sum_twice": {
        "models": dict(zip("abc", PATHS, strict=False)),
        "parameters": {"beta": {"IN00": 0.0, "VAE": 1 / 3}},
        "search": {
            "parameters": {"beta": ParameterRule(low=0.0, high=0.5, per_block=True)},
            "blocks": {"M00": BlockRule(fixed=1.0), "VAE": BlockRule()},
            "start": ({"IN00": 0.5, "beta.IN00": 0.1, "beta.M00": 1 / 3},),
            "low": 0.1,
        },
    },
    "ties": {
        "models": dict(zip(("base", "m001", "m002", "m003"), PATHS, strict=True)),
        "parameters": {"scale": 0.5, "k": 0.25},
        "search": {"parameters": {"k": ParameterRule()}, "start": ({"k": 0.5}, {})},
    },
    "average": {
        "models": dict(zip(("m001", "m002", "m003", "m004"), PATHS, strict=True)),
        "search": {
            "parameters": {"shares": ParameterRule(low=0.0, high=1.0)},
            "start": ({"shares.m001": 0.5, "shares.m004": 0.0},),
        },
    },
    "della": {
        "models": dict(zip(("base", "m001", "m002"), PATHS, strict=False)),
        "parameters": {"seed": 7, "p": 0.0},
        "search": {
            "coarse_first": True,
            "parameters": {
                "favour": ParameterRule(values=("large", "small")),
                "epsilon": ParameterRule(values=(0.1, 0.2)),
            },
        },
    },
}


@pytest.mark.parametrize("case", OF_METHODS)
def test_there_and_back_gives_the_same_run_of_every_kind_of_method(place, case):
    import msgspec

    place = msgspec.structs.replace(place, models=FOUR)
    given = {"method": case, **OF_METHODS[case]}
    search = msgspec.structs.replace(config_of(filled(), place).search, **given.pop("search", {}))
    config = msgspec.structs.replace(config_of(filled(), place), search=search, **given)
    values = values_of(config, place)
    assert config_of(values, place) == config
    assert set(values) == {field.name for field in FIELDS}
    assert clean(FIELDS, values) == values


def test_one_of_many_models_that_is_gone_is_not_left_out_in_silence(place):
    import msgspec

    models = dict(zip(("base", "m001", "m002", "m003"), PATHS, strict=True))
    config = msgspec.structs.replace(config_of(filled(), place), models=models, method="ties")
    values = values_of(config, place)
    assert values["more_models"] == ["three", "four.safetensors"]
    with pytest.raises(ConfigError, match=r"model 4: there is no checkpoint 'four\.safetensors'"):
        config_of(values, place)


def test_fields_of_weights_are_not_read_for_a_method_without_them(place):
    values = filled(method="TIES", low=None, high="x", rules="nonsense", parameters='{"k": {}}')
    config = config_of(values, place)
    assert config.models == {"base": MODELS[0].path, "m001": MODELS[1].path}
    assert (config.search.low, config.search.high, config.search.blocks) == (0.0, 1.0, {})


@pytest.mark.parametrize("start", ["k:0.5, scale=1", '{"k": 0.5, "scale": 1}', "K:0.5;SCALE:1"])
def test_start_points_name_parameters_too(place, start):
    config = config_of(filled(method="TIES", start=start), place)
    assert config.search.start == ({"k": 0.5, "scale": 1.0},)
    with pytest.raises(ConfigError, match=r"(?i)block of .*'k'"):
        config_of(filled(start=start), place)
    with pytest.raises(ConfigError, match="finite"):
        config_of(filled(method="TIES", start="k:nan"), place)


@pytest.mark.parametrize(
    ("search", "budget"),
    [
        (SearchConfig(evaluations=40), QUICK),
        (SearchConfig(), STANDARD),
        (SearchConfig(evaluations=150), THOROUGH),
        (SearchConfig(evaluations=150, hours=8), CUSTOM),
        (SearchConfig(images=1000), CUSTOM),
        (SearchConfig(target=1.0), CUSTOM),
        (SearchConfig(evaluations=41), CUSTOM),
    ],
)
def test_budgets_have_names(place, search, budget):
    import msgspec

    config = msgspec.structs.replace(config_of(filled(), place), search=search)
    values = values_of(config, place)
    assert values["budget"] == budget
    assert config_of(values, place) == config


@pytest.mark.parametrize(
    ("stop", "patience", "ending"),
    [
        ("regret", None, next(iter(STOPS))),
        ("regret", 25, next(iter(STOPS))),
        ("improvement", None, "When the next candidate promises little"),
        ("improvement", 9, "When the next candidate promises little"),
        ("never", 40, PATIENT),
        ("never", 7, PATIENT),
        ("never", None, LIMITS),
        ("something else", 3, "something else"),
    ],
)
def test_every_way_to_stop_has_its_words(place, stop, patience, ending):
    import msgspec

    search = SearchConfig(stop=stop, patience=patience)
    config = msgspec.structs.replace(config_of(filled(), place), search=search)
    values = values_of(config, place)
    assert values["stop"] == ending
    assert config_of(values, place) == config


def test_waiting_without_a_number_waits_for_a_usual_one(place):
    search = config_of(filled(stop=PATIENT, patience=""), place).search
    assert (search.stop, search.patience) == ("never", PATIENCE)


def test_only_at_the_limits_means_it(place):
    search = config_of(filled(stop=LIMITS, patience="7"), place).search
    assert (search.stop, search.patience) == ("never", None)


def test_every_optimizer_has_a_label_and_says_when_to_use_it():
    for name in proposers.names():
        assert search_fields.OPTIMIZERS.label(name) != name
        assert search_fields.OPTIMIZER_HELP[name]


def test_paths_as_file_managers_copy_them(place):
    text = '\n"C:\\my runs\\one"  \n\n /runs/two \n'
    assert config_of(filled(warm_start=text), place).search.warm_start == (
        "C:\\my runs\\one",
        "/runs/two",
    )


def test_a_model_that_is_gone_leaves_its_field_empty(place):
    import msgspec

    config = msgspec.structs.replace(full(place), models={"a": MODELS[0].path, "b": "/gone"})
    assert values_of(config, place)["model_b"] == ""


def test_a_model_is_found_by_its_file_too(place, tmp_path):
    import msgspec

    file = tmp_path / "m.safetensors"
    file.touch()
    link = tmp_path / "link.safetensors"
    link.symlink_to(file)
    here = msgspec.structs.replace(place, models=(ModelChoice("m", str(link)), MODELS[1]))
    config = msgspec.structs.replace(
        full(place), models={"a": str(file), "b": MODELS[1].path, "c": "x"}
    )
    assert values_of(config, here)["model_a"] == "m"


def test_weights_that_are_looked_up_are_shown_as_empty(place):
    values = values_of(config_of(filled(), place), place)
    assert values["reward_weights"] == ""
    values = values_of(config_of(filled(reward="Demo"), place), place)
    assert values["reward_weights"] == ""


def test_weights_of_another_reward_are_not_handed_on(place):
    config = config_of(filled(reward="Demo"), place)
    assert config.reward == RewardConfig(name="demo", options={})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_b": ""}, "model B is not chosen"),
        ({"model_b": None}, "model B is not chosen"),
        ({"model_b": "gone"}, "model B: there is no checkpoint 'gone'"),
        ({"method": "Add difference"}, "model C is not chosen"),
        (
            {"method": "Average (uniform soup)", "more_models": ["gone"]},
            "model 3: there is no checkpoint 'gone'",
        ),
        ({"method": "TIES", "parameters": "{"}, "parameters as text cannot be read"),
        ({"method": "Magic"}, "unknown merge method: 'Magic'"),
        ({"payloads": "nonsense"}, "prompts as text cannot be read"),
        ({"payloads": '[{"prompt": "x", "stepps": 3}]'}, "stepps"),
        ({"seed": None}, '"Seed of the run" is empty'),
        ({"seed": "many"}, "\"Seed of the run\" is not a number: 'many'"),
        ({"seed": 1.5}, '"Seed of the run" is 1.5. Enter a whole number'),
        ({"seed": float("nan")}, "is not a number"),
        ({"seed": True}, "is not a number"),
        ({"low": ""}, '"Lowest weight" is empty'),
        ({"budget": CUSTOM, "evaluations": None}, '"Evaluations" is empty'),
        ({"budget": CUSTOM, "hours": "soon"}, "\"Hours\" is not a number: 'soon'"),
        ({"patience": "long"}, "\"Evaluations without a better one\" is not a number: 'long'"),
        ({"patience": "2.5"}, '"Evaluations without a better one" is 2.5. Enter a whole number'),
        ({"budget": CUSTOM, "images": "1e3.5"}, "\"Images\" is not a number: '1e3.5'"),
        ({"calibration": None}, '"Seed sets to measure the noise" is empty'),
        ({"rules": "[1]"}, "rules as text cannot be read"),
        ({"rules": '{"IN00": {"lo": 1}}'}, "lo"),
        ({"start": ", ".join(["0.5"] * 26)}, "Name its order: 'supermerger'"),
        ({"start": "IN77:0.5"}, "IN77"),
        ({"reward": "Nobody"}, "unknown reward: 'Nobody'"),
        ({"reward_options": "{"}, "further options of the reward"),
    ],
)
def test_bad_input_is_a_sentence_that_names_the_field(place, changes, words):
    with pytest.raises(ConfigError) as caught:
        config_of(filled(**changes), place)
    assert words in str(caught.value)


def test_fields_out_of_use_are_not_read(place):
    unread = {"evaluations": None, "hours": "x", "images": "x", "target": "x", "patience": "x"}
    config = config_of(filled(stop=LIMITS, **unread), place)
    assert config.search == SearchConfig(stop="never", seeds_per_payload=1)


def test_empty_hours_are_no_limit(place):
    config = config_of(filled(budget=CUSTOM, hours="", target="0.5"), place)
    assert config.search.hours is None
    assert config.search.target == 0.5


def test_start_points_in_lines_in_json_and_in_an_order(place):
    lines = config_of(filled(start="IN00:0.5, M00=1\n\nOUT11:0.25\n"), place).search.start
    assert lines == ({"IN00": 0.5, "M00": 1.0}, {"OUT11": 0.25})
    json = config_of(filled(start='{\n"weights": {\n"IN00": 0.5}}'), place).search.start
    assert json == ({"IN00": 0.5},)
    numbers = ",".join(str(i / 100) for i in range(27))
    listed = config_of(filled(start=numbers, start_order="nat"), place).search.start
    assert listed[0]["OUT"] == 0.13


def test_opting_in_does_not_touch_a_rule_of_the_user(place):
    values = filled(text_encoder=True, vae=True, rules='{"VAE": {"fixed": 1}}')
    blocks = config_of(values, place).search.blocks
    assert blocks == {"BASE": BlockRule(), "VAE": BlockRule(fixed=1.0)}


def test_opting_in_fits_the_architecture(place):
    import msgspec

    sdxl = msgspec.structs.replace(place, architecture="sdxl")
    blocks = config_of(filled(text_encoder=True), sdxl).search.blocks
    assert set(blocks) == {"BASE_L", "BASE_G"}


def test_a_draft_keeps_only_what_still_means_something():
    draft = {
        "seed": "7",
        "low": -1,
        "budget": "For ever",
        "coarse_first": 1,
        "name": "night",
        "model_b": ["x"],
        "unknown": 1,
        "high": float("inf"),
    }
    values = clean(FIELDS, draft)
    assert values == defaults(FIELDS) | {"low": -1, "name": "night"}


def test_a_draft_of_an_older_form_opens(place):
    draft = filled() | {
        "budget": "Overnight: up to 150 evaluations or 8 hours",
        "stop_early": True,
        "patience": 40,
        "evaluations": 90,
    }
    values = clean(FIELDS, draft)
    assert (values["budget"], values["patience"]) == (STANDARD, "")
    assert values["evaluations"] == 90
    assert config_of(values, place).search == SearchConfig(seeds_per_payload=1)


def test_a_draft_from_before_methods_of_many_models_opens(place):
    for label in ("Weighted sum", "Add difference"):
        draft = {**filled(), "method": label, "model_c": "three"}
        del draft["more_models"], draft["parameters"]
        values = clean(FIELDS, draft)
        assert (values["method"], values["more_models"], values["parameters"]) == (label, [], "{}")
        assert config_of(values, place).method == label.lower().replace(" ", "_")
    values = clean(FIELDS, filled(method="Some method", more_models="one", parameters=None))
    assert (values["method"], values["more_models"], values["parameters"]) == (
        "Weighted sum",
        [],
        "{}",
    )


def test_names_and_labels_are_unique():
    names = [field.name for field in FIELDS]
    labels = [field.label for field in FIELDS]
    assert len(set(names)) == len(names)
    assert len(set(labels)) == len(labels)
    assert all(field.info and field.label for field in FIELDS)
    for labels_of in (form_fields.METHODS, reward_fields.REWARDS, search_fields.OPTIMIZERS):
        assert [labels_of.label(labels_of.name(one)) for one in labels_of.labels] == [
            *labels_of.labels
        ]
