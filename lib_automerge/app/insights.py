"""What a run taught, from its manifest and its journal alone."""

from __future__ import annotations

import logging

from lib_automerge.app.plan import known, model_of
from lib_automerge.domain.insights import Insights
from lib_automerge.domain.run import RunState
from lib_automerge.search import insights as search
from lib_automerge.study import report
from lib_automerge.study.findings import contest
from lib_automerge.study.store import RunFolder, RunManifest

log = logging.getLogger(__name__)


def insights(manifest: RunManifest, state: RunState) -> Insights | None:
    """What a run taught about its best merge and the blocks; None if too little is known.

    Takes about two seconds at 150 evaluations of 27 blocks.

    Raises:
        AutomergeError: the configuration describes no space.
    """
    merge = contest(state).merge
    return search.insights(
        model_of(manifest),
        known(manifest, state),
        merge.number if merge else None,
        seed=manifest.config.search.seed,
    )


def insights_or_none(manifest: RunManifest, state: RunState) -> Insights | None:
    """The same for a view, which must not fail because of it: what went wrong goes to the log."""
    try:
        return insights(manifest, state)
    except Exception:
        log.exception("what the run taught could not be computed")
        return None


def report_html(folder: RunFolder) -> str:
    """The report of a run as it stands, with what it taught.

    Raises:
        StorageError: the manifest or the journal cannot be read.
    """
    return report.render(folder, insights_or_none(folder.manifest(), folder.state()))
