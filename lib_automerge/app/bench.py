"""Where candidates are scored: what the journal has of a candidate's images, and the rest of them.

The search, the calibration and the proof all score candidates here, each in its own stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from lib_automerge.app.evaluate import Scorer, Scores, SeenEnough
from lib_automerge.app.plan import Plan
from lib_automerge.app.ports import Controls
from lib_automerge.app.record import Record
from lib_automerge.domain.events import Stage, StageDone, Warned
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.run import Evaluation, RunState
from lib_automerge.generate.base import PauseRequested
from lib_automerge.search import statistics


class Bench:
    """Scores candidates within one session of one run.

    Args:
        run: the name of the run, for the provenance of what is merged.
        plan: says what is merged for an evaluation.
        record: takes every event.
        scorer: makes and scores the images.
        controls: what the user asks meanwhile.
    """

    def __init__(
        self, run: str, plan: Plan, record: Record, scorer: Scorer, controls: Controls
    ) -> None:
        self._run = run
        self._scorer = scorer
        self._controls = controls
        self.plan = plan
        self.record = record

    @property
    def state(self) -> RunState:
        """The state of the run."""
        return self.record.state

    def rehearse(self) -> None:
        """See that model A can make every kind of image of the run, before anything is scored."""
        self._scorer.rehearse(*self.plan.rehearsal())

    def score(
        self,
        evaluation: Evaluation,
        stage: Stage,
        jobs: Sequence[ImageJob],
        *,
        until_broken: bool = True,
        enough: SeenEnough | None = None,
    ) -> Scores:
        """Score what is not known yet of a candidate's images; see `Scorer.score`.

        What is known of later jobs, of another round, plays no part.
        """
        found = self.state.scores.get((stage, evaluation.number), {})
        known = {number: image for number, image in found.items() if number <= jobs[-1].number}
        origin = {"run": self._run, "evaluation": evaluation.number}
        recipe = msgspec.structs.replace(self.plan.recipe(evaluation), provenance=origin)
        return self._scorer.score(
            evaluation.number,
            stage,
            recipe,
            jobs,
            known,
            until_broken=until_broken,
            enough=enough,
        )

    def stage(
        self,
        evaluation: Evaluation,
        stage: Stage,
        jobs: Sequence[ImageJob],
        *,
        until_broken: bool = True,
    ) -> Scores:
        """Score a candidate in a later stage, and journal that it is done.

        A stage that is gone through in rounds is done again with each of them: what is journalled
        then is the mean and the time of all rounds so far.
        """
        scores = self.score(evaluation, stage, jobs, until_broken=until_broken)
        before = self.state.stages.get((stage, evaluation.number))
        by_payload = scores.by_payload()
        if by_payload and not (until_broken and scores.broken):
            summary = statistics.summarize(by_payload, self.plan.payload_weights)
            if before is None or before.images < summary.images:
                spent = {} if before is None else before.seconds
                self.record.add(
                    StageDone(
                        evaluation=evaluation.number,
                        stage=stage,
                        mean=summary.mean,
                        standard_error=or_none(summary.standard_error),
                        images=summary.images,
                        seconds={
                            name: seconds + spent.get(name, 0.0)
                            for name, seconds in scores.seconds.items()
                        },
                    )
                )
        self.between()
        return scores

    def between(self) -> None:
        """The moment between two evaluations, in which the run can give the device away.

        Raises:
            PauseRequested: the user asked for it.
        """
        if self._controls.pause():
            raise PauseRequested
        self._scorer.rest()

    def warn(self, message: str) -> None:
        """Tell the user something; it stays with the run."""
        self.record.add(Warned(message=message))


def or_none(error: float) -> float | None:
    """A standard error that could not be estimated is unknown, not a number."""
    return error if math.isfinite(error) else None
