"""Writes merged tensors into the modules of a loaded diffusers pipeline, in place.

Hides the renaming and reshaping of `key_mapping`, devices and number types. A merged tensor comes
rounded to the type in which a saved file would hold it and is only then cast to the live type, so
that the live modules hold what loading the saved file would put there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from lib_automerge.domain.architectures import Architecture
from lib_automerge.errors import GenerationError
from lib_automerge.generate.key_mapping import Place, is_dropped, key_map
from lib_automerge.merge.readers import Checkpoint

SAMPLES = 16
"""Elements of each tensor that are compared after loading: enough to tell tensors apart."""


class LiveSink:
    """A `merge.sinks.Sink` over the live parameters of a pipeline.

    Between `begin` and `finish` every key may be written once.

    Args:
        components: the pipeline's modules by attribute name (`unet`, `vae`, ...).
        architecture: of the checkpoints.
        keys: the canonical keys of model A.

    Raises:
        GenerationError: the keys do not cover the modules' tensors exactly once.
    """

    def __init__(
        self,
        components: Mapping[str, nn.Module],
        architecture: Architecture,
        keys: Iterable[str],
    ) -> None:
        self._blocks = {key: architecture.block_of(key) for key in keys}
        trained = [key for key, block in self._blocks.items() if block is not None]
        self._places = key_map(trained)
        self._owners = _owners(components)
        self._check_coverage()
        self._written: set[str] = set()

    def begin(self) -> None:
        """Forget what was written before."""
        self._written.clear()

    def finish(self, blocks: Collection[str] | None) -> None:
        """Check that all keys of these blocks (None: all blocks) were written since `begin`.

        Raises:
            GenerationError: a key was not.
        """
        for key in self._places:
            if (blocks is None or self._blocks[key] in blocks) and key not in self._written:
                raise GenerationError(
                    f"the merge left out the weight {key!r}. Report this as a bug."
                )

    def target(self, key: str, dtype: torch.dtype) -> Tensor | None:
        """The live tensor itself, where it can take the merge of `key` directly.

        That is on the CPU only, where the merge is computed: so a GPU shows the same bits.
        """
        places = self._places.get(key, ())
        if len(places) != 1 or places[0].change not in ("same", "squeezed"):
            return None
        live = self._live(places[0])
        if live.dtype != dtype or live.device.type != "cpu" or not live.is_contiguous():
            return None
        self._note(key)
        return live if places[0].change == "same" else live[:, :, None, None]

    def put(self, key: str, tensor: Tensor) -> None:
        """Copy the merged tensor into its places; ignore keys that no image depends on.

        Raises:
            GenerationError: the key is unknown, or written for the second time.
        """
        places = self._places.get(key)
        if places is None:
            if key in self._blocks and (self._blocks[key] is None or is_dropped(key)):
                return
            raise GenerationError(f"the merge holds {key!r}, which model A has not. Report this.")
        self._note(key)
        for place in places:
            self._live(place).copy_(_held(tensor, place))

    def verify(self, checkpoint: Checkpoint) -> None:
        """Check that the modules hold this checkpoint, by a few elements of every tensor.

        Raises:
            GenerationError: a live tensor holds something else; names the key.
        """
        for key, places in self._places.items():
            for place in places:
                live = _sample(self._live(place))
                stored = _sample(_held(checkpoint.tensor(key), place)).to(live.device, live.dtype)
                if not torch.equal(live.nan_to_num(), stored.nan_to_num()):
                    raise GenerationError(
                        f"diffusers loaded {key!r} of {checkpoint.name} to another place than "
                        f"{place.component}.{place.name}. Install another version of diffusers "
                        "and report this."
                    )

    def _note(self, key: str) -> None:
        if key in self._written:
            raise GenerationError(f"the merge wrote {key!r} twice. Report this as a bug.")
        self._written.add(key)

    def _live(self, place: Place) -> Tensor:
        # Asked for each time: a change of type (the VAE's upcast) gives a parameter new memory.
        owner, name = self._owners[place.component, place.name]
        tensor: Tensor = getattr(owner, name)
        return tensor.detach()

    def _check_coverage(self) -> None:
        used = Counter(
            (place.component, place.name) for places in self._places.values() for place in places
        )
        for name, count in used.items():
            if name not in self._owners:
                raise GenerationError(
                    f"the pipeline has no {'.'.join(name)}, which the checkpoint holds. "
                    "Use a checkpoint in the original layout, or another version of diffusers."
                )
            if count > 1:
                raise GenerationError(
                    f"{count} weights share the place {'.'.join(name)}. Report this as a bug."
                )
        for name in self._owners:
            if name not in used:
                raise GenerationError(
                    f"the checkpoint holds no weights for {'.'.join(name)}. "
                    "Use a complete checkpoint in the original layout."
                )


def _owners(components: Mapping[str, nn.Module]) -> dict[tuple[str, str], tuple[nn.Module, str]]:
    """Return (component, parameter name) -> (module that owns the tensor, attribute)."""
    owners: dict[tuple[str, str], tuple[nn.Module, str]] = {}
    for component, module in components.items():
        for full in module.state_dict():
            path, _, attribute = full.rpartition(".")
            # Older versions of transformers store the position indices, which are no weights.
            if attribute != "position_ids":
                name = full.removeprefix("text_model.")
                owners[component, name] = (module.get_submodule(path), attribute)
    return owners


def _held(tensor: Tensor, place: Place) -> Tensor:
    """Return the part of a checkpoint's tensor that a place holds, as a view in its shape."""
    if place.change == "squeezed":
        return tensor.flatten(1)
    if place.change == "thirds":
        return tensor.chunk(3)[place.third]
    if place.change == "transposed":
        return tensor.T
    return tensor


def _sample(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    return flat[:: max(1, len(flat) // SAMPLES)]
