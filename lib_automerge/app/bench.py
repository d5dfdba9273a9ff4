"""Where candidates are scored: what the journal has of a candidate's images, and the rest of them.

The search, the calibration and the proof all score candidates here, each in its own stage.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from lib_automerge.app.appearance import mean_diversity
from lib_automerge.app.evaluate import Scorer, Scores, SeenEnough
from lib_automerge.app.judging import Diversity, Score
from lib_automerge.app.plan import Plan
from lib_automerge.app.ports import Controls
from lib_automerge.app.record import Record
from lib_automerge.domain.events import PARENTS, Scaled, Stage, StageDone, Timing, Warned
from lib_automerge.domain.payload import ImageJob
from lib_automerge.domain.run import Evaluation, RunState
from lib_automerge.domain.scale import Scale
from lib_automerge.errors import GenerationError, RewardError
from lib_automerge.generate.base import PauseRequested


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
        self._spent: dict[tuple[Stage, int], Timing] = {}

    @property
    def state(self) -> RunState:
        """The state of the run."""
        return self.record.state

    def rehearse(self) -> None:
        """See that model A can make every kind of image of the run, before anything is scored."""
        styled = self.plan.styles_unread()
        if styled:
            self.warn(
                f"The styles of payload {', '.join(map(repr, styled))} shape the images, but the "
                "reward does not read them. Give score_prompt if a style says what is to be seen."
            )
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

        What is known of later jobs, of another round, plays no part. What failed once (memory was
        short, a server was busy) is tried once more; both times count.
        """
        began = time.perf_counter()
        try:
            return self._score(evaluation, stage, jobs, until_broken, enough)
        except (GenerationError, RewardError) as error:
            spent = self._spent.setdefault((stage, evaluation.number), {})
            spent["total"] = spent.get("total", 0.0) + time.perf_counter() - began
            self.warn(f"evaluation {evaluation.number} failed and is tried again: {error}")
            return self._score(evaluation, stage, jobs, until_broken, enough)

    def _score(
        self,
        evaluation: Evaluation,
        stage: Stage,
        jobs: Sequence[ImageJob],
        until_broken: bool,
        enough: SeenEnough | None,
    ) -> Scores:
        found = self.state.scores.get((stage, evaluation.number), {})
        known = {number: image for number, image in found.items() if number <= jobs[-1].number}
        origin = {"run": self._run, "evaluation": evaluation.number}
        recipe = msgspec.structs.replace(self.plan.recipe(evaluation), provenance=origin)
        scores = self._scorer.score(
            evaluation.number,
            stage,
            recipe,
            jobs,
            known,
            until_broken=until_broken,
            enough=enough,
        )
        spent = self._spent.pop((stage, evaluation.number), {})
        seconds = {name: s + spent.get(name, 0.0) for name, s in scores.seconds.items()}
        return msgspec.structs.replace(scores, seconds=seconds)

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
        measured = scores.measured or self.plan.judging.by_person_alone
        if measured and not (until_broken and scores.broken):
            summary = self.judged(scores)
            if before is None or before.images < summary.images:
                spent = {} if before is None else before.seconds
                self.record.add(
                    StageDone(
                        evaluation=evaluation.number,
                        stage=stage,
                        mean=summary.mean,
                        standard_error=summary.standard_error,
                        images=summary.images,
                        seconds={
                            name: seconds + spent.get(name, 0.0)
                            for name, seconds in scores.seconds.items()
                        },
                    )
                )
        self.between()
        return scores

    def judged(self, scores: Scores, diversity: Diversity | None = None) -> Score:
        """The score of a candidate by the images of a stage."""
        return self.plan.judging.score(
            [image for _, image in sorted(scores.images.items())], self.state.scale, diversity
        )

    def diversity(self, scores: Scores) -> dict[str, float]:
        """The diversity of a candidate over seeds, by payload; nothing if it does not count."""
        return self._scorer.diversity(scores.images.values())

    def settle(self, stage: Stage, jobs: Sequence[ImageJob]) -> None:
        """See that an ensemble knows its units for the payloads of these jobs.

        Both parents' images are measured first; then they have scores too.
        """
        judging = self.plan.judging
        if judging.ensemble is None:
            return
        found = []
        for parent in filter(None, map(self.state.baseline, PARENTS)):
            scores = self.score(parent, stage, jobs, until_broken=stage is Stage.SEARCH)
            if stage is Stage.SEARCH and scores.broken is not None:
                return  # the run ends with it
            self._spent[stage, parent.number] = scores.seconds
            found.append(scores)
        images = [image for scores in found for image in scores.images.values()]
        names = [job.payload.name for job in jobs]
        if not judging.covers(self.state.scale, names):
            diversity = mean_diversity([self.diversity(scores) for scores in found])
            units = judging.scale(self.state.scale, images, diversity)
            self.record.add(Scaled(stage=stage, scale=units))
            if stage is Stage.SEARCH:
                self._warn_of_silent(units)
        scale = self.state.scale
        self.record.add_scores(
            [
                msgspec.structs.replace(image, score=judging.value(image, scale))
                for image in images
                if image.score is None and image.broken is None
            ]
        )

    def _warn_of_silent(self, units: Scale) -> None:
        for name in (name for name, sd in units.scales.items() if sd == 0.0):
            self.warn(
                f"{name} gave all images of a prompt by the parents the same score, so there is no "
                "unit for its scores, and it does not count. Use another reward or other prompts."
            )

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
