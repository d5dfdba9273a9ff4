"""What the groups of commands share: options that several have, and how a command is added."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec

import lib_automerge

DATA = Path(lib_automerge.DATA_FOLDER)

USER_ERROR = 2

REBASIN_CACHE = DATA / lib_automerge.REBASIN_FOLDER

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def command(
    commands: Commands,
    name: str,
    function: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    """Add a command that this function carries out, and return its parser."""
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(command=function)
    return parser


def allow_plugins(parser: argparse.ArgumentParser) -> None:
    """Let rewards be loaded that the user wrote."""
    parser.add_argument(
        "--allow-plugins",
        action="store_true",
        default=os.environ.get("AUTOMERGE_ALLOW_PLUGINS") == "1",
        help="load the rewards that you wrote: every *.py in rewards/plugins of the data folder "
        "(the environment's AUTOMERGE_ALLOW_PLUGINS=1 does the same)",
    )


def models_option(parser: argparse.ArgumentParser, text: str) -> None:
    """Let folders with models be named, several at once and several times."""
    parser.add_argument(
        "--models", type=Path, nargs="+", action="extend", default=[], metavar="DIR", help=text
    )


def data_option(parser: argparse.ArgumentParser, text: str) -> None:
    """Let the folder be named in which Automerge keeps what is not of one run."""
    parser.add_argument(
        "--data", type=Path, default=DATA, help=f"{text} (default: ./automerge-data)"
    )


def component_options(parser: argparse._ActionsContainer) -> None:
    """Let components of the checkpoint that is written be changed."""
    parser.add_argument(
        "--text-encoder", type=Path, metavar="FILE", help="take this checkpoint's text encoder"
    )
    parser.add_argument(
        "--vae", type=Path, metavar="FILE", help="put in the VAE of a checkpoint or of a VAE file"
    )
    parser.add_argument(
        "--fix-positions", action="store_true", help="reset CLIP's position indices to 0..76"
    )
    parser.add_argument(
        "--drop-ema", action="store_true", help="leave out the averaged copy of training"
    )


def print_json(value: object) -> None:
    """Print data that other programs read."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
