"""What changes something: starting, steering and ending runs, names, drafts and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from lib_automerge.api.http import Call, Refused
from lib_automerge.app.desk import Desk, Opened
from lib_automerge.app.question import Answer
from lib_automerge.domain.config import RunConfig, decode_config
from lib_automerge.errors import StorageError
from lib_automerge.reward import registry
from lib_automerge.reward.files import FOLDER
from lib_automerge.ui.form import Place, values_of

DTYPES = ("", "fp16", "bf16", "fp32")


class Actions:
    """Does what the buttons of the page say."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def start(self, call: Call) -> object:
        """Begin a run; the body is a configuration, its models by title or path."""
        return {"id": self._desk.start(self._config(call.body))}

    def preflight(self, call: Call) -> object:
        """What is wrong with a configuration; the body is one, its models by title or path."""
        found = self._desk.preflight(self._config(call.body))
        return {
            "ready": found.ready,
            "architecture": found.architecture,
            "checks": found.checks,
        }

    def pause(self, call: Call) -> object:
        """Pause the run after the evaluation in progress."""
        self._in_hand(call.run)
        self._desk.worker.pause()
        return {"id": call.run}

    def stop(self, call: Call) -> object:
        """Stop the run after the images in the air."""
        self._in_hand(call.run)
        self._desk.worker.stop()
        return {"id": call.run}

    def finish(self, call: Call) -> object:
        """End the search after the evaluation in progress, and prove the best."""
        self._in_hand(call.run)
        self._desk.worker.finish()
        return {"id": call.run}

    def judge(self, call: Call) -> object:
        """Answer what the run asks: the body's `question` and `value`; null takes back the last.

        `enough` ends the blind choices without a verdict; then there is no value.
        """
        self._in_hand(call.run)
        enough = call.body.get("enough", False)
        if not isinstance(enough, bool):
            raise Refused(400, f"the field 'enough' is {enough!r}. Send true or false.")
        value = None if enough else call.body.get("value", "")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise Refused(400, f"the field 'value' is {value!r}. Send a number or null.")
        answer = Answer(None if value is None else float(value), enough)
        self._desk.worker.questions.answer(call.text("question"), answer)
        return {"id": call.run}

    def resume(self, call: Call) -> object:
        """Take a run up again."""
        self._desk.resume(self._open(call).id)
        return {"id": call.run}

    def rename(self, call: Call) -> object:
        """Give a run another name; the body's `name`."""
        run = self._known(call.run)
        self._desk.library.rename(run, call.text("name"))
        return {"id": run}

    def delete(self, call: Call) -> object:
        """Move a run to the trash."""
        self._desk.library.trash(self._known(call.run))
        return {"id": call.run}

    def duplicate(self, call: Call) -> object:
        """Write a run's settings into the draft; `start` is an evaluation to begin at."""
        opened = self._open(call)
        config = opened.manifest.config
        start = call.number_or_none("start")
        if start is not None:
            evaluation = opened.state.evaluations.get(start)
            if evaluation is None:
                raise Refused(404, f"the run {opened.id} has no evaluation {start}.")
            search = msgspec.structs.replace(config.search, start=(evaluation.weights,))
            config = msgspec.structs.replace(config, search=search)
        catalogue = self._desk.catalogue
        place = Place(
            models=tuple(catalogue.models()),
            generator=catalogue.generator_name,
            data=catalogue.data,
            architecture=opened.manifest.architecture,
        )
        self._desk.save_draft(values_of(config, place))
        return {"id": opened.id}

    def save(self, call: Call) -> object:
        """Write a checkpoint in the background: `evaluation`, `name` and `dtype` of the body."""
        run = self._open(call).id
        evaluation, name = call.number_or_none("evaluation"), call.text("name", "")
        dtype = call.text("dtype", "")
        if dtype not in DTYPES:
            raise Refused(400, f"the precision {dtype[:20]!r} is unknown. Use fp16, bf16 or fp32.")
        # what can be wrong is said now, not in the background
        self._desk.checkpoint_path(run, evaluation, name)
        desk = self._desk
        self._desk.saver.begin(
            run, lambda: desk.save_checkpoint(run, evaluation, name, dtype or None)
        )
        return {"id": run}

    def download(self, call: Call) -> object:
        """Begin to download what a reward lacks; `GET rewards` tells how far it is."""
        self._desk.downloads.start(call.path["reward"])
        return self._desk.downloads.snapshot()

    def cancel_download(self, _call: Call) -> object:
        """End the download in progress; what there is of the file is kept."""
        self._desk.downloads.cancel()
        return self._desk.downloads.snapshot()

    def _config(self, body: Mapping[str, Any]) -> RunConfig:
        """A configuration whose models are among those that are offered here.

        A request must not make this process open other files as checkpoints.
        """
        config = decode_config({"generator": {"name": self._desk.catalogue.generator_name}, **body})
        offered = self._desk.catalogue.models()
        known = {m.title: m.path for m in offered} | {m.path: m.path for m in offered}
        unknown = [value for value in config.models.values() if value not in known]
        if unknown:
            raise Refused(
                400, f"there is no model {unknown[0][:200]!r} here. `GET models` lists them."
            )
        models = {role: known[value] for role, value in config.models.items()}
        if config.output.path is not None:
            raise Refused(400, "output.path cannot be chosen over the routes. Leave it out.")
        self._check_files(config)
        search = msgspec.structs.replace(
            config.search, warm_start=tuple(map(self._run_folder, config.search.warm_start))
        )
        return msgspec.structs.replace(config, models=models, search=search)

    def _run_folder(self, run: str) -> str:
        """The folder of a run to learn from; requests name no other files."""
        try:
            return str(self._desk.library.find(run).folder.path)
        except StorageError as error:
            raise Refused(
                400,
                f"search.warm_start names {run[:200]!r}, which is no run here. Over the routes it "
                "takes the ids of runs; `GET runs` lists them.",
            ) from error

    def _check_files(self, config: RunConfig) -> None:
        """Refuse files for the reward that the user did not put where such files belong."""
        folder = self._desk.catalogue.data / FOLDER
        for member in config.reward.judges:
            for name in registry.paths(member.name):
                value = member.options.get(name)
                if value is not None and Path(str(value)).resolve().parent != folder.resolve():
                    raise Refused(
                        400,
                        f"the option {name} of the reward {member.name} must be a file in "
                        f"{folder}. Put it there.",
                    )

    def _in_hand(self, run: str) -> None:
        busy = self._desk.worker.busy_with()
        if busy is None or busy.name != run:
            raise Refused(409, f"the run {run} is not in progress: there is nothing to end.")

    def _open(self, call: Call) -> Opened:
        try:
            return self._desk.open(call.run)
        except StorageError as error:
            raise Refused(404, str(error)) from error

    def _known(self, run: str) -> str:
        """The id, if there is such a run, damaged or not."""
        try:
            return self._desk.library.find(run).id
        except StorageError as error:
            raise Refused(404, str(error)) from error
