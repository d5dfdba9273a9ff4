from __future__ import annotations

import base64
import hashlib
import io
import itertools
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from PIL import Image

from lib_automerge.domain.events import Evaluated, Failed, Origin, Proposed, Scored, Stage
from lib_automerge.domain.payload import Payload
from lib_automerge.study import report
from lib_automerge.study.findings import PayloadRow, findings, representative, times
from lib_automerge.study.formats import duration, number, percent, shortened, signed
from lib_automerge.study.headline import headline
from lib_automerge.study.pictures import picture
from lib_automerge.study.store import RunFolder
from tests.run_folders import FAILED, STOPPED, Plan, Until, build, payloads

SMALL = Plan(evaluations=14, payloads=payloads(2, 3), size=0)
HOSTILE = """</title></style><script>alert(1)</script>"' onload=x <img src=y onerror=alert(2)>"""
VOID = {"br", "img", "meta"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    inside: tuple[str, ...] = ()


@dataclass
class Page(HTMLParser):
    """A page as a flat list of elements; fails on tags that do not close in order."""

    html: str
    elements: list[Element] = field(default_factory=list)
    _open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names)
        classes = tuple((e.attributes.get("class") or e.tag) for e in self._open)
        element = Element(tag, dict(attrs), inside=classes)
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str, class_: str | None = None) -> list[Element]:
        return [
            e
            for e in self.elements
            if e.tag == tag
            and (class_ is None or class_ in (e.attributes.get("class") or "").split())
        ]

    def one(self, tag: str, class_: str | None = None) -> Element:
        (found,) = self.all(tag, class_)
        return found

    @property
    def text(self) -> str:
        return self.one("body").text


def page(folder: RunFolder) -> Page:
    return Page(report.render(folder))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run with a gain, ten held-out payloads, and images; one candidate was rejected."""
    plan = Plan(evaluations=14, payloads=payloads(2, 10), size=16, rejected=(5,), saved=True)
    return build(tmp_path_factory.mktemp("runs") / "finished", plan)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., RunFolder]:
    def made(**changes: object) -> RunFolder:
        return build(tmp_path / "run", replace(SMALL, **changes))  # type: ignore[arg-type]

    return made


def shown(value: float, folder: RunFolder) -> str:
    """A difference as the report of this run writes it."""
    decimals = findings(folder.path, folder.manifest(), folder.events()).decimals
    return signed(value, decimals)


# --- the verdict ------------------------------------------------------------------------------


def test_a_gain_is_one_sentence_with_both_differences_and_their_intervals(
    finished: RunFolder,
) -> None:
    verdict = finished.state().verdict
    assert verdict is not None
    by_origin = {c.baseline: c for c in verdict.comparisons}
    better, half = by_origin[verdict.better_parent], by_origin[Origin.HALF]
    view = page(finished)
    sentence = view.one("h1").text
    assert f"Evaluation {verdict.winner} beats the better parent" in sentence
    assert shown(better.difference, finished) in sentence
    assert shown(half.difference, finished) in sentence
    chart = next(e.text for e in view.all("figure", "intervals"))
    for comparison in verdict.comparisons:
        for value in (comparison.low, comparison.high, comparison.difference):
            assert shown(value, finished) in chart
    assert "Significant gain" in view.one("p", "badge").text
    assert not view.all("div", "notice")


def test_without_a_gain_it_says_so_and_names_what_was_not_beaten(
    make: Callable[..., RunFolder],
) -> None:
    view = page(make(gain=0.0, noise=0.4))
    assert view.one("h1").text.startswith("No significant gain: evaluation")
    assert "not significant against" in view.one("p", "lead").text
    assert "beats" not in view.one("h1").text
    assert "hollow: not significant" in view.text


def test_a_run_of_only_broken_candidates_names_the_better_parent_and_the_reason(
    make: Callable[..., RunFolder],
) -> None:
    folder = make(evaluations=6, rejected=(4, 5, 6))
    view = page(folder)
    assert view.one("h1").text.startswith("No merge made usable images; the better parent is")
    assert "3 evaluations of 6" in view.one("p", "lead").text
    assert "black image for payload 'p01'" in view.one("p", "lead").text
    assert {e.text for e in view.all("span", "role")} == {"Model A", "Model B", "50:50"}


def test_a_broken_half_is_left_out_and_said(make: Callable[..., RunFolder]) -> None:
    view = page(make(rejected=(3,)))
    assert "50:50" not in view.one("h1").text
    assert "The 50:50 merge made broken images and is left out." in view.one("p", "lead").text
    assert len(view.all("figure", "intervals")) == 1


@pytest.mark.parametrize(
    ("until", "end", "badge", "sentence"),
    [
        (Until.STARTED, None, "Not finished", "Nothing is scored yet."),
        (Until.BASELINES, STOPPED, "Stopped", "Only the baselines are scored so far; the better"),
        (Until.SEARCH, STOPPED, "Stopped", "Best so far: evaluation"),
        (Until.SEARCH, FAILED, "Failed", "Best so far: evaluation"),
        (Until.FINALISTS, None, "Not finished", "Best so far: evaluation"),
    ],
)
def test_before_the_verdict_the_best_stands_against_the_better_parent_with_a_way_on(
    make: Callable[..., RunFolder], until: Until, end: Failed, badge: str, sentence: str
) -> None:
    folder = make(until=until, end=end)
    view = page(folder)
    assert view.one("p", "badge").text.endswith(badge)
    assert view.one("h1").text.startswith(sentence)
    assert "beats" not in view.one("h1").text
    notice = next(e.text for e in view.all("div") if "notice" in (e.attributes["class"] or ""))
    assert f"python -m lib_automerge resume {folder.path}" in notice
    assert not view.all("figure", "intervals")
    if until >= Until.SEARCH:
        state = folder.state()
        parents = [e.score or 0.0 for e in state.history if e.number <= 2]
        best = max(e.score or 0.0 for e in state.history if e.number > 3)
        assert f"{shown(best - max(parents), folder)} over the better parent" in view.one("h1").text
        assert "No verdict yet." in view.one("p", "lead").text


def test_merges_that_are_worse_than_the_parents_are_not_called_better(
    make: Callable[..., RunFolder],
) -> None:
    view = page(make(gain=-0.6, until=Until.SEARCH, end=STOPPED))
    assert view.one("h1").text.startswith("No merge beats the better parent so far")
    top = next(e for e in view.all("li", "top"))
    assert "Best merge" not in top.text


def test_a_failure_after_the_verdict_shows_both(make: Callable[..., RunFolder]) -> None:
    view = page(make(until=Until.VERDICT, end=FAILED))
    assert "beats the better parent" in view.one("h1").text
    assert "ran out of memory: 8 GB" in view.one("div", "notice").text


def test_the_resume_command_survives_spaces_in_the_path(tmp_path: Path) -> None:
    folder = build(tmp_path / "my runs; x", replace(SMALL, until=Until.STARTED))
    said = headline(findings(folder.path, folder.manifest(), folder.events())).command
    assert said == f"python -m lib_automerge resume '{folder.path}'"


# --- the image grid ---------------------------------------------------------------------------


def test_the_grid_shows_every_entrant_of_evenly_chosen_payloads(finished: RunFolder) -> None:
    view = page(finished)
    rows = view.all("article", "row")
    assert len(rows) == 8
    assert len(view.all("img")) == 8 * 4
    assert "8 of 10 payloads, evenly from the merge's largest gain to its smallest" in view.text
    found = findings(finished.path, finished.manifest(), finished.events())
    gains = sorted((r.difference or 0.0 for r in found.rows), reverse=True)
    assert signed(gains[0], found.decimals) in rows[0].text
    assert signed(gains[-1], found.decimals) in rows[-1].text


@pytest.mark.parametrize("gain", [0.45, -0.1])
def test_a_row_shares_its_seed_and_marks_its_highest_score_in_words(
    make: Callable[..., RunFolder], gain: float
) -> None:
    folder = make(gain=gain, noise=0.3, evaluations=6)
    found = findings(folder.path, folder.manifest(), folder.events())
    html = report.render(folder)
    for row in re.findall(r'<article class="row">.*?</article>', html, re.DOTALL):
        seed = int(re.search(r"seed (\d+)", row)[1])  # type: ignore[index]
        figures = re.findall(r"<figure.*?</figure>", row, re.DOTALL)
        scores = [
            next(s.score for s in scored.values() if s.seed == seed)
            for scored in found.contest.scores.values()
        ]
        best = [position for position, figure in enumerate(figures) if "★ best" in figure]
        assert best == [scores.index(max(s for s in scores if s is not None))]
        for figure, score in zip(figures, scores, strict=True):
            assert f">{number(score, found.decimals)}<" in figure


def row(name: str, difference: float | None) -> PayloadRow:
    return PayloadRow(
        payload=Payload(prompt=name, name=name), means={}, difference=difference, images=1
    )


def test_representatives_span_the_gains_and_are_not_the_best_ones() -> None:
    rows = [row(f"p{k}", float((7 * k) % 20)) for k in range(20)]
    chosen = [r.difference for r in representative(rows, 5)]
    assert chosen == [19.0, 14.0, 10.0, 5.0, 0.0] or chosen == [19.0, 14.0, 9.0, 5.0, 0.0]
    assert len({r.payload.name for r in representative(rows, 8)}) == 8


def test_payloads_without_a_difference_keep_their_order() -> None:
    rows = [row("x", None), row("y", None), row("z", None)]
    assert [r.payload.name for r in representative(rows, 8)] == ["x", "y", "z"]


def test_missing_and_damaged_images_leave_a_placeholder(tmp_path: Path) -> None:
    folder = build(tmp_path / "run", replace(SMALL, size=16))
    verdict = folder.state().verdict
    assert verdict is not None
    scored = list(folder.state().scores[Stage.VERDICT, 1].values())
    (folder.path / scored[0].file).unlink()
    (folder.path / scored[4].file).write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    view = page(folder)
    assert len(view.all("div", "missing")) == 2
    assert len(view.all("img")) == 3 * 4 - 2


def test_images_outside_of_the_run_folder_are_never_read(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "secret.png")
    Image.new("RGB", (8, 8), "red").save(root / "own.png")
    assert picture(root, "own.png") is not None
    assert picture(root, "../secret.png") is None
    assert picture(root, str(tmp_path / "secret.png")) is None


def test_large_images_are_made_small_and_small_ones_kept_exactly(tmp_path: Path) -> None:
    large = Image.effect_noise((1024, 1536), 60).convert("RGB")
    large.save(tmp_path / "large.png")
    small = Image.effect_noise((64, 64), 60).convert("RGB")
    small.save(tmp_path / "small.png")
    made = picture(tmp_path, "large.png")
    assert made is not None
    assert (made.width, made.height) == (1024, 1536)
    with Image.open(_bytes(made.uri)) as image:
        assert (image.format, image.size) == ("JPEG", (256, 384))
    assert len(made.uri) < 100_000
    kept = picture(tmp_path, "small.png")
    assert kept is not None
    with Image.open(_bytes(kept.uri)) as image:
        assert image.tobytes() == small.tobytes()


def _bytes(uri: str) -> io.BytesIO:
    return io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))


# --- numbers ----------------------------------------------------------------------------------


def test_payload_means_are_those_of_the_verdicts_images(finished: RunFolder) -> None:
    found = findings(finished.path, finished.manifest(), finished.events())
    verdict = finished.state().verdict
    assert verdict is not None
    events = [e for e in finished.events() if isinstance(e, Scored) and e.stage is Stage.VERDICT]
    table = next(e for e in page(finished).all("div", "scroll") if "Mean score" in e.text)
    for entry in found.rows:
        for evaluation in (1, 2, 3, verdict.winner):
            mean = statistics.fmean(
                e.score
                for e in events
                if e.evaluation == evaluation
                and e.payload == entry.payload.name
                and e.score is not None
            )
            assert entry.means[evaluation] == pytest.approx(mean, abs=1e-12)
            assert number(mean, found.decimals) in table.text
        parent = 1 if verdict.better_parent is Origin.MODEL_A else 2
        expected = entry.means[verdict.winner] - entry.means[parent]
        assert entry.difference == pytest.approx(expected, abs=1e-12)
    assert [r.payload.name for r in found.rows] == [f"p{k:02d}" for k in range(3, 13)]


def test_finalists_are_ranked_by_all_their_images_and_the_chosen_one_is_marked(
    finished: RunFolder,
) -> None:
    state = finished.state()
    assert state.verdict is not None
    table = next(e for e in page(finished).all("div", "scroll") if "Finalist" in e.text)
    first = re.search(r"Evaluation (\d+)(chosen)?", table.text)
    assert first is not None
    assert (int(first[1]), first[2]) == (state.verdict.winner, "chosen")
    assert table.text.count("chosen") == 1


def test_times_add_up_and_are_said_in_words(finished: RunFolder) -> None:
    state = finished.state()
    parts = times(state)
    total = sum(sum(part.values()) for part in parts.values())
    known = [e.seconds["total"] for e in state.history]
    known += [s.seconds["total"] for s in state.stages.values()]
    assert total == pytest.approx(sum(known))
    images = sum(part["generate"] for part in parts.values())
    said = f"{percent(images / total)} of {duration(total)} went into images"
    merging = sum(part["merge"] for part in parts.values())
    assert f"{said}, {percent(merging / total)} into merging" in page(finished).text


def test_the_saved_checkpoint_and_its_proof_are_shown(finished: RunFolder) -> None:
    view = page(finished)
    assert "merge.safetensors" in view.one("header", "hero").text
    assert "gave 1 of 1 scored images again" in view.text


def test_warnings_come_once_with_their_count(make: Callable[..., RunFolder]) -> None:
    view = page(make(warnings=("disk is filling", "look alike", "disk is filling")))
    assert [e.text for e in view.all("li") if "tile" not in (e.attributes.get("class") or "")] == [
        "disk is filling (2 times)",
        "look alike",
    ]


def test_the_recipe_is_the_file_that_was_written(make: Callable[..., RunFolder]) -> None:
    folder = make()
    verdict = folder.state().verdict
    assert verdict is not None
    recipe = next(e for e in page(folder).all("pre") if e.attributes.get("id") == "recipe-text")
    weights = msgspec.json.decode(recipe.text)["weights"]
    assert weights == folder.state().evaluations[verdict.winner].weights
    folder.recipe.write_text('{"kind": "automerge-recipe", "note": "<as written>"}')
    again = next(e for e in page(folder).all("pre") if e.attributes.get("id") == "recipe-text")
    assert again.text == '{"kind": "automerge-recipe", "note": "<as written>"}'


def test_hashes_are_short_with_the_whole_at_hand(finished: RunFolder) -> None:
    view = page(finished)
    hashes = view.all("details", "hash")
    for ref in finished.manifest().models.values():
        assert any(ref.sha256 in e.text and ref.sha256[:12] + "…" in e.text for e in hashes)


@pytest.mark.parametrize(
    ("level", "scale"), [(0.2, 1.0), (-1500.0, 900.0), (5.3, 0.0002), (-3.0, 1e-6)]
)
def test_scores_of_any_size_and_sign_can_be_told_apart(
    make: Callable[..., RunFolder], level: float, scale: float
) -> None:
    view = page(make(level=level, scale=scale))
    values = {e.text for e in view.all("span", "score") if "tile" in e.inside[-1]}
    assert len(values) == 4
    assert all(len(value) <= 12 for value in values)


def test_ruined_merges_do_not_cost_the_others_their_decimals(
    make: Callable[..., RunFolder],
) -> None:
    folder = make(until=Until.SEARCH)
    ruined = [
        event
        for k in (15, 16)
        for event in (
            Proposed(evaluation=k, origin=Origin.SEARCH, weights={}),
            Evaluated(evaluation=k, mean=-4e5, standard_error=1.0, images=4, per_payload={}),
        )
    ]
    found = findings(folder.path, folder.manifest(), [*folder.events(), *ruined])
    assert found.decimals == 3


# --- the page ---------------------------------------------------------------------------------


def page_with(text: str, path: Path) -> Page:
    """The page of a run in which every string that a user can set is this one."""
    hostile = (
        Payload(prompt=text, name=text, seeds=(1,), negative_prompt=text, score_prompt="y" + text),
        Payload(prompt=text, name="x" + text, held_out=True, score_prompt="x" + text),
    )
    plan = replace(
        SMALL,
        evaluations=6,
        payloads=hostile,
        name=text,
        models=(text, "x" + text),
        warnings=(text,),
        rejected=(4,),
        until=Until.VERDICT,
        end=Failed(message=text),
    )
    return page(build(path, plan))


def test_no_string_of_the_user_becomes_markup(tmp_path: Path) -> None:
    view = page_with(HOSTILE, tmp_path / "<b>run</b> & co")
    harmless = page_with("x" * len(HOSTILE), tmp_path / "run")
    assert [e.tag for e in view.elements] == [e.tag for e in harmless.elements]
    names = {name for e in view.elements for name in e.attributes}
    assert names == {name for e in harmless.elements for name in e.attributes}
    assert HOSTILE in view.one("header", "hero").text
    assert HOSTILE in view.one("ul", "warnings").text
    assert view.all("title")[0].text.startswith(HOSTILE)


def test_the_page_needs_nothing_from_elsewhere(finished: RunFolder) -> None:
    html = report.render(finished)
    view = Page(html)
    for element in view.elements:
        assert element.tag not in {"link", "iframe", "object", "base"}
        source = element.attributes.get("src")
        assert source is None or source.startswith("data:image/")
        target = element.attributes.get("href")
        assert target is None or target.startswith("#")
    assert set(re.findall(r"https?://[^\s\"'<]+", html)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in view.one("style").text
    assert "@import" not in view.one("style").text


def test_the_policy_allows_the_pages_own_script_and_no_other(finished: RunFolder) -> None:
    view = page(finished)
    (policy,) = [
        e.attributes["content"] or "" for e in view.all("meta") if "http-equiv" in e.attributes
    ]
    own = base64.b64encode(hashlib.sha256(view.one("script").text.encode()).digest()).decode()
    assert f"script-src 'sha256-{own}'" in policy
    assert "default-src 'none'" in policy


def test_links_ids_and_headings_are_in_order(finished: RunFolder) -> None:
    view = page(finished)
    ids = [e.attributes["id"] for e in view.elements if "id" in e.attributes]
    assert len(set(ids)) == len(ids)
    for element in view.elements:
        target = element.attributes.get("href")
        assert target is None or target[1:] in ids
        for name in ("aria-labelledby", "data-copy"):
            assert set((element.attributes.get(name) or "").split()) <= set(ids)
    levels = [int(e.tag[1]) for e in view.elements if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(e.attributes.get("alt") for e in view.all("img"))
    assert view.one("html").attributes["lang"] == "en"


def test_every_drawing_is_well_formed_and_named_or_hidden(finished: RunFolder) -> None:
    drawings = re.findall(r"<svg.*?</svg>", report.render(finished), re.DOTALL)
    assert len(drawings) > 5
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        named = root.find("{http://www.w3.org/2000/svg}title") is not None
        assert named or root.get("aria-hidden") == "true"


def test_the_same_run_gives_the_same_page(finished: RunFolder) -> None:
    assert report.render(finished) == report.render(RunFolder.open(finished.path))


# --- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (312, "5 min 12 s"),
        (3599.6, "1 h 0 min"),
        (27_720, "7 h 42 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_numbers() -> None:
    assert number(-0.0004, 3) == "0.000"
    assert number(-1234.5, 1) == "−1,234.5"
    assert number(None, 2) == number(float("nan"), 2) == "–"
    assert signed(0.25, 2) == "+0.25"
    assert signed(-0.25, 2) == "−0.25"
    assert percent(0.992) == "99.2 %"
    assert percent(0.0001) == "<0.1 %"
    assert percent(1.0) == "100 %"


def test_long_prompts_are_cut_between_words() -> None:
    cut = shortened("masterpiece, best quality, a castle", 30)
    assert cut == "masterpiece, best quality, a…"
    assert len(shortened("x" * 500, 40)) == 40
    assert shortened("two\n  lines", 40) == "two lines"
