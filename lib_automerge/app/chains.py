"""The facade of chains: what the command line calls."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lib_automerge.app import chain_check, chain_estimate
from lib_automerge.app.chain_estimate import Toll
from lib_automerge.app.chain_models import ChainModels
from lib_automerge.app.chain_plan import ChainPlan
from lib_automerge.app.chain_record import ChainRecord, Watch
from lib_automerge.app.chain_steps import Workshop
from lib_automerge.app.chain_studio import Studio
from lib_automerge.app.chain_tree import Tree
from lib_automerge.app.evaluate import StopRequested
from lib_automerge.app.ports import Clock, Host
from lib_automerge.app.rebuild import WHOLE, lineage_of
from lib_automerge.app.service import RunLog, Service, changes, versions
from lib_automerge.domain.chain import (
    ChainConfig,
    MergeStep,
    RankStep,
    SearchStep,
    Step,
    TreeStep,
    named_by,
)
from lib_automerge.domain.chain_events import (
    ChainFailed,
    ChainFinished,
    ChainResumed,
    ChainStarted,
    ChainStopped,
    Purpose,
    Ranked,
    Removed,
    StepBegan,
    StepDone,
)
from lib_automerge.domain.chain_state import ChainState
from lib_automerge.domain.lineage import lineage_json
from lib_automerge.errors import AutomergeError, ConfigError, RunFailedError, StorageError
from lib_automerge.generate.base import PauseRequested, StopFlag, never
from lib_automerge.study import chain_report
from lib_automerge.study.chain_store import ChainFolder, ChainManifest, OwnedChain
from lib_automerge.study.formats import listed
from lib_automerge.study.store import check_new

log = logging.getLogger(__name__)

SILENT = Watch()
"""Nobody is told."""


class Prepared:
    """A chain that passed every check and can begin.

    Attributes:
        manifest: what is frozen.
        toll: what it takes at most.
        notes: what the user should know, in sentences.
    """

    def __init__(self, manifest: ChainManifest, notes: Sequence[str]) -> None:
        self.manifest = manifest
        self.toll: Toll = chain_estimate.toll(manifest)
        self.notes = tuple(notes)

    @property
    def sentence(self) -> str:
        """What it takes at most, in words."""
        return chain_estimate.in_words(self.toll, kept=self.manifest.config.keep_intermediate)


class ChainService:
    """Starts, resumes and describes chains.

    Args:
        host: makes generators and rewards.
        clock: seconds since the epoch; goes into the journals.
    """

    def __init__(self, host: Host, clock: Clock = time.time) -> None:
        self._host = host
        self._clock = clock
        self._service = Service(host, clock)

    def prepare(self, config: ChainConfig) -> Prepared:
        """Check a chain against its pool; writes nothing.

        Raises:
            AutomergeError: a check failed.
        """
        manifest, notes = chain_check.check(config, self._host)
        return Prepared(manifest, notes)

    def start(
        self, prepared: Prepared, folder: Path, *, stop: StopFlag = never, watch: Watch = SILENT
    ) -> ChainState:
        """Make the folder of a chain and see it through.

        Raises:
            AutomergeError: the folder cannot be used (nothing was written), or the chain failed
                (it can be resumed).
        """
        check_new(folder)
        created = ChainFolder.create(folder, prepared.manifest)
        with self._owned(created) as chain:
            return self._go_on(chain, prepared.manifest, stop, watch, prepared.notes)

    def resume(self, folder: Path, *, stop: StopFlag = never, watch: Watch = SILENT) -> ChainState:
        """Take up a chain where its journal ends; a finished one is returned as it is.

        Raises:
            AutomergeError: there is no chain, it is worked on elsewhere, its journal is damaged,
                its pool or its reward are not what it began with, or it failed again.
        """
        found = ChainFolder.open(folder)
        manifest = found.manifest()
        with self._owned(found) as chain:
            state = ChainState(chain.journal.events)
            if state.finished is not None:
                self._publish(found, manifest, state)
                return state
            if state.started is not None and state.started.config != found.digest():
                raise ConfigError(
                    f"{found.path / 'chain.json'} has been changed since the chain began. Restore "
                    "it, or start a new chain with the other configuration."
                )
            now = versions()
            if manifest.config.shows:
                now |= self._host.generator(manifest.config.generator).fingerprint()
            notes = changes({**manifest.versions, **manifest.generator}, now)
            return self._go_on(chain, manifest, stop, watch, notes)

    def report(self, folder: Path) -> Path:
        """Write the chain's `report.html` from its journal; returns its path."""
        found = ChainFolder.open(folder)
        return found.write("report.html", chain_report.render(found).encode())

    def _go_on(
        self,
        chain: OwnedChain,
        manifest: ChainManifest,
        stop: StopFlag,
        watch: Watch,
        notes: Sequence[str],
    ) -> ChainState:
        record = ChainRecord(chain, watch)
        try:
            return _Runner(chain, manifest, record, self._host, self._service, stop, notes).run()
        finally:
            try:
                self._publish(chain.folder, manifest, record.state)
            except Exception:
                # the chain itself is safe, and how it ended matters more
                log.exception("the report was not written")

    def _publish(self, folder: ChainFolder, manifest: ChainManifest, state: ChainState) -> None:
        """Write what follows from the journal, should something have been lost."""
        if state.finished is not None:
            lineage = lineage_of(state.finished.model, folder, manifest, state)
            folder.write(f"recipes/{WHOLE}", lineage_json(lineage).encode())
        self.report(folder.path)

    @contextmanager
    def _owned(self, folder: ChainFolder) -> Iterator[OwnedChain]:
        """Hold the chain, with its log going to `log.txt`."""
        with folder.owned(self._clock) as chain, RunLog.into(folder.log):
            yield chain


class _Runner:
    """Goes through the steps of a chain, from wherever its journal stands."""

    def __init__(
        self,
        chain: OwnedChain,
        manifest: ChainManifest,
        record: ChainRecord,
        host: Host,
        service: Service,
        stop: StopFlag,
        notes: Sequence[str],
    ) -> None:
        self._folder = chain.folder
        self._manifest = manifest
        self._config = manifest.config
        self._record = record
        self._notes = notes
        self._stop = stop
        self._plan = ChainPlan(manifest)
        self._models = ChainModels(chain.folder, manifest, record.state)
        self._studio = Studio(chain.folder, self._plan, record, self._models, host, stop)
        self._workshop = Workshop(chain.folder, self._plan, record, self._models, service, stop)

    def run(self) -> ChainState:
        """Go on until the chain is finished or stopped; returns its state.

        Raises:
            ConfigError: the pool is not what it was.
            RunFailedError: the chain could not go on; it can be resumed.
        """
        state = self._record.state
        if state.started is None:
            self._record.add(ChainStarted(config=self._folder.digest()))
        else:
            self._record.watch.doing("reading the pool")
            self._models.check_pool()
            self._record.add(ChainResumed())
        for note in self._notes:
            self._record.warn(note)
        try:
            for number, step in enumerate(self._config.steps):
                if step.name not in state.done:
                    self._begin(number, step)
                    self._record.add(self._carried_out(number, step))
                self._tidy(number)
            last = state.done[self._config.steps[-1].name]
            self._record.add(ChainFinished(model=last.models[0], sentence=last.sentence))
        except (StopRequested, PauseRequested):
            self._record.add(ChainStopped())
        except Exception as error:
            # the one place that catches everything: a chain must end in its journal, in words
            log.exception("the chain failed")
            known = isinstance(error, AutomergeError)
            message = str(error) if known else f"{type(error).__name__}: {error}. See log.txt."
            with contextlib.suppress(StorageError):  # the journal may be what cannot be written
                self._record.add(ChainFailed(message=message))
            raise RunFailedError(message) from error
        return state

    def _begin(self, number: int, step: Step) -> None:
        """See that there is room for all that a step writes, before its first byte."""
        state = self._record.state
        if step.name in state.began:
            return
        if self._stop():
            raise StopRequested
        models = self._plan.models(named_by(step), state)
        counts = {
            purpose: sum(
                (self._models.digest(name), purpose) not in state.pictures for name in models
            )
            for purpose in (Purpose.RANK, Purpose.PREVIEW)
        }
        needed = chain_estimate.step_toll(
            self._manifest,
            step,
            len(models),
            unranked=counts[Purpose.RANK],
            unshown=counts[Purpose.PREVIEW],
        ).bytes
        what = f"step {number + 1} of {len(self._config.steps)}, {step.name!r}"
        chain_estimate.check_disk(self._folder.path, needed, what)
        self._record.add(StepBegan(step=step.name, needed=needed))

    def _carried_out(self, number: int, step: Step) -> StepDone:
        place = self._folder.step(number + 1, step.name)
        match step:
            case MergeStep():
                return self._merge(step, place)
            case RankStep():
                return self._rank(step)
            case SearchStep():
                return self._search(step, place)
            case TreeStep():
                plan, record = self._plan, self._record
                return Tree(step, place, plan, record, self._studio, self._workshop).run()

    def _merge(self, step: MergeStep, place: Path) -> StepDone:
        inputs = self._plan.models(named_by(step), self._record.state)
        self._workshop.merge(step, place)
        self._studio.show((step.name, *inputs))
        said = f"{step.name} is the merge of {len(inputs)} models by {step.method}."
        return StepDone(step=step.name, models=(step.name,), sentence=said)

    def _rank(self, step: RankStep) -> StepDone:
        state = self._record.state
        models = self._plan.models(step.models, state)
        found = state.ranked.get((step.name, None))
        if found is None:
            self._studio.score(models, Purpose.RANK)
            standings = self._studio.ranking(models, models)
            whole = [s.model for s in standings if s.mean is not None]
            kept = tuple(whole[: step.keep])
            found = Ranked(step=step.name, standings=standings, kept=kept)
            self._record.add(found)
        said = f"Of {len(models)} models, {listed(found.kept)} {_IS[len(found.kept) > 1]} best."
        return StepDone(step=step.name, models=found.kept, sentence=said)

    def _search(self, step: SearchStep, place: Path) -> StepDone:
        state = self._record.state
        given = {"a": step.a, "b": step.b, **({} if step.c is None else {"c": step.c})}
        # what hands on several models stands for its best here
        roles = {role: self._plan.models((name,), state)[0] for role, name in given.items()}
        self._studio.show(roles.values())
        decided = self._workshop.search(step, roles, place, step.name)
        self._studio.show((decided.model,))
        return StepDone(step=step.name, models=(decided.model,), sentence=decided.sentence)

    def _tidy(self, number: int) -> None:
        """Remove checkpoints that no later step needs, if they are not to be kept."""
        state = self._record.state
        if self._config.keep_intermediate or state.finished is not None:
            return
        needed = self._plan.needed(number, state)
        past = {step.name for step in self._config.steps[: number + 1]}
        for made in [*state.made.values()]:
            if made.step in past and made.model not in needed | state.removed:
                self._workshop.remove(made.model)
                self._record.add(Removed(model=made.model))


_IS = {False: "is", True: "are"}
