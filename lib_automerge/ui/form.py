"""From the form's values to a run's configuration, and back.

Pure: what the words mean on a host comes in as a `Place`. Going there and back gives the same
configuration, so a run can be duplicated and its best candidate used as a start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from lib_automerge.app.ports import ModelChoice
from lib_automerge.domain.config import (
    GeneratorConfig,
    OutputConfig,
    RunConfig,
    VerdictConfig,
)
from lib_automerge.errors import ConfigError
from lib_automerge.merge.lab import catalogue
from lib_automerge.merge.lab.methods import LabMethod, roles_for
from lib_automerge.ui import parameter_rules
from lib_automerge.ui.fields import Reader, defaults
from lib_automerge.ui.form_fields import CHECKPOINTS, DTYPES, FIELDS, METHODS
from lib_automerge.ui.reward_form import reward_of, reward_values
from lib_automerge.ui.search_form import number_text, search_of, search_values
from lib_automerge.ui.texts import payloads_of, payloads_text


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What the form's words stand for here.

    `models` are the checkpoints by title, `generator` the name of the image backend, `data` the
    folder of the user's data; `architecture` is that of model A, None while it is unknown.
    """

    models: tuple[ModelChoice, ...]
    generator: str
    data: Path
    architecture: str | None = None


def config_of(values: Mapping[str, object], place: Place) -> RunConfig:
    """The run that the form describes. What can be checked without reading a file is checked.

    Raises:
        ConfigError: a value is missing or cannot be read; the text names the field as the form
            does.
    """
    form = Reader(FIELDS, values)
    method = catalogue.get(METHODS.name(form.text("method")))
    fixed, searched = parameter_rules.read(form.text("parameters"))
    search = search_of(
        form,
        place.architecture,
        weighted=method.weight is not None and method.weight not in fixed,
        parameters=tuple(parameter_rules.of_search(method)),
    )
    return RunConfig(
        models=_models(form, method, place.models),
        parameters=fixed,
        payloads=payloads_of(form.text("payloads")),
        name=" ".join(form.text("name").split()),
        method=method.name,
        reward=reward_of(values),
        search=msgspec.structs.replace(search, parameters=searched),
        verdict=VerdictConfig(
            finalists=form.whole("finalists"),
            finalist_seeds=form.whole("finalist_seeds"),
            seeds=form.whole_or_none("verdict_seeds"),
        ),
        generator=GeneratorConfig(name=place.generator),
        output=OutputConfig(
            checkpoint=CHECKPOINTS.name(form.text("checkpoint")),
            dtype=DTYPES.name(form.text("dtype")) or None,
        ),
    )


def values_of(config: RunConfig, place: Place) -> dict[str, object]:
    """The form that describes a run; `config_of` gives the run again.

    The image backend is the place's own. A model that is not offered here leaves its field empty;
    among more models it is named, so that its lack is not overlooked.
    """
    values = defaults(FIELDS)
    paths = [config.models[role] for role in sorted(config.models)]
    few = paths if "a" in config.models else paths[:2]
    for role, path in zip("abc", few, strict=False):
        values[f"model_{role}"] = _title(path, place.models)
    values["more_models"] = [
        _title(path, place.models) or Path(path).name for path in paths[len(few) :]
    ]
    return (
        values
        | reward_values(config.reward)
        | search_values(config.search, place.architecture)
        | {
            "method": METHODS.label(config.method),
            "parameters": parameter_rules.text_of(config.parameters, config.search.parameters),
            "payloads": payloads_text(config.payloads),
            "name": config.name,
            "checkpoint": CHECKPOINTS.label(config.output.checkpoint),
            "dtype": DTYPES.label(config.output.dtype or ""),
            "finalists": config.verdict.finalists,
            "finalist_seeds": config.verdict.finalist_seeds,
            "verdict_seeds": number_text(config.verdict.seeds),
        }
    )


def _models(form: Reader, method: LabMethod, models: Sequence[ModelChoice]) -> dict[str, str]:
    """The chosen checkpoints by the roles of the method: A is the first, B the next."""
    if method.roles:
        return {role: path_of(form.text(f"model_{role}"), role, models) for role in method.roles}
    titles = {"a": form.text("model_a"), "b": form.text("model_b")}
    paths = [path_of(title, name, models) for name, title in titles.items()]
    others = form.names("more_models")
    paths += [path_of(title, str(n), models) for n, title in enumerate(others, len(paths) + 1)]
    roles = roles_for(method, len(paths) - method.based)
    return dict(zip(roles, paths, strict=True))


def path_of(title: str, role: str, models: Sequence[ModelChoice]) -> str:
    """The path of the checkpoint with this title.

    Raises:
        ConfigError: none is chosen, or there is none with this title.
    """
    if not title:
        raise ConfigError(f"model {role.upper()} is not chosen. Choose a checkpoint.")
    for model in models:
        if model.title == title:
            return model.path
    raise ConfigError(
        f"model {role.upper()}: there is no checkpoint {title!r}. Refresh the list and choose one."
    )


def _title(path: str, models: Sequence[ModelChoice]) -> str:
    exact = [model.title for model in models if model.path == path]
    return (exact or [m.title for m in models if _same_file(m.path, path)] or [""])[0]


def _same_file(one: str, two: str) -> bool:
    try:
        return Path(one).samefile(two)
    except OSError:
        return False
