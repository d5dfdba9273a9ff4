"""What both ways to compute ImageReward share: prompts of 33 word pieces, one model on a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from PIL import Image
from torch import nn

from lib_automerge.errors import RewardError
from lib_automerge.reward.base import Told, check_lengths, cut_off, require_finite
from lib_automerge.reward.bert_tokenizer import Encoded, encode
from lib_automerge.reward.blip import BlipSizes
from lib_automerge.reward.files import sha256_of_weights
from lib_automerge.reward.placement import (
    check_batch_size,
    choose_device,
    choose_dtype,
    in_batches,
    move,
)

# ImageReward was trained on prompts cut to this many ids, start and end included.
PROMPT_IDS = 35

Model = TypeVar("Model", bound=nn.Module)


class ImageRewardBase(ABC, Generic[Model]):
    """A model of ImageReward's published file; subclasses say how it is loaded and asked."""

    name: ClassVar[str]
    sizes: ClassVar[BlipSizes] = BlipSizes()

    def __init__(
        self, weights: Path, version: str, dtype: str | None, device: str | None, batch_size: int
    ) -> None:
        """Load the model.

        Args:
            weights: `ImageReward.pt` as published, or its tensors as `.safetensors`.
            version: changes whenever the same weights would give other numbers.
            dtype: Precision of the weights; None for fp16 on a GPU and fp32 on the CPU.
            device: torch's name of a device; None for the GPU if there is one.
            batch_size: Images scored at once; halved for good when memory runs out.

        Raises:
            ConfigError: An option has an impossible value.
            RewardError: The file is missing, damaged, unsafe or not exactly this model.
        """
        self._device = choose_device(device)
        self._dtype = choose_dtype(dtype, self._device)
        self._batch_size = check_batch_size(batch_size)
        self._told = Told()
        if not weights.is_file():
            raise RewardError(
                f"weights of {self.name!r} not found: {weights}. Give the path of ImageReward.pt."
            )
        self._model: Model | None = self._load(weights)
        digest = sha256_of_weights(weights)
        self.fingerprint = f"{self.name}:{version}:{self._dtype}:{digest[:16]}"

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """Score `images[i]` against `prompts[i]`; see `lib_automerge.reward.base.Reward.score`."""
        check_lengths(images, prompts)
        model = self._model
        if model is None:
            raise RewardError(f"reward is closed: {self.name!r}. Create it again to score.")

        def score_batch(part: slice) -> list[float]:
            return self._score_batch(model, images[part], prompts[part])

        scores, self._batch_size = in_batches(score_batch, len(images), self._batch_size)
        require_finite(self.name, scores, prompts, self._dtype)
        return scores

    def read(self, prompts: Sequence[str]) -> None:
        """Note prompts that are cut; see `lib_automerge.reward.base.Reward.read`."""
        for prompt in prompts:
            self._encode(prompt)

    def place(self, device: str) -> None:
        """Move the model; see `lib_automerge.reward.base.Reward.place`."""
        if self._model is not None:
            self._device = move(self._model, self._device, device)

    def warnings(self) -> list[str]:
        """Prompts that were cut; see `lib_automerge.reward.base.Reward.warnings`."""
        return self._told.take()

    def close(self) -> None:
        """Free the model's memory, on the GPU too."""
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @abstractmethod
    def _load(self, weights: Path) -> Model:
        """The model in its precision on its device, ready to score; raises as `__init__`."""

    @abstractmethod
    def _score_batch(
        self, model: Model, images: Sequence[Image.Image], prompts: Sequence[str]
    ) -> list[float]:
        """One score for each of a few images."""

    def _encode(self, prompt: str) -> Encoded:
        encoded = encode(prompt, PROMPT_IDS)
        if encoded.dropped:
            self._told.say(cut_off(self.name, PROMPT_IDS - 2, encoded.dropped, prompt))
        return encoded
