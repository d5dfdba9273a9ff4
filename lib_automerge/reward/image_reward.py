"""ImageReward v1.0: how well an image shows its prompt, and how much people would like it.

The numbers are those of `ImageReward.score` in the package `image-reward` 1.5 (Xu et al. 2023),
computed from the same published file but without that package: it pins dependencies that no
current environment can hold, fetches its tokenizer from the network, and scores one image at a
time. About two thirds of the scores of Stable Diffusion 1.4 lie between -1 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from lib_automerge.errors import RewardError
from lib_automerge.reward.base import Told, check_lengths, cut_off, require_finite
from lib_automerge.reward.bert_tokenizer import Encoded, encode
from lib_automerge.reward.blip import BlipReward, BlipSizes
from lib_automerge.reward.files import sha256_of_weights
from lib_automerge.reward.placement import (
    check_batch_size,
    choose_device,
    choose_dtype,
    in_batches,
    move,
    torch_dtype,
)
from lib_automerge.reward.preprocess import crop
from lib_automerge.reward.weights import fill, read_tensors, without_memory

# ImageReward was trained on prompts cut to this many ids, start and end included.
PROMPT_IDS = 35

# Changes whenever the same weights would give other numbers.
_VERSION = "1.0"

_HEAD = ("mlp.",)

# The file also holds BLIP's projections for image-text retrieval, and a constant.
_UNUSED = (
    "blip.vision_proj.",
    "blip.text_proj.",
    "blip.text_encoder.embeddings.position_ids",
)


class ImageReward:
    """The published ImageReward model, ready to score.

    In fp32 on the CPU its scores equal the package's to about 1e-6. With fp16 or bf16 weights the
    last layers and the score are still computed in fp32. A prompt of more than 33 word pieces is
    cut, as the package does; `warnings` says so once per prompt.
    """

    name: ClassVar[str] = "image_reward"
    sizes: ClassVar[BlipSizes] = BlipSizes()

    def __init__(
        self,
        weights: Path,
        dtype: str | None = None,
        device: str | None = None,
        batch_size: int = 8,
    ) -> None:
        """Load the model.

        Args:
            weights: `ImageReward.pt` as published, or its tensors as `.safetensors`.
            dtype: Precision of the weights: fp32, fp16 or bf16; None for fp16 on a GPU and fp32 on
                the CPU, where fp16 is not available.
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
        self._weights = weights
        self._model: BlipReward | None = self._load()
        digest = sha256_of_weights(weights)
        self.fingerprint = f"{self.name}:{_VERSION}:{self._dtype}:{digest[:16]}"

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

    def _load(self) -> BlipReward:
        if not self._weights.is_file():
            raise RewardError(
                f"weights of {self.name!r} not found: {self._weights}. Give the path of "
                "ImageReward.pt."
            )
        with without_memory():
            model = BlipReward(self.sizes)
        fill(
            model,
            read_tensors(self._weights),
            self._weights,
            device=self._device,
            dtype=torch_dtype(self._dtype),
            in_fp32=_HEAD,
            unused=_UNUSED,
        )
        return model.eval().requires_grad_(False)

    def _score_batch(
        self, model: BlipReward, images: Sequence[Image.Image], prompts: Sequence[str]
    ) -> list[float]:
        encoded = [self._encode(prompt) for prompt in prompts]
        pixels = torch.stack([crop(image, self.sizes.image_side) for image in images])
        # beyond the longest prompt of the batch there is only padding, which the mask hides
        length = max(text.used for text in encoded)
        ids = torch.tensor([text.ids[:length] for text in encoded])
        mask = torch.arange(length) < torch.tensor([[text.used] for text in encoded])
        with torch.inference_mode():
            scores: Tensor = model(
                pixels.to(self._device), ids.to(self._device), mask.to(self._device)
            )
        return [float(score) for score in scores.tolist()]

    def _encode(self, prompt: str) -> Encoded:
        encoded = encode(prompt, PROMPT_IDS)
        if encoded.dropped:
            self._told.say(cut_off(self.name, PROMPT_IDS - 2, encoded.dropped, prompt))
        return encoded
