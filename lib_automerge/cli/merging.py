"""The commands that merge models, and read and write recipes."""

from __future__ import annotations

import argparse
from pathlib import Path

from lib_automerge.cli.parts import (
    REBASIN_CACHE,
    Commands,
    command,
    component_options,
    models_option,
    print_json,
)
from lib_automerge.run_commands import DONE


def add_to(commands: Commands) -> None:
    """Add the commands of this group."""
    merge = command(commands, "merge", _merge, "merge a recipe into a checkpoint")
    merge.add_argument(
        "recipe", type=Path, help="in any format that `convert` reads, or a merged checkpoint"
    )
    merge.add_argument("-o", "--output", type=Path, required=True)
    _sources(merge)
    _merge_options(merge)

    soup = command(commands, "soup", _soup, "merge any number of models by a method of the lab")
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
    _merge_options(soup)

    methods = command(commands, "methods", _methods, "list the merge methods of the lab")
    methods.add_argument("name", nargs="?", metavar="NAME", help="one method; default: all")
    methods.add_argument("--json", action="store_true")

    rebasin = command(
        commands, "rebasin", _rebasin, "write B with its channels where they are nearest to A's"
    )
    rebasin.add_argument("a", type=Path, metavar="A", help="the model that stays as it is")
    rebasin.add_argument("b", type=Path, metavar="B", help="the model to permute")
    rebasin.add_argument("-o", "--output", type=Path, required=True)
    _cache(rebasin)
    rebasin.add_argument("--sweeps", type=int, default=10, help="at most; default: 10")
    rebasin.add_argument("--seed", type=int, default=0, help="default: 0")

    convert = command(commands, "convert", _convert, "rewrite a recipe or block weights")
    convert.add_argument("--to", dest="target", metavar="FORMAT", required=True)
    convert.add_argument(
        "recipe", nargs="?", default="-", help="a file, a checkpoint or the text; - reads stdin"
    )
    convert.add_argument("-o", "--output", type=Path, help="write a file (default: print)")
    convert.add_argument("--name", default="", help="of a preset")
    convert.add_argument("--json", action="store_true", help="the text with what was noted")
    _sources(convert)


def _merge_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtype",
        choices=("fp16", "bf16", "fp32", "fp64", "fp8_e4m3", "fp8_e5m2"),
        help="of the result; default: the recipe's, or the first model's own",
    )
    component_options(parser.add_argument_group("components of the result, as with edit"))
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
    _cache(lab)


def _cache(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder for what Re-Basin found, to go on after a stop "
        "(default: ./automerge-data/rebasin)",
    )


def _sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="order", metavar="ORDER", help="order of its list, where it must be told"
    )
    parser.add_argument("--architecture", help="of the models, where the text does not say it")
    parser.add_argument(
        "--number", type=int, metavar="ID", help="which merge of SuperMerger's mergehistory.csv"
    )
    models_option(
        parser, "folders in which the models are found by SHA-256, A1111's old hash or name"
    )
    parser.add_argument(
        "--lossy", action="store_true", help="give up what cannot be said, instead of an error"
    )


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
        print_json(found)
    else:
        print("\n\n".join(map(lab_commands.in_words, found)))
    return DONE


def _rebasin(options: argparse.Namespace) -> int:
    from lib_automerge import rebasin_command

    return rebasin_command.permute(
        options.a,
        options.b,
        options.output,
        cache=options.cache or REBASIN_CACHE,
        sweeps=options.sweeps,
        seed=options.seed,
    )


def _convert(options: argparse.Namespace) -> int:
    from lib_automerge import recipe_commands

    converted = recipe_commands.convert(options)
    if options.json:
        print_json(converted)
    elif options.output is None:
        # a .mecha recipe must not end with a line break
        print(converted.text, end="")
    return DONE
