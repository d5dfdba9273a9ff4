"""Writes the section "Search" of `RESULTS.md` and its plot from the stored results."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.search import (
    cheap_look,
    experiments,
    landscapes,
    plot,
    records,
    targets,
    verdict,
)
from benchmarks.search.tables import LABELS, OURS, Results, overtaking, regret_table, wins

RESULTS = Path(__file__).resolve().parents[1] / "RESULTS.md"
PLOT = Path(__file__).with_name("regret.svg")
HEADING = "## Search"


def write() -> None:
    """Replace the section, or add it at the end."""
    results = Results()
    PLOT.write_text(plot.draw(results, 120))
    text = RESULTS.read_text()
    section = f"{HEADING} (`search/run.py`)\n\n{body(results)}\n"
    found = re.search(rf"^{HEADING} .*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found:
        text = text[: found.start()] + section + "\n" + text[found.end() :]
    else:
        text = text.rstrip() + "\n\n" + section
    RESULTS.write_text(text.rstrip() + "\n")


def body(results: Results) -> str:
    """Return the section below its heading."""
    folder = records.FOLDER
    noise = ", ".join(f"{name} {100 * share:.0f} %" for name, share in landscapes.NOISE.items())
    paired = "; ".join(
        f"{LABELS[peer]} {won} of {of}"
        for peer in results.optimizers
        if peer not in OURS
        for won, of in [wins(results, peer, 120)]
        if of
    )
    parts = [
        f"""`python benchmarks/search/run.py` runs what `search/results/` lacks and writes this \
section; `--quick` makes a small table in under five minutes. Regret is the distance of a recipe's \
true score from the optimum, in units of the better parent's distance. Landscapes have the 27 \
weights of SD1: `smooth` (7 blocks decide), `additive` (neighbours and skips interact), `levy` and \
`ackley` (multi-modal), and real ones: two small networks of one origin, trained on different \
classes or domains of scikit-learn's digits, merged by 27 blocks, scored on held-out images. Noisy \
ones have fresh Gaussian noise in every score ({noise} of that unit).""",
        "### Targets",
        targets.table(results, folder),
        "### Regret at 40/80/120 evaluations",
        """Mean over seeds; "median" is over the landscapes. `bayes` hands over the leader of its \
model, the others the best they observed. CPU s: per proposal, on a crowded core.""",
        regret_table(results, (40, 80, 120)),
        "![Regret against evaluations](search/regret.svg)",
        f"Runs that `bayes` ended with less regret than a peer, same landscape and seed: {paired}.",
        "### How soon `bayes` is as good as a peer after 120 evaluations",
        """Evaluations, median over the landscapes of a kind, on the seeds that both ran.""",
        overtaking(results, 120),
        """How the peers are set up. hyperactive 4.5 with gradient-free-optimizers 1.3, eleven \
levels per block, four grid points, four corners and two random points first; its Bayes with xi \
0.3, on a lattice of 1 million points of which 20,000 are looked at (auto-MBW-rt: 10 million and 1 \
million, which costs more and searches no better). hyperopt and Optuna with their defaults \
(`multivariate` for Optuna's TPE). `bayesian-optimization` 3.4 with kappa 2.576 and five random \
points, its inner ascent with exact gradients: the same values in a tenth of the time. pycma and \
COBYQA start in the centre. An answer from a peer's memory is not counted as an evaluation. Where \
a run found better than the ascents that look for a network's optimum, that is the optimum.""",
        *experiment_parts(folder),
    ]
    return "\n\n".join(parts)


def experiment_parts(folder: Path) -> list[str]:
    """Return a heading, words and a table for every experiment that has results."""
    told: dict[str, tuple[str, str, Callable[[Path], str]]] = {
        "stopping": (
            "### Stopping",
            """Runs of 150 evaluations of `bayes`. Lost: regret of the leader then, minus that of \
the leader after 150.""",
            experiments.stopping_table,
        ),
        "parallel": (
            "### Several evaluators",
            """When 4 and 8 asynchronous evaluators reach the mean regret that one has after 120 \
evaluations, as a share of its time; simulated, with log-normal times (sigma 0.25).""",
            experiments.parallel_table,
        ),
        "images": (
            "### Images",
            """Policies of `bayes` on the noisy networks, with the images of 80 evaluations of 12 \
payloads with two seeds each (1,920): candidates seen, regret in the end, and the share of the \
images after which it is for good no worse than the plain run in the end.""",
            experiments.images_table,
        ),
        "order": (
            "### The order of payloads",
            """How far off the score is that the first payloads foretell, as a share of the \
standard deviation of scores (root mean square), over the candidates of `bayes` on the noisy \
networks from the 13th to the 80th: in the order in which payloads are given, and in that in which \
their mean has followed that of all most closely.""",
            experiments.order_table,
        ),
        "verdict": (
            "### Verdict",
            f"""{verdict.RUNS} simulated runs each: {verdict.CANDIDATES} candidates, the best \
three scored again, the first of them judged on held-out payloads, 60 \
images of fresh seeds or more, by the code of a run. Noise of an image 1, payloads \
{verdict.PAYLOAD_SD:g}, what a payload adds to one candidate only {verdict.INTERACTION_SD:g}; the \
true gain is 1.""",
            experiments.verdict_table,
        ),
        "demo": (
            "### The demo pair",
            """Best score of eight prompts of the demo's diffusion models, one seed each; @3 is \
the best of A, B and 50:50.""",
            experiments.demo_table,
        ),
        "look": (
            "### A cheap first look",
            f"""Rank correlations (Spearman) of the mean score of the demo pair's eight prompts \
with that of full settings (64x64, the same seeds; 6 steps, the demo's own, or 18) and with the \
truth (full settings, other seeds, four or two for each prompt), over \
{cheap_look.DESIGN + cheap_look.RANDOM} recipes of the start design or random ones and \
{cheap_look.CLOSE} close to the best of them; the standard error of a small correlation is 0.2 and \
0.3. Price: CPU time of images and scores. Full settings with other seeds show what the noise of \
seeds alone leaves. The models of the demo take 32x32, but were never taught to draw that small.""",
            experiments.look_table,
        ),
    }
    return [
        part
        for name, (heading, words, table) in told.items()
        if (folder / f"{name}.jsonl").is_file()
        for part in (heading, words, table(folder))
    ]
