"""What a run was told to do, as a report shows it: models, settings, payloads and versions."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from lib_automerge.domain import architectures
from lib_automerge.domain.payload import Payload
from lib_automerge.study.findings import Findings
from lib_automerge.study.formats import number, plural
from lib_automerge.study.markup import Markup, element, join
from lib_automerge.study.tables import facts, table


def configuration(found: Findings) -> Markup:
    """What the run was told to do, with which models and versions."""
    manifest, config = found.manifest, found.manifest.config
    search = config.search
    judged = sum(p.held_out for p in config.payloads) or len(config.payloads)
    label = architectures.get(manifest.architecture).label
    limits = [f"{search.evaluations:,} evaluations"]
    limits += [f"{search.hours:g} h"] if search.hours is not None else []
    limits += [f"score {search.target:g}"] if search.target is not None else []
    limits += [f"{search.patience} without a better one"] if search.patience is not None else []
    parameters = ", ".join(f"{name} {value:g}" for name, value in config.parameters.items())
    return join(
        [
            model_table(found),
            facts(
                [
                    ("Architecture", label),
                    ("Method", config.method + (f" ({parameters})" if parameters else "")),
                    ("Reward", manifest.reward),
                    ("Optimizer", f"{search.optimizer}, seed {search.seed}"),
                    ("Ends after", " or ".join(limits)),
                    ("Range of weights", f"{number(search.low, 2)} to {number(search.high, 2)}"),
                    ("Exceptions", _rules(found) or "none"),
                    (
                        "Verdict",
                        f"{plural(config.verdict.finalists, 'finalist')}, "
                        f"{plural(config.verdict_seeds(judged), 'seed')} per payload",
                    ),
                    ("Generator", _pairs(manifest.generator)),
                    ("Versions", _pairs(manifest.versions)),
                ]
            ),
            folded("All payloads", payload_settings(config.payloads)),
            folded(
                "Complete configuration",
                element("pre", msgspec.json.format(msgspec.json.encode(config), indent=2).decode()),
            ),
        ]
    )


def _rules(found: Findings) -> str:
    parts = []
    for block, rule in found.manifest.config.search.blocks.items():
        if rule.fixed is not None:
            parts.append(f"{block} fixed at {rule.fixed:g}")
        elif rule.tied_to is not None:
            parts.append(f"{block} tied to {rule.tied_to}")
        else:
            parts.append(f"{block} from {_given(rule.low)} to {_given(rule.high)}")
    return ", ".join(parts)


def _given(value: float | None) -> str:
    return "default" if value is None else f"{value:g}"


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def model_table(found: Findings) -> Markup:
    """The models, by role."""
    rows = [
        [f"Model {role.upper()}", ref.name, digest(ref.sha256), element("code", ref.path)]
        for role, ref in sorted(found.manifest.models.items())
    ]
    saved = found.state.saved
    if saved is not None:
        rows.append(["Saved merge", saved.file, digest(saved.sha256), _proof(found)])
    return table("Models", ["Role", "Name", "SHA-256", "File"], rows, texts=4)


def _proof(found: Findings) -> str:
    saved = found.state.saved
    assert saved is not None
    return f"in the run folder; gave {saved.reproduced} of {saved.checked} scored images again"


def payload_settings(payloads: Iterable[Payload]) -> Markup:
    """Every payload with all its settings."""
    rows = [
        [p.name, _prompts(p), _settings(p), _seeds(p.seeds, p.held_out), f"{p.weight:g}"]
        for p in payloads
    ]
    headings = ["Name", "Prompt", "Settings", "Seeds", "Weight"]
    return table("All payloads with their settings", headings, rows, texts=4)


def _prompts(payload: Payload) -> Markup:
    """The prompt, and what else is read where it differs."""
    lines = [element("span", payload.prompt)]
    if payload.negative_prompt:
        lines.append(element("small", f"Negative: {payload.negative_prompt}"))
    if payload.judged_prompt != payload.prompt:
        lines.append(element("small", f"Scored against: {payload.judged_prompt}"))
    return join(lines, Markup("<br>"))


def _settings(payload: Payload) -> Markup:
    schedule = "" if payload.scheduler == "Automatic" else f" {payload.scheduler}"
    skip = "" if payload.clip_skip == 1 else f", clip skip {payload.clip_skip}"
    words = (
        f"{payload.width} × {payload.height}, {payload.steps} steps, {payload.sampler}{schedule}, "
        f"CFG {payload.cfg_scale:g}{skip}"
    )
    return element("span", words, class_="settings")


def _seeds(seeds: Iterable[int], held_out: bool) -> str:
    return "held out" if held_out else ", ".join(map(str, seeds))


def folded(summary: str, *content: str) -> Markup:
    """Content that opens when its summary is chosen."""
    return element("details", element("summary", summary), *content)


def digest(sha256: str) -> Markup:
    """A hash by its first digits; the rest opens."""
    if not sha256:
        return Markup("unknown")
    return element(
        "details",
        element("summary", element("code", sha256[:12] + "\N{HORIZONTAL ELLIPSIS}"), title=sha256),
        element("code", sha256),
        class_="hash",
    )
