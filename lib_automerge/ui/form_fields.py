"""All fields of the set-up form; those of the reward and of the search have their own modules."""

from __future__ import annotations

from collections.abc import Mapping

from lib_automerge.merge.lab import catalogue
from lib_automerge.ui.fields import Field, Kind, Labels
from lib_automerge.ui.reward_fields import REWARD_FIELDS
from lib_automerge.ui.search_fields import SEARCH_FIELDS

METHODS = Labels({name: catalogue.get(name).label for name in catalogue.names()})
CHECKPOINTS = Labels(
    {"gain": "If it is proved better than both parents", "always": "Always", "never": "Never"}
)
DTYPES = Labels({"": "As in model A", "fp16": "fp16", "bf16": "bf16", "fp32": "fp32"})

FIELDS: tuple[Field, ...] = (
    Field(
        name="model_a",
        kind=Kind.OFFERED,
        label="Model A",
        default="",
        info="Weight 0 keeps it. Where a method has a base, this is it.",
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
        kind=Kind.CHOICE,
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
        info="The third model of the method. In a difference: the one that B was trained from.",
    ),
    Field(
        name="more_models",
        kind=Kind.NAMES,
        label="More models",
        default=(),
        info="Merged with B, all at once. A is the base, if the method has one.",
    ),
    Field(
        name="parameters",
        kind=Kind.LINES,
        label="Parameters as text",
        default="{}",
        info='In JSON: {"k": {"low": 0.1, "high": 0.5, "per_block": true}, '
        '"scale": {"fixed": 0.8}, "favour": {"values": ["large", "small"]}}.',
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
    *REWARD_FIELDS,
    *SEARCH_FIELDS,
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
        kind=Kind.OPTIONAL,
        label="Seeds for the verdict",
        default="",
        info="Fresh seeds per held-out prompt for the winner and each baseline. Empty: six, and "
        "more with fewer than ten prompts, so that a gain is not missed; if you alone judge, with "
        "fewer than twelve, so that no picture comes twice.",
    ),
)

BY_NAME: Mapping[str, Field] = {field.name: field for field in FIELDS}
