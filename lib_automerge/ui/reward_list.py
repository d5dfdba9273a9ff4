"""The rewards that a form uses, as the page shows them: for the form and for the script."""

from __future__ import annotations

from collections.abc import Mapping

from lib_automerge.app.desk import Desk
from lib_automerge.errors import ConfigError
from lib_automerge.reward.files import FOLDER
from lib_automerge.reward.status import status
from lib_automerge.study.markup import Markup
from lib_automerge.ui import messages
from lib_automerge.ui.fields import clean
from lib_automerge.ui.reward_fields import REWARD_FIELDS
from lib_automerge.ui.reward_form import explanation, reward_of
from lib_automerge.ui.views.rewards import Judge, reward_list


def drawn(desk: Desk, values: Mapping[str, object]) -> Markup:
    """The rewards of these values, each with its readiness."""
    folder = desk.catalogue.data / FOLDER
    try:
        config = reward_of(values)
        judges = [Judge(m, status(m.name, m.options, folders=[folder])) for m in config.judges]
    except ConfigError as error:
        return messages.trouble(error)
    told = explanation(values)
    if config.ensemble is not None and config.human is not None:
        told += " You are asked too, in this tab, while the run waits."
    if any(judge.status.files and not judge.status.ready for judge in judges):
        told += f" Files are looked for in {folder} and in the Hugging Face cache."
    return reward_list(
        judges,
        desk.downloads.snapshot(),
        several=config.ensemble is not None,
        told=told,
    )


def of_draft(desk: Desk) -> Markup:
    """The rewards of the form as it was left; every edit saves it."""
    return drawn(desk, clean(REWARD_FIELDS, desk.draft()))
