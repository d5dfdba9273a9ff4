"""Adds the packages that Automerge lacks; the WebUI runs this at every start, as a program.

Quick and silent when nothing is missing. Whatever goes wrong, the WebUI starts all the same, and
the tab says what is missing.
"""

from __future__ import annotations

from pathlib import Path

from lib_automerge.host import requirements


def run_pip(command: str, description: str) -> None:
    """The WebUI's pip, which honours the user's index and --skip-install."""
    import launch  # takes a while, so only when there is something to install

    launch.run_pip(command, description)


if __name__ == "__main__":
    problem = requirements.install(run_pip, Path.cwd())
    if problem:
        print(problem)
