from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

from lib_automerge.domain.events import BASELINES, Origin
from lib_automerge.domain.run import Evaluation
from lib_automerge.study.block_chart import Bar, block_chart, block_rows
from lib_automerge.study.charts import (
    Interval,
    Scale,
    difference_bar,
    interval_chart,
    padded,
    sparkline,
    spread_out,
    ticks,
)
from lib_automerge.study.history_chart import history_chart

SVG = "{http://www.w3.org/2000/svg}"
SIZE = (1000.0, 400.0)


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(markup)


def words(markup: str) -> list[str]:
    return ["".join(node.itertext()) for node in parsed(markup).iter(f"{SVG}text")]


def of_class(markup: str, name: str) -> list[ElementTree.Element]:
    return [n for n in parsed(markup).iter() if name in (n.get("class") or "").split()]


def evaluations(scores: list[float | None], error: float = 0.02) -> list[Evaluation]:
    found = []
    for number, score in enumerate(scores, start=1):
        origin = BASELINES[number - 1] if number <= 3 else Origin.SEARCH
        rejected = "black image" if score is None else None
        found.append(
            Evaluation(
                number=number,
                origin=origin,
                weights={},
                score=score,
                standard_error=error,
                rejected=rejected,
            )
        )
    return found


def history(scores: list[float | None], *, winner: int | None = None, width: float = 1000.0) -> str:
    return history_chart("h", evaluations(scores), winner=winner, decimals=3, size=(width, SIZE[1]))


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-1713.0, -918.0), (5.29991, 5.30011), (-3e-7, 2e-7), (0, 1e6)]
)
def test_ticks_are_round_inside_and_a_handful(low: float, high: float) -> None:
    marks = ticks(low, high, 6)
    steps = [b - a for a, b in itertools.pairwise(marks.values)]
    step = min(steps)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert 3 <= len(marks.values) <= 8
    assert all(low - step * 1e-6 <= v <= high + step * 1e-6 for v in marks.values)
    assert any(mantissa == pytest.approx(m, rel=1e-6) for m in (1, 2, 5))
    shown = [f"{v:.{marks.decimals}f}" for v in marks.values]
    assert len(set(shown)) == len(shown)


def test_whole_ticks_have_no_halves() -> None:
    assert all(v == int(v) for v in ticks(1, 3, 10, whole=True).values)


@pytest.mark.parametrize("value", [0.0, 5.3, -1e-9, 1e6, -2.0])
def test_a_single_value_still_has_room_around_it(value: float) -> None:
    low, high = padded([value, value])
    assert low < value < high


def test_crowded_labels_keep_their_distance_order_and_frame() -> None:
    places = spread_out([50.0, 50.0, 52.0, 300.0, 299.0], 16.0, 20.0, 305.0)
    ordered = sorted(places)
    assert all(b - a >= 16.0 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert ordered[-1] <= 305.0
    assert places[4] < places[3]
    assert places[2] > places[0]


def test_every_evaluation_has_its_mark() -> None:
    chart = history([0.1, 0.2, 0.15, 0.18, None, 0.4, 0.3], winner=6)
    hints = [n.text or "" for n in parsed(chart).iter(f"{SVG}title")]
    marks = [h for h in hints if h.startswith("evaluation ")]
    assert len(marks) == 7
    assert "evaluation 6 (search): 0.400 ± 0.020" in marks
    assert "evaluation 5, rejected: black image" in marks
    assert len([n for n in of_class(chart, "rejected") if n.find(f"{SVG}title") is not None]) == 1


def test_the_best_line_only_rises_and_ends_at_the_best() -> None:
    chart = history([-3.0, -2.5, -2.8, -2.6, -1.0, -2.0, -0.5, -0.9])
    path = of_class(chart, "best-line")
    drawn = next(n.get("d") or "" for n in path if n.tag == f"{SVG}path")
    heights = [float(v) for v in re.findall(r"[V,](-?[\d.]+)", drawn)]
    assert len(heights) == 4
    assert heights == sorted(heights, reverse=True)
    assert any(w.startswith("highest") and "−0.500" in w for w in words(chart))


def test_baselines_are_named_with_their_scores_also_when_they_are_equal() -> None:
    chart = history([0.2, 0.2, 0.2, 0.5])
    labels = [n for n in of_class(chart, "label") if n.tag == f"{SVG}text"]
    named = {"".join(n.itertext()): float(n.get("y") or 0) for n in labels}
    assert {"Model A 0.200", "Model B 0.200", "50:50 0.200", "highest 0.500"} == set(named)
    heights = sorted(named.values())
    assert all(b - a >= 15.9 for a, b in itertools.pairwise(heights))


def test_a_ruined_merge_does_not_flatten_the_chart() -> None:
    usual = [0.1, 0.2, 0.15, *(0.2 + 0.01 * k for k in range(20))]
    chart = history([*usual, -400.0])
    lines = {c: of_class(chart, c) for c in ("a", "b")}
    a, b = (float(next(n.get("y1") or 0 for n in lines[c] if n.get("y1"))) for c in ("a", "b"))
    assert a - b > 20
    assert "1 below the scale" in words(chart)
    assert len([n for n in of_class(chart, "low") if n.find(f"{SVG}title") is not None]) == 1


@pytest.mark.parametrize(
    "scores",
    [
        [0.3],
        [0.3, 0.3, 0.3, 0.3],
        [None],
        [1e-9, 2e-9, 1.5e-9, 4e-9],
        [-1500.0, -1400.0, -1450.0, -900.0],
        [0.1, 0.2, None, None, None],
        [math.sin(k) for k in range(2000)],
    ],
)
@pytest.mark.parametrize("width", [1120.0, 360.0])
def test_any_history_is_drawn_within_its_frame(scores: list[float | None], width: float) -> None:
    chart = history(scores, width=width)
    assert "nan" not in chart
    for node in parsed(chart).iter():
        for name, limit in (("x", width), ("cx", width), ("y", SIZE[1]), ("cy", SIZE[1])):
            if node.get(name) is not None:
                assert -1.0 <= float(node.get(name) or 0) <= limit + 1.0


def test_a_screen_reader_gets_the_numbers_of_the_history() -> None:
    root = parsed(history([0.1, 0.2, 0.15, 0.4, None]))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "h-title h-desc"
    said = root.findtext(f"{SVG}desc") or ""
    assert "Model B: 0.200" in said
    assert "Best: 0.400, evaluation 4" in said
    assert "1 rejected" in said


def test_hostile_text_stays_text() -> None:
    hostile = "</svg><script>alert(1)</script>"
    rejected = Evaluation(number=1, origin=Origin.SEARCH, weights={}, rejected=hostile)
    chart = history_chart("h", [rejected], winner=None, decimals=2, size=SIZE)
    rows = block_rows("b", [Bar(hostile, 0.5, 0.1)], ends={0.0: "A"}, width=360.0)
    for markup in (chart, rows):
        assert "<script" not in markup
        assert hostile in "".join(parsed(markup).itertext())


BARS = [
    Bar("IN00", 0.25, 0.1),
    Bar("IN01", -0.5, 0.2),
    Bar("OUT00", 1.75, 0.05),
    Bar("TIME_EMBED", 1.0, None),
    Bar("VAE", 0.0, 0.0),
]
ENDS = {0.0: "A", 1.0: "B"}


def test_bars_start_at_zero_and_end_at_their_weight() -> None:
    chart = block_chart("b", BARS, ends=ENDS, width=1000.0)
    heights = [
        (float(n.get("y") or 0), float(n.get("height") or 0)) for n in of_class(chart, "weight")
    ]
    zero = heights[0][0] + heights[0][1]
    assert heights[1][0] == pytest.approx(zero, abs=0.02)
    assert heights[1][1] == pytest.approx(2 * heights[0][1], abs=0.05)
    assert heights[2][0] + heights[2][1] == pytest.approx(zero, abs=0.02)
    assert heights[2][1] == pytest.approx(7 * heights[0][1], abs=0.1)


@pytest.mark.parametrize("draw", [block_chart, block_rows])
def test_both_block_charts_show_every_value_and_what_is_equal(draw: object) -> None:
    assert callable(draw)
    chart = draw("b", BARS, ends=ENDS, width=900.0)
    shown = words(chart)
    assert {"0.25", "−0.50", "1.75", "1.00", "0.00", "0 = A", "1 = B"} <= set(shown)
    assert any("equal" in word for word in shown)
    said = parsed(chart).findtext(f"{SVG}desc") or ""
    assert "IN01: weight −0.5000, A and B are 20 % apart" in said
    assert "VAE: weight 0.0000, without effect" in said
    distances = of_class(chart, "distance")
    lengths = [float(n.get("height") or 0) * float(n.get("width") or 0) for n in distances]
    assert lengths[1] == pytest.approx(2 * lengths[0], rel=0.02)


def test_add_difference_promises_no_model_b_at_one() -> None:
    assert "1 = B" not in words(block_chart("b", BARS, ends={0.0: "A"}, width=900.0))


def interval(value: float, low: float, high: float, *, sure: bool) -> Interval:
    return Interval(
        name="over Model B", value=value, low=low, high=high, shown="+1", range="r", sure=sure
    )


def test_intervals_are_drawn_to_scale_around_their_value() -> None:
    chart = interval_chart("i", "Gain", [interval(0.3, 0.1, 0.5, sure=True)], 440.0)
    dot = of_class(chart, "estimate")[0]
    bar = next(n for n in of_class(chart, "whisker") if n.get("y1") == n.get("y2"))
    zero = float(of_class(chart, "zero")[0].get("x1") or 0)
    low, middle, high = (float(bar.get("x1") or 0), float(dot.get("cx") or 0), 0.0)
    high = float(bar.get("x2") or 0)
    assert middle - low == pytest.approx(high - middle, abs=0.02)
    assert low - zero == pytest.approx((high - low) / 4, abs=0.05)


def test_what_is_not_significant_is_hollow_and_said() -> None:
    chart = interval_chart("i", "Gain", [interval(0.1, -0.1, 0.3, sure=False)], 440.0)
    assert of_class(chart, "estimate")[0].get("class") == "estimate unsure"
    assert "not significant" in (parsed(chart).findtext(f"{SVG}desc") or "")


def test_losses_go_left_and_gains_right() -> None:
    def edges(value: float) -> tuple[float, float]:
        markup = difference_bar(value, -0.4, 0.2)
        bar = next(iter(parsed(markup).iter(f"{SVG}rect")))
        zero = next(iter(parsed(markup).iter(f"{SVG}line")))
        start = float(bar.get("x") or 0)
        origin = float(zero.get("x1") or 0)
        return start - origin, start + float(bar.get("width") or 0) - origin

    loss, gain = edges(-0.2), edges(0.2)
    assert loss[1] == pytest.approx(0.0, abs=0.02)
    assert gain[0] == pytest.approx(0.0, abs=0.02)
    assert -loss[0] == pytest.approx(gain[1], abs=0.05)


def test_cells_that_words_explain_are_hidden_from_screen_readers() -> None:
    for markup in (sparkline([0.1, -0.3, 2.0], -1.0, 2.0), difference_bar(0.0, 0.0, 0.0)):
        assert parsed(markup).get("aria-hidden") == "true"


def test_a_scale_maps_its_ends() -> None:
    scale = Scale(-1.0, 3.0, 100.0, 20.0)
    assert (scale(-1.0), scale(1.0), scale(3.0)) == (100.0, 60.0, 20.0)
