"""The commands around the engine: the page, and the rewards on this machine."""

from __future__ import annotations

import argparse

from lib_automerge.cli.parts import (
    USER_ERROR,
    Commands,
    allow_plugins,
    command,
    data_option,
    models_option,
    print_json,
)
from lib_automerge.run_commands import DONE


def add_to(commands: Commands) -> None:
    """Add the commands of this group."""
    ui = command(commands, "ui", _ui, "serve the page: set up and watch runs in a browser")
    models_option(ui, "folders with checkpoints, searched with everything below them")
    data_option(ui, "folder for runs, prompts and settings")
    ui.add_argument("--port", type=int, default=7865, help="on 127.0.0.1; default: 7865")
    ui.add_argument("--no-browser", action="store_true", help="do not open a browser")
    allow_plugins(ui)

    rewards = command(commands, "rewards", _rewards, "list, download and check rewards")
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
    data_option(rewards, "folder whose `rewards` holds the files")
    rewards.add_argument("--json", action="store_true")
    allow_plugins(rewards)


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
        print_json(found)
    else:
        print(reward_commands.listed(found))
    return DONE
