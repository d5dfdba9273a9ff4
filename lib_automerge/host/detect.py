"""Wires the application to the host that it runs in. The only place that chooses adapters."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

from lib_automerge import DATA_FOLDER
from lib_automerge.app.awake import keep_awake
from lib_automerge.app.chains import ChainService
from lib_automerge.app.desk import Desk
from lib_automerge.app.ports import Catalogue, Host
from lib_automerge.app.service import Service
from lib_automerge.app.worker import Worker
from lib_automerge.host.standalone import StandaloneCatalogue, StandaloneHost


def build_service() -> Service:
    """The service of a command line, which generates by itself."""
    return Service(StandaloneHost(Path(DATA_FOLDER)))


def build_chain_service() -> ChainService:
    """The service of chains of a command line, which generates by itself."""
    return ChainService(StandaloneHost(Path(DATA_FOLDER)))


def standalone_desk(catalogue: StandaloneCatalogue) -> Desk:
    """The desk of the stand-alone page."""
    return _desk(StandaloneHost(catalogue.data), catalogue, keep_awake)


@cache
def webui_desk() -> Desk:
    """The desk of the WebUI in whose process we are: one, however often its page is built again."""
    from lib_automerge.host import a1111_settings
    from lib_automerge.host.a1111 import A1111Host

    def awake() -> AbstractContextManager[object]:
        return keep_awake() if a1111_settings.keep_awake() else nullcontext()

    host = A1111Host()
    host.data = a1111_settings.data_folder()
    return _desk(host, host, awake)


def _desk(
    host: Host, catalogue: Catalogue, around: Callable[[], AbstractContextManager[object]]
) -> Desk:
    return Desk(host, catalogue, Worker(Service(host), around=around))
