"""What a run searched, and why it did not search some blocks."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from lib_automerge.domain import architectures
from lib_automerge.domain.config import BlockRule, SearchConfig
from lib_automerge.domain.run import Evaluation
from lib_automerge.study.store import RunManifest


class Kept(msgspec.Struct, frozen=True):
    """Why the search left a block alone: in a word for a chart, and in a phrase."""

    word: str
    phrase: str


FROM_A = Kept("kept", "not searched, as in A")
FIXED = Kept("fixed", "not searched, fixed")


def kept_blocks(manifest: RunManifest) -> dict[str, Kept]:
    """The blocks that the search did not change by themselves, in the order of the network.

    Blocks in which the models are equal are not among them unless a rule names them: their distance
    says it.
    """
    search = manifest.config.search
    architecture = architectures.get(manifest.architecture)
    found = {}
    for block in architecture.blocks:
        rule = search.blocks.get(block)
        if rule is not None:
            kept = _by_rule(rule, search)
        else:
            kept = None if block in architecture.parameters else FROM_A
        if kept is not None:
            found[block] = kept
    return found


def searched_names(manifest: RunManifest, evaluations: Iterable[Evaluation]) -> list[str]:
    """What the search may change: blocks in the order of the network, then other parameters.

    Args:
        manifest: of the run.
        evaluations: candidates of it, which name what was searched.
    """
    architecture = architectures.get(manifest.architecture)
    rules = manifest.config.search.blocks
    named = dict.fromkeys(name for e in evaluations for name in e.weights)
    blocks = [b for b in architecture.blocks if b in architecture.parameters or b in rules]
    others = [name for name in named if name not in architecture.blocks]
    return [*(blocks if set(blocks) & set(named) or not others else ()), *others]


def _by_rule(rule: BlockRule, search: SearchConfig) -> Kept | None:
    if rule.tied_to is not None:
        return Kept("tied", f"tied to {rule.tied_to}")
    low = search.low if rule.low is None else rule.low
    high = search.high if rule.high is None else rule.high
    return FIXED if rule.fixed is not None or low == high else None
