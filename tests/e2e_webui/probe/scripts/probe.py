"""An extension for tests: runs the checks of `inside.py` in the WebUI's own process, by name."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from fastapi import Body
from modules import script_callbacks

REPOSITORY = Path(os.environ["AUTOMERGE_REPOSITORY"])
sys.path.insert(0, str(REPOSITORY))
from lib_automerge.host.a1111 import Txt2imgForm  # noqa: E402 - it must be found first

sys.path.remove(str(REPOSITORY))


def _checks() -> Any:
    """The checks keep their state over a reload of the user interface."""
    name = "automerge_inside"
    if name not in sys.modules:
        path = REPOSITORY / "tests" / "e2e_webui" / "inside.py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def _routes(demo: Any, app: Any) -> None:
    @app.post("/automerge_probe/{name}")
    def run(name: str, arguments: dict = Body(default={})) -> dict[str, Any]:  # noqa: B008
        try:
            _checks().FORM = FORM
            return {"result": getattr(_checks(), f"check_{name}")(**arguments)}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}


FORM = Txt2imgForm()
script_callbacks.on_after_component(FORM.see)
script_callbacks.on_app_started(_routes)
