"""Rewards that judge an image without its prompt: a small head on an image encoder's embedding.

All were trained to predict how people rate pictures. The heads are computed in fp32 on the CPU,
whatever the encoder does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from lib_automerge.reward import preprocess
from lib_automerge.reward.clip import VIT_B_32, VIT_L_14
from lib_automerge.reward.clip_rewards import EmbeddingReward
from lib_automerge.reward.files import sha256_of_weights
from lib_automerge.reward.heads import LinearStack, SmallPerceptron
from lib_automerge.reward.siglip import SiglipSizes
from lib_automerge.reward.weights import fill, read_tensors, without_memory


class AestheticReward(EmbeddingReward):
    """A head on an encoder. Prompts are counted, not read."""

    def __init__(
        self,
        weights: Path,
        encoder: Path,
        dtype: str | None = None,
        device: str | None = None,
        batch_size: int = 8,
    ) -> None:
        """Load the head, then the encoder.

        Args:
            weights: the head's file.
            encoder: as `EmbeddingReward`, and so the rest.

        Raises:
            ConfigError: An option has an impossible value.
            RewardError: A file is missing, damaged, unsafe or not exactly this model.
        """
        digest = sha256_of_weights(weights)
        with without_memory():
            head = self._build(self.sizes.embedding)
        fill(
            head,
            read_tensors(weights),
            weights,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        self._head = head.eval().requires_grad_(False)
        super().__init__(encoder, dtype, device, batch_size)
        self.fingerprint = f"{self.fingerprint}:{digest[:16]}"

    def read(self, prompts: Sequence[str]) -> None:
        """Nothing."""

    @staticmethod
    @abstractmethod
    def _build(width: int) -> nn.Module:
        """The head for embeddings of a width, with the key names of its file."""

    def _scores(self, images: Tensor, _prompts: Sequence[str], /) -> Tensor:
        scores: Tensor = self._head(images)[:, 0]
        return scores


class LaionV1(AestheticReward):
    """LAION aesthetic predictor V1: one linear layer on CLIP ViT-L/14, about 1 to 10."""

    name = "laion_v1"
    version = "1.0"
    sizes = VIT_L_14
    framing = preprocess.crop

    @staticmethod
    def _build(width: int) -> nn.Module:
        return nn.Linear(width, 1)


class LaionV2(AestheticReward):
    """LAION aesthetic predictor V2 ("improved aesthetic predictor"): about 1 to 10."""

    name: ClassVar[str] = "laion_v2"
    version = "1.0"
    sizes = VIT_L_14
    framing = preprocess.crop

    @staticmethod
    def _build(width: int) -> nn.Module:
        return LinearStack(width, "layers", (0, 2, 4, 6, 7))


class Chad(LaionV2):
    """The head "chadscorer": built as LAION's V2, trained on other ratings."""

    name = "chad"


class AesB32(AestheticReward):
    """Waifu Diffusion's aes-B32-v0 for anime, on CLIP ViT-B/32.

    Scores are logits, of any sign. The published classifier gives their sigmoid, between 0 and 1,
    which has no room at the ends: two good images differ by almost nothing. `torch.sigmoid` of a
    score is its number.
    """

    name = "aes_b32"
    version = "1.0"
    sizes = VIT_B_32
    framing = preprocess.crop_down

    @staticmethod
    def _build(width: int) -> nn.Module:
        return SmallPerceptron(width)


class AestheticV25(AestheticReward):
    """Aesthetic predictor V2.5 on SigLIP so400m (384 pixels): about 1 to 10, for paintings too."""

    name = "aesthetic_v25"
    version = "2.5"
    sizes = SiglipSizes()
    framing = preprocess.squeeze

    @staticmethod
    def _build(width: int) -> nn.Module:
        return LinearStack(width, "scoring_head", (0, 2, 4, 6, 8))
