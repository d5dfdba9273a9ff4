from __future__ import annotations

import msgspec
import pytest

from lib_automerge.app.digests import Reading
from lib_automerge.app.lab import LabPhase, LabSnapshot, Picture
from lib_automerge.app.lab_orders import Kept
from lib_automerge.merge.lab.job import Progress
from lib_automerge.ui.views.lab import lab
from tests.api.bench import NASTY

KEPT = (
    Kept(3, "soup.safetensors", "/models", 1_500_000_000),
    Kept(4, "ties.safetensors", "/models", 20_000_000),
)
HALF = Progress(done=600_000_000, total=1_200_000_000, seconds=4.0, skipped=200_000_000)


def test_a_merge_tells_how_much_is_done_how_fast_and_when_it_ends() -> None:
    now = LabSnapshot(number=1, phase=LabPhase.MERGING, name="soup.safetensors", progress=HALF)
    drawn = lab(now, 0.0)
    assert "soup.safetensors" in drawn
    assert 'style="width: 50.0%"' in drawn
    assert 'aria-valuenow="50"' in drawn
    # what an earlier merge had done is no part of the pace
    assert "600 MB of 1.2 GB read and written · 100 MB/s" in drawn
    assert 'data-in="6"' in drawn
    assert 'data-action="lab-cancel"' in drawn


def test_before_the_first_bytes_nothing_is_foretold() -> None:
    drawn = lab(LabSnapshot(number=1, phase=LabPhase.MERGING, name="x"), 0.0)
    assert "reading the models for their SHA-256" in drawn
    assert "automerge-bar unknown" in drawn
    assert "/s" not in drawn.replace("</s", "")
    assert "aria-valuenow" not in drawn


def test_a_preview_says_that_its_image_is_made() -> None:
    now = LabSnapshot(number=1, phase=LabPhase.GENERATING, preview=True, name="ties", progress=HALF)
    drawn = lab(now, 0.0)
    assert "Preview of TIES" in drawn
    assert "making the image" in drawn


def test_while_it_is_cancelled_there_is_nothing_to_cancel() -> None:
    now = LabSnapshot(number=1, phase=LabPhase.CANCELLING, name="x", progress=HALF, kept=KEPT)
    drawn = lab(now, 0.0)
    assert "data-action" not in drawn
    assert "Cancelling" in drawn


@pytest.mark.parametrize("phase", [LabPhase.DONE, LabPhase.CANCELLED, LabPhase.FAILED])
def test_what_is_left_of_a_cancelled_merge_is_offered(phase: LabPhase) -> None:
    now = LabSnapshot(number=2, phase=phase, told="told", kept=KEPT)
    drawn = lab(now, 0.0)
    soup, ties = drawn.split("is not finished")[1:]
    assert "1.5 GB of it are kept in /models" in soup
    assert "20 MB of it are kept in /models" in ties
    for part, number in ((soup, 3), (ties, 4)):
        first, second = part.split('data-action="lab-discard"')
        assert 'data-action="lab-resume"' in first
        assert f'data-kept="{number}"' in first
        # what cannot be taken back is asked about
        assert "data-confirm" in second
        assert f'data-kept="{number}"' in second


def test_models_that_are_read_tell_how_far_they_are_and_how_it_ended() -> None:
    half = {"done": 30_000_000, "total": 60_000_000}
    reading = Reading(number=1, running=True, name="a.safetensors", **half)
    drawn = lab(LabSnapshot(), 0.0, reading)
    assert "Reading a.safetensors" in drawn
    assert 'aria-valuenow="50"' in drawn
    assert "30 MB of 60 MB, for the SHA-256" in drawn
    assert 'data-action="lab-read-cancel"' in drawn
    drawn = lab(LabSnapshot(), 0.0, msgspec.structs.replace(reading, cancelling=True))
    assert "data-action" not in drawn
    for failed, kind in ((False, "automerge-quiet"), (True, "automerge-error")):
        drawn = lab(LabSnapshot(), 0.0, Reading(number=1, told="it ended.", failed=failed))
        assert "It ended." in drawn
        assert kind in drawn


def test_all_text_is_escaped() -> None:
    picture = Picture(number=3, png=b"", prompt=NASTY, seed=1, method=NASTY)
    for phase in LabPhase:
        now = LabSnapshot(
            number=3,
            phase=phase,
            name=NASTY,
            told=NASTY,
            notes=(NASTY,),
            kept=(Kept(1, NASTY, NASTY, 5),),
            picture=picture,
        )
        assert "<img src=x" not in lab(now, 0.0)


def test_notes_follow_the_result() -> None:
    now = LabSnapshot(number=1, phase=LabPhase.DONE, told="Saved.", notes=("12 tensors differ.",))
    drawn = lab(now, 0.0)
    assert drawn.index("Saved.") < drawn.index("<li>12 tensors differ.</li>")
