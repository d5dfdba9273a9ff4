"""Reading run configurations from YAML and JSON files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import yaml

from lib_automerge.app import earlier
from lib_automerge.domain.config import Options, RunConfig, decode_config
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
    raw = _load(path)
    folder = path.parent
    if isinstance(raw, dict) and isinstance(raw.get("payloads"), str):
        raw = {**raw, "payloads": _load(folder / raw["payloads"])}
    config = decode_config(raw)
    models = {role: _located(folder, name) for role, name in config.models.items()}
    reward = msgspec.structs.replace(
        config.reward,
        options=_located_options(folder, config.reward.name, config.reward.options),
        members=tuple(
            msgspec.structs.replace(
                member, options=_located_options(folder, member.name, member.options)
            )
            for member in config.reward.members
        ),
    )
    if config.output.path is not None:
        output = msgspec.structs.replace(config.output, path=_located(folder, config.output.path))
        config = msgspec.structs.replace(config, output=output)
    sources = tuple(_located_source(folder, entry) for entry in config.search.warm_start)
    search = msgspec.structs.replace(config.search, warm_start=sources)
    return msgspec.structs.replace(config, models=models, search=search, reward=reward)


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
