"""Who may use the WebUI, by its command line. Import it only inside that WebUI."""

from __future__ import annotations

from modules import initialize_util, shared

from lib_automerge.host.guard import Guard


def guard() -> Guard:
    """The guard of our routes: `--gradio-auth`, `--gradio-auth-path` and `--api-auth`."""
    credentials = dict(initialize_util.get_gradio_auth_creds())
    for pair in (shared.cmd_opts.api_auth or "").split(","):
        name, colon, password = pair.partition(":")
        if colon:
            credentials[name] = password
    return Guard(credentials)
