"""What a foreign text says of a merge, before its models are known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

import msgspec

from lib_automerge.domain import architectures, weights
from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.recipe import ModelRef, ParameterValue, Recipe, check
from lib_automerge.errors import ConfigError

SHA256_DIGITS = 64
SHORT_DIGITS = 10
"""A1111 shows the first so many digits of the SHA-256 as `Model hash`."""
LEGACY_DIGITS = 8
"""And before that a hash of a small part of the file, which several files can share."""

_ENDINGS = (".safetensors", ".ckpt", ".pt")
_HASHED = re.compile(r"(?P<name>.*\S)\s*\[(?P<hash>[0-9a-fA-F]{8,64})\]")


class Hint(msgspec.Struct, frozen=True):
    """How a text names a model; every part may be empty.

    Attributes:
        name: of the file, without folder and ending.
        sha256: hexadecimal, complete or its first digits (ten or more).
        legacy_hash: eight digits, of A1111's old hash.
        path: where the text says the file is.
    """

    name: str = ""
    sha256: str = ""
    legacy_hash: str = ""
    path: str = ""

    @property
    def words(self) -> str:
        """The model as a sentence names it."""
        digits = self.sha256[:SHORT_DIGITS] or self.legacy_hash
        return self.name or (f"[{digits}]" if digits else "a model without a name")


def hint(text: str) -> Hint:
    """Read `folder/name.safetensors [hash]`, as the WebUI and its extensions name models."""
    found = _HASHED.fullmatch(text.strip())
    path, digits = (found["name"], found["hash"].lower()) if found else (text.strip(), "")
    short = len(digits) >= SHORT_DIGITS
    return Hint(
        name=model_name(path),
        sha256=digits if short else "",
        legacy_hash="" if short else digits[:LEGACY_DIGITS],
        path=path if re.search(r"[/\\]", path) else "",
    )


def model_name(path: str) -> str:
    """The name of a model's file without folder and ending; names may have dots in them."""
    name = re.split(r"[/\\]", path)[-1]
    for ending in _ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


class Listed(msgspec.Struct, frozen=True):
    """A list of weights in an order of `domain.weights`."""

    values: tuple[float, ...]
    order: str

    def by_block(self, architecture: Architecture | None) -> dict[str, float]:
        """The weights by block; see `weights.from_list`."""
        return weights.from_list(self.values, self.order, architecture)


class Named(msgspec.Struct, frozen=True):
    """Weights with the names of their blocks; `BASE` stands for all text encoders."""

    values: Mapping[str, float]

    def by_block(self, architecture: Architecture | None) -> dict[str, float]:
        """The weights by block.

        Raises:
            ConfigError: a block that the architecture has not.
        """
        return weights.parse(msgspec.json.encode(self.values).decode(), None, architecture)


class Everywhere(msgspec.Struct, frozen=True):
    """One weight for the whole model, text encoders and VAE included."""

    value: float

    def by_block(self, architecture: Architecture | None) -> dict[str, float]:
        """The weight of every block.

        Raises:
            ConfigError: the architecture, and with it the blocks, is not known.
        """
        if architecture is None:
            raise ConfigError(
                f"the text gives one weight, {self.value:g}, for the whole model, whose blocks "
                f"depend on its kind. Add --architecture, one of: {_listed()}."
            )
        return dict.fromkeys(architecture.blocks, self.value)


class Spread(Protocol):
    """Weights as a text gives them: `Listed`, `Named`, `Everywhere`, or what a tool has besides."""

    def by_block(self, architecture: Architecture | None) -> dict[str, float]:
        """The weights by block.

        Raises:
            ConfigError: the architecture is not known and must be, or is another.
        """


class Sketch(msgspec.Struct, frozen=True, kw_only=True):
    """What a text says of a merge.

    Attributes:
        dialect: what was read, in words.
        name: of the recipe, if it has one; of a preset.
        method: None if the text holds weights alone.
        models: role -> how the text names the model.
        spread: the weights; None if the method has none.
        parameters: of the method.
        architectures: those that the text can be for; more than one must be told apart.
        notes: sentences about how the text was read.
        unsaid: what the text also says and a recipe cannot, each as the rest of "it also says".
        provenance: what is worth keeping.
    """

    dialect: str
    name: str = ""
    method: str | None = None
    models: Mapping[str, Hint] = {}
    spread: Spread | None = None
    parameters: Mapping[str, float | str | bool | Spread] = {}
    architectures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unsaid: tuple[str, ...] = ()
    provenance: Mapping[str, object] = {}

    def weights(self, architecture: Architecture | None) -> dict[str, float]:
        """The weights by block.

        Raises:
            ConfigError: there are none, or they do not fit the architecture.
        """
        if self.spread is None:
            raise ConfigError(
                f"the recipe has no weights of blocks: its method is {self.method}. Convert it to "
                "a format that holds whole recipes."
            )
        return self.spread.by_block(architecture)


def decided(sketch: Sketch, told: str | None, found: str | None = None) -> Architecture:
    """Which of the architectures that the text can be for it is.

    Args:
        sketch: the text's content.
        told: by the user.
        found: in the header of its models or of the file that holds the text.

    Raises:
        ConfigError: it cannot be known, or what is known does not fit.
    """
    possible = sketch.architectures or architectures.names()
    known = told or found or (possible[0] if len(possible) == 1 else None)
    if known is None:
        raise ConfigError(
            f"{sketch.dialect} does not say what kind of model it is for. Add --architecture, one "
            f"of: {', '.join(possible)}; or --models with the folder that has its models."
        )
    architecture = architectures.get(known)
    if known not in possible:
        raise ConfigError(
            f"{sketch.dialect} is for {' or '.join(possible)}, not for {known}. Give a recipe for "
            "models of the same kind."
        )
    if told and found and told != found:
        raise ConfigError(
            f"--architecture is {told}, but the model is {found}. Leave --architecture out."
        )
    return architecture


def recipe_of(
    sketch: Sketch, architecture: Architecture, found: Mapping[str, ModelRef] | None = None
) -> Recipe:
    """Make a recipe of a sketch.

    Args:
        sketch: with a method and models.
        architecture: of the models.
        found: role -> the model's file; a role that is missing keeps what the text says of it.

    Raises:
        ConfigError: the text holds weights alone, or they do not fit the architecture.
    """
    method = method_of(sketch)
    models = {role: _reference(given) for role, given in sketch.models.items()}
    return check(
        Recipe(
            architecture=architecture.name,
            method=method,
            models={**models, **(found or {})},
            weights={} if sketch.spread is None else sketch.weights(architecture),
            parameters={
                name: _parameter(value, architecture) for name, value in sketch.parameters.items()
            },
            provenance=dict(sketch.provenance),
        )
    )


def method_of(sketch: Sketch) -> str:
    """The method of a sketch that can become a recipe.

    Raises:
        ConfigError: the text holds weights alone.
    """
    if sketch.method is None or not sketch.models:
        raise ConfigError(
            f"{sketch.dialect} holds weights, but no models. Convert it to a list or to 'named', "
            "or give the recipe, the metadata or the checkpoint that it belongs to."
        )
    return sketch.method


def _parameter(value: float | str | bool | Spread, architecture: Architecture) -> ParameterValue:
    if isinstance(value, Everywhere):
        return value.value
    if isinstance(value, (float, int, str)):
        return value
    # what a list says nothing about is kept as it is, whatever the parameter's default
    return {**dict.fromkeys(architecture.blocks, 0.0), **value.by_block(architecture)}


def _reference(given: Hint) -> ModelRef:
    sha256 = given.sha256 if len(given.sha256) == SHA256_DIGITS else ""
    return ModelRef(name=given.name, sha256=sha256, path=given.path)


def _listed() -> str:
    return ", ".join(architectures.names())
