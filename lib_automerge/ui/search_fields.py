"""The fields of the form that say what is searched, by whom, and for how long."""

from __future__ import annotations

from collections.abc import Mapping

from lib_automerge.domain import weights
from lib_automerge.search import proposers
from lib_automerge.ui.fields import Field, Kind, Labels

_OPTIMIZERS: Mapping[str, tuple[str, str]] = {
    "bayes": (
        "Bayesian optimization",
        "Learns which blocks matter and proposes what promises most. The best choice for nearly "
        "every run.",
    ),
    "gp": (
        "Gaussian process (Optuna)",
        "Bayesian optimization that knows nothing of blocks. To compare with.",
    ),
    "tpe": (
        "TPE (Optuna)",
        "Compares what good and poor candidates have in common. Slower to learn; for runs of "
        "several hundred evaluations.",
    ),
    "cma": (
        "CMA-ES",
        "Evolves a cloud of candidates. For runs of 500 evaluations and more.",
    ),
    "cobyqa": (
        "COBYQA (SciPy)",
        "Follows a quadratic model step by step. Good where scores have hardly any noise, with "
        "80 evaluations or more.",
    ),
    "hill-climb": (
        "Hill climbing",
        "Takes random steps from the best so far. To compare with.",
    ),
    "coordinate": (
        "Block by block",
        "Changes one block at a time and shows what every block does. Good where scores have "
        "little noise.",
    ),
    "sobol": (
        "Evenly spread (Sobol)",
        "Covers the space evenly and learns nothing. To compare with, and for charts.",
    ),
    "random": ("Random", "Draws candidates at random and learns nothing. To compare with."),
}
"""Optimizer -> its label, and when it is the right one."""

OPTIMIZERS = Labels({name: _OPTIMIZERS.get(name, (name, ""))[0] for name in proposers.names()})

OPTIMIZER_HELP: Mapping[str, str] = {name: told for name, (_, told) in _OPTIMIZERS.items()}
"""Optimizer -> when it is the right one."""

QUICK = "Quick: 40 evaluations"
STANDARD = "Standard: up to 80 evaluations"
THOROUGH = "Thorough: up to 150 evaluations"
CUSTOM = "Custom"

BUDGETS: Mapping[str, int] = {QUICK: 40, STANDARD: 80, THOROUGH: 150}
"""Evaluations of the budgets that have no other limit."""

PATIENT = "After N evaluations without a better one"
LIMITS = "Only at the limits"

STOPS: Mapping[str, str] = {
    "When little is left to gain (recommended)": "regret",
    "When the next candidate promises little": "improvement",
    PATIENT: "never",
    LIMITS: "never",
}
"""When the search ends before its limits -> `SearchConfig.stop`."""

PATIENCE = 40
"""Evaluations without a better one that `PATIENT` waits for if nothing is entered."""

SEARCH_FIELDS: tuple[Field, ...] = (
    Field(
        name="budget",
        kind=Kind.RADIO,
        label="How long",
        default=STANDARD,
        info="An evaluation is one merge, its images and their scores.",
        choices=(*BUDGETS, CUSTOM),
    ),
    Field(
        name="evaluations",
        kind=Kind.WHOLE,
        label="Evaluations",
        default=150,
        info="At most, baselines included.",
    ),
    Field(
        name="hours",
        kind=Kind.OPTIONAL,
        label="Hours",
        default="8",
        info="At most. Empty: no limit.",
    ),
    Field(
        name="images",
        kind=Kind.OPTIONAL,
        label="Images",
        default="",
        info="At most. Empty: no limit.",
    ),
    Field(
        name="target",
        kind=Kind.OPTIONAL,
        label="Target score",
        default="",
        info="Stops there. Empty: none.",
    ),
    Field(
        name="stop",
        kind=Kind.CHOICE,
        label="End early",
        default=next(iter(STOPS)),
        info="The best so far is then proved and kept.",
        choices=tuple(STOPS),
    ),
    Field(
        name="patience",
        kind=Kind.OPTIONAL,
        label="Evaluations without a better one",
        default="",
        info="So many in a row end the search; parents and start do not count.",
        placeholder=str(PATIENCE),
    ),
    Field(
        name="optimizer",
        kind=Kind.CHOICE,
        label="Optimizer",
        default=OPTIMIZERS.label("bayes"),
        info="Who proposes the next candidate.",
        choices=OPTIMIZERS.labels,
    ),
    Field(
        name="seed",
        kind=Kind.WHOLE,
        label="Seed of the run",
        default=0,
        info="Same settings, seed and device: same run. It also draws image seeds and wildcards.",
    ),
    Field(
        name="low",
        kind=Kind.NUMBER,
        label="Lowest weight",
        default=0,
        info="Of every searched block; -1 at least.",
    ),
    Field(
        name="high",
        kind=Kind.NUMBER,
        label="Highest weight",
        default=1,
        info="Of every searched block; 2 at most.",
    ),
    Field(
        name="text_encoder",
        kind=Kind.CHECK,
        label="Search the text encoder too",
        default=False,
        info="Off: it is kept from A.",
    ),
    Field(
        name="vae",
        kind=Kind.CHECK,
        label="Search the VAE too",
        default=False,
        info="Off: it is kept from A.",
    ),
    Field(
        name="coarse_first",
        kind=Kind.CHECK,
        label="Groups of blocks first",
        default=False,
        info="Moves neighbouring blocks together first, then frees single ones where it pays. "
        "Quicker for some 30 evaluations if neighbours want similar weights, slower if not; no "
        "better in the end. Bayesian optimization only.",
    ),
    Field(
        name="rules",
        kind=Kind.LINES,
        label="Rules as text",
        default="{}",
        info='In JSON: {"IN00": {"low": 0, "high": 0.5}, "M00": {"fixed": 1}, '
        '"OUT11": {"tied_to": "OUT10"}}.',
    ),
    Field(
        name="start",
        kind=Kind.LINES,
        label="Start points",
        default="",
        info="Weights to try first, one list a line: IN00:0.5,M00:1 or the bare numbers of "
        "another tool.",
    ),
    Field(
        name="start_order",
        kind=Kind.CHOICE,
        label="Order of bare numbers",
        default=weights.NAMED,
        info="Which tool the numbers come from; tools do not agree on it.",
        choices=tuple(weights.orders()),
    ),
    Field(
        name="warm_start",
        kind=Kind.LINES,
        label="Earlier results to learn from",
        default="",
        info="Run folders, recipes or logs of other tools, one path a line. A run of the same "
        "models, prompts, seeds and reward counts as known; of all others the best are tried "
        "first.",
    ),
    Field(
        name="early_reject",
        kind=Kind.CHECK,
        label="Give up on poor candidates early",
        default=False,
        info="From the fourth prompt on, by a test against the best. Saves images of poor "
        "candidates, but in our tests the result was no better for the same number of images.",
    ),
    Field(
        name="calibration",
        kind=Kind.WHOLE,
        label="Seed sets to measure the noise",
        default=0,
        info="The run first scores the 50:50 merge on so many sets of fresh seeds. 0: not "
        "measured; 4 is enough.",
    ),
)
