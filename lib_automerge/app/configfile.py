"""Reading the configurations of runs and chains from YAML and JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from lib_automerge.app import earlier
from lib_automerge.domain.chain import ChainConfig, decode_chain
from lib_automerge.domain.config import Options, RewardConfig, RunConfig, decode_config
from lib_automerge.errors import ConfigError, StorageError
from lib_automerge.reward import registry


def read_config(path: Path) -> RunConfig:
    """Read and check a configuration file.

    Paths in it are relative to its folder, those of a warm start too. `payloads` may name a JSON or
    YAML file that holds the list, and options of a reward its files.

    Raises:
        StorageError: a file cannot be read.
        ConfigError: it is not YAML or JSON, or says something that cannot be.
    """
    folder = path.parent
    config = decode_config(_with_payloads(_load(path), folder))
    models = {role: _located(folder, name) for role, name in config.models.items()}
    reward = _located_reward(folder, config.reward)
    if config.output.path is not None:
        output = msgspec.structs.replace(config.output, path=_located(folder, config.output.path))
        config = msgspec.structs.replace(config, output=output)
    sources = tuple(_located_source(folder, entry) for entry in config.search.warm_start)
    search = msgspec.structs.replace(config.search, warm_start=sources)
    return msgspec.structs.replace(config, models=models, search=search, reward=reward)


def read_chain(path: Path | None, given: Mapping[str, object]) -> ChainConfig:
    """Read and check the file of a chain.

    Paths in it are relative to its folder, as in `read_config`.

    Args:
        path: of the file; None takes everything from `given`.
        given: replaces sections of the file; paths in it are relative to the working folder.

    Raises:
        StorageError: a file cannot be read.
        ConfigError: it is not YAML or JSON, or says something that cannot be.
    """
    raw = {} if path is None else _load(path)
    folder = Path() if path is None else path.parent
    raw = _with_payloads(raw, folder)
    if not isinstance(raw, dict):
        return decode_chain(raw)
    if "preset" in given:
        raw.pop("steps", None)
    config = decode_chain({**raw, **_with_payloads(dict(given), Path())})
    pool = config.pool
    if "pool" not in given:
        pool = tuple(_located(folder, name) for name in pool)
    reward = _located_reward(folder, config.reward)
    return msgspec.structs.replace(config, pool=pool, reward=reward)


def _with_payloads(raw: Any, folder: Path) -> Any:
    """The content of a file, with the payloads that another file holds."""
    if isinstance(raw, dict) and isinstance(raw.get("payloads"), str):
        return {**raw, "payloads": _load(folder / raw["payloads"])}
    return raw


def _located_reward(folder: Path, reward: RewardConfig) -> RewardConfig:
    return msgspec.structs.replace(
        reward,
        options=_located_options(folder, reward.name, reward.options),
        members=tuple(
            msgspec.structs.replace(
                member, options=_located_options(folder, member.name, member.options)
            )
            for member in reward.members
        ),
    )


def _located(folder: Path, name: str) -> str:
    # not Path.expanduser, which raises for a user that does not exist
    return str(folder / os.path.expanduser(name))  # noqa: PTH111


def _located_options(folder: Path, reward: str, options: Options) -> Options:
    """The options of a reward with the places of the files among them."""
    files = registry.paths(reward)
    return {
        name: _located(folder, value) if name in files and isinstance(value, str) else value
        for name, value in options.items()
    }


def _located_source(folder: Path, entry: str) -> str:
    order, path = earlier.located(entry)
    place = _located(folder, str(path))
    return place if order is None else f"{order}:{place}"


def _load(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text: {error.reason}. Save it as UTF-8.") from error
    try:
        if path.suffix.lower() == ".json":
            return json.loads(text)
        return yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path.name} is not JSON: {error.msg} in line {error.lineno}. Correct it there."
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{path.name} is nested too deeply. Flatten it.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise ConfigError(
            f"{path.name} is not YAML: {problem}{place}. Correct it there."
        ) from error
