"""The fields of the merge lab's form; those of a method's parameters come from its signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib_automerge.app import recipes
from lib_automerge.domain import architectures, weights
from lib_automerge.domain.dialects import catalogue as dialects
from lib_automerge.merge.lab import catalogue
from lib_automerge.merge.lab.methods import LabMethod
from lib_automerge.merge.lab.number_types import OUTPUTS
from lib_automerge.merge.lab.parameters import Parameter
from lib_automerge.ui.fields import Field, Kind, Labels


def _simple_first(method: LabMethod) -> tuple[bool, int, bool]:
    return (not method.roles, len(method.roles), method.based)


_ORDER = sorted(catalogue.METHODS.values(), key=_simple_first)
LAB_METHODS = Labels({method.name: method.label for method in _ORDER})
LAB_DTYPES = Labels({"": "As in the first model", **{name: name for name in OUTPUTS}})
MISMATCHES = Labels(
    {
        "refuse": "Refuse",
        "keep-a": "Keep the first model's tensors",
        "fill-base": "Fill from the base",
    }
)
FORMATS = Labels(
    {
        name: f"{name}: {what}"
        for name, what in recipes.FORMATS.items()
        if name not in dialects.TABLES
    }
)
"""What the form's recipe can be written as; tables are of scores, which a recipe has none of."""
ORDERS = Labels({name: f"{name}: {what}" for name, what in weights.orders().items()})
FAMILIES = Labels({name: architectures.get(name).label for name in architectures.names()})
FIXED = ("lab_a", "lab_b", "lab_c")
"""The slots of the roles a, b and c."""

KINDS: Mapping[str, Kind] = {
    "number": Kind.NUMBER,
    "whole number": Kind.WHOLE,
    "true or false": Kind.CHECK,
    "choice": Kind.RADIO,
    "number per model": Kind.TEXT,
}
_MANY = 1e6


def field_name(method: str, parameter: str) -> str:
    """The name of the field of a method's parameter."""
    return f"lab_{method}_{parameter}"


def parameter_field(method: LabMethod, parameter: Parameter) -> Field:
    """The field of a parameter, made from what its signature says."""
    kind = KINDS[parameter.kind]
    help_text = parameter.help[:1].upper() + parameter.help[1:]
    told = [help_text + "."]
    if parameter.kind == "number per model":
        told.append("One number for each model, in their order, with commas. Empty: all alike.")
    if parameter.low is not None and parameter.high is not None:
        high = f" to {parameter.high:g}" if parameter.high < _MANY else " on"
        told.append(f"From {parameter.low:g}{high}.")
    return Field(
        name=field_name(method.name, parameter.name),
        kind=kind,
        label=label_of(parameter.name),
        default="" if kind is Kind.TEXT else parameter.default,
        info=" ".join(told),
        choices=parameter.choices,
        placeholder="1, 1, 2" if kind is Kind.TEXT else "",
    )


def label_of(parameter: str) -> str:
    """What the form calls a parameter; names of one letter are those of the formula."""
    return parameter if len(parameter) == 1 else parameter[:1].upper() + parameter[1:]


def _fields_of(methods: Sequence[LabMethod]) -> tuple[Field, ...]:
    return tuple(
        parameter_field(method, parameter) for method in methods for parameter in method.parameters
    )


PARAMETER_FIELDS = _fields_of(_ORDER)

LAB_FIELDS: tuple[Field, ...] = (
    Field(
        name="lab_method",
        kind=Kind.CHOICE,
        label="Method",
        default=LAB_METHODS.label("weighted_sum"),
        choices=LAB_METHODS.labels,
    ),
    *(
        Field(name=name, kind=Kind.OFFERED, label=f"Model {name[-1].upper()}", default="")
        for name in FIXED
    ),
    Field(
        name="lab_base",
        kind=Kind.OFFERED,
        label="Base",
        default="",
        info="The model that the others were trained from: changes are counted from it.",
    ),
    Field(
        name="lab_models",
        kind=Kind.NAMES,
        label="Models",
        default=(),
        info="Any number, in the order in which you choose them.",
    ),
    *PARAMETER_FIELDS,
    Field(
        name="lab_values",
        kind=Kind.LINES,
        label="Values by block as text",
        default="{}",
    ),
    Field(
        name="lab_digests",
        kind=Kind.LINES,
        label="Known contents of the models",
        default="{}",
    ),
    Field(
        name="lab_asked",
        kind=Kind.LINES,
        label="What the pasted text leaves open",
        default="",
    ),
    Field(
        name="lab_dtype",
        kind=Kind.CHOICE,
        label="Precision of the file",
        default=LAB_DTYPES.label(""),
        info="Computed in fp64 and rounded once.",
        choices=LAB_DTYPES.labels,
    ),
    Field(
        name="lab_memory",
        kind=Kind.NUMBER,
        label="Memory for the merge (GiB)",
        default=2,
        info="Never exceeded, however many models there are. More is a little faster.",
    ),
    Field(
        name="lab_mismatch",
        kind=Kind.RADIO,
        label="Tensors that differ in shape or are missing",
        default=MISMATCHES.label("refuse"),
        info="Refuse lists them. The base can stand for the models that lack one.",
        choices=MISMATCHES.labels,
    ),
    Field(
        name="lab_zero_bad",
        kind=Kind.CHECK,
        label="Take NaN and infinite numbers as 0",
        default=False,
        info="Otherwise a model that holds them is refused.",
    ),
    Field(
        name="lab_name",
        kind=Kind.TEXT,
        label="Name of the file",
        default="",
        info="Empty: named after the models and the method.",
    ),
    Field(
        name="lab_set",
        kind=Kind.OFFERED,
        label="Payload set of the preview",
        default="",
        info="Empty: the one that comes with Automerge for these models.",
    ),
    Field(
        name="lab_payload",
        kind=Kind.OFFERED,
        label="Prompt of the preview",
        default="",
        info="Empty: the first. Its settings and first seed are used.",
    ),
    Field(
        name="lab_format",
        kind=Kind.CHOICE,
        label="Format",
        default=FORMATS.label("json"),
        choices=FORMATS.labels,
    ),
    Field(
        name="lab_give_up",
        kind=Kind.CHECK,
        label="Give up what the format cannot say",
        default=False,
    ),
)

LAB_BY_NAME: Mapping[str, Field] = {field.name: field for field in LAB_FIELDS}

BLOCK_FIELDS: tuple[Field, ...] = (
    Field(name="lab_parameter", kind=Kind.OFFERED, label="Parameter", default=""),
    Field(
        name="lab_blocks",
        kind=Kind.NAMES,
        label="Blocks",
        default=(),
        info="Whole groups or single blocks.",
    ),
    Field(name="lab_value", kind=Kind.OPTIONAL, label="Value", default="", placeholder="0.5"),
)
"""What is picked to change values by block; kept by no draft."""

MATCHING = Field(
    name="lab_matching",
    kind=Kind.TEXT,
    label="Add all whose name contains",
    default="",
    placeholder="anime v2",
)

ASKED: tuple[Field, ...] = (
    Field(name="lab_order", kind=Kind.OFFERED, label="Order of the weights", default=""),
    Field(name="lab_family", kind=Kind.OFFERED, label="Family of the models", default=""),
    Field(name="lab_which", kind=Kind.OFFERED, label="Preset", default=""),
    Field(
        name="lab_lossy",
        kind=Kind.CHECK,
        label="Leave out what cannot be said here",
        default=False,
    ),
)
"""What a pasted text may leave open; shown when it does."""

ASKED_BY_NAME: Mapping[str, Field] = {field.name: field for field in ASKED}

RECIPE_TEXT = Field(
    name="lab_recipe",
    kind=Kind.LINES,
    label="Recipe to load",
    default="",
    info="Paste or drop a recipe of Automerge, SuperMerger, AutoMBW, sd-mecha or a WebUI, weights "
    "by block, a picture, or a merged checkpoint: of that only the recipe in it is read.",
    placeholder="A x (1-alpha) + B x alpha (0.5,0.1,...)",
)
