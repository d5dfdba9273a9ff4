"""The files of a run: pictures, report, recipe, journal, scores and everything in a zip.

Nothing here joins text from outside to a path: pictures are found by their numbers in the journal,
all else has fixed names.
"""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

from PIL import Image
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response

from lib_automerge.api.http import Call, Refused
from lib_automerge.app.desk import Desk, Opened
from lib_automerge.app.insights import report_html
from lib_automerge.domain import weights
from lib_automerge.domain.blind import SIDES, Trial
from lib_automerge.domain.events import Stage
from lib_automerge.domain.infotext import infotext_of
from lib_automerge.domain.recipe import recipe_json
from lib_automerge.errors import AutomergeError, StorageError
from lib_automerge.study.store import RunFolder

EDGE = 256
"""The longest edge of a thumbnail, in pixels."""

KEPT = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}
"""Pictures never change under their address; nothing in them may be run."""

IMAGE_KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Files:
    """Hands out files of the desk's runs."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def image(self, call: Call) -> Response:
        """A picture in full size."""
        path = self._picture(call)
        return FileResponse(path, media_type=_kind(path), headers=KEPT)

    def thumb(self, call: Call) -> Response:
        """A picture with a longest edge of 256 pixels, made at the first request."""
        path = self._picture(call)
        number, stage, job = call.part("evaluation"), call.path["stage"], call.part("job")
        folder = self._open(call).path / "thumbs"
        thumb = folder / f"e{number:04d}-{stage}-{job:04d}.webp"
        if not thumb.is_file():
            try:
                _shrink(path, thumb)
            except OSError:
                # a full disk or a damaged picture: the picture itself says more than an error
                return FileResponse(path, media_type=_kind(path), headers=KEPT)
        return FileResponse(thumb, media_type="image/webp", headers=KEPT)

    def pair(self, call: Call) -> Response:
        """One picture of the blind choice that is asked now; nothing in the answer tells whose."""
        trial = self._desk.worker.questions.question
        busy = self._desk.worker.busy_with()
        mine = busy is not None and busy.name == call.run
        side = call.path["side"]
        if not mine or not isinstance(trial, Trial) or side not in SIDES:
            raise Refused(404, "no such choice is asked.")
        if trial.key != call.path["question"]:
            raise Refused(404, "this choice is not asked any longer.")
        try:
            path = self._desk.image(call.run, trial.shown(side), Stage.VERDICT, trial.job)
            picture = path.read_bytes()
        except (StorageError, OSError):
            # the error itself names the evaluation
            raise Refused(404, "the file of this picture is gone.") from None
        # no file's date: the merge's pictures are older than the baselines'
        return Response(picture, media_type=_kind(path), headers=KEPT)

    def report(self, call: Call) -> Response:
        """The report, drawn afresh: a file could have come from somebody else."""
        return HTMLResponse(report_html(RunFolder.open(self._open(call).path)))

    def recipe(self, call: Call) -> Response:
        """The recipe of an evaluation, the winner's by default."""
        opened = self._open(call)
        text = recipe_json(self._desk.recipe(opened.id, call.whole("evaluation")))
        return _attachment(text, f"{opened.id}-recipe.json", "application/json")

    def weights(self, call: Call) -> object:
        """The weights of an evaluation in every order that fits its architecture."""
        found = self._desk.recipe(self._open(call).id, call.whole("evaluation"))
        about = weights.orders()
        return {
            "weights": found.weights,
            "orders": [
                {
                    "name": order,
                    "about": about[order],
                    "text": weights.format(found.weights, order),
                    "lost": []
                    if order == weights.NAMED
                    else sorted(weights.lost(found.weights, order)),
                }
                for order in weights.fitting(found.architecture)
            ],
        }

    def infotext(self, call: Call) -> object:
        """A payload as the WebUI writes it into pictures; the query names it and the seed."""
        wanted = call.query.get("payload", "")
        for payload in self._open(call).manifest.config.payloads:
            if payload.name == wanted:
                seed = call.whole("seed")
                return {
                    "infotext": infotext_of(
                        payload, (payload.seeds or (0,))[0] if seed is None else seed
                    )
                }
        raise Refused(404, "the run has no payload of this name.")

    def journal(self, call: Call) -> Response:
        """The journal as it is."""
        return self._file(call, "journal.jsonl", "application/x-ndjson")

    def log(self, call: Call) -> Response:
        """The log as it is."""
        return self._file(call, "log.txt", "text/plain; charset=utf-8")

    def csv(self, call: Call) -> Response:
        """Every evaluation with its scores and weights, a row each."""
        opened = self._open(call)
        return _attachment(_csv(opened), f"{opened.id}.csv", "text/csv; charset=utf-8")

    def export(self, call: Call) -> Response:
        """A zip of the run's folder without checkpoints; made in a temporary file, then sent."""
        # a damaged run cannot be opened, but exported
        run = call.run
        with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as file:
            target = Path(file.name)
        try:
            self._desk.library.export(run, target)
        except AutomergeError as error:
            target.unlink(missing_ok=True)
            raise Refused(404, str(error)) from error
        return FileResponse(
            target,
            media_type="application/zip",
            filename=f"{run}.zip",
            background=BackgroundTask(target.unlink, missing_ok=True),
        )

    def _open(self, call: Call) -> Opened:
        try:
            return self._desk.open(call.run)
        except StorageError as error:
            raise Refused(404, str(error)) from error

    def _picture(self, call: Call) -> Path:
        try:
            stage = Stage(call.path["stage"])
        except ValueError:
            known = ", ".join(s.value for s in Stage)
            raise Refused(404, f"there is no such stage. Known: {known}.") from None
        try:
            path = self._desk.image(call.run, call.part("evaluation"), stage, call.part("job"))
        except StorageError as error:
            raise Refused(404, str(error)) from error
        if path.suffix not in IMAGE_KINDS:
            raise Refused(404, "this file is no picture.")
        return path

    def _file(self, call: Call, name: str, kind: str) -> Response:
        opened = self._open(call)
        path = opened.path / name
        if not path.is_file():
            raise Refused(404, f"the run {opened.id} has no {name} yet.")
        return FileResponse(path, media_type=kind, filename=f"{opened.id}-{name}")


def _kind(path: Path) -> str:
    return IMAGE_KINDS[path.suffix]


def _shrink(path: Path, thumb: Path) -> None:
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OSError(str(error)) from error
    image.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    thumb.parent.mkdir(exist_ok=True)
    # two requests for one thumbnail may come at once: each writes its own, the last one stays
    with tempfile.NamedTemporaryFile(dir=thumb.parent, suffix=".partial", delete=False) as file:
        partial = Path(file.name)
        try:
            image.save(file, "WEBP", quality=82, method=2)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    partial.replace(thumb)


def _attachment(text: str, name: str, kind: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return PlainTextResponse(text, media_type=kind, headers=headers)


def _csv(opened: Opened) -> str:
    history = opened.state.history
    blocks = list(dict.fromkeys(b for e in history for b in e.weights))
    payloads = [p.name for p in opened.manifest.config.payloads if not p.held_out]
    stream = io.StringIO()
    writer = csv.writer(stream)
    fixed = ["evaluation", "origin", "score", "standard_error", "images", "rejected", "seconds"]
    heads = [*fixed, *(f"score {name}" for name in payloads), *(f"weight {b}" for b in blocks)]
    writer.writerow([_plain(h) for h in heads])
    for e in history:
        row: list[object] = [e.number, e.origin.value, e.score, e.standard_error, e.images]
        row += [e.rejected or "", e.seconds.get("total", "")]
        row += [e.per_payload.get(name, "") for name in payloads]
        row += [e.weights.get(block, "") for block in blocks]
        writer.writerow([_plain(c) if isinstance(c, str) else c for c in row])
    return stream.getvalue()


def _plain(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text
