"""Importing the package `image-reward` 1.5 where that is possible, without what it does besides.

The package imports its training code (diffusers, accelerate, datasets), which scoring does not
need; three helpers where transformers 4.56 no longer has them; and it silences warnings and logs of
the whole process. Here the first is left out, the second lent and the third undone. With
transformers 5 it does not work at all.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from lib_automerge.errors import ConfigError
from lib_automerge.reward.base import reason

_NAME = "ImageReward"
_TRAINING = "ImageReward.ReFL"
_MOVED = (
    "apply_chunking_to_forward",
    "find_pruneable_heads_and_indices",
    "prune_linear_layer",
)
_NEEDED = ("transformers", "torchvision", "timm", "fairscale", "clip", "tqdm", "huggingface_hub")


def check_ready() -> None:
    """Say why the package cannot be used here, as far as that shows without importing it.

    Raises:
        ConfigError: it or something that it imports is not installed, or transformers is too new.
    """
    if find_spec(_NAME) is None:
        raise ConfigError(
            "the package image-reward is not installed. Use the reward image_reward, which needs "
            "no package, or run pip install --no-deps image-reward==1.5 to compare the two."
        )
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the package image-reward needs packages that are not installed: {', '.join(missing)}."
            " Install them, or use the reward image_reward, which needs none."
        )
    found = version("transformers")
    if int(found.split(".")[0]) >= 5:
        raise ConfigError(
            f"the package image-reward does not work with transformers {found}: it needs 4.30 to "
            "4.57. Use the reward image_reward, which needs none."
        )


def package_version() -> str:
    """The installed version; "unknown" for a copy that pip did not install."""
    try:
        return version("image-reward")
    except PackageNotFoundError:
        return "unknown"


def imported() -> tuple[Any, Any]:
    """Import the package.

    Returns:
        Its modules `ImageReward.ImageReward` and `ImageReward.models.BLIP.blip_pretrain`.

    Raises:
        ConfigError: as `check_ready`, or the import failed.
    """
    check_ready()
    try:
        with _training_left_out(), _helpers_lent(), _silence_undone():
            importlib.import_module(_NAME)
            return (
                importlib.import_module(f"{_NAME}.ImageReward"),
                importlib.import_module(f"{_NAME}.models.BLIP.blip_pretrain"),
            )
    # whatever is wrong with the many packages that it imports
    except Exception as error:
        raise ConfigError(
            f"the package image-reward cannot be imported: {type(error).__name__}: {reason(error)}."
            " Use the reward image_reward, which needs no package."
        ) from error


@contextlib.contextmanager
def _training_left_out() -> Iterator[None]:
    """An empty module in place of the training code, unless somebody has imported that already."""
    if _TRAINING in sys.modules:
        yield
        return
    sys.modules[_TRAINING] = ModuleType(_TRAINING)
    try:
        yield
    finally:
        del sys.modules[_TRAINING]


@contextlib.contextmanager
def _helpers_lent() -> Iterator[None]:
    """Lend transformers' helpers where the package looks for them, as long as it does."""
    modeling: Any = importlib.import_module("transformers.modeling_utils")
    home: Any = importlib.import_module("transformers.pytorch_utils")
    lent = [name for name in _MOVED if not hasattr(modeling, name) and hasattr(home, name)]
    for name in lent:
        setattr(modeling, name, getattr(home, name))
    try:
        yield
    finally:
        for name in lent:
            delattr(modeling, name)


@contextlib.contextmanager
def _silence_undone() -> Iterator[None]:
    logs: Any = importlib.import_module("transformers.utils.logging")
    before = logs.get_verbosity()
    with warnings.catch_warnings():
        try:
            yield
        finally:
            logs.set_verbosity(before)
