from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from lib_automerge.app.checks import Check, Level, Preflight
from lib_automerge.app.estimate import Forecast
from lib_automerge.domain.config import RunConfig, SearchConfig
from lib_automerge.errors import ConfigError
from lib_automerge.merge import methods
from lib_automerge.search import proposers
from lib_automerge.ui import messages

NOW = datetime(2026, 5, 3, 22, 30, tzinfo=timezone(timedelta(hours=2)))


def config(**search: object) -> RunConfig:
    return RunConfig(models={}, payloads=(), search=SearchConfig(**search))  # type: ignore[arg-type]


def test_what_is_to_do_stands_open_and_the_rest_is_folded():
    found = Preflight(
        checks=(
            Check(Level.OK, "Models", "fine."),
            Check(Level.WARNING, "Disk", "that is tight."),
            Check(Level.ERROR, "Reward", "no file <x>."),
        ),
        architecture="sd1",
    )
    html = messages.checks(found)
    assert html.index("Reward") < html.index("Disk") < html.index("<details>")
    assert "1 check passed: Models" in html
    assert "(to do): No file &lt;x&gt;." in html
    assert "(warning): That is tight." in html


def test_checks_speak_the_forms_language():
    text = "search.seeds_per_payload is 0. It must be between 1 and 1000."
    html = messages.checks(
        Preflight(checks=(Check(Level.ERROR, "Search", text),), architecture=None)
    )
    assert "&quot;Seeds per prompt&quot; is 0." in html


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (22_200.0, "about 6 h 10 min, done around 04:40 tomorrow at the latest"),
        (1_500.0, "about 25 min, done around 22:55 at the latest"),
        (200_000.0, "about 55 h 30 min, done around 06:03 on 2026-05-06 at the latest"),
        (3.0, "about 10 s, done around 22:30"),
    ],
)
def test_a_known_pace_gives_a_time_of_the_day(seconds, words):
    told = messages.forecast(
        Forecast(evaluations=150, images=1500, seconds=seconds), config(hours=8), NOW
    )
    assert "Up to 150 evaluations, 1,500 images in all with the proof" in told
    assert words in told


def test_without_a_pace_only_the_limit_is_told():
    expected = Forecast(evaluations=40, images=400, seconds=None)
    assert "at most 8 h of search" in messages.forecast(expected, config(hours=8), NOW)
    assert "the time is known after the first one" in messages.forecast(expected, config(), NOW)


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({}, "It ends earlier when little is left to gain (from evaluation 40 on)."),
        ({"stop": "improvement"}, "when the next candidate promises little (from evaluation 40"),
        (
            {"patience": 30, "target": 0.5},
            "(from evaluation 40 on) or when 30 candidates in a row brought no better one or when "
            "the best reaches 0.5.",
        ),
        ({"stop": "never", "patience": 9}, "earlier when 9 candidates in a row brought no better"),
        ({"stop": "never"}, None),
        # there is nothing to end earlier than that
        ({"evaluations": 40}, None),
    ],
)
def test_it_is_told_when_the_search_ends_earlier(search, words):
    expected = Forecast(evaluations=80, images=400, seconds=None)
    told = messages.forecast(expected, config(**search), NOW)
    if words is None:
        assert "earlier" not in told
    else:
        assert words in told


def test_a_limit_on_images_is_told():
    expected = Forecast(evaluations=63, images=600, seconds=None)
    told = messages.forecast(expected, config(images=500), NOW)
    assert "Up to 63 evaluations within 500 images, 600 images in all with the proof" in told


def test_an_error_for_users_is_one_sentence():
    html = messages.trouble(ConfigError("model B is <gone>. Choose another."))
    assert "Model B is &lt;gone&gt;. Choose another." in html
    assert "details" not in html
    assert 'role="alert"' in html


def test_a_file_keeps_its_name():
    assert messages.sentence("merge.safetensors: it is cut off.").startswith("merge.safetensors:")
    assert messages.sentence("two of them, at most.") == "Two of them, at most."


def test_an_unexpected_error_folds_its_trace_away():
    try:
        {}["<script>"]
    except KeyError as error:
        html = messages.trouble(error)
    assert html.index("KeyError") < html.index("<details>")
    assert "Traceback" in html
    assert "<script>" not in html


def test_every_method_says_what_its_weight_does():
    assert set(messages.METHOD_SENTENCES) == set(methods.METHODS)


def test_an_optimizer_says_what_it_lacks(monkeypatch):
    assert "best choice" in messages.optimizer_help("bayes")
    assert "installed" not in messages.optimizer_help("bayes")
    monkeypatch.setattr(proposers, "missing", lambda name: (f"{name}-package", "torch"))
    told = messages.optimizer_help("cma")
    assert "Not installed here: cma-package and torch." in told
    assert "pip install cma-package torch" in told
    assert messages.optimizer_help("unheard of") == '<p class="automerge-help"></p>'
