"""The commands of chains: start one, go on with one, make its result again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lib_automerge import run_commands
from lib_automerge.domain.chain import PRESETS
from lib_automerge.errors import ConfigError

if TYPE_CHECKING:
    from lib_automerge.app.chains import ChainService
    from lib_automerge.domain.chain_state import ChainState

STOPPING = "Stopping after the images in the air, or where the merge is"


def arguments(chain: argparse.ArgumentParser, rebuild: argparse.ArgumentParser) -> None:
    """Add the options of the commands `chain` and `rebuild`."""
    chain.add_argument("config", type=Path, nargs="?", help="YAML or JSON; see docs/chains.md")
    chain.add_argument("--preset", choices=sorted(PRESETS), help="steps that are ready-made")
    chain.add_argument(
        "--pool", nargs="+", action="extend", metavar="PATH", help="files, folders or globs"
    )
    chain.add_argument("--payloads", metavar="FILE", help="JSON or YAML with the list of payloads")
    chain.add_argument("--reward", metavar="NAME", help="what judges the images")
    chain.add_argument("--out", type=Path, help="chain folder (default: a new one in ./runs)")
    rebuild.add_argument(
        "chain", type=Path, metavar="CHAIN", help="a chain's folder, or its recipes/whole.json"
    )
    rebuild.add_argument("-o", "--output", type=Path, required=True)
    rebuild.add_argument(
        "--models",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="folders in which files of the pool are found by SHA-256",
    )


def is_chain(folder: Path) -> bool:
    """Whether a folder is a chain's."""
    from lib_automerge.study.chain_store import MANIFEST

    return (folder / MANIFEST).is_file()


def start(options: argparse.Namespace) -> int:
    """Check a chain, tell what it takes, and see it through; returns the exit code.

    Raises:
        AutomergeError: as `ChainService.prepare` and `ChainService.start`.
    """
    from lib_automerge.app.configfile import read_chain
    from lib_automerge.chain_terminal import ChainProgress

    given: dict[str, object] = {
        name: value
        for name in ("preset", "pool", "payloads")
        if (value := getattr(options, name)) is not None
    }
    if options.reward is not None:
        given["reward"] = {"name": options.reward}
    if options.config is None and not {"preset", "pool", "payloads"} <= given.keys():
        raise ConfigError(
            "a chain needs a file, or --preset, --pool and --payloads. docs/chains.md shows both."
        )
    config = read_chain(options.config, given)
    service = _service()
    print("Reading the pool ...", flush=True)
    prepared = service.prepare(config)
    named = options.config.stem if options.config else f"{options.preset}-chain"
    folder = options.out or run_commands.new_folder(config.name or named)
    print(f"Pool: {len(prepared.manifest.pool)} models. {prepared.sentence}")
    print(f"Chain folder: {folder}")
    watch = ChainProgress(sys.stdout)
    with run_commands.stop_flag(STOPPING) as stop:
        try:
            state = service.start(prepared, folder, stop=stop, watch=watch)
        finally:
            watch.close()
    return end(state, folder)


def resume(folder: Path) -> int:
    """Go on with a chain, see it through and tell its outcome; returns the exit code.

    Raises:
        AutomergeError: as `ChainService.resume`.
    """
    from lib_automerge.chain_terminal import ChainProgress

    watch = ChainProgress(sys.stdout)
    with run_commands.stop_flag(STOPPING) as stop:
        try:
            state = _service().resume(folder, stop=stop, watch=watch)
        finally:
            watch.close()
    return end(state, folder)


def end(state: ChainState, folder: Path) -> int:
    """Tell the outcome of a chain and where it lies; returns the exit code."""
    from lib_automerge.study.chain_store import ChainFolder

    if state.finished is None:
        again = run_commands.command_line("resume", folder)
        print(f"Stopped; everything finished is kept. Go on with: {again}")
        return run_commands.INTERRUPTED
    print(state.finished.sentence)
    model = state.finished.model
    member = ChainFolder.open(folder).manifest().member(model)
    path = folder / state.made[model].ref.path if member is None else member.ref.path
    print(f"Result:     {path}" + ("" if member is None else " (a model of the pool)"))
    print(f"Report:     {folder / 'report.html'}")
    if member is None:
        again = run_commands.command_line("rebuild", folder)
        print(f"Recipes:    {folder / 'recipes'}; make it again with: {again} -o FILE.safetensors")
    return run_commands.DONE


class ChainSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How a chain stands; `state` is the journal's, with running or interrupted told apart."""

    path: str
    state: str
    done: tuple[str, ...]
    steps: tuple[str, ...]
    result: str | None
    sentence: str


def status(folder: Path) -> ChainSummary:
    """How a chain stands, also while another process works on it.

    Raises:
        StorageError: its files cannot be read.
    """
    from lib_automerge.domain.run import Status
    from lib_automerge.study.chain_store import ChainFolder

    found = ChainFolder.open(folder)
    manifest, state = found.manifest(), found.state()
    told = state.status.value
    if state.status in (Status.STARTING, Status.UNFINISHED):
        told = "running" if found.running() else "interrupted"
    steps = tuple(step.name for step in manifest.config.steps)
    done = tuple(name for name in steps if name in state.done)
    said = f"{manifest.config.name or folder.name}: {told}, {len(done)} of {len(steps)} steps done."
    if state.finished is not None:
        said += f" {state.finished.sentence}"
    elif state.failure is not None:
        said += f" {state.failure}"
    elif len(done) < len(steps):
        said += f" Next or in progress: {steps[len(done)]}."
    result = None if state.finished is None else state.finished.model
    return ChainSummary(
        path=str(folder), state=told, done=done, steps=steps, result=result, sentence=said
    )


def report(folder: Path) -> Path:
    """Write the report of a chain again; returns its path.

    Raises:
        StorageError: its files cannot be read or written.
    """
    return _service().report(folder)


def rebuild(options: argparse.Namespace) -> int:
    """Make the result of a chain again; returns the exit code.

    Raises:
        AutomergeError: as `read_lineage` and `rebuild`.
    """
    from lib_automerge.app import rebuild as work
    from lib_automerge.domain.lineage import read_lineage

    path: Path = options.chain
    if path.is_dir():
        path = path / "recipes" / work.WHOLE
    lineage = read_lineage(path)
    print(work.rebuild(lineage, options.output, options.models, told=_say))
    return run_commands.DONE


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _service() -> ChainService:
    from lib_automerge.host.detect import build_chain_service

    return build_chain_service()
