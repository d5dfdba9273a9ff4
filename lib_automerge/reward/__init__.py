"""Rewards: models that judge images. `create(name, **options)` is the way in."""

from __future__ import annotations

import lib_automerge.reward.builtin  # noqa: F401  registers the built-in rewards
from lib_automerge.reward.base import Reward
from lib_automerge.reward.registry import create, describe, names, register

__all__ = ["Reward", "create", "describe", "names", "register"]
