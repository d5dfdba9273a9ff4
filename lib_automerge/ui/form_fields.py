"""The fields of the set-up form, in one place."""

from __future__ import annotations

from collections.abc import Mapping

from lib_automerge.domain import weights
from lib_automerge.merge import methods
from lib_automerge.reward import registry
from lib_automerge.search import proposers
from lib_automerge.ui.fields import Field, Kind, Labels

METHODS = Labels({name: method.label for name, method in methods.METHODS.items()})
REWARDS = Labels({name: registry.describe(name).label for name in reversed(registry.names())})
OPTIMIZERS = Labels(
    {
        name: {
            "bayes": "Bayesian optimization",
            "random": "Random",
            "sobol": "Evenly spread (Sobol)",
        }.get(name, name)
        for name in proposers.names()
    }
)
CHECKPOINTS = Labels(
    {"gain": "If it is proved better than both parents", "always": "Always", "never": "Never"}
)
DTYPES = Labels({"": "As in model A", "fp16": "fp16", "bf16": "bf16", "fp32": "fp32"})

QUICK = "Quick: 40 evaluations"
OVERNIGHT = "Overnight: up to 150 evaluations or 8 hours"
CUSTOM = "Custom"

BUDGETS: Mapping[str, tuple[int, float | None]] = {QUICK: (40, None), OVERNIGHT: (150, 8.0)}
"""Evaluations and hours of the budgets that have fixed ones."""

PATIENCE = 40

FIELDS: tuple[Field, ...] = (
    Field(
        name="model_a",
        kind=Kind.OFFERED,
        label="Model A",
        default="",
        info="Weight 0 keeps it.",
    ),
    Field(
        name="model_b",
        kind=Kind.OFFERED,
        label="Model B",
        default="",
        info="Weight 1 takes it. Of the same family as A.",
    ),
    Field(
        name="method",
        kind=Kind.RADIO,
        label="Merge method",
        default=METHODS.label("weighted_sum"),
        info="How the models are combined in every block.",
        choices=METHODS.labels,
    ),
    Field(
        name="model_c",
        kind=Kind.OFFERED,
        label="Model C",
        default="",
        info="What is subtracted from B: usually the model that B was trained from.",
    ),
    Field(
        name="payload_set",
        kind=Kind.OFFERED,
        label="Payload set",
        default="",
        info="The prompts that every candidate is judged on.",
    ),
    Field(
        name="seeds_per_payload",
        kind=Kind.WHOLE,
        label="Seeds per prompt",
        default=1,
        info="For prompts without seeds of their own. The same ones for every candidate.",
    ),
    Field(
        name="payloads",
        kind=Kind.LINES,
        label="Prompts as text",
        default="[]",
        info="The edited set in JSON: a list of payloads.",
    ),
    Field(
        name="reward",
        kind=Kind.CHOICE,
        label="Reward",
        default=REWARDS.label("image_reward"),
        info="The judge: it gives every image a score. Higher is better, any sign is normal.",
        choices=REWARDS.labels,
    ),
    Field(
        name="reward_weights",
        kind=Kind.TEXT,
        label="Weights file",
        default="",
        info="Where the judge's own weights are. Empty: where Automerge looks for them.",
    ),
    Field(
        name="reward_device",
        kind=Kind.TEXT,
        label="Device",
        default="",
        info="cpu, cuda, cuda:1 or mps. Empty: chosen for you.",
    ),
    Field(
        name="reward_options",
        kind=Kind.LINES,
        label="Further options as text",
        default="{}",
        info='In JSON, for example {"batch_size": 4}.',
    ),
    Field(
        name="budget",
        kind=Kind.RADIO,
        label="How long",
        default=OVERNIGHT,
        info="An evaluation is one merge, its images and their scores.",
        choices=(QUICK, OVERNIGHT, CUSTOM),
    ),
    Field(
        name="evaluations",
        kind=Kind.WHOLE,
        label="Evaluations",
        default=150,
        info="At most, both parents and the 50:50 merge included.",
    ),
    Field(
        name="hours",
        kind=Kind.OPTIONAL,
        label="Hours",
        default="8",
        info="At most, for the search. Empty: no limit.",
    ),
    Field(
        name="target",
        kind=Kind.OPTIONAL,
        label="Target score",
        default="",
        info="Stop as soon as a candidate reaches it. Empty: none.",
    ),
    Field(
        name="stop_early",
        kind=Kind.CHECK,
        label="Stop early when it stops improving",
        default=True,
        info="The best so far is then proved and kept.",
    ),
    Field(
        name="patience",
        kind=Kind.WHOLE,
        label="Patience",
        default=PATIENCE,
        info="Evaluations without a better score before it stops early.",
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
        name="name",
        kind=Kind.TEXT,
        label="Name of the run",
        default="",
        info="Empty: the day and four letters.",
    ),
    Field(
        name="checkpoint",
        kind=Kind.RADIO,
        label="Save the best merge as a checkpoint",
        default=CHECKPOINTS.label("gain"),
        info="You can still save any candidate afterwards, under Results.",
        choices=CHECKPOINTS.labels,
    ),
    Field(
        name="dtype",
        kind=Kind.CHOICE,
        label="Precision of the saved checkpoint",
        default=DTYPES.label(""),
        info="As in model A gives exactly the images that were scored.",
        choices=DTYPES.labels,
    ),
    Field(
        name="finalists",
        kind=Kind.WHOLE,
        label="Finalists",
        default=3,
        info="How many of the best are scored again on fresh seeds.",
    ),
    Field(
        name="finalist_seeds",
        kind=Kind.WHOLE,
        label="Seeds for finalists",
        default=2,
        info="Fresh seeds per prompt for each finalist.",
    ),
    Field(
        name="verdict_seeds",
        kind=Kind.WHOLE,
        label="Seeds for the verdict",
        default=4,
        info="Fresh seeds per held-out prompt for the winner and each baseline.",
    ),
)

BY_NAME: Mapping[str, Field] = {field.name: field for field in FIELDS}
