"""The user's desk: all that the tab, the routes and the stand-alone page do, behind one object."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from lib_automerge.app import checks, outcome, wildcards
from lib_automerge.app.checkpoint_names import checkpoint_name, new_checkpoint
from lib_automerge.app.checks import Level, Preflight
from lib_automerge.app.digests import Digests
from lib_automerge.app.downloads import Downloads
from lib_automerge.app.draft import Draft
from lib_automerge.app.estimate import Forecast, forecast, mean_work
from lib_automerge.app.lab import Lab
from lib_automerge.app.lab_orders import Order
from lib_automerge.app.plan import Plan
from lib_automerge.app.ports import Catalogue, Host
from lib_automerge.app.saver import Saver
from lib_automerge.app.service import Service
from lib_automerge.app.try_rewards import RewardTry
from lib_automerge.app.worker import Phase, Snapshot, Worker
from lib_automerge.domain.config import RewardConfig, RunConfig
from lib_automerge.domain.events import Stage
from lib_automerge.domain.payload import ImageJob, Payload
from lib_automerge.domain.recipe import Recipe, primary
from lib_automerge.domain.run import RunState, Status
from lib_automerge.errors import BusyError, ConfigError, StorageError
from lib_automerge.merge.files import merge_files
from lib_automerge.reward.files import FOLDER
from lib_automerge.study.findings import contest
from lib_automerge.study.library import Entry, Library
from lib_automerge.study.payload_sets import PayloadSets
from lib_automerge.study.store import RunManifest


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A run to look at: `state` is a copy, `live` tells whether it is the one in hand."""

    id: str
    name: str
    path: Path
    manifest: RunManifest
    state: RunState
    live: bool

    @property
    def status(self) -> str:
        """In the words of the vocabulary: a run that nobody works on is interrupted."""
        if self.live:
            return "running"
        if self.state.status in (Status.STARTING, Status.UNFINISHED):
            return "interrupted"
        return str(self.state.status.value)


class Desk:
    """Runs, payload sets, draft and worker of one user.

    Args:
        host: makes generators and rewards.
        catalogue: what the host has to choose from.
        worker: runs the runs; None makes one.
    """

    def __init__(self, host: Host, catalogue: Catalogue, worker: Worker | None = None) -> None:
        self.catalogue = catalogue
        self.service = Service(host)
        self.worker = worker or Worker(self.service)
        self.library = Library(catalogue.data / "runs")
        self.sets = PayloadSets(catalogue.data / "payloads")
        self.saver = Saver()
        self.downloads = Downloads(catalogue.data / FOLDER)
        self.reward_try = RewardTry(host, [catalogue.data / FOLDER])
        self._host = host
        self.digests = Digests(catalogue.data / "digests.json")
        self.lab = Lab(
            host,
            catalogue.generator_name,
            catalogue.data / "lab",
            self.digests,
            around=self.worker.around,
        )
        self.lab_draft = Draft(catalogue.data / "lab.json")
        self._starting = threading.Lock()
        self._draft = Draft(catalogue.data / "draft.json")

    # --- before a run ---------------------------------------------------------------------------

    def preflight(self, config: RunConfig) -> Preflight:
        """Everything that is wrong with a configuration, quickly; see `app.checks`."""
        return checks.preflight(
            config,
            self._host,
            self.catalogue,
            free_space=self.library.free_space(),
            root=self.library.root,
        )

    def forecast(self, config: RunConfig) -> Forecast:
        """How long a configuration takes, by the pace of the latest run on this host."""
        for entry in self.entries()[:20]:
            if entry.manifest is None or entry.state is None:
                continue
            if entry.manifest.config.generator.name != config.generator.name:
                continue
            history = [e for e in entry.state.history if e.images and e.seconds.get("total")]
            images = sum(e.images for e in history)
            if images:
                each = sum(e.seconds["total"] for e in history) / images
                work = mean_work(entry.manifest.config.payloads)
                return forecast(config, each / work * mean_work(config.payloads))
        return forecast(config, None)

    def try_rewards(self, config: RewardConfig, image: Path, prompt: str) -> None:
        """Have rewards judge one image; returns at once, `reward_try` tells what they say.

        Raises:
            BusyError: a run or a merge is in hand, which needs the device, or a try is in progress.
            ConfigError: as `RewardTry.start`.
        """
        busy = self.worker.busy_with()
        if busy is not None:
            raise BusyError(
                f"the run {busy.name} is in progress and needs the machine. Test an image when it "
                "is over or paused."
            )
        self._check_no_merge()
        self.reward_try.start(config, image, prompt)

    def _check_free(self) -> None:
        busy = self.worker.busy_with()
        if busy is not None:
            raise BusyError(f"the run {busy.name} is in progress. Pause or stop it first.")
        self._check_no_other()

    def _check_no_other(self) -> None:
        if self.reward_try.snapshot().running:
            raise BusyError("an image is being judged by the rewards. Wait until it is done.")
        self._check_no_merge()

    def _check_no_merge(self) -> None:
        if self.lab.snapshot().working:
            raise BusyError("the merge lab is at work. Wait until it is done, or cancel it there.")

    def draft(self) -> dict[str, object]:
        """The form as it was left; empty if there is none."""
        return self._draft.read()

    def save_draft(self, values: dict[str, object]) -> None:
        """Keep the form for the next visit.

        Raises:
            StorageError: it could not be written.
        """
        self._draft.save(values)

    # --- the merge lab --------------------------------------------------------------------------

    def merge(self, order: Order) -> None:
        """Begin to save a merge of the lab; returns at once, `lab` tells how far it is.

        Raises:
            BusyError: a run is in hand, rewards judge an image, or the lab is at work.
        """
        with self._starting:
            self._check_free()
            self.lab.save(order)

    def resume_merge(self, number: int) -> None:
        """Go on with an unfinished merge of the lab, by its number; see `merge`.

        Raises:
            BusyError: as `merge`.
            ConfigError: there is nothing to go on with.
        """
        with self._starting:
            self._check_free()
            self.lab.resume(number)

    def preview_merge(self, order: Order, payload: Payload) -> None:
        """Begin to make one image of a merge of the lab, with the payload's first seed.

        Raises:
            BusyError: as `merge`.
            ConfigError: the payload cannot be honoured here.
        """
        self._host.check_payload(payload)
        alone = RunConfig(models={}, payloads=(payload,))
        payload = wildcards.expand(alone, self.catalogue.wildcards)[0].payloads[0]
        with self._starting:
            self._check_free()
            self.lab.preview(order, ImageJob(0, payload, (payload.seeds or (0,))[0]))

    # --- runs -----------------------------------------------------------------------------------

    def start(self, config: RunConfig) -> str:
        """Begin a run in a new folder; returns its id at once.

        Raises:
            ConfigError: the preflight found an error; the text is the first one.
            BusyError: a run is in hand, rewards judge an image, or the merge lab is at work.
        """
        self._check_free()
        for check in self.preflight(config).checks:
            if check.level is Level.ERROR:
                raise ConfigError(check.text)
        config, notes = wildcards.expand(config, self.catalogue.wildcards)
        folder = self.library.new_folder()
        with self._starting:
            self._check_free()
            self.worker.start(self._with_output(config, folder.name), folder, notes)
        return folder.name

    def _with_output(self, config: RunConfig, run: str) -> RunConfig:
        """Have the run's checkpoint written where the host offers it."""
        if config.output.path is not None:
            return config
        model_a, *others = [Path(path) for _, path in sorted(config.models.items())]
        name = checkpoint_name(run, [model_a.stem, *(other.stem for other in others)])
        path = self.catalogue.checkpoint_folder(model_a) / f"{name}.safetensors"
        output = msgspec.structs.replace(config.output, path=str(path))
        return msgspec.structs.replace(config, output=output)

    def resume(self, run: str) -> None:
        """Take a run up again; returns at once.

        Raises:
            StorageError: there is no such run, or another process works on it.
            BusyError: a run is in hand, rewards judge an image, or the merge lab is at work.
        """
        entry = self.library.find(run)
        if self.worker.busy_with() is None and entry.folder.running():
            raise StorageError(f"another process works on the run {run}. Stop it there first.")
        with self._starting:
            self._check_no_other()
            self.worker.resume(entry.folder.path)

    def open(self, run: str) -> Opened:
        """A run to look at, also while it goes on.

        Raises:
            StorageError: there is no such run, or it is damaged.
        """
        busy = self.worker.busy_with()
        live = busy is not None and busy.name == run
        entry = self.library.find(run, self.worker.snapshot().state if live else None)
        if entry.manifest is None or entry.state is None:
            raise StorageError(entry.problem)
        return Opened(
            id=entry.id,
            name=entry.name,
            path=entry.folder.path,
            manifest=entry.manifest,
            state=entry.state.copy(),
            live=live,
        )

    def entries(self, snapshot: Snapshot | None = None) -> list[Entry]:
        """All runs, the newest first; the one in hand as the worker (or its snapshot) knows it."""
        seen = snapshot or self.worker.snapshot()
        if seen.phase is Phase.IDLE or seen.folder is None or seen.state is None:
            return self.library.entries()
        return self.library.entries({seen.folder: seen.state})

    def image(self, run: str, evaluation: int, stage: Stage, job: int) -> Path:
        """The file of an image that the run's journal names.

        Raises:
            StorageError: it names none for this job, or one that is gone or outside the folder.
        """
        opened = self.open(run)
        scored = opened.state.scores.get((stage, evaluation), {}).get(job)
        if scored is not None:
            # a journal may come from somebody else: what it names must lie in its own folder
            path = (opened.path / scored.file).resolve()
            if path.is_relative_to(opened.path.resolve()) and path.is_file():
                return path
        raise StorageError(
            f"the run {run} has no image {job} of evaluation {evaluation} ({stage.value})."
        )

    def recipe(self, run: str, evaluation: int | None = None) -> Recipe:
        """The recipe of an evaluation; None: the proved winner, or the best so far.

        Raises:
            StorageError: there is no such run.
            ConfigError: there is no such evaluation, or none is finished yet.
        """
        opened = self.open(run)
        state = opened.state
        if evaluation is None:
            shown = contest(state).merge or state.incumbent
            if state.verdict is not None:
                evaluation = state.verdict.winner
            elif shown is not None:
                evaluation = shown.number
            else:
                raise ConfigError(f"the run {run} has no finished evaluation yet. Wait for one.")
        if evaluation not in state.evaluations:
            raise ConfigError(f"the run {run} has no evaluation {evaluation}.")
        found = state.evaluations[evaluation]
        recipe = Plan(opened.manifest).recipe(found)
        provenance: dict[str, object] = {
            "run": run,
            "evaluation": evaluation,
            "search_score": found.score,
        }
        if state.verdict is not None and state.verdict.winner == evaluation:
            provenance |= {"verdict": state.verdict.sentence, "gain": state.verdict.gain}
        return msgspec.structs.replace(recipe, provenance=provenance)

    def save_checkpoint(
        self, run: str, evaluation: int | None, name: str, dtype: str | None
    ) -> Path:
        """Merge an evaluation into a checkpoint that the host offers; returns its path.

        The host's configuration file of model A (`A.yaml`) is copied for it, if there is one.

        Args:
            run: its id.
            evaluation: None for the winner, or the best so far.
            name: of the file, without ending; empty names it after the models, the run and the
                evaluation.
            dtype: "fp16", "bf16", "fp32", or None to keep each tensor's own.

        Raises:
            ConfigError: the name cannot be a file name, or there is nothing to save.
            StorageError: a file of that name exists, or it cannot be written.
            ModelError: a model has changed since the run.
        """
        recipe = self.recipe(run, evaluation)
        path = merge_files(recipe, self.checkpoint_path(run, evaluation, name), dtype=dtype)
        outcome.copy_host_config(Path(recipe.models[primary(recipe.models)].path), path)
        return path

    def checkpoint_path(self, run: str, evaluation: int | None, name: str) -> Path:
        """Where `save_checkpoint` would write.

        Raises:
            ConfigError: as `save_checkpoint`.
            StorageError: a file of that name exists.
        """
        recipe = self.recipe(run, evaluation)
        folder = self.catalogue.checkpoint_folder(Path(recipe.models[primary(recipe.models)].path))
        return new_checkpoint(folder, name.strip() or _default_name(run, recipe))


def _default_name(run: str, recipe: Recipe) -> str:
    models = [Path(ref.path).stem for _, ref in sorted(recipe.models.items())]
    return checkpoint_name(run, models, f"-e{recipe.provenance['evaluation']}")
