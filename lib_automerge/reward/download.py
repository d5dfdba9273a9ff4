"""Downloading the published files of rewards, only ever when the user asks for it.

The Hugging Face hub's own client says where a file is, how big it is and what its digest must be
(so its settings count: HF_ENDPOINT for a mirror, a stored token, offline mode). The bytes are then
fetched here, because only so can a download be watched, cancelled and taken up again with every
version of that client.

Until a file is complete and checked it is called `NAME.DIGITS.part`; the digits are of its version,
so that parts of two versions are never put together.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import filelock
import msgspec

from lib_automerge.errors import ConfigError, RewardError
from lib_automerge.reward.base import reason
from lib_automerge.reward.files import WeightFile, in_bytes, sha256_of_file

Progress = Callable[[int, int], None]
"""Told how many bytes there are and how many there will be."""

ATTEMPTS = 5
"""Failures in a row, with no byte between them, after which a download gives up."""
PAUSE_S = 1.0
"""Before the second attempt; twice as long before each further one."""
TIMEOUT_S = 30.0
SPARE = 64_000_000
"""Bytes of the disk that stay free."""
_CHUNK = 1 << 20
_AGENT = {"User-Agent": "automerge"}


class DownloadCancelledError(RewardError):
    """The user cancelled a download; what there is of the file is kept for the next time."""


class _Source(msgspec.Struct, frozen=True):
    """Where the bytes are, how many, a mark of their version, and their SHA-256 if it is known."""

    url: str
    size: int
    version: str
    sha256: str | None


class _InterruptedError(Exception):
    """The server answered with an error; another attempt may succeed."""


def fetch(
    file: WeightFile,
    folder: Path,
    progress: Progress = lambda _have, _size: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Path:
    """Download a file into a models folder, or go on with a download that was cut off.

    Args:
        file: what to get.
        folder: where to; is made if it does not exist.
        progress: told how far it is, at the beginning and at least once per megabyte.
        cancelled: asked as often; once it says so, the download ends.

    Returns:
        The file, complete and checked. One that is already there is left alone.

    Raises:
        ConfigError: the hub's client is not installed.
        DownloadCancelledError: `cancelled` said so.
        RewardError: it cannot be had, the disk is full, or what came is not the published file.
    """
    target = folder / file.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / f"{file.name}.lock", timeout=0):
            if not target.is_file():
                source = _locate(file)
                part = folder / f"{file.name}.{source.version}.part"
                _require_space(source, part, folder)
                _receive(file, source, part, progress, cancelled)
                _check(file, source, part)
                part.replace(target)
    except filelock.Timeout as error:
        raise RewardError(
            f"{target} is being downloaded already. Wait until that has ended."
        ) from error
    except OSError as error:
        advice = "Check the folder and its permissions."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "Free some space and download again; what there is of the file is kept."
        raise RewardError(
            f"{file.name} cannot be written to {folder}: {error.strerror or reason(error)}. "
            f"{advice}"
        ) from error
    return target


def _locate(file: WeightFile) -> _Source:
    return _on_hub(file) if file.repo else _elsewhere(file)


def _on_hub(file: WeightFile) -> _Source:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            "downloads need the package huggingface_hub, which is not installed. Run pip install "
            f"huggingface_hub in this Python environment, or get {file.name} from {file.address}."
        ) from error
    endpoint = os.environ.get("HF_ENDPOINT") or None
    url = huggingface_hub.hf_hub_url(file.repo, file.path, endpoint=endpoint)
    try:
        found = huggingface_hub.get_hf_file_metadata(url)
    # its errors come from one of two HTTP libraries, by its version
    except Exception as error:
        raise _unavailable(file, error) from error
    etag = found.etag or ""
    if not found.size:
        raise _unavailable(file, ValueError("the server does not say how big it is"))
    # the hub's mark of a big file is its SHA-256
    digest = etag if len(etag) == 64 else None
    return _Source(found.location or url, found.size, _digits(etag or url), digest)


def _elsewhere(file: WeightFile) -> _Source:
    try:
        with _open(urllib.request.Request(file.path, headers=_AGENT, method="HEAD")) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            etag = answer.headers.get("ETag") or ""
    except (_InterruptedError, OSError, http.client.HTTPException, ValueError) as error:
        raise _unavailable(file, error) from error
    if not size:
        raise _unavailable(file, ValueError("the server does not say how big it is"))
    return _Source(file.path, size, _digits(etag or file.path), None)


def _digits(mark: str) -> str:
    return hashlib.sha256(mark.encode()).hexdigest()[:8]


def _unavailable(file: WeightFile, error: Exception) -> RewardError:
    return RewardError(
        f"{file.name} cannot be downloaded: {reason(error)}. Check the network and try again, or "
        f"get it from {file.address}."
    )


def _require_space(source: _Source, part: Path, folder: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    missing, free = source.size - have, shutil.disk_usage(folder).free
    if free < missing + SPARE:
        raise RewardError(
            f"{in_bytes(free)} are free in {folder}, the download needs {in_bytes(missing)}. "
            "Free some space, or choose a folder on another disk."
        )


def _receive(
    file: WeightFile,
    source: _Source,
    part: Path,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> None:
    """Append to the part what it lacks, over as many connections as that takes."""
    failures = 0
    part.touch()
    while (have := part.stat().st_size) < source.size:
        try:
            if failures:
                _pause(PAUSE_S * 2 ** (failures - 1), part, cancelled)
                # the hub's address of the bytes is good for an hour
                source = _locate(file)
            _transfer(source, part, have, progress, cancelled)
            trouble: Exception = ValueError("the connection ended early")
        except DownloadCancelledError:
            raise
        except (_InterruptedError, RewardError, http.client.HTTPException) as error:
            trouble = error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            trouble = error
        failures = failures + 1 if part.stat().st_size <= have else 1
        if failures >= ATTEMPTS:
            raise RewardError(
                f"download of {file.name} failed {failures} times in a row: {reason(trouble)}. "
                "Check the network and download again; it goes on where it ended."
            ) from trouble
    progress(part.stat().st_size, source.size)


def _transfer(
    source: _Source,
    part: Path,
    have: int,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> None:
    """One connection: append what comes from byte `have` on."""
    headers = {**_AGENT, "Range": f"bytes={have}-"} if have else _AGENT
    with _open(urllib.request.Request(source.url, headers=headers)) as answer:
        # a server that knows no ranges begins at the beginning again
        begins = have if answer.status == http.client.PARTIAL_CONTENT else 0
        with part.open("r+b") as out:
            out.truncate(begins)
            out.seek(begins)
            progress(begins, source.size)
            while chunk := answer.read(_CHUNK):
                if cancelled():
                    raise _cancelled(part)
                out.write(chunk)
                progress(out.tell(), source.size)
            out.flush()
            os.fsync(out.fileno())


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    """Send a request.

    Raises:
        _InterruptedError: the server answered with an error, or sent on to what is no server.
        OSError: it could not be reached.
    """
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S, context=_certificates())
    except urllib.error.HTTPError as error:
        error.close()
        told = f"the server answered {error.code} {error.reason} for {request.full_url}"
        raise _InterruptedError(told) from error
    if not isinstance(answer, http.client.HTTPResponse):
        # a mirror may send on to anywhere, a local file for example
        raise _InterruptedError(f"the server sent on to {request.full_url}")
    return answer


def _certificates() -> ssl.SSLContext:
    """The certificates of the hub's client, as some systems' Python comes without any."""
    try:
        import certifi
    except ImportError:
        return ssl.create_default_context()
    return ssl.create_default_context(cafile=certifi.where())


def _pause(seconds: float, part: Path, cancelled: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if cancelled():
            raise _cancelled(part)
        time.sleep(min(left, 0.2))


def _cancelled(part: Path) -> DownloadCancelledError:
    return DownloadCancelledError(
        f"download cancelled: {in_bytes(part.stat().st_size)} of it are kept as {part}. "
        "Download again to go on."
    )


def _check(file: WeightFile, source: _Source, part: Path) -> None:
    """Delete what is not the published file, so that the next download begins afresh."""
    size, digest = part.stat().st_size, sha256_of_file(part)
    told = ""
    if size != source.size:
        told = f"it has {size} bytes instead of {source.size}"
    elif source.sha256 not in (None, digest) or not digest.startswith(file.sha256 or ""):
        expected = file.sha256 or source.sha256 or ""
        told = f"its SHA-256 begins with {digest[:8]} instead of {expected[:8]}"
    if told:
        with contextlib.suppress(OSError):
            part.unlink()
        raise RewardError(
            f"the download of {file.name} is not the published file: {told}. It was deleted; "
            f"download again, or get it from {file.address}."
        )
