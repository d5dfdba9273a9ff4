"""Chains: several steps over a pool of checkpoints, as one job.

A step is a merge of the lab, a ranking, a search between two models, or the pairwise tree. Hides
decoding, its error texts and the ready-made chains. What a step names are models of the pool, by
the name of their file, and earlier steps, which stand for what they hand on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lib_automerge.domain.config import (
    GeneratorConfig,
    OutputConfig,
    RewardConfig,
    RunConfig,
    SearchConfig,
    VerdictConfig,
    check_config,
    explain,
)
from lib_automerge.domain.payload import Payload
from lib_automerge.domain.recipe import ParameterValue
from lib_automerge.errors import ConfigError, unknown_name

POOL = "pool"
"""In a step: all models of the pool."""

RANK_IMAGES = 24
"""Unless told otherwise, a model is ranked by at least so many images."""

RESERVING = 4
"""With so many held-out payloads, every second one is kept for the final verdict."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class MergeStep(_Part, frozen=True, tag_field="kind", tag="merge"):
    """A merge of `models` by a method of the lab, in fp64; `base` for methods that count changes.

    `dtype` is that of the file; empty keeps the first model's.
    """

    name: str
    method: str = "average"
    models: tuple[str, ...] = (POOL,)
    base: str | None = None
    parameters: dict[str, ParameterValue] = {}
    dtype: str = ""


class RankStep(_Part, frozen=True, tag_field="kind", tag="rank"):
    """Scores `models` and hands on the best `keep` of them."""

    name: str
    models: tuple[str, ...] = (POOL,)
    keep: int = 1


class SearchStep(_Part, frozen=True, tag_field="kind", tag="search"):
    """A run between the models `a` and `b` (and `c`), which hands on the winner if the verdict is
    a gain, else the better of `a` and `b`.

    `search` has what differs from the chain's.
    """

    name: str
    a: str
    b: str
    c: str | None = None
    method: str = "weighted_sum"
    parameters: dict[str, ParameterValue] = {}
    search: SearchConfig = SearchConfig()


class TreeStep(_Part, frozen=True, tag_field="kind", tag="tree"):
    """The pairwise tree: pairs of one level are searched, their winners are the next level.

    After each level the clearly worse of its winners leave, at most the share `prune` of them; or
    all but the `keep` best, clearly worse or not. Two always stay. `search` has what differs from
    the chain's.
    """

    name: str
    models: tuple[str, ...] = (POOL,)
    prune: float = 0.25
    keep: int | None = None
    method: str = "weighted_sum"
    search: SearchConfig = SearchConfig()


Step = MergeStep | RankStep | SearchStep | TreeStep

KINDS: dict[str, type[Any]] = {
    "merge": MergeStep,
    "rank": RankStep,
    "search": SearchStep,
    "tree": TreeStep,
}

PRESETS: dict[str, tuple[Mapping[str, object], ...]] = {
    "soup": (
        {"kind": "merge", "name": "soup", "method": "average"},
        {"kind": "rank", "name": "best"},
        {"kind": "search", "name": "search", "a": "soup", "b": "best"},
    ),
    "tree": ({"kind": "tree", "name": "tree"},),
}
"""Chains that need no steps of the user's."""


class ChainConfig(_Part, frozen=True):
    """Everything that decides a chain.

    `pool` are files, folders or globs. `payloads`, `reward`, `search`, `verdict` and `generator`
    are a run's, for every step that scores. `rank_seeds` is how many fresh seeds of every held-out
    payload rank a model (None: enough for 24 images); `previews` how many images show every model,
    one of each of the first payloads. Without `keep_intermediate`, checkpoints that no later step
    needs are removed; those of the pool never are.
    """

    pool: tuple[str, ...]
    payloads: tuple[Payload, ...]
    steps: tuple[Step, ...]
    name: str = ""
    reward: RewardConfig = RewardConfig()
    search: SearchConfig = SearchConfig()
    verdict: VerdictConfig = VerdictConfig()
    generator: GeneratorConfig = GeneratorConfig()
    rank_seeds: int | None = None
    previews: int = 2
    keep_intermediate: bool = True

    @property
    def scores(self) -> bool:
        """Whether any step judges images."""
        return any(not isinstance(step, MergeStep) for step in self.steps)

    @property
    def shows(self) -> bool:
        """Whether any image is made at all."""
        return self.scores or self.previews > 0

    def run(
        self, models: Mapping[str, str], step: SearchStep | TreeStep | None, name: str = ""
    ) -> RunConfig:
        """The run of a step between these models (role -> path).

        Without a step it is a run of the chain's common sections alone.
        """
        return RunConfig(
            models=dict(models),
            payloads=tuple(p for p in self.payloads if p not in self.reserved),
            name=name,
            method="weighted_sum" if step is None else step.method,
            parameters=step.parameters if isinstance(step, SearchStep) else {},
            reward=self.reward,
            search=self.search if step is None else step.search,
            verdict=self.verdict,
            generator=self.generator,
            output=OutputConfig(checkpoint="gain"),
        )

    @property
    def reserved(self) -> tuple[Payload, ...]:
        """The held-out payloads that nothing but a tree's final verdict uses.

        Models of a tree are chosen by the others, so their scores there are partly luck.
        """
        held_out = tuple(p for p in self.payloads if p.held_out)
        tree = any(isinstance(step, TreeStep) for step in self.steps)
        return held_out[1::2] if tree and len(held_out) >= RESERVING else ()


def winner_name(step: TreeStep, level: int, pair: int) -> str:
    """The name of the merge that a pair of a tree leads to; both count from 1."""
    return f"{step.name}-{level}-{pair}"


def is_winner_name(name: str, steps: Sequence[Step]) -> bool:
    """Whether a merge of a tree could have this name, whatever the case of its letters."""
    trees = (re.escape(step.name.casefold()) for step in steps if isinstance(step, TreeStep))
    return any(re.fullmatch(rf"{tree}-\d+-\d+", name.casefold()) for tree in trees)


def named_by(step: Step) -> tuple[str, ...]:
    """The models and steps that a step names, in order."""
    match step:
        case MergeStep():
            return (*(() if step.base is None else (step.base,)), *step.models)
        case RankStep() | TreeStep():
            return step.models
        case SearchStep():
            return (step.a, step.b, *(() if step.c is None else (step.c,)))


def decode_chain(raw: object) -> ChainConfig:
    """Turn parsed YAML or JSON into a checked chain.

    `preset` may stand in place of `steps`. A step's `search` says what differs from the chain's.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a wrong type, a value out of
            range, or steps that name what does not come before them.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(
            f"the chain is a {type(raw).__name__}, not a mapping. Start with `pool:`."
        )
    raw = dict(raw)
    common = raw.get("search", {})
    steps = tuple(_step(number, entry, common) for number, entry in enumerate(_steps(raw), start=1))
    raw.pop("preset", None)
    if isinstance(raw.get("pool"), str):
        raw["pool"] = [raw["pool"]]
    try:
        # steps are decoded one by one, so that an error can name the step
        config = msgspec.convert({**raw, "steps": []}, ChainConfig, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(str(error), ChainConfig)) from error
    config = msgspec.structs.replace(config, steps=steps)
    check_chain(config)
    return config


def _steps(raw: Mapping[str, object]) -> Sequence[object]:
    preset, steps = raw.get("preset"), raw.get("steps")
    if (preset is None) == (steps is None):
        told = "both" if preset is not None else "neither"
        raise ConfigError(
            f"a chain has `steps` or a `preset`; {told} is given. Presets: {', '.join(PRESETS)}."
        )
    if preset is not None:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ConfigError(unknown_name("preset", str(preset), PRESETS))
        return PRESETS[preset]
    if not isinstance(steps, list) or not steps:
        raise ConfigError(f"steps is {steps!r}. List one step or more.")
    return steps


def _step(number: int, entry: object, common: object) -> Step:
    """Decode one step; its search is the chain's with what the step says of it."""
    if not isinstance(entry, Mapping):
        raise ConfigError(f"step {number} is {entry!r}. Give its kind and its name.")
    kind, name = entry.get("kind"), entry.get("name", number)
    if not isinstance(kind, str) or kind not in KINDS:
        unknown = unknown_name("kind of step", str(kind), KINDS)
        raise ConfigError(f"step {name!r}: {unknown}")
    whole = dict(entry)
    if kind in ("search", "tree"):
        own = whole.get("search", {})
        mapped = isinstance(own, Mapping) and isinstance(common, Mapping)
        whole["search"] = {**common, **own} if mapped else own  # type: ignore[dict-item]
    if isinstance(whole.get("models"), str):
        whole["models"] = [whole["models"]]
    try:
        step: Step = msgspec.convert(whole, KINDS[kind], strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"step {name!r}: {explain(str(error), KINDS[kind])}") from error
    return step


def check_chain(config: ChainConfig) -> None:
    """Raise ConfigError for values that are out of range, or steps that do not fit together.

    Names of models are not checked here: they are known when the pool is.
    """
    if not config.pool:
        raise ConfigError("the pool is empty. Name checkpoints, folders or globs under `pool`.")
    limits = (("rank_seeds", config.rank_seeds, 1, 1000), ("previews", config.previews, 0, 100))
    for field, value, low, high in limits:
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{field} is {value}. It must be between {low} and {high}.")
    if config.reward.human is not None:
        raise ConfigError(
            "in a chain nobody can be asked, but the reward is you. Use a learned reward."
        )
    _check_names(config.steps)
    for step in config.steps:
        _check_step(step)
        searching = step if isinstance(step, SearchStep | TreeStep) else None
        try:
            check_config(config.run({"a": "a", "b": "b"}, searching))
        except ConfigError as error:
            where = "" if searching is None else f"step {step.name!r}: "
            raise ConfigError(f"{where}{error}") from error
        if searching is not None and searching.search.warm_start:
            raise ConfigError(
                f"step {step.name!r}: search.warm_start is given, but the models of a chain are "
                "new, and no earlier run knows them. Leave it out."
            )


def _check_names(steps: Sequence[Step]) -> None:
    places: dict[str, int] = {}
    for place, step in enumerate(steps):
        if not _NAME.fullmatch(step.name) or step.name == POOL:
            raise ConfigError(
                f"a step has the name {step.name!r}. Use letters, digits, - and _, at most 40, and "
                f"not {POOL!r}."
            )
        taken = {name.casefold() for name in places}
        if step.name.casefold() in taken or is_winner_name(step.name, steps):
            raise ConfigError(f"the name {step.name!r} is taken. Give every step its own.")
        places[step.name] = place
    for place, step in enumerate(steps):
        for name in named_by(step):
            if places.get(name, -1) >= place:
                later = "itself" if name == step.name else f"{name!r}, which comes later"
                raise ConfigError(
                    f"step {step.name!r} names {later}. A step builds on those before it: change "
                    "the order."
                )


def _check_step(step: Step) -> None:
    told = f"step {step.name!r}: "
    match step:
        case MergeStep() | RankStep() | TreeStep() if not step.models:
            raise ConfigError(f"{told}models is empty. Leave it out for the whole pool.")
        case RankStep() if step.keep < 1:
            raise ConfigError(f"{told}keep is {step.keep}. It must be 1 or more.")
        case TreeStep() if not 0 <= step.prune < 1:
            raise ConfigError(f"{told}prune is {step.prune:g}. It must be from 0 to below 1.")
        case TreeStep() if step.keep is not None and step.keep < 2:
            raise ConfigError(f"{told}keep is {step.keep}. It must be 2 or more.")
        case SearchStep() if step.a == step.b:
            raise ConfigError(f"{told}a and b are both {step.a!r}. Name two different models.")
        case _:
            pass
