"""What the set-up form does, without its widgets: fill, check, start.

Hides where a form's words get their meaning: the host's catalogue, the payload sets and the headers
of the chosen checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from lib_automerge.app.checks import Level
from lib_automerge.app.desk import Desk
from lib_automerge.app.measuring import measurement_of
from lib_automerge.app.model_cards import ModelCards
from lib_automerge.app.ports import ModelChoice
from lib_automerge.domain import architectures
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.candidate import given
from lib_automerge.domain.config import (
    OutputConfig,
    RunConfig,
    SearchConfig,
    VerdictConfig,
)
from lib_automerge.domain.payload import Payload, named
from lib_automerge.errors import ConfigError
from lib_automerge.merge.lab import catalogue
from lib_automerge.merge.lab.methods import LabMethod
from lib_automerge.study.formats import plural
from lib_automerge.study.library import Entry
from lib_automerge.study.markup import EMPTY, Markup, element
from lib_automerge.ui import messages, parameter_rules, payload_list, reward_list, space_rules
from lib_automerge.ui.fields import Reader, clean
from lib_automerge.ui.form import Place, config_of
from lib_automerge.ui.form_fields import FIELDS, METHODS
from lib_automerge.ui.reward_form import is_single, reward_of
from lib_automerge.ui.search_fields import BUDGETS, OPTIMIZERS
from lib_automerge.ui.search_form import block_rules, waits
from lib_automerge.ui.texts import paths_of, payloads_of, payloads_text
from lib_automerge.ui.views.rewards import LIST, placed

Values = Mapping[str, object]

STARTERS: Mapping[str, str] = {
    "sd1": "Starter (SD1, 512)",
    "sd2": "Starter (SD2, 768)",
    "sdxl": "Starter (SDXL, 1024)",
    "sdxl_refiner": "Starter (SDXL, 1024)",
}
"""Architecture -> the payload set that comes with Automerge for it."""

TRIAL_PROMPTS = 2
TRIAL_EVALUATIONS = 4


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What the page shows beside the fields themselves."""

    checks: Markup
    ready: bool
    method: Markup
    needs_c: bool
    needs_many: bool
    weighted: bool
    parametric: bool
    trial: int
    parameters: tuple[str, ...]
    parameter_table: Markup
    custom: bool
    waits: bool
    count: Markup
    table: Markup
    names: tuple[str, ...]
    space: Markup
    reward: Markup
    single: bool
    optimizer: Markup
    earlier: tuple[str, ...]


class Setup:
    """The set-up form over a desk.

    Args:
        desk: whose runs, sets and draft it is about.
        now: the time, with the zone of the user's clock.
    """

    def __init__(self, desk: Desk, now: Callable[[], datetime] = datetime.now) -> None:
        self.desk = desk
        self._now = now
        self._cards = ModelCards()

    # --- what the words mean ----------------------------------------------------------------------

    def titles(self) -> list[str]:
        """The checkpoints that can be chosen, looked for again."""
        self.desk.catalogue.refresh()
        return [model.title for model in self.desk.catalogue.models()]

    def architecture(self, values: Values) -> Architecture | None:
        """That of model A; None while no readable checkpoint is chosen."""
        name = self._place(values).architecture
        return architectures.get(name) if name else None

    def method(self, values: Values) -> LabMethod:
        """The chosen merge method."""
        return catalogue.get(METHODS.name(Reader(FIELDS, values).text("method")))

    def payloads(self, values: Values) -> tuple[Payload, ...]:
        """The edited payloads, each with a name.

        Raises:
            ConfigError: their text cannot be read, or a value is out of range.
        """
        return named(payloads_of(str(values.get("payloads") or "")))

    def config(self, values: Values) -> RunConfig:
        """The run that the form describes.

        Raises:
            ConfigError: see `form.config_of`.
        """
        return config_of(values, self._place(values))

    def _place(self, values: Values) -> Place:
        models = tuple(self.desk.catalogue.models())
        return Place(
            models=models,
            generator=self.desk.catalogue.generator_name,
            data=self.desk.catalogue.data,
            architecture=self._architecture_of(str(values.get("model_a") or ""), models),
        )

    def _architecture_of(self, title: str, models: tuple[ModelChoice, ...]) -> str | None:
        path = next((model.path for model in models if model.title == title), None)
        if path is None:
            return None
        # the checks tell why a file cannot be read
        return self._cards.card(path).architecture

    # --- filling ----------------------------------------------------------------------------------

    def fill(self) -> dict[str, object]:
        """The form as it was left; what is gone since is filled in afresh."""
        values = clean(FIELDS, self.desk.draft())
        titles = self.titles()
        for role in "abc":
            if values[f"model_{role}"] not in titles:
                values[f"model_{role}"] = ""
        more = Reader(FIELDS, values).names("more_models")
        values["more_models"] = [title for title in more if title in titles]
        if not values["model_a"]:
            loaded = self.desk.catalogue.loaded_model()
            values["model_a"] = loaded if loaded in titles else ""
        if values["payload_set"] not in self.desk.sets.names():
            values["payload_set"] = ""
        if values["payloads"] == "[]":
            values |= self._set_values(self._starter(values))
        return values

    def gone(self) -> tuple[str, ...]:
        """The models among the more of the form as it was left that are not offered any longer.

        Nothing else would tell: a merge of fewer models is a merge too.
        """
        left = Reader(FIELDS, clean(FIELDS, self.desk.draft())).names("more_models")
        offered = {model.title for model in self.desk.catalogue.models()}
        return tuple(title for title in left if title not in offered)

    def keep(self, values: Values) -> None:
        """Save the form for the next visit.

        Raises:
            StorageError: it could not be written.
        """
        self.desk.save_draft({field.name: values.get(field.name) for field in FIELDS})

    def model_a_changed(self, values: Values) -> dict[str, object]:
        """Values to change with model A: an untouched starter set gives way to the fitting one."""
        current = str(values.get("payload_set") or "")
        starter = self._starter(values)
        if current in STARTERS.values() and current != starter:
            shipped = payloads_text(self.desk.sets.get(current).payloads)
            if values.get("payloads") == shipped:
                return self._set_values(starter)
        return {}

    def choose_set(self, values: Values) -> dict[str, object]:
        """Values to change when a payload set is chosen.

        Raises:
            ConfigError: it cannot be read.
        """
        return self._set_values(str(values.get("payload_set") or ""))

    def _set_values(self, name: str) -> dict[str, object]:
        found = self.desk.sets.get(name)
        return {"payload_set": name, "payloads": payloads_text(named(found.payloads))}

    def _starter(self, values: Values) -> str:
        return STARTERS.get(self._place(values).architecture or "sd1", STARTERS["sd1"])

    def earlier_runs(self, values: Values) -> dict[str, Path]:
        """The folders of the runs that a search can learn from, by what the form calls them."""
        architecture = self._place(values).architecture
        return {
            _called(entry): entry.folder.path
            for entry in self.desk.entries()
            if entry.manifest is not None
            and entry.state is not None
            and architecture in (None, entry.manifest.architecture)
            and any(evaluation.score is not None for evaluation in entry.state.history)
        }

    def add_earlier_run(self, values: Values, name: str) -> dict[str, object]:
        """Values to change when an earlier run is chosen.

        Raises:
            ConfigError: there is none that is called so.
        """
        path = self.earlier_runs(values).get(name)
        if path is None:
            raise ConfigError(f"there is no run {name!r} to learn from. Choose one of the list.")
        paths = paths_of(str(values.get("warm_start") or ""))
        return {"warm_start": "\n".join(dict.fromkeys([*paths, str(path)]))}

    # --- showing ----------------------------------------------------------------------------------

    def view(self, values: Values, selected: str = "") -> View:
        """What the page shows for these values; troubles are part of it."""
        checks, ready = self._checks(values)
        form = Reader(FIELDS, values)
        method = self.method(values)
        parameters = tuple(parameter_rules.of_search(method))
        parameter_text = form.text("parameters")
        names: tuple[str, ...] = ()
        try:
            payloads = self.payloads(values)
            names = tuple(payload.name for payload in payloads)
            table = payload_list.table(payloads, selected)
            count = payload_list.count_sentence(payloads, form.whole("seeds_per_payload"))
        except ConfigError as error:
            table, count = messages.trouble(error), ""
        return View(
            checks=checks,
            ready=ready,
            method=messages.method_sentence(method),
            needs_c="c" in method.roles,
            needs_many=not method.roles,
            weighted=method.weight is not None,
            # what is left of another method's can be removed there
            parametric=bool(parameters) or parameter_text not in ("", "{}"),
            trial=self._trial(values),
            parameters=parameters,
            parameter_table=_parameters(method, parameter_text),
            custom=form.text("budget") not in BUDGETS,
            waits=waits(form),
            count=element("p", count, class_="automerge-count") if count else EMPTY,
            table=table,
            names=names,
            space=self._space(values),
            reward=self._rewards(values),
            single=is_single(values),
            optimizer=messages.optimizer_help(OPTIMIZERS.name(form.text("optimizer"))),
            earlier=tuple(self.earlier_runs(values)),
        )

    def _checks(self, values: Values) -> tuple[Markup, bool]:
        try:
            config = self.config(values)
            found = self.desk.preflight(config)
            told = EMPTY
            # a forecast of numbers that must be put right first would be nonsense
            wrong = {check.subject for check in found.checks if check.level is Level.ERROR}
            searched = any(not payload.held_out for payload in config.payloads)
            if searched and not wrong & {"Search", "Payloads"}:
                told = messages.forecast(self.desk.forecast(config), config, self._now())
        except ConfigError as error:
            return messages.not_yet(str(error)), False
        return messages.checks(found, told), found.ready

    def _trial(self, values: Values) -> int:
        """The evaluations of a trial, as far as it is known what it is of."""
        try:
            return trial_of(self.config(values)).search.evaluations
        except ConfigError:
            return TRIAL_EVALUATIONS

    def _rewards(self, values: Values) -> Markup:
        # taken first: what changes while it is drawn makes the script draw it again
        version = self.desk.downloads.snapshot().version
        return placed(LIST, version, reward_list.drawn(self.desk, values))

    def _space(self, values: Values) -> Markup:
        architecture = self.architecture(values)
        if architecture is None:
            return element("p", "Choose model A to see its blocks.", class_="automerge-quiet")
        form = Reader(FIELDS, values)
        try:
            search = SearchConfig(
                low=form.number("low"),
                high=form.number("high"),
                blocks=block_rules(form, architecture.name),
            )
        except ConfigError as error:
            return messages.trouble(error)
        trimmed = self.method(values).name == "weighted_sum"
        return space_rules.picture(search, architecture, trimmed=trimmed)

    # --- judging one image ------------------------------------------------------------------------

    def try_rewards(self, values: Values, image: Path | None, prompt: str) -> None:
        """Have the chosen rewards judge one image, in the background.

        Raises:
            AutomergeError: it cannot be done now; the text says why.
        """
        if image is None:
            raise ConfigError("there is no image yet. Drop one into the field above.")
        self.desk.try_rewards(reward_of(values), image, prompt)

    # --- acting -----------------------------------------------------------------------------------

    def start(self, values: Values) -> str:
        """Begin the run; returns a sentence.

        Raises:
            AutomergeError: it cannot begin; nothing has changed.
        """
        run = self.desk.start(self.config(values))
        return f"Run {run} has started. It goes on when you close this page."

    def trial(self, values: Values) -> str:
        """Begin a run that is as short as can be, to measure the pace; returns a sentence.

        Raises:
            AutomergeError: it cannot begin; nothing has changed.
        """
        config = trial_of(self.config(values))
        run = self.desk.start(config)
        return (
            f"The trial {run} has started: {config.search.evaluations} evaluations of "
            f"{TRIAL_PROMPTS} prompts at most. Its pace then tells how long your run takes."
        )

    def measure(self, values: Values) -> str:
        """Begin a run that measures the noise and searches nothing; returns a sentence.

        Raises:
            AutomergeError: it cannot begin; nothing has changed.
        """
        config = measurement_of(self.config(values))
        run = self.desk.start(config)
        return (
            f"The measurement {run} has started: A, B and the 50:50 merge, and that one again on "
            f"{plural(config.search.calibration, 'set')} of fresh seeds. It then says how exact a "
            "score is, and whether you have the right number of prompts and seeds."
        )


def _parameters(method: LabMethod, text: str) -> Markup:
    try:
        return parameter_rules.table(method, text)
    except ConfigError as error:
        return messages.trouble(error)


def _called(entry: Entry) -> str:
    assert entry.state is not None
    name = entry.id if entry.name == entry.id else f"{entry.name} ({entry.id})"
    return f"{name}, {plural(len(entry.state.history), 'evaluation')}"


def trial_of(config: RunConfig) -> RunConfig:
    """The shortest run with the settings of another one: it saves nothing, and proves little."""
    searched = [payload for payload in config.payloads if not payload.held_out][:TRIAL_PROMPTS]
    held_out = [payload for payload in config.payloads if payload.held_out][:1]
    return msgspec.structs.replace(
        config,
        name="trial",
        payloads=(
            *(msgspec.structs.replace(payload, seeds=payload.seeds[:1]) for payload in searched),
            *(msgspec.structs.replace(payload, seeds=()) for payload in held_out),
        ),
        search=msgspec.structs.replace(
            config.search,
            # a trial tries one candidate, however many models come before it
            evaluations=max(TRIAL_EVALUATIONS, given(config) + 1),
            hours=None,
            images=None,
            target=None,
            patience=None,
            stop="never",
            seeds_per_payload=1,
            start=(),
            warm_start=(),
            coarse_first=False,
            early_reject=False,
            calibration=0,
        ),
        verdict=VerdictConfig(finalists=1, finalist_seeds=1, seeds=2),
        output=OutputConfig(),
    )
