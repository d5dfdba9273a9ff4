"""Settings, and overrides of settings."""

from __future__ import annotations

import json
from typing import Any

from .bench import Bench, behaviour, raises


@behaviour
def an_override_of_an_absent_option_stays(bench: Bench) -> None:
    """`override_settings` restores only options that are in `opts.data`: one that was never set
    keeps the override for good."""
    data = bench.shared.opts.data
    data.pop("CLIP_stop_at_last_layers", None)
    bench.generate(override_settings={"CLIP_stop_at_last_layers": 2})
    assert data["CLIP_stop_at_last_layers"] == 2
    data["CLIP_stop_at_last_layers"] = 1
    bench.generate(override_settings={"CLIP_stop_at_last_layers": 3})
    assert data["CLIP_stop_at_last_layers"] == 1


@behaviour
def an_override_acts(bench: Bench) -> None:
    """An override changes the image and is gone afterwards."""
    bench.shared.opts.data["CLIP_stop_at_last_layers"] = 1
    first = bench.image()
    assert bench.image(override_settings={"CLIP_stop_at_last_layers": 3}) != first
    assert bench.image() == first


@behaviour
def overriding_the_checkpoint_leaves_it_loaded(bench: Bench) -> None:
    """`override_settings` with a checkpoint restores the option but not the model; the next
    generation does."""
    bench.generate(override_settings={"sd_model_checkpoint": bench.b.title})
    assert bench.shared.opts.sd_model_checkpoint == bench.a.title
    assert bench.model.sd_checkpoint_info is bench.b
    bench.generate()
    assert bench.model.sd_checkpoint_info is bench.a


@behaviour
def an_override_with_an_unknown_checkpoint_is_ignored(bench: Bench) -> None:
    """An unknown checkpoint in `override_settings` is dropped without an error."""
    first = bench.image()
    assert bench.image(override_settings={"sd_model_checkpoint": "no such checkpoint"}) == first


@behaviour
def an_override_of_an_unknown_option_raises(bench: Bench) -> str:
    """An option that does not exist raises KeyError, after the options before it were restored."""
    bench.shared.opts.data["CLIP_stop_at_last_layers"] = 1
    overrides = {"CLIP_stop_at_last_layers": 2, "no_such_option": 1}
    error = raises(lambda: bench.generate(override_settings=overrides))
    assert isinstance(error, KeyError), error
    assert bench.shared.opts.data["CLIP_stop_at_last_layers"] == 1
    return repr(error)


@behaviour
def overrides_do_not_call_back(bench: Bench) -> None:
    """An override does not call the option's `onchange`."""
    calls = _option(bench, "automerge_check", 1)
    bench.generate(override_settings={"automerge_check": 2})
    assert not calls
    assert bench.shared.opts.automerge_check == 1


@behaviour
def setting_an_option_calls_back(bench: Bench) -> None:
    """`opts.set` calls `onchange` and says whether something changed; an exception there undoes the
    change; attribute access sets without a call."""
    opts = bench.shared.opts
    calls = _option(bench, "automerge_check", 1)
    assert opts.set("automerge_check", 2) is True
    assert opts.set("automerge_check", 2) is False
    assert calls == [2]
    opts.automerge_check = 3
    assert calls == [2]
    assert opts.data["automerge_check"] == 3

    def refuse() -> None:
        raise ValueError

    opts.onchange("automerge_check", refuse, call=False)
    assert opts.set("automerge_check", 4) is False
    assert opts.automerge_check == 3
    assert isinstance(raises(lambda: opts.set("no_such_option", 1)), KeyError)


@behaviour
def an_added_option_is_in_the_data(bench: Bench) -> None:
    """`add_option` puts the default into `opts.data` unless a value is there; other options are
    absent until set and read as their default."""
    _option(bench, "automerge_check", 7)
    opts = bench.shared.opts
    assert opts.data["automerge_check"] == 7
    opts.data.pop("sd_checkpoints_limit", None)
    assert opts.sd_checkpoints_limit == 1
    assert "sd_checkpoints_limit" not in opts.data
    assert opts.get_default("sd_checkpoints_limit") == 1
    assert isinstance(raises(lambda: opts.no_such_option), AttributeError)


@behaviour
def defaults_of_options(bench: Bench) -> None:
    """Defaults that the handling of weights depends on."""
    opts = bench.shared.opts
    for key, value in {
        "sd_checkpoints_limit": 1,
        "sd_checkpoint_cache": 0,
        "persistent_cond_cache": True,
        "fp8_storage": "Disable",
        "cache_fp16_weight": False,
        "sd_unet": "Automatic",
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "token_merging_ratio": 0.0,
        "randn_source": "GPU",
        "return_grid": True,
        "enable_pnginfo": True,
        "samples_save": True,
        "sd_lora": "None",
    }.items():
        assert opts.get_default(key) == value, key


@behaviour
def saving_writes_the_data_alone(bench: Bench) -> None:
    """`opts.save` writes `opts.data` as it is; what was never set is not in the file."""
    path = bench.folder / "config.json"
    bench.shared.opts.data.pop("sd_checkpoints_limit", None)
    bench.shared.opts.save(path)
    assert json.loads(path.read_text("utf-8")) == bench.shared.opts.data


@behaviour
def a_dictionary_of_another_kind_serves(bench: Bench) -> None:
    """`opts.data` may be replaced by a subclass of dict, through which every option is read."""
    read: list[str] = []

    class Watched(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            read.append(key)
            return super().__getitem__(key)

    bench.shared.opts.data = Watched(bench.shared.opts.data, CLIP_stop_at_last_layers=2)
    assert bench.shared.opts.CLIP_stop_at_last_layers == 2
    assert "CLIP_stop_at_last_layers" in read
    bench.generate()


def _option(bench: Bench, key: str, default: int) -> list[int]:
    """Add an option afresh; the list receives the values at which it called back."""
    opts, calls = bench.shared.opts, []
    opts.data.pop(key, None)
    opts.add_option(key, bench.shared.OptionInfo(default, key, section=("check", "Check")))
    opts.onchange(key, lambda: calls.append(getattr(opts, key)), call=False)
    return calls
