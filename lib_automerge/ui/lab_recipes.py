"""Recipes in and out of the lab's form: read in any dialect, written in any format."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from lib_automerge.app import recipes
from lib_automerge.app.ports import ModelChoice
from lib_automerge.app.recipes import Converted, Source
from lib_automerge.domain import architectures, weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.dialects import metadata
from lib_automerge.domain.dialects.catalogue import Reading
from lib_automerge.domain.dialects.sketch import Hint, Sketch
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.errors import ConfigError
from lib_automerge.ui.fields import Labels, Reader, defaults
from lib_automerge.ui.lab_fields import (
    ASKED,
    ASKED_BY_NAME,
    FAMILIES,
    FORMATS,
    ORDERS,
    field_name,
)
from lib_automerge.ui.lab_form import Loaded, by_block, method_of, values_of, values_text
from lib_automerge.ui.lab_models import offered
from lib_automerge.ui.messages import sentence

Values = Mapping[str, object]

_WORD = re.compile(r"[\w-]+")


class QuestionError(ConfigError):
    """A text that can be read once the user has told something.

    Attributes:
        field: of the answer.
        choices: that it has; empty for a box to tick.
    """

    def __init__(self, told: str, field: str, choices: Sequence[str] = ()) -> None:
        super().__init__(told)
        self.field = field
        self.choices = tuple(choices)


class Around(msgspec.Struct, frozen=True, kw_only=True):
    """What a pasted text is read against.

    Attributes:
        models: what is offered.
        known: the SHA-256 of an offered model; empty if it is not known.
        family: the architecture of an offered model's file; None if it cannot be read.
        architecture: of the chosen models, if some are chosen.
    """

    models: Sequence[ModelChoice]
    known: Callable[[ModelChoice], str]
    family: Callable[[ModelChoice], str | None]
    architecture: Architecture | None


def asked(field: str, text: str) -> str:
    """How the form keeps which question a text has led to; no answer counts for another text."""
    return f"{field} {zlib.crc32(text.encode())}"


def answers_to(text: str, values: Values) -> dict[str, object]:
    """The answers that the form holds for this text; untouched ones if they are for another."""
    field = question_of(values)
    if field and values.get("lab_asked") == asked(field, text):
        return {one.name: values.get(one.name) for one in ASKED}
    return defaults(ASKED)


def question_of(values: Values) -> str:
    """The field of the question that is open; empty if there is none."""
    return str(values.get("lab_asked") or "").partition(" ")[0]


def load(text: str, values: Values, around: Around) -> Loaded:
    """The form's values after a recipe was pasted.

    A text without models is read as weights by block for the chosen method.

    Args:
        text: what was pasted.
        values: of the form, with the answers to earlier questions.
        around: what it is read against.

    Raises:
        QuestionError: it means several things.
        ConfigError: it is neither a recipe nor weights; says why.
    """
    if not text.strip():
        raise ConfigError("there is no recipe yet. Paste one, or drop a file.")
    try:
        return _load(text, values, around)
    except QuestionError:
        raise
    except ConfigError as error:
        raise _question(error) or error from error


def write(recipe: Recipe, label: str, name: str, *, lossy: bool) -> Converted:
    """The form's recipe in another format.

    Args:
        recipe: as the form describes it.
        label: of the format.
        name: of a preset.
        lossy: also if the format cannot say all of it.

    Raises:
        ConfigError: the format cannot hold it; says why.
    """
    source = Source(Reading((recipe,)), recipe.architecture)
    return recipes.convert(source, FORMATS.name(label), lossy=lossy, name=name)


def _load(text: str, values: Values, around: Around) -> Loaded:
    answers = Reader(ASKED, answers_to(text, values))
    order = ORDERS.name(answers.text("lab_order")) or None
    family = FAMILIES.name(answers.text("lab_family")) or None
    assumed = family or (around.architecture.name if around.architecture else None)
    source = recipes.read_text(text, order, assumed)
    found = _picked(source.reading.found, answers.text("lab_which"))
    if isinstance(found, Sketch) and (found.method is None or not found.models):
        return _weights(found, values, around.architecture)
    hints = found.models if isinstance(found, Sketch) else metadata.hints(found)
    matched, notes = _matched(hints, around)
    kinds = [kind for kind in map(around.family, matched.values()) if kind is not None]
    recipe, more = recipes.recipe(
        Source(Reading((found,)), kinds[0] if kinds and family is None else None),
        architecture=family,
        lossy=answers.check("lab_lossy"),
    )
    models = {
        role: _located(ref, hints[role], matched.get(role)) for role, ref in recipe.models.items()
    }
    recipe = msgspec.structs.replace(recipe, models=models)
    loaded = values_of(recipe, around.models, architectures.get(recipe.architecture), around.known)
    told = [] if recipe.precision == "fp64" else [_SEARCHED]
    read = [] if isinstance(found, Recipe) else [f"Read: {found.dialect}."]
    return Loaded(loaded.values, (*read, *notes, *map(_told, more), *loaded.notes, *told))


_SEARCHED = "It is computed in fp64 here and rounded once; a search computes in fp32."


def _picked(found: Sequence[Sketch | Recipe], answer: str) -> Sketch | Recipe:
    """The one that is meant, if a text holds several."""
    if len(found) == 1:
        return found[0]
    labels = [
        f"{number}. {one.name if isinstance(one, Sketch) else one.method}"
        for number, one in enumerate(found, 1)
    ]
    if answer not in labels:
        told = f"the text holds {len(found)} presets. Choose one."
        raise QuestionError(told, "lab_which", labels)
    return found[labels.index(answer)]


def _weights(found: Sketch, values: Values, architecture: Architecture | None) -> Loaded:
    method = method_of(values)
    if method.weight is None:
        raise ConfigError(
            f"{found.dialect} names no models, and {method.label} has no weights by block. Choose "
            "the method that they are for."
        )
    if architecture is None:
        raise ConfigError("weights alone say nothing of the models. Choose these first.")
    own = by_block(values) | {method.weight: found.weights(architecture)}
    # blocks that a list of weights does not name are those of the first model
    new = {"lab_values": values_text(own), field_name(method.name, method.weight): 0.0}
    return Loaded(new, (f"Read: {found.dialect}.", *map(_told, found.notes)))


def _matched(
    hints: Mapping[str, Hint], around: Around
) -> tuple[dict[str, ModelChoice], tuple[str, ...]]:
    """The offered models that a text names, by role, and what to know of them."""
    found, notes = {}, []
    for role, hint in hints.items():
        model, note = offered(hint, around.models, around.known)
        if model is not None:
            found[role] = model
        if note:
            notes.append(note)
    return found, tuple(notes)


def _located(ref: ModelRef, hint: Hint, model: ModelChoice | None) -> ModelRef:
    name = ref.name or hint.words
    return ModelRef(name=name, sha256=ref.sha256, path="" if model is None else model.path)


def _question(error: ConfigError) -> QuestionError | None:
    """The question behind an error, if an answer can mend it."""
    text = str(error)
    words = _WORD.findall(text)
    if "--lossy" in text:
        return QuestionError(text, "lab_lossy")
    for mark, field, names, labels in _CHOICES:
        before, found, _ = text.partition(mark)
        if found:
            # the answers are in the field, with what each means
            told = f'{before.rstrip()} Choose it as "{ASKED_BY_NAME[field].label}".'
            return QuestionError(told, field, [labels.label(n) for n in names() if n in words])
    return None


_CHOICES: tuple[tuple[str, str, Callable[[], Iterable[str]], Labels], ...] = (
    ("Add --architecture", "lab_family", architectures.names, FAMILIES),
    ("Name one with --from", "lab_order", weights.orders, ORDERS),
    ("Name its order", "lab_order", weights.orders, ORDERS),
)
"""What begins the request in an error -> the field of the answer, and the answers there are."""


def _told(note: str) -> str:
    return sentence(note).rstrip(".") + "."
