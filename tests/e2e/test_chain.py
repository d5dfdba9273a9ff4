"""A chain in small over the demo pair: real checkpoints, real pipelines, the real reward."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lib_automerge import demo
from lib_automerge.app.chains import ChainService
from lib_automerge.domain.chain import ChainConfig, decode_chain
from lib_automerge.domain.chain_events import Pictured, Purpose
from lib_automerge.domain.run import Status
from lib_automerge.host.standalone import StandaloneHost
from lib_automerge.study.chain_store import ChainFolder


def small() -> ChainConfig:
    payloads = demo.load_payloads()
    searched = [p for p in payloads if not p.held_out][:1]
    held_out = [p for p in payloads if p.held_out][:1]
    return decode_chain(
        {
            "pool": [str(demo.MODEL_A), str(demo.MODEL_B)],
            "payloads": [
                msgspec.to_builtins(msgspec.structs.replace(p, steps=2, seeds=(), batch_size=3))
                for p in (*searched, *held_out)
            ],
            "reward": {"name": "demo"},
            "generator": {"device": "cpu", "threads": 1},
            "search": {"evaluations": 4, "optimizer": "sobol", "seeds_per_payload": 2},
            "verdict": {"finalists": 1, "finalist_seeds": 1, "seeds": 2},
            "rank_seeds": 3,
            "previews": 1,
            "preset": "soup",
        }
    )


def pictures(folder: Path) -> dict[tuple[str, Purpose, int], str]:
    events = ChainFolder(folder).events()
    found = [event for event in events if isinstance(event, Pictured)]
    assert len({(e.model, e.purpose, e.job) for e in found}) == len(found)
    return {(e.model, e.purpose, e.job): e.digest for e in found}


@pytest.mark.slow
def test_a_stopped_chain_makes_the_same_images_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib_automerge.search.insights.insights", lambda *_, **__: None)
    service = ChainService(StandaloneHost(), clock=lambda: 0.0)
    prepared = service.prepare(small())
    whole = service.start(prepared, tmp_path / "whole")
    assert whole.status is Status.FINISHED
    shown = {model for model, purpose, _ in pictures(tmp_path / "whole") if purpose == "preview"}
    assert {"soup", demo.MODEL_A.stem, demo.MODEL_B.stem} <= shown
    # every model has pictures of its own
    previews = {
        d for (_, purpose, _), d in pictures(tmp_path / "whole").items() if purpose == "preview"
    }
    assert len(previews) == len(shown)

    ranked = 0

    def stop() -> bool:
        state = ChainFolder(tmp_path / "cut").state()
        nonlocal ranked
        ranked = sum(purpose is Purpose.RANK for _, purpose in state.pictures)
        return ranked == 1

    cut = service.start(prepared, tmp_path / "cut", stop=stop)
    assert cut.status is Status.STOPPED
    again = service.resume(tmp_path / "cut")
    assert again.finished == whole.finished
    assert pictures(tmp_path / "cut") == pictures(tmp_path / "whole")
    assert {m: made.ref.sha256 for m, made in again.made.items()} == {
        m: made.ref.sha256 for m, made in whole.made.items()
    }
