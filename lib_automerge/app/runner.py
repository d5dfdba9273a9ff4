"""The loop: propose, merge, generate, score, learn; then prove the gain, and hand it over.

Every step is journalled when it is done, and every decision is a function of the journal, so a
run that was killed anywhere goes on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib_automerge.app import blind, finals, outcome, proof
from lib_automerge.app.bench import Bench
from lib_automerge.app.consultation import Consultation
from lib_automerge.app.evaluate import Scorer, Scores, StopRequested, peak_memory
from lib_automerge.app.plan import Plan
from lib_automerge.app.ports import Controls, Listener
from lib_automerge.app.preflight import with_first
from lib_automerge.app.record import Record
from lib_automerge.domain.events import (
    FAILED,
    PARENTS,
    Evaluated,
    Failed,
    Finished,
    Paused,
    Proposed,
    Rejected,
    Resumed,
    Saved,
    Scored,
    SearchEnded,
    Stage,
    Started,
    Stopped,
    Timing,
    Verdict,
    Warned,
)
from lib_automerge.domain.payload import batches_of
from lib_automerge.domain.recipe import Recipe
from lib_automerge.domain.run import Activity, Evaluation, RunState
from lib_automerge.errors import (
    AutomergeError,
    ConfigError,
    GenerationError,
    HostError,
    ModelError,
    RewardError,
    RunFailedError,
    StorageError,
)
from lib_automerge.generate.base import Generator, PauseRequested
from lib_automerge.merge.readers import Checkpoint
from lib_automerge.reward.panel import Panel
from lib_automerge.study.store import OwnedRun, RunManifest

log = logging.getLogger(__name__)

FAILURES = 3
"""So many candidates in a row that cannot be made mean that the next one cannot be either."""


class Runner:
    """Runs one run, from wherever its journal stands to its end.

    Args:
        run: the run folder, held by this process.
        models: the open checkpoints, the ones of the manifest.
        generator: makes the sessions.
        panel: the rewards, which judge the images.
        controls: what the user asks meanwhile.
        listener: told of every event after it is on disk.
        notes: what the user should be told first; become warnings of the run.
    """

    def __init__(
        self,
        run: OwnedRun,
        models: Mapping[str, Checkpoint],
        generator: Generator,
        panel: Panel,
        controls: Controls,
        listener: Listener,
        notes: Sequence[str] = (),
    ) -> None:
        self._run = run
        self._models = models
        self._generator = generator
        self._panel = panel
        self._controls = controls
        self._notes = notes
        self._manifest: RunManifest = run.folder.manifest()
        self._config = self._manifest.config
        self._plan = Plan(self._manifest)
        self._record = Record(run, listener)
        self._user = Consultation(self._plan, self._record, controls)
        self.state = self._record.state

    def run(self) -> RunState:
        """Go on until the run is finished or stopped; returns its state.

        Raises:
            RunFailedError: the run could not go on; its journal says why, and it can be resumed.
        """
        if self.state.finished is not None:
            return self.state
        if self.state.started is None:
            self._record.add(Started(config=self._run.folder.digest()))
        else:
            self._record.add(Resumed())
        for note in self._notes:
            self._warn(note)
        try:
            start = time.perf_counter()
            self._record.tell(Activity.LOADING)
            with self._generator.open(with_first(self._models), self._controls.stop) as session:
                self._loading_s = time.perf_counter() - start
                folder = self._run.folder
                scorer = Scorer(
                    session,
                    self._panel,
                    self._plan.judging,
                    folder,
                    self._record,
                    self._controls.stop,
                )
                bench = Bench(folder.path.name, self._plan, self._record, scorer, self._controls)
                self._rehearse(bench)
                self._search(bench)
                self._prove(bench)
            self._choose()
            self._conclude()
        except StopRequested:
            self._record.add(Stopped())
        except PauseRequested as request:
            self._record.add(Paused(reason=str(request)))
        except Exception as error:
            # the one place that catches everything: a run must end in its journal, in words
            log.exception("the run failed")
            known = isinstance(error, AutomergeError)
            message = str(error) if known else f"{type(error).__name__}: {error}. See log.txt."
            with contextlib.suppress(StorageError):  # the journal may be what cannot be written
                self._record.add(Failed(message=message))
            raise RunFailedError(message) from error
        return self.state

    # --- the search -------------------------------------------------------------------------

    def _rehearse(self, bench: Bench) -> None:
        """Before anything is scored, see that model A can make every kind of image of the run."""
        if self.state.evaluations:
            return
        self._record.tell(Activity.CHECKING)
        bench.rehearse()

    def _search(self, bench: Bench) -> None:
        # what a killed process may have left unsaid
        self._consult()
        self._learn()
        self._measure_parents(bench)
        while self.state.search_ended is None:
            for evaluation in self.state.pending:
                self._evaluate(bench, evaluation)
                self._consult()
                self._learn()
                bench.between()
            self._calibrate(bench)
            self._record.tell(Activity.PROPOSING)
            decision = self._next()
            if isinstance(decision, SearchEnded):
                self._learn()
            self._record.add(decision)

    def _measure_parents(self, bench: Bench) -> None:
        """An ensemble measures both parents before it can judge any image, theirs included."""
        if self._plan.judging.ensemble is None or self.state.search_ended is not None:
            return
        while len(self.state.evaluations) < len(PARENTS):
            self._record.add(self._plan.next(self.state))
        bench.settle(Stage.SEARCH, self._plan.search_jobs())

    def _consult(self) -> None:
        """Wait for the user's judgement of every candidate, if they are a judge."""
        human = self._config.reward.human
        if human is not None and self.state.search_ended is None:
            self._user.about_candidates(human)

    def _learn(self) -> None:
        """Let the model say what it makes of the scores so far, and show who leads."""
        learned = self._plan.learned(self.state)
        if learned is not None:
            self._record.add(learned)
        self._publish_best()

    def _next(self) -> Proposed | SearchEnded:
        """What the plan says, unless the user has had enough."""
        if self._user.had_enough():
            return self._plan.ended(self.state, "you ended the search")
        return self._plan.next(self.state)

    def _publish_best(self) -> None:
        try:
            outcome.write_best(self._run.folder, self.state)
        except StorageError as error:
            # a view of the journal, which another program may hold open; the next one replaces it
            log.warning("%s", error)

    def _evaluate(self, bench: Bench, evaluation: Evaluation) -> None:
        known = self._plan.known(evaluation)
        if known is not None:
            self._record.add(known)
            return
        began = time.perf_counter()
        try:
            scores = self._score(bench, evaluation)
        except (GenerationError, RewardError) as error:
            if evaluation.origin in PARENTS or self._failing() + 1 >= FAILURES:
                raise
            lost, reason = {"total": time.perf_counter() - began}, f"{FAILED}: {error}"
            self._record.add(Rejected(evaluation=evaluation.number, reason=reason, seconds=lost))
            return
        if scores.broken is not None:
            self._reject(evaluation, scores, scores.broken)
        elif scores.given_up is not None:
            self._give_up(evaluation, scores, scores.given_up)
        else:
            self._check_effect(evaluation)
            self._complete(bench, evaluation, scores)

    def _complete(self, bench: Bench, evaluation: Evaluation, scores: Scores) -> None:
        score = bench.judged(scores, bench.diversity(scores))
        self._record.add(
            Evaluated(
                evaluation=evaluation.number,
                mean=score.mean,
                standard_error=score.standard_error,
                images=score.images,
                per_payload=score.per_payload,
                seconds=scores.seconds,
                memory_bytes=peak_memory(),
                judgement=score.judgement,
            )
        )

    def _score(self, bench: Bench, evaluation: Evaluation) -> Scores:
        def hopeless(images: Mapping[int, Scored]) -> str | None:
            return self._plan.hopeless(self.state, evaluation, images)

        enough = hopeless if self._config.search.early_reject else None
        return bench.score(evaluation, Stage.SEARCH, self._plan.search_jobs(), enough=enough)

    def _failing(self) -> int:
        """How many evaluations in a row, up to the last one, could not be made."""
        backwards = reversed(self.state.history)
        return len(list(itertools.takewhile(lambda e: e.unmade, backwards)))

    def _reject(self, evaluation: Evaluation, scores: Scores, image: Scored) -> None:
        """Give up a candidate whose images are broken."""
        reason = f"{image.broken} image for payload {image.payload!r}, seed {image.seed}"
        if evaluation.origin in PARENTS:
            raise GenerationError(
                f"{proof.NAMES[evaluation.origin]} itself makes a {reason}. Without its score no "
                "merge can be called better: check the model, the payload and the precision."
            )
        self._record.add(
            Rejected(evaluation=evaluation.number, reason=reason, seconds=scores.seconds)
        )

    def _give_up(self, evaluation: Evaluation, scores: Scores, reason: str) -> None:
        """Leave a candidate that is worse than the incumbent, with what is known of it."""
        complete = self._plan.complete(scores.images)
        self._record.add(
            Rejected(
                evaluation=evaluation.number,
                reason=reason,
                images=sum(image.payload in complete for image in scores.images.values()),
                per_payload=complete,
                seconds=scores.seconds,
            )
        )

    def _check_effect(self, evaluation: Evaluation) -> None:
        """Warn if other weights gave the very same images: then the merge does nothing."""
        mine = self._digests(evaluation.number)
        for other in self.state.history:
            same = other.weights != evaluation.weights and self._digests(other.number) == mine
            if same and not any("the very same images" in text for text in self.state.warnings):
                self._warn(
                    f"evaluations {other.number} and {evaluation.number} made the very same "
                    "images from different weights. If the models differ in the searched blocks, "
                    "the merge does not reach the images: compare the models with `inspect`."
                )

    def _digests(self, number: int) -> list[str]:
        images = self.state.scores.get((Stage.SEARCH, number), {})
        return [image.digest for _, image in sorted(images.items())]

    def _calibrate(self, bench: Bench) -> None:
        """Measure how much of a score is chance, once and if the configuration asks for it."""
        measured = self._plan.to_calibrate(self.state)
        if measured is None:
            return
        jobs = self._plan.calibration_jobs()
        bench.stage(measured, Stage.CALIBRATION, jobs, until_broken=False)
        try:
            self._record.add(self._plan.calibration(self.state))
        except ConfigError as error:
            self._warn(f"the calibration says nothing: {error}")

    def _prove(self, bench: Bench) -> None:
        """Find the winner and prove it, if the search had candidates at all."""
        if not self._searched() or self.state.verdict is not None:
            return
        if not self._plan.judging.by_person_alone:
            finals.prove(bench)
        elif not self.state.waived and not blind.too_few(self._plan, self.state):
            finals.make_images(bench)

    def _choose(self) -> None:
        """Have the user prove the winner, if they alone judge; no model is needed any more."""
        if self._searched() and self._plan.judging.by_person_alone:
            self._user.about_the_winner()

    def _searched(self) -> bool:
        return self.state.has_candidates

    # --- the end ----------------------------------------------------------------------------

    def _conclude(self) -> None:
        ended = self.state.search_ended
        assert ended is not None
        if self.state.verdict is not None:
            self._hand_over(self.state.verdict)
        self._record.add(Finished(reason=ended.reason, seconds=self._seconds()))

    def _hand_over(self, verdict: Verdict) -> None:
        """Write what was proved and, if asked, the checkpoint."""
        recipe = self._plan.recipe(self.state.evaluations[verdict.winner])
        recipe = outcome.write_outcome(self._run.folder, recipe, self.state)
        wanted = self._config.output.checkpoint
        found = bool(verdict.comparisons) and self.state.saved is None
        self._record.tell(Activity.SAVING)
        if found and (wanted == "always" or (wanted == "gain" and verdict.gain)):
            self._save(recipe, verdict)

    def _seconds(self) -> Timing:
        """Seconds by phase over the whole run; "load" is of this process's session."""
        parts = [e.seconds for e in self.state.history]
        parts += [done.seconds for done in self.state.stages.values()]
        names = ("merge", "generate", "score", "total")
        seconds = {name: sum(part.get(name, 0.0) for part in parts) for name in names}
        return {**seconds, "load": self._loading_s}

    def _save(self, recipe: Recipe, verdict: Verdict) -> None:
        """Write the checkpoint and prove it; what fails here must not undo a proved result."""
        try:
            path = outcome.save_checkpoint(self._run.folder, recipe, self._models, self._config)
        except (ConfigError, ModelError, StorageError) as error:
            self._warn(
                f"The result is proved, but its checkpoint could not be saved: {error} It can be "
                "saved at any time, from the results or with the recipe."
            )
            return
        try:
            self._record.add(self._saved(path, verdict))
        except (GenerationError, HostError, ModelError) as error:
            self._warn(f"The checkpoint {path} is saved, but could not be checked: {error}")
            self._record.add(self._as_saved(path, 0, 0))

    def _as_saved(self, path: Path, checked: int, reproduced: int) -> Saved:
        inside = path.parent == self._run.folder.path
        return Saved(
            file=path.name if inside else str(path),
            sha256=outcome.sha256(path),
            checked=checked,
            reproduced=reproduced,
        )

    def _saved(self, path: Path, verdict: Verdict) -> Saved:
        """Load the saved checkpoint afresh and make the first batch of the verdict again."""
        batch = batches_of(self._plan.proof_jobs()[0])[0]
        scored = self.state.scores[Stage.VERDICT, verdict.winner]
        stop = self._controls.stop
        reproduced = outcome.reproduced(path, self._generator, batch, scored, stop)
        if stop():
            raise StopRequested
        if reproduced < len(batch):
            message = (
                f"the saved checkpoint gave {reproduced} of {len(batch)} scored images again bit "
                "for bit. "
            )
            message += (
                f"It was converted to {self._config.output.dtype}, which rounds its weights."
                if self._config.output.dtype
                else "Batches of another size, or a device that does not repeat its own results, "
                "change last bits: compare them by eye."
            )
            self._warn(message)
        return self._as_saved(path, len(batch), reproduced)

    # --- helpers ----------------------------------------------------------------------------

    def _warn(self, message: str) -> None:
        self._record.add(Warned(message=message))
