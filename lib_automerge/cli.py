"""The command line: `python -m lib_automerge COMMAND`.

Exit codes: 0 done, 2 a user error (one sentence on stderr), 3 a run that had begun stopped early
and can be resumed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

import lib_automerge
from lib_automerge import chain_commands, run_commands
from lib_automerge.domain.run import Status
from lib_automerge.errors import AutomergeError, CancelledError, ConfigError, RunFailedError
from lib_automerge.run_commands import DONE, INTERRUPTED

DATA = Path(lib_automerge.DATA_FOLDER)

USER_ERROR, STOPPED_EARLY = 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # a Windows console or pipe may use a code page that lacks a prompt's characters
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        if getattr(options, "allow_plugins", False):
            _load_plugins(options)
        return command(options)
    except RunFailedError as error:
        print(f"The run stopped: {error}", file=sys.stderr)
        return STOPPED_EARLY
    except CancelledError as error:
        print(f"Stopped: {error}", file=sys.stderr)
        return INTERRUPTED
    except AutomergeError as error:
        print(f"Error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return DONE
    except OSError as error:
        print(f"Error: {error}. Check the path, its permissions and the disk.", file=sys.stderr)
        return USER_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="automerge", description=lib_automerge.__doc__, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=lib_automerge.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = _command(commands, "demo", _demo, "search the embedded demo pair, or write its files")
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

    run = _command(commands, "run", _run, "run a configuration (YAML or JSON)")
    run.add_argument("config", type=Path)
    run.add_argument("--out", type=Path, help="run folder (default: a new one in ./runs)")
    run.add_argument(
        "--warm-start",
        action="append",
        default=[],
        metavar="PATH",
        help="begin with what a run folder, a recipe or a CSV log knows; can be repeated",
    )
    _allow_plugins(run)

    calibrate = _command(
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
    _allow_plugins(calibrate)

    resume = _command(commands, "resume", _resume, "take up a stopped or interrupted run or chain")
    resume.add_argument("run_dir", type=Path)
    _allow_plugins(resume)

    chain = _command(
        commands, "chain", _chain, "merge, rank and search over a pool of models, as one job"
    )
    _allow_plugins(chain)
    again = _command(commands, "rebuild", _rebuild, "make the result of a chain again")
    chain_commands.arguments(chain, again)

    runs = _command(commands, "runs", _runs, "list the runs in a folder")
    runs.add_argument("root", type=Path, nargs="?", default=Path("runs"), help="default: ./runs")
    runs.add_argument("--json", action="store_true")

    status = _command(commands, "status", _status, "show how a run stands, also while it runs")
    status.add_argument("run_dir", type=Path)
    status.add_argument("--json", action="store_true")

    merge = _command(commands, "merge", _merge, "merge a recipe into a checkpoint")
    merge.add_argument(
        "recipe", type=Path, help="in any format that `convert` reads, or a merged checkpoint"
    )
    merge.add_argument("-o", "--output", type=Path, required=True)
    _sources(merge)
    _lab_options(merge)

    soup = _command(commands, "soup", _soup, "merge any number of models by a method of the lab")
    soup.add_argument("method", metavar="METHOD", help="see `methods`")
    soup.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="the models; A, B, C in this order"
    )
    soup.add_argument("--base", type=Path, help="the model that changes are counted from")
    soup.add_argument(
        "--set",
        dest="parameters",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter: k=0.2, or by block weight=IN00:0.3,OUT11:1; can be repeated",
    )
    soup.add_argument("-o", "--output", type=Path, required=True)
    _lab_options(soup)

    methods = _command(commands, "methods", _methods, "list the merge methods of the lab")
    methods.add_argument("name", nargs="?", metavar="NAME", help="one method; default: all")
    methods.add_argument("--json", action="store_true")

    rebasin = _command(
        commands, "rebasin", _rebasin, "write B with its channels where they are nearest to A's"
    )
    rebasin.add_argument("a", type=Path, metavar="A", help="the model that stays as it is")
    rebasin.add_argument("b", type=Path, metavar="B", help="the model to permute")
    rebasin.add_argument("-o", "--output", type=Path, required=True)
    rebasin.add_argument(
        "--cache",
        type=Path,
        default=DATA / "rebasin",
        metavar="DIR",
        help="folder for what was found, to go on after a stop (default: ./automerge-data/rebasin)",
    )
    rebasin.add_argument("--sweeps", type=int, default=10, help="at most; default: 10")
    rebasin.add_argument("--seed", type=int, default=0, help="default: 0")

    inspect = _command(
        commands, "inspect", _inspect, "describe checkpoints side by side, and compare two"
    )
    inspect.add_argument("files", type=Path, nargs="+", metavar="FILE")
    inspect.add_argument("--json", action="store_true")
    inspect.add_argument(
        "--svg",
        type=Path,
        metavar="FILE",
        help="draw the blocks: sizes of one model, distances of two, or the weights of --recipe",
    )
    inspect.add_argument("--recipe", type=Path, help="whose weights --svg shows")

    edit = _command(
        commands, "edit", _edit, "write a copy of a checkpoint with other components or precision"
    )
    edit.add_argument("file", type=Path)
    edit.add_argument("-o", "--output", type=Path, required=True)
    edit.add_argument(
        "--text-encoder", type=Path, metavar="FILE", help="take this checkpoint's text encoder"
    )
    edit.add_argument(
        "--vae", type=Path, metavar="FILE", help="put in the VAE of a checkpoint or of a VAE file"
    )
    edit.add_argument(
        "--fix-positions", action="store_true", help="reset CLIP's position indices to 0..76"
    )
    edit.add_argument(
        "--drop-ema", action="store_true", help="leave out the averaged copy of training"
    )
    precisions = ("fp16", "bf16", "fp32")
    edit.add_argument("--dtype", choices=precisions, help="store everything so")
    edit.add_argument("--dtype-denoiser", choices=precisions, help="the UNet or transformer")
    edit.add_argument("--dtype-text-encoder", choices=precisions)
    edit.add_argument("--dtype-vae", choices=precisions)

    distance = _command(
        commands, "distance", _distance, "measure how far the models of a pool are apart"
    )
    distance.add_argument("files", type=Path, nargs="+", metavar="FILE")
    distance.add_argument("--base", type=Path, help="the model that the others were trained from")
    distance.add_argument("--json", action="store_true")
    distance.add_argument(
        "--svg", type=Path, metavar="DIR", help="draw tree.svg, map.svg and pairs.svg there"
    )
    distance.add_argument(
        "--sample", type=int, metavar="K", help="draw K of the files at random first"
    )
    distance.add_argument("--seed", type=int, default=0, help="of --sample; default: 0")

    convert = _command(commands, "convert", _convert, "rewrite a recipe or block weights")
    convert.add_argument("--to", dest="target", metavar="FORMAT", required=True)
    convert.add_argument(
        "recipe", nargs="?", default="-", help="a file, a checkpoint or the text; - reads stdin"
    )
    convert.add_argument("-o", "--output", type=Path, help="write a file (default: print)")
    convert.add_argument("--name", default="", help="of a preset")
    convert.add_argument("--json", action="store_true", help="the text with what was noted")
    _sources(convert)

    ui = _command(commands, "ui", _ui, "serve the page: set up and watch runs in a browser")
    ui.add_argument(
        "--models",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="folders with checkpoints, searched with everything below them",
    )
    ui.add_argument(
        "--data",
        type=Path,
        default=DATA,
        help="folder for runs, prompts and settings (default: ./automerge-data)",
    )
    ui.add_argument("--port", type=int, default=7865, help="on 127.0.0.1; default: 7865")
    ui.add_argument("--no-browser", action="store_true", help="do not open a browser")
    _allow_plugins(ui)

    rewards = _command(commands, "rewards", _rewards, "list, download and check rewards")
    rewards.add_argument("name", nargs="?", metavar="NAME", help="one reward; default: all")
    rewards.add_argument("--download", action="store_true", help="get the files that it lacks")
    rewards.add_argument(
        "--selftest", action="store_true", help="load what is ready, and check its scores"
    )
    rewards.add_argument("--device", help="for --selftest: cpu, cuda, ...; default: the best")
    rewards.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the reward NAME, such as url=http://127.0.0.1:8123; may be repeated",
    )
    rewards.add_argument(
        "--data",
        type=Path,
        default=DATA,
        help="folder whose `rewards` holds the files (default: ./automerge-data)",
    )
    rewards.add_argument("--json", action="store_true")
    _allow_plugins(rewards)

    insights = _command(commands, "insights", _insights, "what a run taught about its blocks")
    insights.add_argument("run_dir", type=Path)
    insights.add_argument("--json", action="store_true")

    report = _command(commands, "report", _report, "write report.html of a run again")
    report.add_argument("run_dir", type=Path)
    return parser


def _lab_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtype",
        choices=("fp16", "bf16", "fp32", "fp64", "fp8_e4m3", "fp8_e5m2"),
        help="of the result; default: the recipe's, or the first model's own",
    )
    lab = parser.add_argument_group(
        "the merge lab", "for the command soup, and for recipes of the lab"
    )
    lab.add_argument("--memory", metavar="SIZE", help="cap for the whole process; default: 2GiB")
    lab.add_argument(
        "--threads", type=int, metavar="N", help="default: one for each core, at most 4"
    )
    lab.add_argument(
        "--on-mismatch",
        choices=("refuse", "keep-a", "fill-base"),
        help="where tensors are missing or of another shape; default: the recipe's, or refuse",
    )
    lab.add_argument(
        "--on-nan",
        choices=("refuse", "zero"),
        help="where a model holds NaN or infinite numbers; default: the recipe's, or refuse",
    )
    lab.add_argument(
        "--resume",
        action="store_true",
        default=None,
        help="go on with what a cancelled merge has kept",
    )
    lab.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where Re-Basin keeps what it found (default: ./automerge-data/rebasin)",
    )


def _sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="order", metavar="ORDER", help="order of its list, where it must be told"
    )
    parser.add_argument("--architecture", help="of the models, where the text does not say it")
    parser.add_argument(
        "--number", type=int, metavar="ID", help="which merge of SuperMerger's mergehistory.csv"
    )
    parser.add_argument(
        "--models",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="folders in which the models are found by SHA-256, A1111's old hash or name",
    )
    parser.add_argument(
        "--lossy", action="store_true", help="give up what cannot be said, instead of an error"
    )


def _allow_plugins(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-plugins",
        action="store_true",
        default=os.environ.get("AUTOMERGE_ALLOW_PLUGINS") == "1",
        help="load the rewards that you wrote: every *.py in rewards/plugins of the data folder "
        "(the environment's AUTOMERGE_ALLOW_PLUGINS=1 does the same)",
    )


def _load_plugins(options: argparse.Namespace) -> None:
    from lib_automerge.reward import plugins

    folder = getattr(options, "data", DATA) / plugins.PLACE
    for sentence in plugins.load(folder, allowed=True).told:
        print(f"Warning: {sentence}", file=sys.stderr)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    function: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(command=function)
    return parser


# --- commands; heavy packages are imported by the command that needs them -----------------------


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


def _resume(options: argparse.Namespace) -> int:
    if chain_commands.is_chain(options.run_dir):
        return chain_commands.resume(options.run_dir)
    return run_commands.resume(options.run_dir)


def _chain(options: argparse.Namespace) -> int:
    return chain_commands.start(options)


def _rebuild(options: argparse.Namespace) -> int:
    return chain_commands.rebuild(options)


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
    _print_json({"run": str(folder), "calibration": state.calibrated})
    return INTERRUPTED if state.status is Status.STOPPED else DONE


def _runs(options: argparse.Namespace) -> int:
    from lib_automerge.host.detect import build_service

    summaries = build_service().runs(options.root)
    if options.json:
        _print_json(summaries)
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
            _print_json(found)
        else:
            print(found.sentence)
        return DONE
    from lib_automerge.host.detect import build_service

    summary = build_service().status(options.run_dir)
    if options.json:
        _print_json(summary)
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


def _merge(options: argparse.Namespace) -> int:
    from lib_automerge import lab_commands, recipe_commands

    lab_commands.merge(recipe_commands.whole(options), options)
    return DONE


def _soup(options: argparse.Namespace) -> int:
    from lib_automerge import lab_commands

    lab_commands.soup(options)
    return DONE


def _methods(options: argparse.Namespace) -> int:
    from lib_automerge import lab_commands

    found = lab_commands.described(options.name)
    if options.json:
        _print_json(found)
    else:
        print("\n\n".join(map(lab_commands.in_words, found)))
    return DONE


def _rebasin(options: argparse.Namespace) -> int:
    from lib_automerge import rebasin_command

    return rebasin_command.permute(
        options.a,
        options.b,
        options.output,
        cache=options.cache,
        sweeps=options.sweeps,
        seed=options.seed,
    )


def _inspect(options: argparse.Namespace) -> int:
    from lib_automerge import model_commands
    from lib_automerge.merge import inspection

    if options.recipe is not None and options.svg is None:
        raise ConfigError("--recipe says what --svg shows. Give --svg FILE as well.")
    described = [inspection.inspect(path) for path in options.files]
    comparison = inspection.compare(*options.files) if len(options.files) == 2 else None
    if options.svg is not None:
        drawing = model_commands.inspect_drawing(described, comparison, options.recipe)
        model_commands.write_new(options.svg, drawing)
    if options.json:
        _print_json({"files": described, "comparison": comparison})
    else:
        print(model_commands.inspect_text(described, comparison))
    return DONE


def _edit(options: argparse.Namespace) -> int:
    from lib_automerge.merge.edits import Edits, edit_file
    from lib_automerge.merge.surgery import COMPONENTS

    asked = {part: getattr(options, f"dtype_{part}") or options.dtype for part in COMPONENTS}
    edits = Edits(
        drop_ema=options.drop_ema,
        text_encoder=options.text_encoder,
        vae=options.vae,
        fix_positions=options.fix_positions,
        dtypes={part: name for part, name in asked.items() if name},
    )
    done = edit_file(options.file, options.output, edits)
    for sentence in done.told:
        print(sentence)
    print(done.path)
    return DONE


def _distance(options: argparse.Namespace) -> int:
    from lib_automerge import model_commands
    from lib_automerge.merge import pool, pool_text

    files = [path for path in options.files if path != options.base]
    if options.sample is not None:
        files = pool.sampled(files, options.sample, options.seed)
    drawings = model_commands.drawings_of_pool(options.svg) if options.svg else {}
    found = pool.pool_distances(files, base=options.base, progress=model_commands.read_so_far())
    for path, draw in drawings.items():
        model_commands.write_new(path, draw(found))
    if options.json:
        _print_json(pool_text.pool_data(found))
        return DONE
    if options.sample is not None:
        print(f"{len(files)} of {len(options.files)} files, drawn with seed {options.seed}:")
    print(pool_text.format_pool(found))
    return DONE


def _convert(options: argparse.Namespace) -> int:
    from lib_automerge import recipe_commands

    converted = recipe_commands.convert(options)
    if options.json:
        _print_json(converted)
    elif options.output is None:
        # a .mecha recipe must not end with a line break
        print(converted.text, end="")
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
        _print_json(found)
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


def _ui(options: argparse.Namespace) -> int:
    from lib_automerge import page

    page.serve(options.models, options.data, options.port, browser=not options.no_browser)
    return DONE


def _rewards(options: argparse.Namespace) -> int:
    from lib_automerge import reward_commands
    from lib_automerge.reward.files import FOLDER

    folder = options.data / FOLDER
    given = reward_commands.read_options(options.name, options.option)
    if options.download:
        reward_commands.download(options.name, folder, given)
        return DONE
    if options.selftest:
        sound = reward_commands.selftest(options.name, folder, options.device, given)
        return DONE if sound else USER_ERROR
    found = reward_commands.statuses(options.name, folder, given)
    if options.json:
        _print_json(found)
    else:
        print(reward_commands.listed(found))
    return DONE


def _print_json(value: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
