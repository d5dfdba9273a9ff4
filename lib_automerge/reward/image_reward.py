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

from lib_automerge.reward.blip import BlipReward
from lib_automerge.reward.image_reward_base import ImageRewardBase
from lib_automerge.reward.placement import torch_dtype
from lib_automerge.reward.preprocess import crop
from lib_automerge.reward.weights import fill, read_tensors, without_memory

# Changes whenever the same weights would give other numbers.
_VERSION = "1.0"

_HEAD = ("mlp.",)

# The file also holds BLIP's projections for image-text retrieval, and a constant.
_UNUSED = (
    "blip.vision_proj.",
    "blip.text_proj.",
    "blip.text_encoder.embeddings.position_ids",
)


class ImageReward(ImageRewardBase[BlipReward]):
    """The published ImageReward model, ready to score.

    In fp32 on the CPU its scores equal the package's to about 1e-6. With fp16 or bf16 weights the
    last layers and the score are still computed in fp32. A prompt of more than 33 word pieces is
    cut, as the package does; `warnings` says so once per prompt.
    """

    name: ClassVar[str] = "image_reward"

    def __init__(
        self,
        weights: Path,
        dtype: str | None = None,
        device: str | None = None,
        batch_size: int = 8,
    ) -> None:
        """Load the model; fp16 is not available on the CPU. Otherwise as `ImageRewardBase`."""
        super().__init__(weights, _VERSION, dtype, device, batch_size)

    def _load(self, weights: Path) -> BlipReward:
        with without_memory():
            model = BlipReward(self.sizes)
        fill(
            model,
            read_tensors(weights),
            weights,
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
