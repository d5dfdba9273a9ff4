"""Checks a real WebUI against `behaviours`, the statements that the fake is made of.

    AUTOMERGE_WEBUI_DIR=/path/to/stable-diffusion-webui python -m tests.host_fake.check_real

Starts the WebUI on its own port with a data folder, models and an extension of their own, all in a
temporary folder, waits until the extension has run every behaviour, prints a table of what was
observed, and stops it. Nothing is written into the WebUI's folder, except by the WebUI itself
(`cache.json`, `tmp`). Takes about two minutes on two cores; needs no GPU.

Environment:
    AUTOMERGE_WEBUI_DIR: the WebUI's folder, with `launch.py`.
    AUTOMERGE_WEBUI_PYTHON: the Python that it runs with; its `venv`'s by default.
Other variables are passed on: proxies, caches, offline switches.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lib_automerge.demo import export
from tests.host_fake.behaviours import ALL

HERE = Path(__file__).parent
EXTENSION = "automerge-behaviours"
PACKAGE = "automerge_behaviours"
NAMES = ("automerge-demo-a", "automerge-demo-b", "automerge-demo-c")

SCRIPT = f'''
import json, sys, threading, time, traceback
from pathlib import Path

import {PACKAGE}
from modules import script_callbacks, sd_models_config, sd_models, shared
from modules.launch_utils import git_tag

models = Path(sd_models.model_path)
# a and b share one configuration file, c has its own
sd_models_config.config_default = str(models / "{NAMES[0]}.yaml")


def check():
    results = {{"version": git_tag(), "python": sys.version.split()[0], "behaviours": {{}}}}
    try:
        names = tuple(f"{{name}}.safetensors" for name in {NAMES!r})
        bench = {PACKAGE}.Bench(names, Path(shared.cmd_opts.data_dir) / "scratch")
        bench.folder.mkdir(exist_ok=True)
        for entry in {PACKAGE}.ALL:
            begun = time.monotonic()
            try:
                bench.reset()
                outcome = ["yes", entry.run(bench) or ""]
            except Exception:
                outcome = ["no", traceback.format_exc(limit=-4)]
            results["behaviours"][entry.name] = [*outcome, round(time.monotonic() - begun, 2)]
    except Exception:
        results["failed"] = traceback.format_exc()
    path = Path(shared.cmd_opts.data_dir) / "results.json"
    path.with_suffix(".part").write_text(json.dumps(results))
    path.with_suffix(".part").rename(path)


def started(demo, app):
    threading.Thread(target=check, daemon=True).start()


script_callbacks.on_app_started(started)
'''


def prepare(data: Path) -> None:
    """Fill a data folder with the checkpoints and the extension."""
    models = data / "models" / "Stable-diffusion"
    export(models)
    shutil.copyfile(models / f"{NAMES[1]}.safetensors", models / f"{NAMES[2]}.safetensors")
    shutil.copyfile(models / f"{NAMES[0]}.yaml", models / f"{NAMES[2]}.yaml")
    (models / f"{NAMES[1]}.yaml").unlink()
    extension = data / "extensions" / EXTENSION
    (extension / "scripts").mkdir(parents=True)
    shutil.copytree(HERE / "behaviours", extension / PACKAGE)
    (extension / "scripts" / "check.py").write_text(SCRIPT, "utf-8")


def start(webui: Path, python: str, data: Path, port: int, flags: list[str]) -> subprocess.Popen:
    command = [python, "launch.py", "--skip-prepare-environment", "--skip-python-version-check"]
    command += ["--skip-version-check", "--skip-torch-cuda-test", "--use-cpu", "all"]
    command += ["--no-download-sd-model", "--do-not-download-clip", "--nowebui"]
    command += ["--disable-console-progressbars", "--port", str(port), "--data-dir", str(data)]
    command += ["--models-dir", str(data / "models"), *flags]
    with (data / "log.txt").open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            command,
            cwd=webui,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )


def wait(process: subprocess.Popen, data: Path, seconds: float) -> dict[str, Any]:
    """Return the extension's results."""
    results = data / "results.json"
    end = time.monotonic() + seconds
    while not results.exists():
        if process.poll() is not None or time.monotonic() > end:
            tail = (data / "log.txt").read_text("utf-8", "replace")[-3000:]
            sys.exit(f"the WebUI gave no results. The end of its log:\n{tail}")
        time.sleep(0.5)
    found: dict[str, Any] = json.loads(results.read_text("utf-8"))
    return found


def main() -> int:
    """Run everything; the number of behaviours that differ is the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=7870)
    parser.add_argument("--timeout", type=float, default=900, help="seconds")
    parser.add_argument("--keep", type=Path, help="folder to use and to keep")
    parser.epilog = "Other options are passed on to the WebUI; without any: --no-half."
    arguments, flags = parser.parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    webui = Path(os.environ["AUTOMERGE_WEBUI_DIR"])
    python = os.environ.get("AUTOMERGE_WEBUI_PYTHON", str(webui / "venv" / "bin" / "python"))
    data = arguments.keep or Path(tempfile.mkdtemp(prefix="automerge-behaviours-"))
    data.mkdir(parents=True, exist_ok=True)
    prepare(data)
    process = start(webui, python, data, arguments.port, flags or ["--no-half"])
    try:
        results = wait(process, data, arguments.timeout)
    finally:
        process.kill()
        process.wait()
    write = sys.stdout.write
    write(f"version {results['version']}, Python {results['python']}\n")
    if "failed" in results:
        sys.exit(results["failed"])
    wrong = 0
    for entry in ALL:
        same, observed, seconds = results["behaviours"][entry.name]
        wrong += same == "no"
        write(f"{same:3} {seconds:6.2f} s  {entry.name}  {observed}\n")
    if arguments.keep is None:
        shutil.rmtree(data)
    return min(wrong, 100)


if __name__ == "__main__":
    sys.exit(main())
