"""The report of a chain: one HTML page that needs nothing else.

Every view is computed from the journal and the manifest, at any state of the chain. The page loads
nothing from anywhere and has no scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import lib_automerge
from lib_automerge.domain import architectures
from lib_automerge.domain.chain import MergeStep, RankStep, SearchStep, Step, TreeStep, named_by
from lib_automerge.domain.chain_events import Compared, Decided, Purpose, Ranked
from lib_automerge.domain.chain_state import ChainState
from lib_automerge.domain.keylists import DATA
from lib_automerge.domain.run import Status
from lib_automerge.study.chain_ancestry import ancestry
from lib_automerge.study.chain_store import ChainFolder, ChainManifest
from lib_automerge.study.formats import decimals_for, number, plural, plus_minus, signed
from lib_automerge.study.markup import EMPTY, Markup, element, join
from lib_automerge.study.pictures import picture
from lib_automerge.study.tables import facts, table

_KINDS = {
    MergeStep: "merge",
    RankStep: "ranking",
    SearchStep: "search",
    TreeStep: "pairwise tree",
}

_STATES = {
    Status.STARTING: "The chain has not begun.",
    Status.UNFINISHED: "The chain is not finished.",
    Status.STOPPED: "The chain was stopped and can be resumed.",
    Status.PAUSED: "The chain is paused.",
    Status.FAILED: "The chain could not go on; it can be resumed.",
    Status.FINISHED: "The chain is finished.",
}

COLUMNS = 4
"""Few previews are shown as large as if there were so many."""

MOST_SHOWN = 24
"""A step shows the previews of at most so many models: what it hands on, and its first inputs."""


def render(folder: ChainFolder) -> str:
    """The report of a chain as it stands, as one HTML document.

    Raises:
        StorageError: the manifest or the journal cannot be read.
    """
    manifest, state = folder.manifest(), folder.state()
    page = _Page(folder, manifest, state)
    body = element(
        "body",
        element(
            "main",
            page.hero(),
            *(page.step(place, step) for place, step in enumerate(manifest.config.steps, start=1)),
            page.recipe(),
            page.warnings(),
        ),
        element("footer", element("p", f"Automerge {lib_automerge.__version__}.")),
    )
    return f"<!doctype html>\n{element('html', _head(page.name, page.sentence), body, lang='en')}\n"


def _head(name: str, sentence: str) -> Markup:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    style = (DATA / "report.css").read_text(encoding="utf-8")
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="description", content=sentence),
        element("title", f"{name} - Automerge"),
        element("style", Markup(style)),
    )


class _Page:
    """The parts of the page.

    Args:
        folder: of the chain.
        manifest: of the chain.
        state: of the chain.
    """

    def __init__(self, folder: ChainFolder, manifest: ChainManifest, state: ChainState) -> None:
        self._folder = folder
        self._manifest = manifest
        self._state = state
        self.name = manifest.config.name or folder.path.name
        means = [s.mean for r in state.ranked.values() for s in r.standings if s.mean is not None]
        self._decimals = decimals_for(means)

    @property
    def sentence(self) -> str:
        """What came out, or how the chain stands."""
        if self._state.finished is not None:
            return self._state.finished.sentence
        return _STATES[self._state.status]

    def hero(self) -> Markup:
        """The result, and what the chain took."""
        state, manifest = self._state, self._manifest
        done = f"{len(state.done)} of {len(manifest.config.steps)}"
        pictures = sum(len(found) for found in state.pictures.values())
        entries = [
            ("Steps done", done),
            ("Pool", plural(len(manifest.pool), "model")),
            ("Architecture", architectures.get(manifest.architecture).label),
            ("Searches", str(sum(bool(d.run) for d in state.decided.values()))),
            ("Images besides those of searches", f"{pictures:,}"),
            ("Checkpoints made", str(len(state.made))),
        ]
        if state.finished is not None:
            entries.insert(0, ("Result", self._where(state.finished.model)))
        gain = any(event.gain for event in state.decided.values())
        gain |= any(event.gain for event in state.compared.values())
        failed = element("p", state.failure, class_="lead") if state.failure else EMPTY
        return element(
            "header",
            element("p", "Automerge chain · ", element("b", self.name), class_="eyebrow"),
            element("h1", self.sentence),
            failed,
            facts(entries),
            class_="hero gain" if gain and state.finished is not None else "hero",
        )

    def _where(self, model: str) -> str:
        member = self._manifest.member(model)
        made = self._state.made.get(model)
        if member is not None:
            return f"{model}: {member.ref.path}"
        return f"{model}: {made.ref.path}" if made is not None else model

    def step(self, place: int, step: Step) -> Markup:
        """One step: what it did, its scores, its previews."""
        state = self._state
        title = f"{place}. {step.name}: {_KINDS[type(step)]}"
        done = state.done.get(step.name)
        begun = step.name in state.began
        said = done.sentence if done else ("In progress." if begun else "Not begun.")
        parts: list[Markup] = []
        match step:
            case MergeStep():
                parts.append(self._merge(step))
            case RankStep():
                parts.append(self._ranking(state.ranked.get((step.name, None)), "The models"))
            case SearchStep():
                found = [d for d in state.decided.values() if d.step == step.name]
                parts.append(self._decisions(found, "The search"))
            case TreeStep():
                parts += self._tree(step)
        parts.append(self._previews(step))
        return element(
            "section",
            element("h2", title, id=f"step-{place}"),
            element("p", said, class_="lead"),
            *parts,
            aria_labelledby=f"step-{place}",
        )

    def _merge(self, step: MergeStep) -> Markup:
        made = self._state.made.get(step.name)
        entries = [("Method", step.method)]
        entries += [(name, str(value)) for name, value in step.parameters.items()]
        if made is not None:
            entries += [("File", made.ref.path), ("SHA-256", made.ref.sha256)]
            entries.append(("Recipe", made.recipe))
        return facts(entries)

    def _tree(self, step: TreeStep) -> list[Markup]:
        """Level by level: who met whom, and who went on."""
        state = self._state
        parts = [self._ranking(state.ranked.get((step.name, 0)), "The pool")]
        levels = sorted(level for name, level in state.paired if name == step.name)
        for level in levels:
            found = [d for d in state.decided.values() if (d.step, d.level) == (step.name, level)]
            bye = state.paired[step.name, level].bye
            parts.append(self._decisions(found, f"Level {level}"))
            if bye is not None:
                parts.append(element("p", f"{bye} had no partner and went up.", class_="caption"))
            parts.append(
                self._ranking(state.ranked.get((step.name, level)), f"After level {level}")
            )
        if step.name in state.compared:
            parts.append(self._compared(state.compared[step.name]))
        return parts

    def _ranking(self, ranked: Ranked | None, caption: str) -> Markup:
        if ranked is None:
            return EMPTY
        rows = []
        for standing in ranked.standings:
            score = plus_minus(standing.mean, standing.standard_error, self._decimals)
            behind = EMPTY if standing.behind_p is None else Markup(f"{standing.behind_p:.2g}")
            name = element("strong", standing.model) if standing.model in ranked.kept else ""
            rows.append(
                [
                    name or standing.model,
                    str(standing.images),
                    "broken images" if standing.mean is None else score,
                    plus_minus(standing.behind, standing.behind_error, self._decimals),
                    behind,
                    "goes on" if standing.model in ranked.kept else "leaves",
                ]
            )
        headings = ["Model", "Images", "Score ± error", "Behind the first", "p", ""]
        return table(f"{caption}: mean scores on the ranking's images", headings, rows)

    def _decisions(self, found: Sequence[Decided], caption: str) -> Markup:
        if not found:
            return EMPTY
        decimals = decimals_for([mean for d in found for mean in d.means.values()])
        rows = [
            [
                decided.a,
                decided.b,
                *(
                    number(decided.means.get(role), decimals)
                    for role in ("a", "b", "half", "merge")
                ),
                element("strong", decided.model),
                _link(f"{decided.run}/report.html") if decided.run else "",
            ]
            for decided in found
        ]
        headings = ["A", "B", "A scores", "B scores", "50:50", "Merge", "Goes on", "Report"]
        why = element("ul", *(element("li", decided.sentence) for decided in found))
        shown = table(f"{caption}: verdicts", headings, rows, texts=2)
        return join([shown, why])

    def _compared(self, compared: Compared) -> Markup:
        decimals = decimals_for([*compared.means.values(), compared.difference])
        interval = f"{signed(compared.low, decimals)} to {signed(compared.high, decimals)}"
        entries = [
            *((name, number(mean, decimals)) for name, mean in compared.means.items()),
            ("Difference", plus_minus(compared.difference, compared.standard_error, decimals)),
            ("95 % interval", interval),
            ("p", f"{compared.p_value:.2g}"),
            ("Pairs of images", str(compared.pairs)),
            ("Prompts", "no step saw them" if compared.held_out else "the ranking saw them"),
        ]
        return join([element("h3", "The final verdict"), facts(entries)])

    def _previews(self, step: Step) -> Markup:
        """The same images of what a step hands on and of what it was given."""
        state = self._state
        names: list[str] = []
        done = state.done.get(step.name)
        names += done.models if done else ()
        names += [made.model for made in state.made.values() if made.step == step.name]
        for name in named_by(step):
            if name in state.done:
                names += state.done[name].models
            else:
                names += [m.name for m in self._manifest.pool if name in ("pool", m.name)]
        names = list(dict.fromkeys(names))
        rows = [row for name in names[:MOST_SHOWN] if (row := self._row(name))]
        if not rows or done is None:
            return EMPTY
        left = len(names) - MOST_SHOWN
        more = element("p", f"{left} more in the folder previews.", class_="caption")
        columns = max(self._manifest.config.previews, COLUMNS)
        gallery = element("div", *rows, class_="gallery", style=f"--columns: {columns}")
        title = element("h3", "Same prompt, same seed")
        return join([title, gallery, more if left > 0 else EMPTY])

    def _row(self, model: str) -> Markup:
        member, made = self._manifest.member(model), self._state.made.get(model)
        ref = member.ref if member else (made.ref if made else None)
        if ref is None:
            return EMPTY
        images = self._state.pictures.get((ref.sha256, Purpose.PREVIEW), {})
        figures = []
        for _, image in sorted(images.items()):
            shown = picture(self._folder.path, image.file)
            told = f"{image.payload}, seed {image.seed}"
            content = (
                element("span", "missing", class_="missing")
                if shown is None
                else element(
                    "img",
                    src=shown.uri,
                    alt=f"{model}, {told}",
                    width=shown.width,
                    height=shown.height,
                )
            )
            figures.append(element("figure", content, element("figcaption", told)))
        about = element("div", element("h3", model), class_="about")
        return element("div", about, *figures, class_="row") if figures else EMPTY

    def recipe(self) -> Markup:
        """How the result was made, down to files of the pool."""
        finished = self._state.finished
        if finished is None:
            return EMPTY
        again = (
            "Make it again from the pool alone, bit for bit: automerge rebuild "
            f"{self._folder.path.name} -o FILE.safetensors --models FOLDER"
        )
        made = finished.model in self._state.made
        return element(
            "section",
            element("h2", "The recipe of the whole", id="recipe"),
            ancestry(self._folder, self._manifest, self._state, finished.model),
            element("p", again, class_="caption") if made else EMPTY,
            aria_labelledby="recipe",
        )

    def warnings(self) -> Markup:
        """What the user should know."""
        if not self._state.warnings:
            return EMPTY
        return element(
            "section",
            element("h2", "Warnings", id="warnings"),
            element("ul", *(element("li", message) for message in self._state.warnings)),
            aria_labelledby="warnings",
        )


def _link(path: str) -> Markup:
    """To a page in the folder of this one."""
    return element("a", path.split("/")[-2], href=quote(path))
