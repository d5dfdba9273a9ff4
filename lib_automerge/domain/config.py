"""The configuration of a run: what a user writes in YAML or JSON, checked field by field.

Hides decoding and its error texts. A configuration is frozen when the run starts.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping

import msgspec

from lib_automerge.domain import ensemble
from lib_automerge.domain.ensemble import Ensemble, Member, Role
from lib_automerge.domain.guards import NARROWEST
from lib_automerge.domain.human_judge import CHOICES, HUMANS, HumanJudge, human_judge
from lib_automerge.domain.payload import Payload
from lib_automerge.domain.recipe import ROLES, ParameterValue, check_roles
from lib_automerge.errors import ConfigError


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class BlockRule(_Section, frozen=True):
    """How the search treats one block: a range, a fixed weight, or the weight of another block."""

    low: float | None = None
    high: float | None = None
    fixed: float | None = None
    tied_to: str | None = None


class ParameterRule(_Section, frozen=True):
    """How the search treats a parameter of the merge method.

    It is searched from `low` to `high` (None: the ends of what the method allows), as one number,
    or `per_block` as one for each searched block; or it is one of `values`, in whose order
    neighbours should be alike. Parameters with a number for each model have one searched for each.
    """

    low: float | None = None
    high: float | None = None
    per_block: bool = False
    values: tuple[str | bool | int | float, ...] = ()


STOPS = ("regret", "improvement", "never")
"""What `SearchConfig.stop` can be."""


class SearchConfig(_Section, frozen=True):
    """What is searched, by which optimizer, for how long.

    `low` and `high` (within -1..2) are the range of every searched block; `blocks` holds the
    exceptions by block name, and opts text encoder and VAE blocks in. `coarse_first` searches
    groups of blocks before single ones. `parameters` are the other parameters of the method that
    are searched, by name.

    The search ends at `evaluations` (baselines included), after `hours` or `images`, when the best
    score reaches `target`, when `patience` evaluations brought no better one, or when `stop` says
    so, whichever comes first. `stop` is "regret" (the model can rule out that much is left to
    gain), "improvement" (it expects little of the next candidate) or "never".

    `start` are weights to evaluate after the baselines; a block that is not named there is A's, a
    parameter of the method is what it is if nobody searches it.
    `warm_start` are files or folders whose recipes and scores the search begins with: run folders,
    recipes, logs of other tools.

    `early_reject` gives a candidate up once a paired test against the incumbent is clear.
    `calibration` is how many sets of fresh seeds the 50:50 merge is scored on after the baselines,
    to measure the noise (0: none); with it, a run of three evaluations measures and searches
    nothing.
    """

    optimizer: str = "bayes"
    evaluations: int = 80
    hours: float | None = None
    images: int | None = None
    target: float | None = None
    patience: int | None = None
    stop: str = "regret"
    low: float = 0.0
    high: float = 1.0
    blocks: dict[str, BlockRule] = {}
    parameters: dict[str, ParameterRule] = {}
    seed: int = 0
    seeds_per_payload: int = 2
    start: tuple[dict[str, float], ...] = ()
    warm_start: tuple[str, ...] = ()
    coarse_first: bool = False
    early_reject: bool = False
    calibration: int = 0


_VERDICT_SEEDS, _VERDICT_IMAGES = 6, 60
_CHOICE_IMAGES = 3 * CHOICES
"""A picture that comes again would be recognized: each of the three baselines has its own."""


class VerdictConfig(_Section, frozen=True):
    """The final proof: `finalists` are scored again on fresh seeds of the search's payloads, and
    the first of them against the baselines on the held-out payloads, `seeds` fresh seeds each.

    None is six seeds, and more where there are few payloads: enough for sixty images. That finds a
    true gain of one standard deviation of an image's score in more than four of five simulated runs
    with four to eight held-out payloads (`benchmarks/search`); six seeds of five payloads find it
    in every second one only. Where the user alone judges, None is enough for every blind choice to
    have a picture of its own.
    """

    finalists: int = 3
    finalist_seeds: int = 2
    seeds: int | None = None

    def seeds_for(self, payloads: int, images: int = _VERDICT_IMAGES) -> int:
        """The fresh seeds of each of so many payloads; None in `seeds`: at least so many images."""
        if self.seeds is not None:
            return self.seeds
        return max(_VERDICT_SEEDS, -(-images // max(payloads, 1)))


Options = dict[str, str | int | float | bool | None]

ENSEMBLE = "ensemble"
"""What `RewardConfig.name` is when several rewards, or guards, make the score."""


PLACES = ("auto", "gpu", "swap", "cpu")
"""What `RewardConfig.place` can be."""


class RewardMember(_Section, frozen=True):
    """One reward of an ensemble: its registered name and options, its weight (above 0), and what it
    is for: `score`, `cap` or `referee` (`domain.ensemble`).
    """

    name: str
    options: Options = {}
    weight: float = 1.0
    role: Role = "score"


class RewardConfig(_Section, frozen=True):
    """What judges the images: one reward by its registered name, or the ensemble of `members`.

    One reward gives the score itself. In an ensemble every reward is measured in the spread of the
    parents' own images, disagreement and guards that leave the parents' range cost something, and
    so does lost diversity (`domain.judging`).

    The rewards "human_rate" and "human_choose" are the user: alone, or as a member whose opinion is
    added to the score of the others (`domain.human`).

    `place` is where the models of rewards are: "gpu" keeps them there, "swap" only while they
    judge, "cpu" never puts them there; "auto" swaps where memory is scarce or rewards are several.
    """

    name: str = "image_reward"
    options: Options = {}
    members: tuple[RewardMember, ...] = ()
    guards: tuple[str, ...] = tuple(NARROWEST)
    guard_strength: float = 1.0
    diversity_strength: float = 0.5
    place: str = "auto"

    @property
    def judges(self) -> tuple[RewardMember, ...]:
        """The rewards that look at images; the human judge, who looks at candidates, is none."""
        return tuple(member for member in self._members if member.name not in HUMANS)

    @property
    def human(self) -> HumanJudge | None:
        """The user as a judge, if they are one.

        Raises:
            ConfigError: as `domain.human_judge.human_judge`, or they are listed twice.
        """
        found = [member for member in self._members if member.name in HUMANS]
        if len(found) > 1:
            raise ConfigError("you are listed as a judge twice. Rate or choose, not both.")
        return human_judge(found[0], alone=self.name in HUMANS) if found else None

    @property
    def _members(self) -> tuple[RewardMember, ...]:
        if self.name == ENSEMBLE:
            return self.members
        return (RewardMember(name=self.name, options=self.options),)

    @property
    def ensemble(self) -> Ensemble | None:
        """How the rewards become one score; None if a single one gives it as it is."""
        if self.name != ENSEMBLE:
            return None
        return Ensemble(
            members=tuple(Member(reward=m.name, weight=m.weight, role=m.role) for m in self.judges),
            guards=self.guards,
            guard_strength=self.guard_strength,
            diversity_strength=self.diversity_strength,
        )


class GeneratorConfig(_Section, frozen=True):
    """The image backend. `device` is cpu, cuda, cuda:1 or mps (None: the best there is); `dtype`
    fp16, bf16 or fp32 (None: fp32 on cpu, else fp16); `threads` for the CPU.
    """

    name: str = "diffusers"
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None


class OutputConfig(_Section, frozen=True):
    """What is written at the end. `checkpoint` is when the merge is saved: "never", "gain" (only
    with a significant gain) or "always"; `dtype` None keeps each tensor's own; `path` is the file
    to write (None: one in the run folder).
    """

    checkpoint: str = "never"
    dtype: str | None = None
    path: str | None = None


class RunConfig(_Section, frozen=True):
    """Everything that decides a run.

    `models` maps roles to checkpoint paths: "a", "b" (and "c"), or for methods of any number of
    models "m001", "m002", ... and, where the method has one, "base". `parameters` are those of the
    method that are not searched.
    """

    models: dict[str, str]
    payloads: tuple[Payload, ...]
    name: str = ""
    method: str = "weighted_sum"
    parameters: dict[str, ParameterValue] = {}
    reward: RewardConfig = RewardConfig()
    search: SearchConfig = SearchConfig()
    verdict: VerdictConfig = VerdictConfig()
    generator: GeneratorConfig = GeneratorConfig()
    output: OutputConfig = OutputConfig()

    def verdict_seeds(self, payloads: int) -> int:
        """The fresh seeds that the verdict has of each of so many payloads."""
        human = self.reward.human
        if human is not None and human.alone:
            return self.verdict.seeds_for(payloads, _CHOICE_IMAGES)
        return self.verdict.seeds_for(payloads)


def decode_config(raw: object) -> RunConfig:
    """Turn parsed YAML or JSON into a checked configuration.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a wrong type, or a value out of
            range; the text names the field.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(
            f"the configuration is a {type(raw).__name__}, not a mapping. "
            "Start with `models:` and `payloads:`."
        )
    try:
        config = msgspec.convert(raw, RunConfig, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(str(error))) from error
    check_config(config)
    return config


_UNKNOWN = re.compile(r"unknown field `(?P<name>.+?)`(?: - at `(?P<path>.+)`)?")
_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "$.payloads[...]": Payload,
    "$.reward": RewardConfig,
    "$.reward.members[...]": RewardMember,
    "$.search": SearchConfig,
    "$.search.blocks[...]": BlockRule,
    "$.search.parameters[...]": ParameterRule,
    "$.verdict": VerdictConfig,
    "$.generator": GeneratorConfig,
    "$.output": OutputConfig,
}


def explain(text: str, root: type[msgspec.Struct] = RunConfig) -> str:
    """Say what msgspec found wrong in a `root`, with the nearest known key for an unknown one."""
    match = _UNKNOWN.search(text)
    if match is None:
        return f"the configuration is wrong: {text[0].lower()}{text[1:]}. Correct that field."
    place = re.sub(r"\[[0-9]+\]", "[...]", match["path"] or "$")
    section = root if place == "$" else _SECTIONS.get(place)
    known = section.__struct_fields__ if section else ()
    near = difflib.get_close_matches(match["name"], known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
    within = f" in {match['path'][2:]}" if match["path"] else ""
    return f"unknown key{within}: {match['name']!r}. {hint}"


def check_config(config: RunConfig) -> None:
    """Raise ConfigError for values that are out of range or contradict each other."""
    _check_finite(msgspec.to_builtins(config), "")
    if not config.payloads:
        raise ConfigError("there are no payloads: the list is empty. Add at least one prompt.")
    if all(payload.held_out for payload in config.payloads):
        raise ConfigError(
            f"all {len(config.payloads)} payloads are held out. Leave some to the search."
        )
    many = any(role not in ROLES for role in config.models)
    if many:
        check_roles(config.models)
    if len(config.models) < 2 or not (many or {"a", "b"} <= set(config.models)):
        raise ConfigError(
            f"a run needs the models 'a' and 'b'; given: {sorted(config.models) or 'none'}."
            " Name both checkpoints under `models`, or m001, m002 and so on for methods of many."
        )
    if config.output.path is not None and not config.output.path.endswith(".safetensors"):
        raise ConfigError(
            f"output.path is {config.output.path!r}. Give a file name that ends in .safetensors."
        )
    fewest = 3 if config.search.calibration else 4
    limits: tuple[tuple[str, float | None, float, float], ...] = (
        ("search.evaluations", config.search.evaluations, fewest, 100_000),
        ("search.hours", config.search.hours, 0.01, 10_000),
        ("search.images", config.search.images, 1, 10_000_000),
        ("search.patience", config.search.patience, 1, 100_000),
        ("search.calibration", config.search.calibration, 0, 100),
        ("search.seed", config.search.seed, 0, 2**32 - 1),
        ("search.seeds_per_payload", config.search.seeds_per_payload, 1, 1000),
        ("verdict.finalists", config.verdict.finalists, 1, 50),
        ("verdict.finalist_seeds", config.verdict.finalist_seeds, 1, 1000),
        ("verdict.seeds", config.verdict.seeds, 2, 1000),
        ("generator.threads", config.generator.threads, 1, 1024),
    )
    for field, value, low, high in limits:
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{field} is {value}. It must be between {low:g} and {high:g}.")
    _check_reward(config.reward)
    _check_human(config)
    choices: tuple[tuple[str, str | None, tuple[str | None, ...]], ...] = (
        ("search.stop", config.search.stop, STOPS),
        ("reward.place", config.reward.place, PLACES),
        ("output.checkpoint", config.output.checkpoint, ("never", "gain", "always")),
        ("output.dtype", config.output.dtype, (None, "fp16", "bf16", "fp32")),
        ("generator.dtype", config.generator.dtype, (None, "fp16", "bf16", "fp32")),
    )
    for field, chosen, allowed in choices:
        if chosen not in allowed:
            names = ", ".join(name for name in allowed if name)
            raise ConfigError(f"{field} is {chosen!r}. Use one of: {names}.")


def _check_reward(reward: RewardConfig) -> None:
    judged = reward.ensemble
    if judged is not None:
        ensemble.check(judged)
    elif reward.members:
        raise ConfigError(
            f"reward.members has {len(reward.members)} rewards, but reward.name is "
            f"{reward.name!r}. Name it {ENSEMBLE!r}, or remove the members."
        )


def _check_human(config: RunConfig) -> None:
    """What a person judges is a whole candidate, in units that only this run has."""
    human = config.reward.human
    if human is None:
        return
    without: tuple[tuple[str, bool, str], ...] = (
        ("search.early_reject", config.search.early_reject, "you judge whole candidates"),
        (
            "search.warm_start",
            bool(config.search.warm_start),
            "your opinion has no units that two runs share",
        ),
        (
            "search.calibration",
            human.alone and config.search.calibration > 0,
            "it measures the chance in a learned reward, and there is none",
        ),
        (
            "output.checkpoint",
            human.alone and config.output.checkpoint == "always",
            "with you as the only judge there may be no verdict; use 'gain', or save the merge "
            "that you like in the results",
        ),
    )
    for field, used, reason in without:
        if used:
            raise ConfigError(
                f"{field} cannot be used with this human judge: {reason}. Switch it off."
            )


def _check_finite(value: object, place: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{place.lstrip('.')} is {value}. It must be a finite number.")
    if isinstance(value, dict):
        for name, part in value.items():
            _check_finite(part, f"{place}.{name}")
    if isinstance(value, list | tuple):
        for position, part in enumerate(value):
            _check_finite(part, f"{place}[{position}]")
