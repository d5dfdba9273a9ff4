"""The commands about runs: search, go on, look at them, write their report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from lib_automerge import chain_commands, run_commands
from lib_automerge.cli.parts import Commands, allow_plugins, command, print_json
from lib_automerge.domain.run import Status
from lib_automerge.errors import ConfigError
from lib_automerge.run_commands import DONE, INTERRUPTED


def add_to(commands: Commands) -> None:
    """Add the commands of this group."""
    demo = command(commands, "demo", _demo, "search the embedded demo pair, or write its files")
    demo.add_argument("--out", type=Path, help="run folder (default: a new one in ./runs)")
    demo.add_argument("--evaluations", type=int, default=40, help="default: 40")
    demo.add_argument("--seed", type=int, default=0, help="default: 0")
    demo.add_argument("--payloads", type=int, help="use only the first N prompts of the search")
    demo.add_argument(
        "--export-to",
        type=Path,
        metavar="DIR",
        help="write the demo checkpoints, with the YAML that a WebUI needs, and stop",
    )

    run = command(commands, "run", _run, "run a configuration (YAML or JSON)")
    run.add_argument("config", type=Path)
    run.add_argument("--out", type=Path, help="run folder (default: a new one in ./runs)")
    run.add_argument(
        "--warm-start",
        action="append",
        default=[],
        metavar="PATH",
        help="begin with what a run folder, a recipe or a CSV log knows; can be repeated",
    )
    allow_plugins(run)

    calibrate = command(
        commands,
        "calibrate",
        _calibrate,
        "measure how much of a score is chance",
    )
    calibrate.add_argument("config", type=Path)
    calibrate.add_argument(
        "--seed-sets", type=int, default=4, metavar="N", help="sets of fresh seeds; default: 4"
    )
    calibrate.add_argument("--out", type=Path, help="run folder (default: a new one in ./runs)")
    calibrate.add_argument("--json", action="store_true")
    allow_plugins(calibrate)

    resume = command(commands, "resume", _resume, "take up a stopped or interrupted run or chain")
    resume.add_argument("run_dir", type=Path)
    allow_plugins(resume)

    chain = command(
        commands,
        "chain",
        chain_commands.start,
        "merge, rank and search over a pool of models, as one job",
    )
    allow_plugins(chain)
    rebuild = command(
        commands, "rebuild", chain_commands.rebuild, "make the result of a chain again"
    )
    chain_commands.arguments(chain, rebuild)

    runs = command(commands, "runs", _runs, "list the runs in a folder")
    runs.add_argument("root", type=Path, nargs="?", default=Path("runs"), help="default: ./runs")
    runs.add_argument("--json", action="store_true")

    status = command(commands, "status", _status, "show how a run stands, also while it runs")
    status.add_argument("run_dir", type=Path)
    status.add_argument("--json", action="store_true")

    insights = command(commands, "insights", _insights, "what a run taught about its blocks")
    insights.add_argument("run_dir", type=Path)
    insights.add_argument("--json", action="store_true")

    report = command(commands, "report", _report, "write report.html of a run again")
    report.add_argument("run_dir", type=Path)


def _demo(options: argparse.Namespace) -> int:
    from lib_automerge import demo

    if options.export_to is not None:
        for path in demo.export(options.export_to):
            print(path)
        return DONE
    config = demo.config(
        evaluations=options.evaluations, seed=options.seed, payloads=options.payloads
    )
    return run_commands.start(config, options.out or run_commands.new_folder("demo"))


def _run(options: argparse.Namespace) -> int:
    from lib_automerge.app.configfile import read_config

    config = read_config(options.config)
    sources = (*config.search.warm_start, *options.warm_start)
    search = msgspec.structs.replace(config.search, warm_start=sources)
    config = msgspec.structs.replace(config, search=search)
    folder = options.out or run_commands.new_folder(config.name or options.config.stem)
    return run_commands.start(config, folder)


def _calibrate(options: argparse.Namespace) -> int:
    from lib_automerge.app.configfile import read_config
    from lib_automerge.app.measuring import measurement_of

    if options.seed_sets < 1:
        raise ConfigError(f"--seed-sets is {options.seed_sets}. Give 1 or more.")
    given = read_config(options.config)
    config = measurement_of(given, options.seed_sets)
    folder = options.out or run_commands.new_folder(f"{given.name or options.config.stem}-noise")
    if not options.json:
        return run_commands.start(config, folder)
    state = run_commands.carried_out(config, folder, sys.stderr)
    print_json({"run": str(folder), "calibration": state.calibrated})
    return INTERRUPTED if state.status is Status.STOPPED else DONE


def _resume(options: argparse.Namespace) -> int:
    if chain_commands.is_chain(options.run_dir):
        return chain_commands.resume(options.run_dir)
    return run_commands.resume(options.run_dir)


def _runs(options: argparse.Namespace) -> int:
    from lib_automerge.host.detect import build_service

    summaries = build_service().runs(options.root)
    if options.json:
        print_json(summaries)
    elif not summaries:
        print(f"No runs in {options.root}.")
    for summary in [] if options.json else summaries:
        best = "-" if summary.best is None else f"{summary.best:.4f}"
        print(
            f"{summary.path:40} {summary.state:12} "
            f"{summary.evaluations:4}/{summary.budget:<4} best {best}"
        )
    return DONE


def _status(options: argparse.Namespace) -> int:
    if chain_commands.is_chain(options.run_dir):
        found = chain_commands.status(options.run_dir)
        if options.json:
            print_json(found)
        else:
            print(found.sentence)
        return DONE
    from lib_automerge.host.detect import build_service

    summary = build_service().status(options.run_dir)
    if options.json:
        print_json(summary)
        return DONE
    print(f"{summary.name}: {summary.state}, {summary.evaluations}/{summary.budget} evaluations")
    if summary.best is not None and summary.better_parent is not None:
        gain = summary.best - summary.better_parent
        print(f"best {summary.best:.4f}, {gain:+.4f} on the better parent")
    if summary.noise is not None:
        print(summary.noise)
    if summary.ended is not None and summary.verdict is not None:
        print(f"The search ended: {summary.ended}")
    if summary.verdict is not None:
        print(summary.verdict)
    return DONE


def _insights(options: argparse.Namespace) -> int:
    from lib_automerge.app.insights import insights
    from lib_automerge.study.findings import summarize
    from lib_automerge.study.lesson_words import in_words
    from lib_automerge.study.store import RunFolder

    folder = RunFolder.open(options.run_dir)
    manifest, state = folder.manifest(), folder.state()
    found = insights(manifest, state)
    if options.json:
        print_json(found)
    elif found is None:
        print("Too little is known: at least five merges must have a score, and not all the same.")
    else:
        print(in_words(summarize(folder.path, manifest, state), found))
    return DONE


def _report(options: argparse.Namespace) -> int:
    if chain_commands.is_chain(options.run_dir):
        print(chain_commands.report(options.run_dir))
        return DONE
    from lib_automerge.host.detect import build_service

    print(build_service().report(options.run_dir))
    return DONE
