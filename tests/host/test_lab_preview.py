"""A preview of the merge lab in (a fake of) A1111: what is seen is what is saved."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_automerge.app.desk import Desk
from lib_automerge.app.lab import LabPhase
from lib_automerge.domain.config import GeneratorConfig
from lib_automerge.domain.payload import ImageJob, Payload
from lib_automerge.generate.base import never
from lib_automerge.merge.readers import open_checkpoint
from tests.host.test_a1111_generator import left_as_found
from tests.host_fake.install import FakeHost
from tests.lab_desk import LONG_S, soup

PAYLOAD = Payload(prompt="a picture", sampler="Euler", seeds=(5,), steps=2, width=64, height=64)


@pytest.fixture
def desk(webui: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    from lib_automerge.host import a1111_buttons
    from lib_automerge.host.a1111 import A1111Host

    monkeypatch.setattr(a1111_buttons, "RELOAD_NOTICE_S", 0.2)
    host = A1111Host()
    host.data = tmp_path / "automerge"
    return Desk(host, host)


def test_a_preview_is_the_image_of_the_saved_file_and_leaves_the_webui_as_found(
    webui: FakeHost, desk: Desk
) -> None:
    models = {role: str(webui.models / f"{role}.safetensors") for role in "ab"}
    path = webui.models / "merged.safetensors"
    with left_as_found(webui):
        desk.preview_merge(soup(models, path), PAYLOAD)
        desk.lab.wait(LONG_S)
    found = desk.lab.snapshot()
    assert found.phase is LabPhase.DONE, found.told
    assert found.picture is not None
    assert [*(desk.catalogue.data / "lab").iterdir()] == []
    desk.merge(soup(models, path))
    desk.lab.wait(LONG_S)
    generator = desk._host.generator(GeneratorConfig(name=desk.catalogue.generator_name))
    with open_checkpoint(path) as saved, generator.open({"a": saved}) as session:
        ((_, image),) = session.images([ImageJob(0, PAYLOAD, 5)], never)
    seen = Image.open(io.BytesIO(found.picture.png))
    assert np.array_equal(np.asarray(seen), np.asarray(image))


def test_contents_that_the_webui_knows_are_not_read_again(webui: FakeHost, desk: Desk) -> None:
    known = {Path(one.path).stem: desk.digests.known(one) for one in desk.catalogue.models()}
    # the model that is loaded has been read; the others have not
    path = webui.models / "a.safetensors"
    assert known["a"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert known["b"] == ""


def test_a_preview_that_fails_leaves_the_webui_as_found(webui: FakeHost, desk: Desk) -> None:
    models = {role: str(webui.models / f"{role}.safetensors") for role in "ab"}
    webui.faults.nan_prompts = {"a picture"}
    with left_as_found(webui):
        desk.preview_merge(soup(models, webui.models / "x.safetensors"), PAYLOAD)
        desk.lab.wait(LONG_S)
    found = desk.lab.snapshot()
    assert found.phase is LabPhase.FAILED
    assert "NaN" in found.told
    assert [*(desk.catalogue.data / "lab").iterdir()] == []
