from __future__ import annotations

import os
from pathlib import Path

import pytest

from lib_automerge.errors import ConfigError
from lib_automerge.generate import samplers
from lib_automerge.host.standalone import StandaloneCatalogue


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_models_are_found_below_their_folders_and_named_by_their_place(tmp_path: Path) -> None:
    touch(tmp_path / "m", "b.safetensors", "sd1/A.ckpt", "notes.txt", "vae.pt", "C.SAFETENSORS")
    demo = tmp_path / "demo.safetensors"
    catalogue = StandaloneCatalogue(tmp_path, [tmp_path / "m"], {"Demo A": demo})
    choices = catalogue.models()
    assert [c.title for c in choices] == ["b.safetensors", "C.SAFETENSORS", "sd1/A.ckpt", "Demo A"]
    assert choices[2].path == str(tmp_path / "m" / "sd1" / "A.ckpt")
    assert choices[3].path == str(demo)


def test_a_new_file_is_seen_without_a_restart(tmp_path: Path) -> None:
    catalogue = StandaloneCatalogue(tmp_path, [tmp_path])
    assert catalogue.models() == []
    touch(tmp_path, "new.safetensors")
    assert [c.title for c in catalogue.models()] == ["new.safetensors"]


def test_titles_are_unique_where_two_folders_have_the_same_name(tmp_path: Path) -> None:
    touch(tmp_path / "one", "x.safetensors")
    touch(tmp_path / "two", "x.safetensors", "y.safetensors")
    folders = [tmp_path / "one", tmp_path / "two", tmp_path / "two"]
    choices = StandaloneCatalogue(tmp_path, folders).models()
    assert {c.title for c in choices} == {
        str(tmp_path / "one" / "x.safetensors"),
        str(tmp_path / "two" / "x.safetensors"),
        "y.safetensors",
    }


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_linked_folders_are_followed_and_a_loop_of_them_ends(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "x.safetensors")
    models = tmp_path / "models"
    models.mkdir()
    (models / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(models)
    choices = StandaloneCatalogue(tmp_path, [models]).models()
    assert [c.title for c in choices] == ["link/x.safetensors"]


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        StandaloneCatalogue(tmp_path, [tmp_path / "nowhere"])


def test_every_sampler_that_is_offered_is_accepted(tmp_path: Path) -> None:
    choices = StandaloneCatalogue(tmp_path).choices()
    assert choices.samplers
    for sampler in choices.samplers:
        samplers.check(sampler)
    for scheduler in choices.schedulers:
        samplers.check("DPM++ 2M", scheduler)
