"""The embedded demo: two tiny, real Stable Diffusion 1 checkpoints, their prompts and reward.

What they are and how they were made is told in `data/demo/README.md`. This module only finds,
reads and copies files; `lib_automerge.demo.train` makes them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec

from lib_automerge.domain.config import (
    OutputConfig,
    RewardConfig,
    RunConfig,
    SearchConfig,
    VerdictConfig,
)
from lib_automerge.domain.payload import Payload, named
from lib_automerge.errors import ConfigError, StorageError

_DATA = Path(__file__).parent.parent / "data"
_DEMO = _DATA / "demo"

MODEL_A = _DEMO / "automerge-demo-a.safetensors"
MODEL_B = _DEMO / "automerge-demo-b.safetensors"
TOKENIZER = _DATA / "clip_tokenizer"

_TEXT_ENCODER_CONFIG = _DEMO / "text_encoder.json"
_WEBUI_CONFIG = _DEMO / "webui.yaml"
_TEXT_ENCODER_FOLDER = "automerge-demo-text-encoder"


def load_payloads() -> tuple[Payload, ...]:
    """The demo's payload set: search prompts with seeds, and held-out prompts without."""
    content = (_DEMO / "payloads.json").read_bytes()
    return named(msgspec.json.decode(content, type=tuple[Payload, ...]))


def export(directory: Path) -> list[Path]:
    """Copy the two checkpoints to where a WebUI finds them, with what it needs to load them.

    Beside each checkpoint stands a YAML of its reduced widths, and one folder holds the text
    encoder's configuration and vocabulary. The YAMLs name that folder by its absolute path: export
    again rather than move the files.

    Args:
        directory: Made if it does not exist.

    Returns:
        The files written.

    Raises:
        StorageError: A file is already there, or cannot be written; then nothing was overwritten.
    """
    text_encoder = directory.absolute() / _TEXT_ENCODER_FOLDER
    copies = {directory / model.name: model for model in (MODEL_A, MODEL_B)}
    copies[text_encoder / "config.json"] = _TEXT_ENCODER_CONFIG
    for source in sorted(TOKENIZER.iterdir()):
        copies[text_encoder / source.name] = source
    # A JSON string is a YAML string, whatever characters the path has.
    quoted = json.dumps(str(text_encoder), ensure_ascii=False)
    config = _WEBUI_CONFIG.read_text("utf-8").replace("TEXT_ENCODER_FOLDER", quoted)
    texts = {directory / f"{model.stem}.yaml": config for model in (MODEL_A, MODEL_B)}
    for target in [*copies, *texts]:
        if target.exists():
            raise StorageError(
                f"the demo was not exported, a file is already there: {target}. "
                "Remove it or choose another folder."
            )
    try:
        text_encoder.mkdir(parents=True, exist_ok=True)
        for target, source in copies.items():
            shutil.copyfile(source, target)
        for target, text in texts.items():
            target.write_text(text, "utf-8")
    except OSError as error:
        raise StorageError(
            f"the demo could not be exported to {directory}: {error}. Choose another folder."
        ) from error
    return [*copies, *texts]


def config(*, evaluations: int = 40, seed: int = 0, payloads: int | None = None) -> RunConfig:
    """The demo's run: the two checkpoints, their prompts and their reward.

    Args:
        evaluations: Baselines included.
        seed: Of the whole run.
        payloads: Use only the first so many search prompts; all by default.

    Raises:
        ConfigError: A number is out of its range.
    """
    everything = load_payloads()
    search = [payload for payload in everything if not payload.held_out]
    if payloads is not None and not 1 <= payloads <= len(search):
        raise ConfigError(
            f"payloads is {payloads}. The demo has {len(search)} search prompts: use 1 to "
            f"{len(search)}."
        )
    held_out = [payload for payload in everything if payload.held_out]
    return RunConfig(
        models={"a": str(MODEL_A), "b": str(MODEL_B)},
        payloads=(*search[:payloads], *held_out),
        name="demo",
        reward=RewardConfig(name="demo"),
        search=SearchConfig(evaluations=evaluations, seed=seed),
        verdict=VerdictConfig(finalists=3, finalist_seeds=2, seeds=12),
        output=OutputConfig(checkpoint="gain"),
    )
