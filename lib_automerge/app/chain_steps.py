"""The work of a chain's steps: a merge of the lab, and a search between two models."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from lib_automerge.app.chain_models import ChainModels
from lib_automerge.app.chain_plan import ChainPlan
from lib_automerge.app.chain_record import ChainRecord
from lib_automerge.app.evaluate import StopRequested
from lib_automerge.app.ports import Controls
from lib_automerge.app.service import Service
from lib_automerge.domain import architectures
from lib_automerge.domain.chain import MergeStep, SearchStep, TreeStep
from lib_automerge.domain.chain_events import Decided, Made
from lib_automerge.domain.events import BASELINES, PARENTS, Origin, Stage
from lib_automerge.domain.recipe import ModelRef, Recipe, read_recipe, recipe_json
from lib_automerge.domain.run import RunState, Status, best
from lib_automerge.errors import CancelledError, ConfigError, RunFailedError, StorageError
from lib_automerge.generate.base import StopFlag
from lib_automerge.merge.files import merge_files
from lib_automerge.merge.inspection import scan
from lib_automerge.merge.lab.files import LabOptions
from lib_automerge.merge.lab.recipes import recipe_for
from lib_automerge.merge.lookup import sha256
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.study.chain_store import ChainFolder
from lib_automerge.study.store import RunFolder

RUN = "run.json"
"""The file by which a folder is known to be a run's."""

_ROLES = {Origin.MODEL_A: "a", Origin.MODEL_B: "b", Origin.HALF: "half"}


class Workshop:
    """Makes checkpoints, each with its recipe.

    Args:
        folder: of the chain.
        plan: of the chain.
        record: takes every event.
        models: finds the files.
        service: starts and resumes runs.
        stop: asked all the time.
    """

    def __init__(
        self,
        folder: ChainFolder,
        plan: ChainPlan,
        record: ChainRecord,
        models: ChainModels,
        service: Service,
        stop: StopFlag,
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._record = record
        self._models = models
        self._service = service
        self._stop = stop

    def merge(self, step: MergeStep, place: Path) -> None:
        """Carry out a merge of the lab, unless it is there; the model has the name of the step.

        Args:
            step: what to merge.
            place: folder for the file.

        Raises:
            StopRequested: the user asked; what is finished of the file is kept.
            AutomergeError: as `merge_files`.
        """
        state = self._record.state
        if step.name in state.made:
            return
        began = time.perf_counter()
        names = self._plan.models(step.models, state)
        base = None if step.base is None else self._plan.models((step.base,), state)[0]
        self._record.watch.doing(f"merging {len(names)} models by {step.method}")
        recipe = recipe_for(
            step.method,
            [self._models.ref(name) for name in names],
            None if base is None else self._models.ref(base),
            step.parameters,
            architecture=self._plan.manifest.architecture,
            dtype=step.dtype,
        )
        path = place / f"{step.name}.safetensors"
        # whole, but not journalled: its SHA-256 is not known, so it is made again
        path.unlink(missing_ok=True)
        try:
            self._merged(recipe, path)
        except CancelledError as error:
            raise StopRequested from error
        self._made(step.name, step.name, path, recipe, time.perf_counter() - began)

    def _merged(self, recipe: Recipe, path: Path) -> None:
        """Merge, from where a stopped or killed process left off if that can be taken up."""
        options = LabOptions(
            progress=self._record.watch.merging,
            cancelled=self._stop,
            tell=self._record.warn,
        )
        if path.with_name(f".{path.name}.partial").exists():
            try:
                merge_files(recipe, path, lab=msgspec.structs.replace(options, resume=True))
                return
            except ConfigError:
                # of another version, or cut off before its journal: made from the beginning
                path.with_name(f".{path.name}.partial").unlink(missing_ok=True)
        merge_files(recipe, path, lab=options)

    def search(
        self,
        step: SearchStep | TreeStep,
        roles: Mapping[str, str],
        place: Path,
        model: str,
        level: int | None = None,
    ) -> Decided:
        """Search between two models, unless it is decided; returns what the search hands on.

        Args:
            step: how to search.
            roles: "a", "b" (and "c") -> model.
            place: the run's folder.
            model: name of the merge, should it be proved better.
            level: of a tree.

        Raises:
            StopRequested: the user asked; the run is stopped and can be resumed.
            AutomergeError: as `Service.start` and `Service.resume`.
        """
        a, b = roles["a"], roles["b"]
        known = self._record.state.decided.get((step.name, a, b))
        if known is not None:
            return known
        run = place.relative_to(self._folder.path).as_posix()
        why = self._nothing_to_search(roles, place)
        if why is not None:
            decided = Decided(
                step=step.name, run="", a=a, b=b, model=a, gain=False, sentence=why, level=level
            )
        else:
            try:
                state = self._run(step, roles, place)
                decided = self._decision(step.name, run, roles, state, model, level)
            except RunFailedError as error:
                whole = self._whole_one(roles, place)
                if whole is None:
                    raise
                said = f"{error} So {whole} goes on."
                decided = Decided(
                    step=step.name,
                    run=run,
                    a=a,
                    b=b,
                    model=whole,
                    gain=False,
                    sentence=said,
                    level=level,
                )
        self._record.add(decided)
        return decided

    def _nothing_to_search(self, roles: Mapping[str, str], place: Path) -> str | None:
        """Why two models need no run; None if they do, or if one has begun."""
        a, b = roles["a"], roles["b"]
        if a == b:
            return f"Both models are {a}: there is nothing to search."
        if (place / RUN).is_file():
            return None
        architecture = architectures.get(self._plan.manifest.architecture)
        with (
            open_checkpoint(Path(self._models.ref(a).path)) as one,
            open_checkpoint(Path(self._models.ref(b).path)) as two,
        ):
            if any(scan(one, two, architecture.blocks).values()):
                return None
        return f"{a} and {b} hold the same weights: there is nothing to search, and {a} goes on."

    def _run(self, step: SearchStep | TreeStep, roles: Mapping[str, str], place: Path) -> RunState:
        paths = {role: self._models.ref(name).path for role, name in roles.items()}
        name = f"{step.name}: {roles['a']} × {roles['b']}"
        config = self._plan.config.run(paths, step, name)
        listener = self._record.watch.run(name, config)
        controls = Controls(stop=self._stop)
        if (place / RUN).is_file():
            state = self._service.resume(place, controls=controls, listener=listener)
        else:
            # killed before its configuration was written: nothing of it is known
            shutil.rmtree(place, ignore_errors=True)
            try:
                state = self._service.start(config, place, controls=controls, listener=listener)
            except KeyboardInterrupt as error:
                if self._stop():
                    raise StopRequested from error
                raise
        if state.status is not Status.FINISHED:
            raise StopRequested
        return state

    def _whole_one(self, roles: Mapping[str, str], place: Path) -> str | None:
        """The model of a failed run that is left if only the other one makes broken images."""
        state = RunFolder(place).state()
        broken = set()
        for parent in filter(None, map(state.baseline, PARENTS)):
            images = state.scores.get((Stage.SEARCH, parent.number), {})
            if any(image.broken is not None for image in images.values()):
                broken.add(_ROLES[parent.origin])
        return {frozenset("a"): roles["b"], frozenset("b"): roles["a"]}.get(frozenset(broken))

    def _decision(
        self,
        step: str,
        run: str,
        roles: Mapping[str, str],
        state: RunState,
        model: str,
        level: int | None,
    ) -> Decided:
        """What a finished run hands on: its merge only if that is proved better."""
        verdict = state.verdict
        told = f"{roles['a']} (A) and {roles['b']} (B)"
        if verdict is not None and verdict.gain:
            self._take(step, run, state, model)
            chosen, said = model, f"{told}: {verdict.sentence}"
        else:
            parents = [e for e in map(state.baseline, PARENTS) if e is not None]
            better = best(parents)
            origin = verdict.better_parent if verdict is not None else None
            if origin is None:
                origin = Origin.MODEL_A if better is None else better.origin
            chosen = roles[_ROLES[origin]]
            why = verdict.sentence if verdict is not None else "The search had no candidate."
            said = f"{told}: {why} So the better of the two goes on, {chosen}."
        means: dict[str, float] = {}
        if verdict is not None:
            by_number = {e.number: _ROLES[e.origin] for e in state.history if e.origin in BASELINES}
            means = {by_number.get(n, "merge"): mean for n, mean in verdict.means.items()}
        return Decided(
            step=step,
            run=run,
            a=roles["a"],
            b=roles["b"],
            model=chosen,
            gain=chosen == model,
            sentence=said,
            means=means,
            level=level,
        )

    def _take(self, step: str, run: str, state: RunState, model: str) -> None:
        """Make the checkpoint of a run a model of the chain."""
        if model in self._record.state.made:
            return
        place = self._folder.path / run
        recipe = read_recipe(place / "recipe.json")
        path = place / ("merged.safetensors" if state.saved is None else state.saved.file)
        if state.saved is None or not path.exists():
            # the run could not save it, when the disk was full say
            path.unlink(missing_ok=True)
            merge_files(recipe, path)
        self._made(step, model, path, recipe, 0.0)

    def _made(self, step: str, model: str, path: Path, recipe: Recipe, seconds: float) -> None:
        name = f"recipes/{model}.json"
        self._folder.write(name, recipe_json(recipe).encode())
        inside = path.relative_to(self._folder.path).as_posix()
        ref = ModelRef(path.stem, sha256(path), inside)
        self._record.add(Made(step=step, model=model, ref=ref, recipe=name, seconds=seconds))
        self._models.trusted(model)

    def remove(self, model: str) -> Path:
        """Delete the checkpoint of a model that the chain made.

        Raises:
            StorageError: it cannot be deleted.
        """
        path = self._folder.path / self._record.state.made[model].ref.path
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot remove {path}: {error.strerror}.") from error
        return path
