"""An encoder that several rewards share: loaded once, an image is embedded once for all of them.

The rewards of one backbone name the same weights file, precision and device when they are made.
`open_backbone` then gives them the same object, and `Backbone.release` frees the memory when the
last of them lets go. Moving it moves it for all of them.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from lib_automerge.errors import RewardError
from lib_automerge.reward.clip import Clip, ClipSizes
from lib_automerge.reward.clip_files import UNUSED, read_clip
from lib_automerge.reward.files import sha256_of_weights
from lib_automerge.reward.placement import (
    choose_device,
    choose_dtype,
    in_batches,
    move,
    torch_dtype,
)
from lib_automerge.reward.preprocess import Framing
from lib_automerge.reward.rgb import as_rgb
from lib_automerge.reward.siglip import Siglip, SiglipSizes
from lib_automerge.reward.weights import fill, read_tensors, without_memory

# Embeddings kept: those of the images and prompts of the last few candidates, about 3 kB each.
_KEPT = 1024

# The published files of SigLIP hold the tower that reads as well.
_UNUSED_BY_SIGLIP = ("text_model.", "logit_scale", "logit_bias")

Sizes = ClipSizes | SiglipSizes
Name = TypeVar("Name")
Item = TypeVar("Item")


class Backbone:
    """One encoder on one device. Made by `open_backbone` only; threads may share it.

    Attributes:
        sizes: of the network.
        dtype: precision of the weights: fp32, fp16 or bf16.
        digest: SHA-256 of the weights file.
        users: how many have opened it and not yet released it.
    """

    def __init__(
        self, weights: Path, sizes: Sizes, dtype: str, device: torch.device, digest: str
    ) -> None:
        """Load it; raises as `open_backbone`."""
        self.sizes, self.dtype, self.digest = sizes, dtype, digest
        self.users = 0
        self._model: Clip | Siglip | None = _load(weights, sizes, dtype, device)
        self._device = device
        self._fits = sys.maxsize
        self._images: OrderedDict[tuple[str, str], Tensor] = OrderedDict()
        self._texts: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()
        self._using = threading.RLock()

    def embed_images(
        self, images: Sequence[Image.Image], framing: Framing, batch_size: int
    ) -> Tensor:
        """Return (n, e) fp32 unit vectors on the CPU, one for each image, in order.

        Args:
            images: of any sizes and modes. One that was embedded lately is not computed again.
            framing: how they are made square.
            batch_size: images computed at once; halved for good when memory runs out.

        Raises:
            RewardError: Not even one image fits into memory, or torch failed otherwise.
        """

        def compute(some: Sequence[Image.Image]) -> Tensor:
            side = self.sizes.image_side
            pixels = torch.stack([framing(image, side) for image in some])
            return self._loaded().embed_images(pixels.to(self._device))

        named = [((_digest(image), framing.__name__), image) for image in images]
        return self._embed(named, self._images, compute, batch_size)

    def embed_texts(self, texts: Sequence[tuple[int, ...]]) -> Tensor:
        """Return (n, e) fp32 unit vectors on the CPU, one for each text given as ids, in order.

        A text that was embedded lately is not computed again. Each is computed by itself, so that
        its embedding does not depend on its company when it was first seen. Raises as
        `embed_images`; the network must be a CLIP.
        """

        def compute(some: Sequence[tuple[int, ...]]) -> Tensor:
            return self._clip().embed_texts(torch.tensor(some, device=self._device))

        return self._embed([(text, text) for text in texts], self._texts, compute, 1)

    @property
    def scale(self) -> float:
        """What a CLIP was trained to multiply cosines by."""
        return float(self._clip().logit_scale.exp())

    def place(self, device: str) -> None:
        """Move it, for all that use it; raises as `Reward.place`."""
        with self._using:
            self._device = move(self._loaded(), self._device, device)

    def release(self) -> None:
        """Let go of it; the last one to do so frees its memory. Call it once per user."""
        with _opening:
            self.users -= 1
            if self.users:
                return
            for key in [key for key, backbone in _open.items() if backbone is self]:
                del _open[key]
            with self._using:
                self._model = None
                self._images.clear()
                self._texts.clear()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _loaded(self) -> Clip | Siglip:
        if self._model is None:
            raise RewardError("the encoder was released. Create the reward again to score.")
        return self._model

    def _clip(self) -> Clip:
        model = self._loaded()
        if not isinstance(model, Clip):
            raise TypeError(f"not a CLIP, so it cannot read: {type(model).__name__}")
        return model

    def _embed(
        self,
        items: Sequence[tuple[Name, Item]],
        kept: OrderedDict[Name, Tensor],
        compute: Callable[[Sequence[Item]], Tensor],
        batch_size: int,
    ) -> Tensor:
        """One row per named item; only those whose name is not among the kept are computed."""
        with self._using:
            found = {name: kept[name] for name, _ in items if name in kept}
            new = {name: item for name, item in items if name not in found}
            values = list(new.values())

            def compute_part(part: slice) -> list[Tensor]:
                with torch.inference_mode():
                    return list(compute(values[part]).cpu())

            asked = min(batch_size, self._fits)
            computed, fitted = in_batches(compute_part, len(values), asked)
            if fitted < asked:
                self._fits = fitted
            found.update(zip(new, computed, strict=True))
            for name, embedding in found.items():
                kept[name] = embedding
                kept.move_to_end(name)
            while len(kept) > _KEPT:
                kept.popitem(last=False)
            rows = [found[name] for name, _ in items]
            return torch.stack(rows) if rows else torch.empty(0, self.sizes.embedding)


_Key = tuple[str, Sizes, str, str]
_open: dict[_Key, Backbone] = {}
_opening = threading.Lock()


def open_backbone(weights: Path, sizes: Sizes, dtype: str | None, device: str | None) -> Backbone:
    """Return the encoder of a file, loaded now or shared with those who have opened it before.

    Args:
        weights: the file, in any layout that `read_clip` knows.
        sizes: what it must hold, and the activation to use with it.
        dtype: precision of the weights; None for fp16 on a GPU and fp32 on the CPU.
        device: torch's name of a device; None for the GPU if there is one.

    Raises:
        ConfigError: The precision or the device is impossible.
        RewardError: The file is missing, damaged, unsafe or not exactly this network.
    """
    where = choose_device(device)
    precision = choose_dtype(dtype, where)
    digest = sha256_of_weights(weights)
    key = (digest, sizes, precision, str(where))
    with _opening:
        backbone = _open.get(key)
        if backbone is None:
            backbone = _open[key] = Backbone(weights, sizes, precision, where, digest)
        else:
            backbone.place(str(where))
        backbone.users += 1
        return backbone


def _load(weights: Path, sizes: Sizes, dtype: str, device: torch.device) -> Clip | Siglip:
    is_clip = isinstance(sizes, ClipSizes)
    with without_memory():
        model = Clip(sizes) if isinstance(sizes, ClipSizes) else Siglip(sizes)
    fill(
        model,
        read_clip(weights) if is_clip else read_tensors(weights),
        weights,
        device=device,
        dtype=torch_dtype(dtype),
        in_fp32=("logit_scale",),
        unused=UNUSED if is_clip else _UNUSED_BY_SIGLIP,
    )
    return model.eval().requires_grad_(False)


def _digest(image: Image.Image) -> str:
    """Identity of what the encoder will see of an image."""
    rgb = as_rgb(image)
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()
