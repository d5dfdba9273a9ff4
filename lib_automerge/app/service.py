"""The facade over the engine: what the command line, the tab and the API call."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib import metadata
from pathlib import Path

import msgspec

import lib_automerge
from lib_automerge.app import outcome, warm_start
from lib_automerge.app.insights import report_html
from lib_automerge.app.plan import Plan
from lib_automerge.app.ports import LEFT_ALONE, Clock, Controls, Host, Listener
from lib_automerge.app.preflight import check_run, check_unchanged, open_models
from lib_automerge.app.runner import Runner
from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import AnyEvent, Origin
from lib_automerge.domain.recipe import primary
from lib_automerge.domain.run import Activity, RunState, Status
from lib_automerge.errors import ConfigError, StorageError
from lib_automerge.reward import panel
from lib_automerge.study.store import OwnedRun, RunFolder, RunManifest, check_new, list_runs

log = logging.getLogger(__name__)

PACKAGES = ("torch", "numpy", "scipy", "bayesian-optimization", "safetensors", "pillow")
"""What, besides the generator's own, decides the numbers of a run."""


def ignore(event: AnyEvent | Activity, state: RunState) -> None:
    """A listener that does nothing."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One run in a list. `state` is the journal's, with running or interrupted told apart.

    `noise` is the sentence of the calibration, `ended` why the search is over and what going on
    would probably have gained; None before.
    """

    path: str
    name: str
    state: str
    evaluations: int
    budget: int
    best: float | None
    better_parent: float | None
    verdict: str | None
    noise: str | None = None
    ended: str | None = None


class RunLog(logging.FileHandler):
    """`log.txt`: what cannot be logged, on a full disk say, must not disturb the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Leave the record out."""

    @classmethod
    @contextmanager
    def into(cls, path: Path) -> Iterator[None]:
        """Write what this package logs into a file."""
        handler = cls(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("lib_automerge")
        logger.addHandler(handler)
        level = logger.level
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.setLevel(level)
            logger.removeHandler(handler)
            handler.close()


class Service:
    """Starts, resumes and describes runs.

    Args:
        host: makes generators and rewards.
        clock: seconds since the epoch; goes into the journal.
    """

    def __init__(self, host: Host, clock: Clock = time.time) -> None:
        self._host = host
        self._clock = clock

    def start(
        self,
        config: RunConfig,
        folder: Path,
        *,
        controls: Controls = LEFT_ALONE,
        listener: Listener = ignore,
        notes: Sequence[str] = (),
    ) -> RunState:
        """Check a configuration, make its run folder and run it to its end.

        Nothing is written before every check has passed. `notes` are recorded with the run for its
        user to read.

        Raises:
            AutomergeError: a check failed (nothing was written), or the run failed (it can be
                resumed).
        """
        _check_asked(config, controls)
        check_new(folder)
        with open_models(config.models) as models:
            generator = self._host.generator(config.generator)
            threads = generator.fingerprint().get("threads")
            if threads is not None:
                # how a matrix product is cut decides its last bits: a resumed run cuts it alike
                frozen = msgspec.structs.replace(config.generator, threads=int(threads))
                config = msgspec.structs.replace(config, generator=frozen)
            checked = check_run(config, models, self._host, generator)
            with closing(panel.assemble(config.reward, self._host.reward)) as judges:
                manifest = RunManifest(
                    config=checked.config,
                    models=checked.models,
                    architecture=models[primary(models)].detection.architecture,
                    distances=checked.distances,
                    reward=judges.fingerprint,
                    generator=generator.fingerprint(),
                    versions=versions(),
                )
                manifest, begun = warm_start.begin(manifest, checked.sources)
                if controls.stop():
                    raise KeyboardInterrupt
                created = RunFolder.create(folder, manifest)
                with self._owned(created) as run:
                    told = (*notes, *begun)
                    runner = Runner(run, models, generator, judges, controls, listener, told)
                    return self._finish(runner, created)

    def resume(
        self, folder: Path, *, controls: Controls = LEFT_ALONE, listener: Listener = ignore
    ) -> RunState:
        """Take up a run where its journal ends; a finished run is returned as it is.

        Raises:
            AutomergeError: there is no run, it is running elsewhere, its journal is damaged, or
                its models, reward or backend are not what it began with.
        """
        found = RunFolder.open(folder)
        manifest = found.manifest()
        with self._owned(found) as run:
            state = RunState(run.journal.events)
            if state.status is Status.FINISHED:
                self._restore_views(found, manifest, state)
                return state
            _check_asked(manifest.config, controls)
            if state.started is not None and state.started.config != found.digest():
                raise ConfigError(
                    f"{found.path / 'run.json'} has been changed since the run began. Restore it, "
                    "or start a new run with the other configuration."
                )
            paths = {role: ref.path for role, ref in manifest.models.items()}
            with open_models(paths) as models:
                check_unchanged(manifest.models, models)
                generator = self._host.generator(manifest.config.generator)
                with closing(panel.assemble(manifest.config.reward, self._host.reward)) as judges:
                    if judges.fingerprint != manifest.reward:
                        raise ConfigError(_reward_changed(manifest.reward, judges.fingerprint))
                    now = {**versions(), **generator.fingerprint()}
                    notes = changes({**manifest.versions, **manifest.generator}, now)
                    runner = Runner(run, models, generator, judges, controls, listener, notes)
                    return self._finish(runner, found)

    def _restore_views(self, folder: RunFolder, manifest: RunManifest, state: RunState) -> None:
        """Write what can be folded from the journal again, should something have been lost."""
        outcome.write_best(folder, state)
        if state.verdict is not None:
            winner = state.evaluations[state.verdict.winner]
            outcome.write_outcome(folder, Plan(manifest).recipe(winner), state)
        if not folder.report.exists():
            self.report(folder.path)

    def _finish(self, runner: Runner, folder: RunFolder) -> RunState:
        try:
            return runner.run()
        finally:
            if runner.state.evaluations:
                try:
                    self.report(folder.path)
                except Exception:
                    # the run itself is safe, and how it ended matters more
                    log.exception("the report was not written")

    @contextmanager
    def _owned(self, folder: RunFolder) -> Iterator[OwnedRun]:
        """Hold the run, with its log going to `log.txt`."""
        with folder.owned(self._clock) as run, RunLog.into(folder.log):
            yield run

    def report(self, folder: Path) -> Path:
        """Write the run's `report.html` from its journal; returns its path."""
        found = RunFolder.open(folder)
        html = report_html(found)
        return found.write("report.html", html.encode())

    def status(self, folder: Path) -> Summary:
        """How a run stands, also while another process works on it."""
        return self._summary(RunFolder.open(folder))

    def runs(self, root: Path) -> list[Summary]:
        """The runs in a folder."""
        summaries = []
        for folder in list_runs(root):
            try:
                summaries.append(self._summary(folder))
            except StorageError as error:
                summaries.append(_damaged(folder, str(error)))
        return summaries

    def _summary(self, folder: RunFolder) -> Summary:
        manifest = folder.manifest()
        state = folder.state()
        status = state.status.value
        if state.status in (Status.STARTING, Status.UNFINISHED):
            status = "running" if folder.running() else "interrupted"
        parents = [e.score or 0.0 for e in state.baselines if e.origin is not Origin.HALF]
        incumbent = state.incumbent
        ended = state.search_ended
        return Summary(
            path=str(folder.path),
            name=manifest.config.name or folder.path.name,
            state=status,
            evaluations=len(state.history),
            budget=manifest.config.search.evaluations,
            best=incumbent.score if incumbent else None,
            better_parent=max(parents, default=None),
            verdict=state.verdict.sentence if state.verdict else None,
            noise=state.calibrated.sentence if state.calibrated else None,
            ended=f"{ended.reason}. {ended.outlook}".rstrip() if ended else None,
        )


def _check_asked(config: RunConfig, controls: Controls) -> None:
    """A run whose judge is a person needs one who can answer."""
    if config.reward.human is not None and controls.ask is None:
        raise ConfigError(
            f"the reward {config.reward.human.name!r} is you, and you are asked in the tab. Start "
            "or resume this run there, or use a learned reward."
        )


def _damaged(folder: RunFolder, reason: str) -> Summary:
    return Summary(
        path=str(folder.path),
        name=folder.path.name,
        state="damaged",
        evaluations=0,
        budget=0,
        best=None,
        better_parent=None,
        verdict=reason,
    )


def _reward_changed(was: str, now: str) -> str:
    """Why scores of the same images would be others now."""
    same, _, then = was.partition(panel.PROMPTS)
    if then and now.startswith(f"{same}{panel.PROMPTS}"):
        return (
            "this version of Automerge cleans prompts in another way than the one that began the "
            "run, so a reward would read other words. Go on with that version, or start a new run."
        )
    return (
        f"the reward has changed since the run began: it was {was}, it is {now}. Restore its "
        "weights, or start a new run."
    )


def changes(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Sentences about what decides the bits of images and is not as it was when the work began."""
    return [
        f"{name} has changed since the run began: it was {then[name]}, it is {now.get(name)}. New "
        "images may differ in their last bits from those already scored."
        for name in sorted(then)
        if now.get(name) != then[name]
    ]


def versions() -> dict[str, str]:
    """What is installed that decides the numbers of a run."""
    found = {"automerge": lib_automerge.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        found[name] = metadata.version(name)
    return found
