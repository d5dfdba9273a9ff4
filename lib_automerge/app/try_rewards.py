"""One image judged by the rewards of a configuration, outside any run: in a thread of its own."""

from __future__ import annotations

import base64
import enum
import io
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from PIL import Image, ImageOps
from PIL.Image import Image as Picture

from lib_automerge.app.ports import Host
from lib_automerge.domain.config import RewardConfig, RewardMember
from lib_automerge.domain.prompt_cleaning import cleaned
from lib_automerge.errors import AutomergeError, BusyError, ConfigError
from lib_automerge.reward import registry
from lib_automerge.reward.panel import WORDLESS, assemble
from lib_automerge.reward.rgb import as_rgb

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What is read. Pillow knows more formats, some of which start other programs."""

MAX_BYTES = 256 << 20
EDGE = 192
"""The longest edge of the preview, in pixels."""

_log = logging.getLogger(__name__)


class TryPhase(str, enum.Enum):
    """How the latest try stands."""

    NONE = "none"
    RUNNING = "running"
    DONE = "done"


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What one reward said: a raw score, or in `told` why there is none; and how long it took."""

    reward: str
    label: str
    score: float | None = None
    told: str = ""
    seconds: float = 0.0


class TrySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The latest try at one moment.

    Attributes:
        number: counts the tries; 0 before the first.
        phase: how it stands.
        prompt: what was written.
        read: what the rewards read of it.
        judging: the label of the reward that is at work; empty if none is.
        tried: what the rewards before it said.
        looks: guard -> measure of the image.
        warnings: sentences for the user.
        told: why nothing could be judged; empty if all went well.
        preview: a small copy of the image as a data address; empty until it is read.
    """

    number: int = 0
    phase: TryPhase = TryPhase.NONE
    prompt: str = ""
    read: str = ""
    judging: str = ""
    tried: tuple[Tried, ...] = ()
    looks: dict[str, float] = {}
    warnings: tuple[str, ...] = ()
    told: str = ""
    preview: str = ""

    @property
    def running(self) -> bool:
        """Whether the thread is at work."""
        return self.phase is TryPhase.RUNNING

    @property
    def version(self) -> str:
        """Another text whenever something that is shown has changed."""
        return f"{self.number}-{self.phase.value}-{len(self.tried)}-{self.judging}"


class RewardTry:
    """Has rewards judge single images.

    Args:
        host: makes the rewards.
        folders: models folders, in which their files are looked for.
    """

    def __init__(self, host: Host, folders: Sequence[Path]) -> None:
        self._host = host
        self._folders = folders
        self._lock = threading.Lock()
        self._now = TrySnapshot()
        self._thread: threading.Thread | None = None

    def snapshot(self) -> TrySnapshot:
        """The latest try as it stands."""
        with self._lock:
            return self._now

    def start(self, config: RewardConfig, image: Path, prompt: str) -> None:
        """Have every reward of a configuration judge an image; returns at once.

        Args:
            config: which rewards, and where they compute.
            image: its file; read before this returns.
            prompt: with or without the WebUI's syntax.

        Raises:
            BusyError: a try is in progress.
            ConfigError: the file cannot be read, or no reward looks at images.
            RewardError: a reward lacks something; the text names each of them.
        """
        if not config.judges:
            raise ConfigError("no reward here looks at images. Choose one that does.")
        self._check_ready(config)
        data = _read(image)
        with self._lock:
            if self._now.running:
                raise BusyError("an image is being judged. Wait until it is done.")
            self._now = TrySnapshot(
                number=self._now.number + 1,
                phase=TryPhase.RUNNING,
                prompt=prompt,
                read=cleaned(prompt),
            )
            # a daemon: nothing is lost if the process ends
            self._thread = threading.Thread(
                target=self._work, args=(config, data), name="automerge-try", daemon=True
            )
            self._thread.start()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until no try is in progress, or the time is over."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def _check_ready(self, config: RewardConfig) -> None:
        problems = []
        for member in config.judges:
            try:
                registry.readiness(member.name, member.options, folders=self._folders)
            except AutomergeError as error:
                problems.append(str(error))
        if problems:
            raise ConfigError(" ".join(problems))

    def _work(self, config: RewardConfig, data: bytes) -> None:
        try:
            image = _decoded(data)
            self._change(preview=_preview(image))
            self._judge(config, image)
        except AutomergeError as error:
            self._change(told=str(error))
        except Exception as error:
            _log.exception("an image could not be judged")
            self._change(told=f"the image could not be judged: {_kind(error)}. See the log.")
        finally:
            self._change(phase=TryPhase.DONE, judging="")

    def _judge(self, config: RewardConfig, image: Picture) -> None:
        read = self._now.read
        if not read:
            self._warn("The prompt is empty once its syntax is removed: rewards read nothing.")
        for member in config.judges:
            label = registry.describe(member.name).label
            self._change(judging=label)
            tried, warnings = self._ask(config, member, label, image, read)
            self._change(tried=(*self._now.tried, tried))
            self._warn(*(text for text in warnings if text != WORDLESS))  # it was told above
        if config.ensemble is not None and config.guards:
            from lib_automerge.reward.looks import looks

            found = looks(image)
            self._change(looks={name: found[name] for name in config.guards if name in found})

    def _ask(
        self, config: RewardConfig, member: RewardMember, label: str, image: Picture, read: str
    ) -> tuple[Tried, list[str]]:
        """What one reward says; one that fails does not keep the others from being asked."""
        begin = time.perf_counter()
        alone = RewardConfig(name=member.name, options=member.options, place=config.place)
        score, told, warnings = None, "", []
        try:
            panel = assemble(alone, self._host.reward)
            try:
                score = panel.measure([image], [read])[0].raw[member.name]
                warnings = panel.warnings()
            finally:
                panel.close()
        except AutomergeError as error:
            told = str(error)
        except Exception as error:
            _log.exception("the reward %s failed", member.name)
            told = f"it failed: {_kind(error)}. See the log."
        seconds = time.perf_counter() - begin
        tried = Tried(reward=member.name, label=label, score=score, told=told, seconds=seconds)
        return tried, warnings

    def _warn(self, *sentences: str) -> None:
        self._change(warnings=(*self._now.warnings, *sentences))

    def _change(self, **changes: object) -> None:
        with self._lock:
            self._now = msgspec.structs.replace(self._now, **changes)


def _kind(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _read(image: Path) -> bytes:
    try:
        if image.stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"the image has more than {MAX_BYTES >> 20} MB: {image.name}. Use a smaller one."
            )
        return image.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the image cannot be read: {image.name} ({error.strerror}). Choose it again."
        ) from error


def _decoded(data: bytes) -> Picture:
    """The image, upright.

    Raises:
        ConfigError: it is none, or it is damaged.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            opened.load()
            return ImageOps.exif_transpose(opened) or opened.copy()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError(
            f"this is no image that can be read: {error}. Use {', '.join(FORMATS[:3])}."
        ) from error


def _preview(image: Picture) -> str:
    small = as_rgb(image)
    small.thumbnail((EDGE, EDGE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
