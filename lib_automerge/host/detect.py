"""Wires the application to the host that it runs in. The only place that chooses adapters."""

from __future__ import annotations

from lib_automerge.app.service import Service
from lib_automerge.host.standalone import StandaloneHost


def build_service() -> Service:
    """The service of this process."""
    return Service(StandaloneHost())
