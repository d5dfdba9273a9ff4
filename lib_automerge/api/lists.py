"""What there is to choose from and to look at, as JSON for programs."""

from __future__ import annotations

import msgspec

from lib_automerge.api.http import Call, Refused
from lib_automerge.app.desk import Desk
from lib_automerge.app.standing import run_standing, state_word
from lib_automerge.domain.run import Evaluation
from lib_automerge.errors import ConfigError
from lib_automerge.merge.lab import catalogue
from lib_automerge.reward import registry
from lib_automerge.reward.files import FOLDER
from lib_automerge.reward.status import status


class Lists:
    """What there is: runs, models, methods, rewards, payload sets."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def runs(self, _call: Call) -> object:
        """All runs, the newest first."""
        snapshot = self._desk.worker.snapshot()
        found: list[object] = []
        for entry in self._desk.entries(snapshot):
            if entry.manifest is None or entry.state is None:
                problem = {"id": entry.id, "name": entry.name, "state": "damaged"}
                found.append(problem | {"problem": entry.problem})
            else:
                found.append(run_standing(entry, snapshot, 0.0))
        return {"runs": found}

    def run(self, call: Call) -> object:
        """One run with its configuration, baselines, best and verdict."""
        wanted = call.run
        snapshot = self._desk.worker.snapshot()
        for entry in self._desk.entries(snapshot):
            if entry.id != wanted:
                continue
            if entry.manifest is None or entry.state is None:
                raise Refused(404, f"the run {wanted} is damaged: {entry.problem}")
            standing = run_standing(entry, snapshot, 0.0)
            return {
                "run": standing,
                "state": state_word(entry, snapshot),
                "manifest": entry.manifest,
                "evaluations": [_brief(e) for e in entry.state.history],
                "verdict": entry.state.verdict,
                "saved": entry.state.saved,
                "warnings": entry.state.warnings,
            }
        raise Refused(404, f"there is no run {wanted!r}. It may have been moved to the trash.")

    def models(self, _call: Call) -> object:
        """The checkpoints that a run can be started with."""
        return {
            "models": [model.title for model in self._desk.catalogue.models()],
            "loaded": self._desk.catalogue.loaded_model(),
        }

    def methods(self, _call: Call) -> object:
        """The merge methods, with the models that each needs."""
        found = [catalogue.get(name) for name in catalogue.names()]
        return {
            "methods": [
                {
                    "name": method.name,
                    "roles": method.roles,
                    "based": method.based,
                    "minimum": method.minimum,
                    "weight": method.weight,
                    "parameters": msgspec.to_builtins(method.parameters),
                }
                for method in found
            ]
        }

    def rewards(self, _call: Call) -> object:
        """The rewards with their options, whether they are ready, and the latest download."""
        folders = [self._desk.catalogue.data / FOLDER]
        found = [status(name, folders=folders) for name in registry.names()]
        return {
            "rewards": [
                {
                    **msgspec.to_builtins(one),
                    "options": [option.name for option in registry.describe(one.name).options],
                }
                for one in found
            ],
            "download": self._desk.downloads.snapshot(),
        }

    def payload_sets(self, _call: Call) -> object:
        """The payload sets with how many prompts each has."""
        found: list[dict[str, object]] = []
        for name in self._desk.sets.names():
            try:
                one = self._desk.sets.get(name)
            except ConfigError as error:
                found.append({"name": name, "problem": str(error)})
                continue
            found.append({"name": name, "note": one.note, "payloads": len(one.payloads)})
        return {"payload_sets": found}


def _brief(evaluation: Evaluation) -> dict[str, object]:
    fields = ("number", "origin", "score", "standard_error", "images", "rejected", "weights")
    raw: dict[str, object] = msgspec.to_builtins(evaluation)
    return {name: raw[name] for name in fields}
