"""What a run taught, as the report shows it: to scale, in plain words, honest about doubt."""

from __future__ import annotations

from xml.etree import ElementTree

import msgspec
import pytest

from lib_automerge.domain.config import BlockRule
from lib_automerge.domain.insights import (
    Change,
    Effect,
    Insights,
    Interaction,
    LengthScale,
    Predicted,
    Rounding,
    Sensitivity,
)
from lib_automerge.study import report
from lib_automerge.study.block_chart import Bar, block_chart, block_rows
from lib_automerge.study.effects_chart import effects_chart, effects_rows
from lib_automerge.study.findings import Findings, findings
from lib_automerge.study.lesson_words import in_words, length_text
from lib_automerge.study.lessons import lessons
from lib_automerge.study.searched import FIXED, FROM_A, kept_blocks
from lib_automerge.study.store import RunFolder
from tests.run_folders import Plan, build, payloads

SVG = "{http://www.w3.org/2000/svg}"
SMALL = Plan(evaluations=14, payloads=payloads(2, 3), size=0)


def effect(name: str, difference: float, error: float, best: float = 0.75) -> Effect:
    curve = ((0.0, -difference / 2), (1.0, difference / 2))
    return Effect(name=name, difference=difference, standard_error=error, best=best, curve=curve)


def change(difference: float, error: float) -> Change:
    return Change(difference=difference, standard_error=error)


# the largest first, as the search tells them; OUT03 stands after IN04 in the network
EFFECTS = (effect("OUT03", 0.4, 0.1), effect("IN04", 0.2, 0.05, 0.25), effect("M00", 0.1, 0.2))
TAUGHT = Insights(
    evaluations=57,
    leader=12,
    score=0.6,
    sd=0.02,
    noise=0.03,
    effects=EFFECTS,
    lengths=(
        LengthScale(name="IN04", length=0.8, low=0.5, high=1.3, determined=True),
        LengthScale(name="M00", length=9.0, low=2.0, high=40.0, determined=False),
        LengthScale(name="OUT03", length=2.5, low=1.5, high=4.2, determined=True),
    ),
    interactions=(
        Interaction(first="IN04", second="OUT03", difference=0.31, standard_error=0.06),
        Interaction(first="IN04", second="M00", difference=-0.22, standard_error=0.05),
    ),
    predicted=Predicted(
        weights={"IN04": 0.25, "OUT03": 1.0}, score=0.65, sd=0.04, gain=change(0.05, 0.04)
    ),
    rounding=Rounding(
        change=change(-0.0004, 0.0006),
        harmless=True,
        blocks=(
            Sensitivity(
                name="IN04", hundredth=change(-0.001, 0.0004), twentieth=change(-0.03, 0.01)
            ),
            Sensitivity(name="M00", hundredth=change(-0.001, 0.004), twentieth=change(-0.04, 0.03)),
            Sensitivity(
                name="OUT03", hundredth=change(0.001, 0.001), twentieth=change(0.02, 0.001)
            ),
        ),
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return build(tmp_path_factory.mktemp("runs") / "run", SMALL)


@pytest.fixture(scope="module")
def found(folder: RunFolder) -> Findings:
    return findings(folder.path, folder.manifest(), folder.events())


def taught(**changes: object) -> Insights:
    return msgspec.structs.replace(TAUGHT, **changes)


def text_of(markup: str) -> str:
    return "".join(ElementTree.fromstring(f"<div>{markup}</div>").itertext())


def of_class(chart: str, *classes: str) -> list[ElementTree.Element]:
    nodes = ElementTree.fromstring(chart).iter()
    return [n for n in nodes if set(classes) <= set((n.get("class") or "").split())]


def number_of(node: ElementTree.Element, name: str) -> float:
    return float(node.get(name) or 0)


# --- the effects --------------------------------------------------------------------------------


def test_effects_are_drawn_to_scale_and_doubtful_ones_hollow() -> None:
    for draw, length, ends in (
        (effects_chart, "height", ("y1", "y2")),
        (effects_rows, "width", ("x1", "x2")),
    ):
        chart = draw("e", EFFECTS, 3, 900.0)
        bars = of_class(chart, "weight")
        sizes = [number_of(bar, length) for bar in bars]
        assert sizes[0] == pytest.approx(2 * sizes[1], abs=0.1)
        assert sizes[1] == pytest.approx(2 * sizes[2], abs=0.1)
        assert ["kept" in (bar.get("class") or "") for bar in bars] == [False, False, True]
        # a whisker is one standard error to either side, and never below zero
        spans = [
            abs(number_of(line, ends[0]) - number_of(line, ends[1]))
            for line in of_class(chart, "error")[::3]
        ]
        unit = sizes[0] / 0.4
        assert spans == pytest.approx([0.2 * unit, 0.1 * unit, 0.3 * unit], abs=0.1)
        words = [(n.text or "") for n in ElementTree.fromstring(chart).iter(f"{SVG}text")]
        assert {"0.400", "0.200", "0.75", "0.25"} <= set(words)
        assert words.count("0.75") == 1, "the best weight of a doubtful effect is not told"
        said = ElementTree.fromstring(chart).findtext(f"{SVG}desc") or ""
        assert "OUT03: 0.400 ± 0.100, best at 0.75" in said
        assert "M00: 0.100 ± 0.200, not told from chance" in said


def test_effects_of_nothing_and_of_any_size_fit_the_frame() -> None:
    for size in (0.0, 1e-9, 1e9):
        some = [effect("IN00", size, size / 3), effect("TIME_EMBED", size / 2, size)]
        for draw, width in ((effects_chart, 1120.0), (effects_rows, 360.0)):
            chart = draw("e", some, 3, width)
            assert "nan" not in chart
            for node in ElementTree.fromstring(chart).iter():
                for name in ("x", "x1", "x2"):
                    assert -1.0 <= number_of(node, name) <= width + 1.0


def test_the_report_shows_the_blocks_in_the_order_of_the_network(found: Findings) -> None:
    shown = text_of(lessons(found, TAUGHT))
    assert "after 57 evaluations" in shown
    assert shown.index("IN04: ") < shown.index("M00: ") < shown.index("OUT03: ")
    assert "No block stands out" not in shown
    doubtful = tuple(effect(e.name, e.difference, 1.0) for e in EFFECTS)
    assert "No block stands out yet" in text_of(lessons(found, taught(effects=doubtful)))


# --- pairs, prediction, rounding ----------------------------------------------------------------


def test_pairs_say_what_pays(found: Findings) -> None:
    shown = text_of(lessons(found, TAUGHT))
    assert "IN04 and OUT03: raise or lower both. +0.31" in shown
    assert "IN04 and M00: one instead of the other. −0.22" in shown
    none = text_of(lessons(found, taught(interactions=())))
    assert "No two blocks stand out" in none
    assert "raise or lower both" not in none


def test_a_prediction_is_called_one_and_judged_by_its_error(found: Findings) -> None:
    doubtful = text_of(lessons(found, TAUGHT))
    assert "Not evaluated, a prediction" in doubtful
    assert "against evaluation 12, less than two standard errors" in doubtful
    assert '{"IN04": 0.25, "OUT03": 1}' in doubtful
    sure = msgspec.structs.replace(TAUGHT.predicted, gain=change(0.05, 0.01))
    shown = text_of(lessons(found, taught(predicted=sure)))
    assert "more than two standard errors: worth an evaluation" in shown
    none = text_of(lessons(found, taught(predicted=None)))
    assert "No recipe in the searched ranges is expected to be better than evaluation 12" in none
    assert "prediction:" not in none
    assert "than Model B (evaluation 2)" in text_of(
        lessons(found, taught(predicted=None, leader=2))
    )


def test_rounding_says_whether_digits_matter_and_where(found: Findings) -> None:
    shown = text_of(lessons(found, TAUGHT))
    assert "Two decimals are enough" in shown
    # M00 is not known, and OUT03 gains
    costs = shown.split("A step of 0.05 in one block costs most in ")[1].split(".\n")[0]
    assert costs.startswith("IN04 (0.030")
    assert "OUT03" not in costs[:20]
    assert "M00" not in costs[:20]
    harm = Rounding(change=change(-0.2, 0.01), harmless=False, blocks=TAUGHT.rounding.blocks)
    assert "Keep the digits" in text_of(lessons(found, taught(rounding=harm)))


def test_a_length_that_the_scores_did_not_decide_has_only_a_lower_end() -> None:
    assert length_text(TAUGHT.lengths[0]) == "0.8 (0.5 to 1.3)"
    assert length_text(TAUGHT.lengths[1]) == "above 2.0"


def test_a_terminal_gets_the_same_in_columns(found: Findings) -> None:
    text = in_words(found, TAUGHT)
    lines = text.splitlines()
    rows = [line for line in lines if line.startswith(("IN04", "M00", "OUT03"))]
    assert [row.split()[0] for row in rows] == ["IN04", "M00", "OUT03"]
    assert len({row.index("±") for row in rows}) == 1
    assert "Whiskers" not in text
    for part in ("Pairs: Some blocks", "IN04 and M00", "Predicted best: Not", "Rounding: Two"):
        assert part in text


def test_a_report_has_the_section_only_if_something_is_known(folder: RunFolder) -> None:
    plain, full = report.render(folder), report.render(folder, TAUGHT)
    assert "What the search learned" not in plain
    assert 'href="#learned"' in full
    assert 'id="effects-wide-title"' in full


# --- blocks that were not searched --------------------------------------------------------------


def test_why_a_block_was_not_searched(folder: RunFolder) -> None:
    manifest = folder.manifest()
    rules = {
        "IN00": BlockRule(fixed=0.4),
        "IN01": BlockRule(tied_to="IN04"),
        "IN02": BlockRule(low=0.3, high=0.3),
        "IN03": BlockRule(low=0.2, high=0.9),
        "IN05": BlockRule(high=0.0),
        "BASE": BlockRule(low=0.0, high=0.5),
    }
    assert kept_blocks(manifest) == {"BASE": FROM_A, "VAE": FROM_A}
    search = msgspec.structs.replace(manifest.config.search, blocks=rules)
    config = msgspec.structs.replace(manifest.config, search=search)
    found = kept_blocks(msgspec.structs.replace(manifest, config=config))
    assert list(found) == ["IN00", "IN01", "IN02", "IN05", "VAE"]
    assert {found[block] for block in ("IN00", "IN02", "IN05")} == {FIXED}
    assert found["IN01"].phrase == "tied to IN04"


@pytest.mark.parametrize("draw", [block_chart, block_rows])
def test_a_block_that_was_not_searched_is_hollow_and_says_why(draw: object) -> None:
    assert callable(draw)
    bars = [
        Bar("IN00", 0.4, 0.1, FIXED),
        Bar("IN01", 0.7, 0.1),
        Bar("BASE", 0.0, 0.2, FROM_A),
        Bar("VAE", 0.0, 0.0, FROM_A),
    ]
    chart = draw("b", bars, ends={0.0: "A"}, width=900.0)
    kinds = [node.get("class") for node in of_class(chart, "weight")]
    assert kinds == ["weight kept", "weight", "weight kept", "weight idle"]
    words = " ".join((n.text or "") for n in ElementTree.fromstring(chart).iter(f"{SVG}text"))
    assert words.count("fixed") == 1
    assert words.count("kept" if draw is block_chart else "as in A") == 1
    assert "equal" in words
    said = ElementTree.fromstring(chart).findtext(f"{SVG}desc") or ""
    assert "BASE: weight 0.0000, not searched, as in A, A and B are 20 % apart" in said
    assert "IN01: weight 0.7000, A and B" in said


def test_the_report_explains_its_hollow_bars(folder: RunFolder) -> None:
    html = report.render(folder)
    assert 'class="weight kept"' in html
    assert "Hollow bars were not searched" in html
