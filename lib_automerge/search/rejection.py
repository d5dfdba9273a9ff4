"""Whether a candidate can be given up before all its images are made.

A paired test of the payloads that are complete, one value each: prompts that are hard for every
recipe cancel, and seeds of one prompt are not taken for independent evidence. It saves images where
most candidates are bad; a good optimizer's soon differ from the best by less than the noise, and
then the test has no power.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lib_automerge.search.statistics import compare

FEWEST_PAYLOADS = 4
"""So many payloads are scored before a candidate can be given up."""

HOPELESS = 0.02
"""Below this probability of being the better one a candidate is given up."""


class Chance(msgspec.Struct, frozen=True, kw_only=True):
    """What the payloads so far say about a candidate against the incumbent.

    Attributes:
        better: the probability that its expected score is the higher one.
        difference, standard_error: of its score minus the incumbent's.
        payloads: on how many this is based.
    """

    better: float
    difference: float
    standard_error: float
    payloads: int

    @property
    def hopeless(self) -> bool:
        """Whether it can be given up."""
        return self.better < HOPELESS


def chance(
    candidate: Mapping[str, float], incumbent: Mapping[str, float], weights: Mapping[str, float]
) -> Chance | None:
    """Return what the payloads that both have say; None for fewer than four.

    The probability is that of the one-sided paired t test: with nothing known before, the posterior
    probability that the mean difference is above 0.

    Args:
        candidate: payload name -> mean score, of the payloads whose images are all scored.
        incumbent: the same of the incumbent, on the same images.
        weights: payload name -> its share in the score, above 0, in any unit.
    """
    shared = [name for name in candidate if name in incumbent]
    if len(shared) < FEWEST_PAYLOADS:
        return None
    behind = compare(
        {(name, 0): incumbent[name] for name in shared},
        {(name, 0): candidate[name] for name in shared},
        weights,
    )
    return Chance(
        better=behind.p_value,
        difference=-behind.difference,
        standard_error=behind.standard_error,
        payloads=len(shared),
    )
