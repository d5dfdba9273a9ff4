"""The models of a chain: where the file of each is, and whether it still is what it was."""

from __future__ import annotations

from pathlib import Path

import msgspec

from lib_automerge.domain.chain_state import ChainState
from lib_automerge.domain.recipe import ModelRef
from lib_automerge.errors import ConfigError, ModelError
from lib_automerge.merge.lookup import sha256
from lib_automerge.study.chain_store import ChainFolder, ChainManifest


class ChainModels:
    """Finds models by name, each checked once by this process.

    Args:
        folder: of the chain.
        manifest: of the chain.
        state: which models were made so far.
    """

    def __init__(self, folder: ChainFolder, manifest: ChainManifest, state: ChainState) -> None:
        self._folder = folder
        self._manifest = manifest
        self._state = state
        self._checked: set[str] = set()

    def check_pool(self) -> None:
        """Check that the pool is what it was when the chain began; reads every file once.

        Raises:
            ConfigError: a file is gone or has changed.
        """
        for member in self._manifest.pool:
            self._check(member.name, member.ref)

    def digest(self, name: str) -> str:
        """The SHA-256 of a model."""
        return self._known(name).sha256

    def ref(self, name: str) -> ModelRef:
        """A model with the absolute path of its file.

        Raises:
            ConfigError: the file is gone or has changed.
        """
        ref = self._known(name)
        self._check(name, ref)
        return ref

    def trusted(self, name: str) -> None:
        """Take the file of a model as it is: this process has just written it."""
        self._checked.add(name)

    def _known(self, name: str) -> ModelRef:
        member = self._manifest.member(name)
        if member is not None:
            return member.ref
        made = self._state.ref(name)
        if made is None:
            raise ModelError(f"the chain has no model {name!r}. Report this as a bug.")
        path = (self._folder.path / made.path).absolute()
        return msgspec.structs.replace(made, path=str(path))

    def _check(self, name: str, ref: ModelRef) -> None:
        if name in self._checked:
            return
        path = Path(ref.path)
        if not path.is_file():
            raise ConfigError(
                f"the file of model {name!r} is gone: {path}. Put it back, then resume the chain."
            )
        found = sha256(path)
        if found != ref.sha256:
            raise ConfigError(
                f"model {name!r} has changed since the chain began: {path} has SHA-256 "
                f"{found[:12]}..., it was {ref.sha256[:12]}.... Restore the file, or start a new "
                "chain."
            )
        self._checked.add(name)
