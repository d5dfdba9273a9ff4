"""Checkpoint files that are not in the list, and lists that are made anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from .bench import Bench, behaviour


@behaviour
def a_refresh_makes_new_descriptions(bench: Bench) -> None:
    """Refreshing the list makes new CheckpointInfo objects; the loaded model keeps its old one and
    is not read again."""
    old, model = bench.a, bench.model
    bench.relist()
    assert bench.a is not old
    assert bench.models.get_closet_checkpoint_match(bench.a.title) is bench.a
    assert model.sd_checkpoint_info is old
    values = bench.weight().data.clone()
    bench.change()
    bench.generate()
    assert bench.model.sd_checkpoint_info is old
    assert not torch.equal(bench.weight().data, values)


@behaviour
def a_file_outside_the_folder_can_be_loaded(bench: Bench) -> None:
    """A CheckpointInfo of any file can be loaded: with a copy of the configuration beside it as a
    new object. It is then in the list until the next refresh, and selecting its title works."""
    path = bench.folder / "elsewhere.safetensors"
    shutil.copyfile(bench.b.filename, path)
    shutil.copyfile(Path(bench.c.filename).with_suffix(".yaml"), path.with_suffix(".yaml"))
    try:
        info = bench.models.CheckpointInfo(str(path))
        assert info.name == "elsewhere.safetensors"
        model = bench.model
        bench.models.reload_model_weights(info=info)
        assert bench.model is not model
        assert bench.model.used_config == str(path.with_suffix(".yaml"))
        assert bench.shared.opts.sd_model_checkpoint == info.title
        assert bench.models.checkpoints_list[info.title] is info
        bench.generate()
        assert bench.model.sd_checkpoint_info is info
        bench.relist()
        assert info.title not in bench.models.checkpoints_list
    finally:
        path.unlink()
        path.with_suffix(".yaml").unlink()


@behaviour
def an_alias_selects_a_checkpoint(bench: Bench) -> None:
    """A name put into `checkpoint_aliases` can be selected in the options."""
    bench.models.checkpoint_aliases["automerge: check"] = bench.b
    try:
        bench.shared.opts.data["sd_model_checkpoint"] = "automerge: check"
        assert bench.models.select_checkpoint() is bench.b
        bench.generate()
        assert bench.model.sd_checkpoint_info is bench.b
        # loading wrote the real title
        assert bench.shared.opts.sd_model_checkpoint == bench.b.title
    finally:
        del bench.models.checkpoint_aliases["automerge: check"]


@behaviour
def a_model_forgotten_is_loaded_again(bench: Bench) -> None:
    """With `model_data.sd_model` None, no loaded models and `was_loaded_at_least_once` False the
    next access reads the file into a new object."""
    values, old = bench.weight().data.clone(), bench.model
    bench.change()
    data = bench.models.model_data
    data.sd_model, data.was_loaded_at_least_once = None, False
    data.loaded_sd_models = []
    bench.models.send_model_to_trash(old)
    assert bench.model is not old
    assert torch.equal(bench.weight().data, values)
    assert next(old.parameters()).is_meta


@behaviour
def the_empty_prompt_can_be_computed_again(bench: Bench) -> None:
    """`get_empty_cond` gives what loading gave."""
    with torch.no_grad():
        again = bench.models.get_empty_cond(bench.model)
    bench.models.load_model(bench.a)
    assert torch.equal(again, bench.model.cond_stage_model_empty_prompt)
