"""The merge lab's form, without its widgets: fill, check, save, preview, recipes in and out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from lib_automerge.app.checkpoint_names import joined_name, new_checkpoint
from lib_automerge.app.checks import Check, Level, Preflight
from lib_automerge.app.desk import Desk
from lib_automerge.app.lab_orders import Order
from lib_automerge.app.model_cards import ModelCards
from lib_automerge.app.ports import ModelChoice
from lib_automerge.domain import architectures
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.payload import Payload, named
from lib_automerge.domain.recipe import Recipe, primary
from lib_automerge.errors import AutomergeError, ConfigError
from lib_automerge.merge.lab.budget import LEAST
from lib_automerge.merge.lab.methods import LabMethod
from lib_automerge.study.formats import listed
from lib_automerge.study.markup import EMPTY, Markup
from lib_automerge.ui import (
    lab_blocks,
    lab_recipes,
    lab_search,
    lab_words,
    messages,
    space_rules,
)
from lib_automerge.ui.fields import Reader, clean
from lib_automerge.ui.lab_checks import LabChecks
from lib_automerge.ui.lab_fields import (
    FIXED,
    LAB_DTYPES,
    LAB_FIELDS,
    field_name,
    label_of,
)
from lib_automerge.ui.lab_form import (
    LAB_READ,
    Loaded,
    by_block,
    chosen,
    method_of,
    needs,
    recipe_of,
)
from lib_automerge.ui.setup import STARTERS

Values = Mapping[str, object]

GIB = 1 << 30
NAMED = 3
"""Models that the name of a file tells of."""


class RecipeText(msgspec.Struct, frozen=True):
    """The form's recipe as text.

    Attributes:
        shown: it, or why there is none.
        lossy: whether the chosen format cannot say all of it.
        unread: whether the content of a model is not known yet.
    """

    shown: Markup
    lossy: bool = False
    unread: bool = False


class LabView(msgspec.Struct, frozen=True, kw_only=True):
    """What the page shows beside the fields themselves."""

    checks: Markup
    ready: bool
    previewable: bool
    method: LabMethod
    about: Markup
    parameters: tuple[str, ...]
    table: Markup
    text: RecipeText
    payloads: tuple[str, ...]


class LabSetup:
    """The lab's form over a desk.

    Args:
        desk: whose models and lab it is about.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._cards = ModelCards()
        self._found = LabChecks(desk, self._cards)

    # --- filling --------------------------------------------------------------------------------

    def titles(self) -> list[str]:
        """The checkpoints that can be chosen, as they were found last."""
        return [model.title for model in self.desk.catalogue.models()]

    def refresh(self) -> list[str]:
        """The checkpoints that can be chosen, looked for again."""
        self.desk.catalogue.refresh()
        return self.titles()

    def fill(self) -> dict[str, object]:
        """The form as it was left, without what is gone since."""
        # the text that a question is about is in no draft
        values = clean(LAB_FIELDS, self.desk.lab_draft.read()) | {"lab_asked": ""}
        titles = self.refresh()
        for name in (*FIXED, "lab_base"):
            if values[name] not in titles:
                values[name] = ""
        many = values["lab_models"]
        assert isinstance(many, list)
        values["lab_models"] = [title for title in many if title in titles]
        if values["lab_set"] not in self.desk.sets.names():
            values["lab_set"] = ""
        return values

    def keep(self, values: Values) -> None:
        """Save the form for the next visit.

        Raises:
            StorageError: it could not be written.
        """
        self.desk.lab_draft.save({field.name: values.get(field.name) for field in LAB_FIELDS})

    def architecture(self, values: Values) -> Architecture | None:
        """That of the first chosen model; None while no readable one is chosen."""
        for path in self._paths(values).values():
            name = self._cards.card(path).architecture
            if name is not None:
                return architectures.get(name)
        return None

    def known_architecture(self, values: Values) -> Architecture:
        """As `architecture`.

        Raises:
            ConfigError: no readable model is chosen.
        """
        found = self.architecture(values)
        if found is None:
            raise ConfigError("the blocks are not known yet. Choose the models first.")
        return found

    def block_choices(self, values: Values) -> list[str]:
        """What can be picked to set values for."""
        found = self.architecture(values)
        return space_rules.choices(found) if found else []

    def known(self, model: ModelChoice) -> str:
        """The SHA-256 of an offered model; empty if it is not known. Reads no file."""
        return self.desk.digests.known(model)

    def _choices(self, values: Values) -> dict[str, ModelChoice]:
        offered = {model.title: model for model in self.desk.catalogue.models()}
        return {role: offered[title] for role, title in chosen(values).items() if title in offered}

    def _paths(self, values: Values) -> dict[str, str]:
        return {role: model.path for role, model in self._choices(values).items()}

    # --- showing --------------------------------------------------------------------------------

    def view(self, values: Values) -> LabView:
        """What the page shows for these values; troubles are part of it."""
        method = method_of(values)
        checks, savable, sound = self._checks(values)
        payloads = self._payloads(values)
        return LabView(
            checks=checks,
            ready=savable,
            previewable=sound and bool(payloads),
            method=method,
            about=lab_words.about(method),
            parameters=tuple(label_of(one.name) for one in lab_blocks.block_wise(method)),
            table=self._table(values, method),
            text=self._recipe_text(values),
            payloads=tuple(payload.name for payload in payloads),
        )

    def _checks(self, values: Values) -> tuple[Markup, bool, bool]:
        """What is wrong or told; whether the merge can be saved, and previewed."""
        found = [Check(Level.ERROR, "Models", told) for told in needs(values)]
        chosen_ones = self._choices(values)
        found += self._found.model_problems(chosen_ones)
        told, savable, sound = EMPTY, False, False
        try:
            if not found:
                order = self._order(values, Path())
                found += self._found.order_problems(order, chosen_ones)
                sound = all(one.level is not Level.ERROR for one in found)
                path = self._target(values, order.recipe)
                found += self._found.file_problems(order, path) if sound else []
                told = lab_words.target(path, order.dtype)
                savable = all(one.level is not Level.ERROR for one in found)
        except AutomergeError as error:
            found.append(Check(Level.ERROR, "Form", lab_words.in_form(error)))
        return (
            messages.checks(Preflight(checks=tuple(found), architecture=None), told),
            savable,
            sound,
        )

    def _table(self, values: Values, method: LabMethod) -> Markup:
        architecture = self.architecture(values)
        if not lab_blocks.block_wise(method):
            return EMPTY
        if architecture is None:
            return lab_words.quiet("Choose the models to see their blocks.")
        try:
            own = by_block(values)
        except ConfigError as error:
            return messages.trouble(error)
        plain = {
            parameter.name: values.get(field_name(method.name, parameter.name))
            for parameter in method.parameters
        }
        return lab_blocks.table(method, plain, own, architecture)

    def _recipe_text(self, values: Values) -> RecipeText:
        """The form's recipe as text, in the chosen format."""
        form = Reader(LAB_READ, values)
        none = RecipeText(lab_words.recipe(None, ()))
        if needs(values):
            return none
        try:
            recipe = self._recipe(values)
            dtype = LAB_DTYPES.name(form.text("lab_dtype"))
            recipe = msgspec.structs.replace(recipe, dtype=dtype)
        except AutomergeError:
            # the checks tell why there is none
            return none
        chosen_ones = self._choices(values)
        known = {role: self.known(model) for role, model in chosen_ones.items()}
        refs = {
            role: ref if ref.sha256 else msgspec.structs.replace(ref, sha256=known[role])
            for role, ref in recipe.models.items()
        }
        nameless = [chosen_ones[role].title for role, ref in refs.items() if not ref.sha256]
        unknown = list(dict.fromkeys(nameless))
        recipe = msgspec.structs.replace(recipe, models=refs)
        name = re.sub(r"[\t\n,:]", " ", form.text("lab_name")) or self._default_name(recipe)
        lossy = form.check("lab_give_up")
        try:
            written = lab_recipes.write(recipe, form.text("lab_format"), name, lossy=lossy)
        except AutomergeError as error:
            told = messages.trouble(ConfigError(lab_words.in_form(error)))
            return RecipeText(told, lossy or lab_words.asks_to_give_up(error), bool(unknown))
        return RecipeText(lab_words.recipe(written, unknown), lossy, bool(unknown))

    # --- what the words mean --------------------------------------------------------------------

    def _order(self, values: Values, path: Path) -> Order:
        """The merge that the form describes, as a file of this path.

        Raises:
            AutomergeError: something is missing or wrong; names it as the form does.
        """
        form = Reader(LAB_READ, values)
        memory = form.number("lab_memory") * GIB
        if memory < LEAST:
            raise ConfigError(
                f'"Memory for the merge (GiB)" is {form.number("lab_memory"):g}. Give it '
                f"{LEAST / GIB:.2g} or more."
            )
        return Order(
            recipe=self._recipe(values),
            path=path,
            dtype=LAB_DTYPES.name(form.text("lab_dtype")) or None,
            memory=int(memory),
        )

    def _target(self, values: Values, recipe: Recipe) -> Path:
        """Where the merge goes: a file that is not there yet.

        Raises:
            ConfigError: the name cannot be one.
            StorageError: it is taken.
        """
        first = Path(recipe.models[primary(recipe.models)].path)
        folder = self.desk.catalogue.checkpoint_folder(first)
        name = Reader(LAB_READ, values).text("lab_name")
        if name:
            return new_checkpoint(folder, name)
        joined = self._default_name(recipe)
        numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
        free = (joined + number for number in numbers)
        return new_checkpoint(folder, next(n for n in free if not self._taken(folder, n)))

    def _taken(self, folder: Path, name: str) -> bool:
        path = folder / f"{name}.safetensors"
        return path.exists() or self.desk.lab.unfinished(path)

    def _default_name(self, recipe: Recipe) -> str:
        stems = [Path(ref.path).stem for _, ref in sorted(recipe.models.items())]
        return joined_name(stems[:NAMED], f"-{recipe.method}")

    def _recipe(self, values: Values) -> Recipe:
        models = self.desk.catalogue.models()
        for told in needs(values):
            raise ConfigError(told)
        return recipe_of(values, models, self.known_architecture(values))

    def _payloads(self, values: Values) -> tuple[Payload, ...]:
        architecture = self.architecture(values)
        starter = STARTERS.get(architecture.name if architecture else "", STARTERS["sd1"])
        try:
            found = self.desk.sets.get(str(values.get("lab_set") or starter))
            return named(found.payloads)
        except ConfigError:
            # a set that cannot be read previews nothing
            return ()

    # --- acting ---------------------------------------------------------------------------------

    def optimise(self) -> dict[str, object]:
        """The search form as it was left, with the lab's form as what is searched.

        Raises:
            AutomergeError: the lab's form is not complete.
        """
        values = self.fill()
        missing = needs(values)
        if missing:
            raise ConfigError(missing[0])
        return {
            **self.desk.draft(),
            **lab_search.search_values(self._recipe(values), chosen(values)),
        }

    def save(self, values: Values) -> str:
        """Begin to write the merge; returns a sentence.

        Raises:
            AutomergeError: it cannot begin; nothing has changed.
        """
        path = self._target(values, self._recipe(values))
        order = self._order(values, path)
        self.desk.merge(order)
        return f"{order.path.name} is being written. It goes on when you close this page."

    def preview(self, values: Values) -> str:
        """Begin to make one image of the merge; returns a sentence.

        Raises:
            AutomergeError: it cannot begin; nothing has changed.
        """
        order = self._order(values, Path())
        wanted = Reader(LAB_READ, values).text("lab_payload")
        payloads = self._payloads(values)
        found = [payload for payload in payloads if payload.name == wanted] or list(payloads)
        if not found:
            raise ConfigError("the payload set has no prompt. Choose another for the preview.")
        self.desk.preview_merge(order, found[0])
        return "The merge is made for one image. It is not kept."

    def load(self, text: str, values: Values) -> Loaded:
        """The form's values after a recipe was pasted; see `lab_recipes.load`.

        Raises:
            QuestionError: it means several things; in the form's words.
            ConfigError: it cannot be read; likewise.
        """
        around = lab_recipes.Around(
            models=self.desk.catalogue.models(),
            known=self.known,
            family=lambda model: self._cards.card(model.path).architecture,
            architecture=self.architecture(values),
        )
        try:
            return lab_recipes.load(text, values, around)
        except lab_recipes.QuestionError as error:
            told = lab_words.in_form(error)
            raise lab_recipes.QuestionError(told, error.field, error.choices) from error
        except ConfigError as error:
            raise ConfigError(lab_words.in_form(error)) from error

    def read_contents(self, values: Values) -> str:
        """Begin to read the chosen models for their SHA-256; returns a sentence.

        Raises:
            AutomergeError: no model is chosen, or models are being read already.
        """
        models = list(dict.fromkeys(self._choices(values).values()))
        if not models:
            raise ConfigError("no model is chosen. Choose the models first.")
        unknown = [model for model in models if not self.known(model)]
        if not unknown:
            return "The contents of all chosen models are known."
        self.desk.digests.read(unknown)
        return f"Reading {listed(lab_words.shortened_list([one.title for one in unknown]))}."
