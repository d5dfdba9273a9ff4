"""A blind choice of the verdict: two pictures, and nobody is told who made which."""

from __future__ import annotations

import msgspec

from lib_automerge.domain.human import Question

LEFT, RIGHT = "left", "right"
SIDES = (LEFT, RIGHT)


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """Two pictures of one prompt and seed, which nobody has judged.

    `evaluation` is the merge to be proved, `other` a baseline, `job` the number of both pictures
    in the stage of the verdict, `winner_left` where the merge's is shown. `number` counts all that
    the user has said so far, `made` the choices of the verdict; `most` is how many can be left at
    most, this one included. It falls by one with every choice: a leap where a baseline is beaten
    would tell which pictures were the merge's.

    An answer is 1 for the left picture, 0 for the right one, 0.5 for neither.
    """

    evaluation: int
    other: int
    job: int
    winner_left: bool
    number: int
    made: int
    most: int

    @property
    def key(self) -> str:
        """The name of the choice, which an answer repeats; it tells nothing of the sources."""
        return f"pair-{self.number}"

    def shown(self, side: str) -> int:
        """Whose picture is on a side: the number of an evaluation."""
        return self.evaluation if (side == LEFT) is self.winner_left else self.other


Asked = Question | Trial
"""What a run can ask its user."""
