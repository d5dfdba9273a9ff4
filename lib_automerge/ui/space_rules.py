"""Rules for blocks: what the space editor's buttons do to them, and the picture of the space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib_automerge.domain.architectures import Architecture
from lib_automerge.domain.config import BlockRule, SearchConfig
from lib_automerge.errors import AutomergeError, ConfigError
from lib_automerge.search.space import Space
from lib_automerge.study.formats import plural
from lib_automerge.study.markup import Markup, element, join

Rules = dict[str, BlockRule]

SEARCH = "Search from low to high"
FREEZE = "Freeze at a weight"
TIE = "Tie together"
RESET = "Back to default"
ACTIONS = (SEARCH, FREEZE, TIE, RESET)

ALL_OF = "All of "
"""How the choices of whole groups begin."""

LEADERS = {"TIME_EMBED": "IN", "LABEL_EMB": "IN", "OUT": "OUT"}
"""Blocks outside the numbered groups -> the group whose weight they take when groups are tied."""


def choices(architecture: Architecture) -> list[str]:
    """What the block picker offers: the groups, then every block."""
    groups = [ALL_OF + name for name, members in architecture.groups.items() if len(members) > 1]
    return [*groups, *architecture.blocks]


def apply(
    rules: Mapping[str, BlockRule],
    picked: Sequence[str],
    action: str,
    architecture: Architecture,
    *,
    low: float | None = None,
    high: float | None = None,
    weight: float | None = None,
) -> Rules:
    """The rules after an action on the picked blocks and groups.

    Args:
        rules: those before.
        picked: entries of `choices`.
        action: one of `ACTIONS`.
        architecture: whose blocks they are.
        low: of the range for SEARCH; None leaves it to the run's.
        high: as `low`.
        weight: for FREEZE.

    Raises:
        ConfigError: nothing is picked, or the action lacks something.
    """
    blocks = picked_blocks(picked, architecture)
    if not blocks:
        raise ConfigError("no block is chosen. Choose the blocks that the rule is for.")
    if action == FREEZE and weight is None:
        raise ConfigError('"Weight" is empty. Enter the weight to freeze at, like 0.5.')
    if action == TIE and len(blocks) < 2:
        raise ConfigError(f"only {blocks[0]} is chosen. Choose two or more blocks to tie.")
    after = {block: rule for block, rule in rules.items() if block not in blocks}
    if action == FREEZE:
        after |= {block: BlockRule(fixed=weight) for block in blocks}
    elif action == TIE:
        after |= _tied(blocks, rules, architecture)
    elif action == SEARCH:
        rule = BlockRule(low=low, high=high)
        # without a rule the denoiser's blocks are searched already
        default = architecture.parameters if rule == BlockRule() else ()
        after |= {block: rule for block in blocks if block not in default}
    return after


def by_group(architecture: Architecture) -> Rules:
    """One weight each for IN, M and OUT; the other blocks of the denoiser follow theirs.

    In a transformer, one for each kind of layer; its embeddings follow the first kind.
    """
    members = {group: [*blocks] for group, blocks in architecture.layers.items()}
    first = next(iter(members))
    for block in architecture.groups["EXTRA"]:
        leader = LEADERS.get(block, first)
        members[leader if leader in members else first].append(block)
    return {
        block: BlockRule(tied_to=blocks[0]) for blocks in members.values() for block in blocks[1:]
    }


def picture(search: SearchConfig, architecture: Architecture, *, trimmed: bool = True) -> Markup:
    """The rule of every block, group by group, and how many weights that leaves to search.

    `trimmed` tells whether the run leaves out the blocks in which A and B are equal.
    """
    try:
        space = Space.of(search, architecture)
    except AutomergeError as error:
        return element("p", str(error), class_="automerge-error", role="alert")
    rows = [
        element(
            "tr",
            element("th", group, scope="row"),
            element("td", join((_chip(block, space) for block in members), Markup(" "))),
        )
        for group, members in architecture.groups.items()
    ]
    told = f"{plural(space.dimension, 'weight')} to search in {architecture.label}."
    if trimmed:
        told += (
            " Blocks in which A and B are equal will be left out: which ones they are is known "
            "when the run starts and reads the models."
        )
    return element(
        "div",
        element("p", told),
        element("table", element("tbody", *rows)),
        class_="automerge-space",
    )


def picked_blocks(picked: Sequence[str], architecture: Architecture) -> list[str]:
    """The picked blocks in canonical order, those of groups too.

    Raises:
        ConfigError: one of them is not of this architecture.
    """
    wanted: set[str] = set()
    for name in picked:
        group = name.removeprefix(ALL_OF) if name.startswith(ALL_OF) else None
        members = architecture.groups.get(group, ()) if group else (name,)
        if not members or not set(members) <= set(architecture.blocks):
            raise ConfigError(f"{architecture.label} has no block {name!r}. Choose others.")
        wanted |= set(members)
    return [block for block in architecture.blocks if block in wanted]


def _tied(
    blocks: Sequence[str], rules: Mapping[str, BlockRule], architecture: Architecture
) -> Rules:
    leader, *others = blocks
    rule = rules.get(leader)
    after = {block: BlockRule(tied_to=leader) for block in others}
    if rule is not None and rule.tied_to is None:
        after[leader] = rule
    elif leader not in architecture.parameters:
        after[leader] = BlockRule()
    return after


def _chip(block: str, space: Space) -> Markup:
    source = space.blocks[block]
    if not isinstance(source, str):
        kind, told, longer = "fixed", f"{source:g}", f"{block} is frozen at {source:g}"
        if source == 0.0:
            told, longer = "A", f"{block} is kept from model A"
    elif source != block:
        kind, told, longer = "tied", f"= {source}", f"{block} has the weight of {source}"
    else:
        low, high = dict(zip(space.names, space.bounds, strict=True))[block]
        kind, told = "free", f"{low:g} to {high:g}"
        longer = f"{block} is searched from {low:g} to {high:g}"
    return element(
        "span",
        element("b", block),
        " ",
        told,
        class_=f"automerge-chip automerge-chip-{kind}",
        title=longer,
    )
