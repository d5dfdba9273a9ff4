"""The targets of the search, each with what was measured and whether it is met."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.search import experiments, images, parallel, records, stopping, verdict
from benchmarks.search.tables import GROUPS, LABELS, OURS, Results, markdown

WEAKEST = "hyperactive-bayes"
Line = tuple[str, str, bool | None]
"""What is wanted, what was measured, and whether that is enough (None: not measured)."""


def table(results: Results, folder: Path) -> str:
    """Return all targets."""
    lines = [
        *regret_lines(results),
        *image_lines(folder),
        *stopping_lines(folder),
        *parallel_lines(folder),
        *verdict_lines(folder),
    ]
    words = {True: "yes", False: "**no**", None: "not measured"}
    return markdown(["target", "measured", "met"], [[a, b, words[met]] for a, b, met in lines])


def regret_lines(results: Results) -> list[Line]:
    """Target 1: regret against the peers."""
    landscapes = results.landscapes
    if not {"bayes", WEAKEST} <= set(results.optimizers):
        return [("regret against hyperactive's Bayes", "-", None)]
    early = results.median("bayes", landscapes, 40)
    late = results.median(WEAKEST, landscapes, 120)
    lines: list[Line] = [
        (
            "1. regret at 40 below hyperactive's Bayes at 120 (medians over landscapes)",
            f"{early:.3f} against {late:.3f}",
            early < late,
        )
    ]
    for label, groups, limit in (
        ("smooth and real", ("smooth and additive", "real"), 0.1),
        ("noisy and multi-modal", ("noisy", "multi-modal"), 0.5),
    ):
        names = [name for group in groups for name in GROUPS[group]]
        ratios = [_ratio(results, name) for name in names if name in landscapes]
        ratio = float(np.median(ratios))
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        lines.append(
            (
                f"1. at 120 at most {limit:g} of its regret, {label}",
                f"{ratio:.3f} (single landscapes {spread})",
                ratio <= limit,
            )
        )
    behind, where = furthest_behind(results)
    lines.append(
        (
            "1. at 120 never behind any peer by more than 0.1 on any landscape",
            f"at most {behind:+.3f} ({where})",
            behind <= 0.1,
        )
    )
    return lines


def _ratio(results: Results, landscape: str) -> float:
    ours, theirs = (results.mean(name, landscape, 120) for name in ("bayes", WEAKEST))
    return ours / theirs


def furthest_behind(results: Results) -> tuple[float, str]:
    """Return the largest mean regret of `bayes` above a peer's, on the same seeds, and where."""
    worst, where = -np.inf, "-"
    for peer in results.optimizers:
        if peer in OURS:
            continue
        for landscape in results.landscapes:
            theirs = {row.seed: row.regret(120) for row in results.rows(peer, landscape)}
            own = {row.seed: row.regret(120) for row in results.rows("bayes", landscape)}
            common = theirs.keys() & own.keys()
            if not common:
                continue
            behind = float(np.mean([own[seed] - theirs[seed] for seed in common]))
            if behind > worst:
                worst, where = behind, f"{LABELS[peer]}, {landscape}"
    return worst, where


def image_lines(folder: Path) -> list[Line]:
    """Target 2: fewer images."""
    runs = records.load("images", images.Spending, folder)
    label = "2. the plain run's quality for at most 75 % of its images, real landscapes"
    if not runs:
        return [(label, "-", None)]
    shares = {
        policy: float(
            np.median(
                [
                    images.share_of_images([r for r in runs if r.landscape == name], policy)
                    for name in experiments.SPENT
                ]
            )
        )
        for policy in images.POLICIES
        if policy != "plain"
    }
    best = min(shares, key=lambda policy: shares[policy])
    found = np.isfinite(shares[best])
    measured = f"{best}: {100 * shares[best]:.0f} %" if found else "no policy on all of them"
    return [(label, measured, shares[best] <= 0.75)]


def stopping_lines(folder: Path) -> list[Line]:
    """Target 3: the default rule."""
    stops = [stop for stop in stopping.load(folder) if stop.rule == "regret bound"]
    lines: list[Line] = []
    for kind, noisy in (("without noise", False), ("with noise", True)):
        mine = [stop for stop in stops if stop.landscape.endswith("-noisy") == noisy]
        label = f"3. stops at 100 of 150 or before, {kind}; 0.02 lost on average, 0.04 at worst"
        if not mine:
            lines.append((label, "-", None))
            continue
        mean = float(np.mean([stop.evaluation for stop in mine]))
        lost = [stop.lost for stop in mine]
        share = np.mean([loss <= 0.04 for loss in lost])
        lines.append(
            (
                label,
                f"at {mean:.0f}; {np.mean(lost):.3f} lost, {max(lost):.3f} at worst "
                f"({100 * share:.0f} % of {len(mine)} runs lost 0.04 or less)",
                bool(mean <= 100 and np.mean(lost) <= 0.02 and max(lost) <= 0.04),
            )
        )
    return lines


def parallel_lines(folder: Path) -> list[Line]:
    """Target 4: several evaluators."""
    races = records.load("parallel", parallel.Race, folder)
    lines: list[Line] = []
    for workers, limit in ((4, 0.28), (8, 0.16)):
        label = f"4. {workers} evaluators reach the quality of one in {limit:g} of its time"
        if not any(race.workers == workers for race in races):
            lines.append((label, "-", None))
            continue
        shares = experiments.parallel_shares(races, workers)
        median = float(np.median(shares))
        each = ", ".join(
            f"{name} {_share(share, 2)}"
            for name, share in zip(experiments.RACED, shares, strict=True)
        )
        lines.append((label, f"{_share(median, 3)} ({each})", median <= limit))
    return lines


def _share(share: float, digits: int) -> str:
    return f"{share:.{digits}f}" if np.isfinite(share) else "not reached"


def verdict_lines(folder: Path) -> list[Line]:
    """Target 5: false and missed wins."""
    found = records.load("verdict", verdict.Verdicts, folder)
    if not found:
        return [("5. verdict", "-", None)]
    false = {v.held_out: v.wins / v.runs for v in found if v.gain == 0.0}
    true = {v.held_out: v.wins / v.runs for v in found if v.gain > 0.0}
    most = max(true)
    each = ", ".join(f"{held_out}: {100 * share:.0f} %" for held_out, share in true.items())
    return [
        (
            "5. a win under pure noise in under 5 % of 200 runs",
            f"at most {100 * max(false.values()):.1f} %",
            max(false.values()) < 0.05,
        ),
        (
            f"5. with a true gain of one sd in over 80 % (with {most} held-out payloads)",
            f"by held-out payloads {each}",
            true[most] > 0.8,
        ),
    ]
