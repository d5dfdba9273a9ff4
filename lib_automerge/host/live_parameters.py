"""The parameters of a model that AUTOMATIC1111 (or a relative of its kind) has loaded, as a sink.

Hides how the WebUI's hijacking renames modules, which number types a file's weights pass through
while it is loaded, 8-bit storage, and the copies that its LoRA extension keeps of every layer. A
merged tensor comes in the type in which a saved file would hold it and is cast as loading that file
would cast it, so that the live model is the one that loading the file gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import msgspec
import torch
from torch import Tensor, nn

from lib_automerge.domain.architectures import Architecture
from lib_automerge.errors import HostError
from lib_automerge.merge.readers import Checkpoint

SAMPLES = 16
"""Elements of each tensor that are compared: enough to tell tensors apart."""
PULSE = 64
"""Elements of one tensor of each block that are watched."""
WRAPPER = "wrapped"
"""The attribute under which the WebUI's own modules hold the ones that they replace."""


class Casts(msgspec.Struct, frozen=True):
    """The number types that the WebUI converts a file's weights to, before those they are kept in.

    `model` is for denoiser and text encoders, `vae` for the image autoencoder; None means that a
    weight goes from the file's type to the live one at once.
    """

    model: torch.dtype | None
    vae: torch.dtype | None


class _Place(msgspec.Struct, frozen=True):
    """Where a key lives: an attribute of a module, and the attention that owns that module."""

    module: nn.Module
    name: str
    attention: nn.MultiheadAttention | None
    cast: torch.dtype | None


class LiveParameters:
    """Implements `host.ports.LiveModel` for a `torch` module with the names of the checkpoint.

    Args:
        model: the loaded model, with `model.diffusion_model`, `first_stage_model` and so on.
        architecture: of the checkpoint.
        keys: the canonical keys of the checkpoint that is loaded.
        casts: of the WebUI's loader.

    Raises:
        HostError: keys and live parameters do not cover each other.
    """

    def __init__(
        self, model: nn.Module, architecture: Architecture, keys: Iterable[str], casts: Casts
    ) -> None:
        self.model = model
        self._architecture = architecture
        self._places = dict(_places(model, architecture, casts))
        blocks = {key: architecture.block_of(key) for key in keys}
        self._blocks = {key: block for key, block in blocks.items() if block is not None}
        self._check_coverage()
        self._expected: set[str] = set()
        self._largest = self._largest_keys()

    def begin(self, blocks: Collection[str]) -> None:
        """See `host.ports.LiveModel`."""
        self._expected = {
            key for key, block in self._blocks.items() if block in blocks and key in self._places
        }

    def finish(self) -> None:
        """See `host.ports.LiveModel`."""
        for key in sorted(self._expected):
            raise HostError(f"the merge left out the weight {key!r}. Report this as a bug.")

    def target(self, key: str, dtype: torch.dtype) -> Tensor | None:
        """The live tensor itself where it is what the file holds, on the CPU; see `Sink`."""
        place = self._places.get(key)
        if place is None or place.cast not in (None, dtype):
            return None
        live = _live(place)
        if live.dtype != dtype or live.device.type != "cpu" or not live.is_contiguous():
            return None
        self._note(key, place)
        return live

    def put(self, key: str, tensor: Tensor) -> None:
        """Copy a merged tensor to its place; keys that are in no image are left out.

        Raises:
            HostError: the key was not due.
        """
        place = self._places.get(key)
        if place is None:
            if self._architecture.is_optional(key):
                return
            raise HostError(f"the merge holds {key!r}, which model A has not. Report this.")
        self._note(key, place)
        loaded = tensor if place.cast is None else tensor.to(place.cast)
        _live(place).copy_(loaded)
        # What the LoRA extension adds to where 8-bit weights are too coarse.
        copy = getattr(place.module, f"fp16_{place.name}", None)
        if copy is not None:
            copy.copy_(loaded.half())

    def difference(self, checkpoint: Checkpoint, *, vae: bool) -> str | None:
        """See `host.ports.LiveModel`."""
        for key, block in sorted(self._blocks.items()):
            place = self._places.get(key)
            if place is None or (block in self._architecture.vae and not vae):
                continue
            live = _pristine(place)
            stored = _sample(checkpoint.tensor(key), SAMPLES)
            if place.cast is not None:
                stored = stored.to(place.cast)
            stored = stored.to(live.dtype)
            now = _sample(live, SAMPLES).cpu()
            if not torch.equal(_comparable(now), _comparable(stored)):
                return key
        return None

    def pulse(self, blocks: Collection[str]) -> list[Tensor]:
        """See `host.ports.LiveModel`."""
        return [
            _comparable(_sample(_pristine(self._places[self._largest[block]]), PULSE).cpu())
            for block in sorted(blocks)
            if block in self._largest
        ]

    def _note(self, key: str, place: _Place) -> None:
        if key not in self._expected:
            raise HostError(f"the merge wrote {key!r} unasked or twice. Report this as a bug.")
        self._expected.remove(key)
        for module in (place.module, place.attention):
            if module is not None:
                _forget_networks(module)

    def _largest_keys(self) -> dict[str, str]:
        largest: dict[str, str] = {}
        for key, block in sorted(self._blocks.items()):
            place = self._places.get(key)
            if place is None:
                continue
            known = self._places.get(largest.get(block, ""))
            if known is None or _live(place).numel() > _live(known).numel():
                largest[block] = key
        return largest

    def _check_coverage(self) -> None:
        for key in self._blocks:
            if key not in self._places and not self._architecture.is_optional(key):
                raise HostError(
                    f"the WebUI's model has no {key!r}, which the checkpoint holds. Select another "
                    "model as A, or switch off extensions that change the model's layers."
                )
        for key in self._places:
            if key not in self._blocks and not self._architecture.is_optional(key):
                raise HostError(
                    f"the WebUI's model has {key!r}, which the checkpoint lacks. Select a complete "
                    "checkpoint as A, or switch off extensions that change the model's layers."
                )


def _places(
    model: nn.Module, architecture: Architecture, casts: Casts
) -> Iterator[tuple[str, _Place]]:
    """Yield (canonical key, place) of every tensor of the model that belongs to a block."""
    attentions = {
        id(child): module
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
        for child in module.children()
    }
    for path, module in model.named_modules(remove_duplicate=False):
        parts = [part for part in path.split(".") if part != WRAPPER]
        for name in _names(module):
            key = ".".join([*parts, name])
            if not architecture.has_block(key):
                continue
            vae = architecture.block_of(key) in architecture.vae
            owner = attentions.get(id(module))
            yield key, _Place(module, name, owner, casts.vae if vae else casts.model)


def _names(module: nn.Module) -> list[str]:
    """The module's own parameters and the buffers that a file would hold."""
    names = [name for name, _ in module.named_parameters(recurse=False)]
    passing = module._non_persistent_buffers_set
    return names + [name for name, _ in module.named_buffers(recurse=False) if name not in passing]


def _live(place: _Place) -> Tensor:
    # Asked for each time: moving a model between devices may give it new tensors.
    tensor: Tensor = getattr(place.module, place.name)
    return tensor.data


def _pristine(place: _Place) -> Tensor:
    """The live tensor, or the copy that was kept of it while a LoRA is added to it."""
    keeper = place.attention or place.module
    if not getattr(keeper, "network_current_names", ()):
        return _live(place)
    field = "network_bias_backup" if place.name.endswith("bias") else "network_weights_backup"
    copy = getattr(keeper, field, None)
    if isinstance(copy, tuple):  # an attention's: of all inputs together, and of the output
        copy = copy[1 if place.attention is not None else 0]
    if not isinstance(copy, Tensor) or copy.shape != _live(place).shape:
        return _live(place)
    return copy


def _forget_networks(module: nn.Module) -> None:
    """Have the LoRA extension take the layer as it is now for the original."""
    for field, nothing in (
        ("network_current_names", ()),
        ("network_weights_backup", None),
        ("network_bias_backup", None),
    ):
        if hasattr(module, field):
            setattr(module, field, nothing)


def _sample(tensor: Tensor, count: int) -> Tensor:
    flat = tensor.reshape(-1)
    return flat[:: max(1, len(flat) // count)]


def _comparable(tensor: Tensor) -> Tensor:
    """In a type that can be compared, with NaN equal to itself."""
    return tensor.to(torch.float64).nan_to_num()
