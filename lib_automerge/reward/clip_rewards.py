"""Rewards that compare an image with its prompt: HPSv2.1, PickScore and CLIPScore.

All three are the cosine between two embeddings of a CLIP; they differ in its weights, in how the
image is made square, and in how the prompt is cleaned. All of that is bound to the reward here, as
its authors' package does it, because no file says it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from PIL import Image
from torch import Tensor

from lib_automerge.errors import RewardError
from lib_automerge.reward import preprocess
from lib_automerge.reward.backbone import Backbone, Sizes, open_backbone
from lib_automerge.reward.base import Told, check_lengths, cut_off, require_finite
from lib_automerge.reward.clip import VIT_H_14, VIT_L_14, ClipSizes
from lib_automerge.reward.clip_tokenizer import (
    Cleaning,
    clean_as_hugging_face,
    clean_as_openai,
    encode,
)
from lib_automerge.reward.placement import check_batch_size


class EmbeddingReward(ABC):
    """A reward whose scores are computed from the embeddings of images.

    Rewards of the same weights file, precision and device share one encoder, and an image is
    embedded once for all of them.
    """

    name: ClassVar[str]
    # Changes whenever the same weights would give other numbers.
    version: ClassVar[str]
    sizes: ClassVar[Sizes]
    framing: ClassVar[preprocess.Framing]

    def __init__(
        self,
        encoder: Path,
        dtype: str | None = None,
        device: str | None = None,
        batch_size: int = 8,
    ) -> None:
        """Load the encoder, or share the one that another reward has loaded.

        Args:
            encoder: its weights, as published or as `.safetensors`.
            dtype: Precision of the weights: fp32, fp16 or bf16; None for fp16 on a GPU and fp32 on
                the CPU, where fp16 is not available. Embeddings are compared in fp32.
            device: torch's name of a device; None for the GPU if there is one.
            batch_size: Images seen at once; halved for good when memory runs out.

        Raises:
            ConfigError: An option has an impossible value.
            RewardError: The file is missing, damaged, unsafe or not exactly this network.
        """
        self._batch_size = check_batch_size(batch_size)
        self._told = Told()
        self._backbone: Backbone | None = open_backbone(encoder, self.sizes, dtype, device)
        self._dtype, digest = self._backbone.dtype, self._backbone.digest
        self.fingerprint = f"{self.name}:{self.version}:{self._dtype}:{digest[:16]}"

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """Score `images[i]` against `prompts[i]`; see `lib_automerge.reward.base.Reward.score`."""
        check_lengths(images, prompts)
        embeddings = self._embedded(images)
        scores = [float(score) for score in self._scores(embeddings, prompts)]
        require_finite(self.name, scores, prompts, self._dtype)
        return scores

    def place(self, device: str) -> None:
        """Move the encoder, for all rewards that share it; see `Reward.place`."""
        if self._backbone is not None:
            self._backbone.place(device)

    def warnings(self) -> list[str]:
        """Prompts that were cut; see `lib_automerge.reward.base.Reward.warnings`."""
        return self._told.take()

    def close(self) -> None:
        """Free the memory, unless another reward shares the encoder."""
        if self._backbone is not None:
            self._backbone.release()
        self._backbone = None

    @abstractmethod
    def read(self, prompts: Sequence[str]) -> None:
        """Note prompts that are cut; see `lib_automerge.reward.base.Reward.read`."""

    @abstractmethod
    def _scores(self, images: Tensor, prompts: Sequence[str], /) -> Tensor:
        """The (n,) scores of (n, width) embeddings."""

    def _embedded(self, images: Sequence[Image.Image]) -> Tensor:
        return self._opened().embed_images(images, type(self).framing, self._batch_size)

    def _opened(self) -> Backbone:
        if self._backbone is None:
            raise RewardError(f"reward is closed: {self.name!r}. Create it again to score.")
        return self._backbone


class CosineReward(EmbeddingReward):
    """The cosine between the embeddings of an image and of its prompt.

    A prompt of more than 75 word pieces is cut, as the packages do; `warnings` says so once per
    prompt.
    """

    sizes: ClassVar[ClipSizes]
    cleaning: ClassVar[Cleaning]

    def read(self, prompts: Sequence[str]) -> None:
        """Note prompts that are cut; see `lib_automerge.reward.base.Reward.read`."""
        for prompt in prompts:
            self._encode(prompt)

    def _scores(self, images: Tensor, prompts: Sequence[str], /) -> Tensor:
        texts = self._opened().embed_texts([self._encode(prompt) for prompt in prompts])
        return (images * texts).sum(dim=-1)

    def _encode(self, prompt: str) -> tuple[int, ...]:
        positions = self.sizes.positions
        encoded = encode(prompt, positions, type(self).cleaning)
        if encoded.dropped:
            self._told.say(cut_off(self.name, positions - 2, encoded.dropped, prompt))
        return encoded.ids


class HpsV2(CosineReward):
    """HPSv2.1, human preference (Wu et al. 2023): about 0.2 to 0.35.

    The whole image is seen: its longer side is scaled, black is put around. The package hpsv2 1.2
    lets torchvision scale fp32 tensors where this scales 8-bit pixels as open_clip does. From
    torchvision 0.17 on that is the same filter, and pixels differ by their rounding only. Older
    versions scale tensors without a filter against aliasing and see another image.
    """

    name = "hpsv2"
    version = "2.1"
    sizes = VIT_H_14
    framing = preprocess.pad
    cleaning = clean_as_openai


class PickScore(CosineReward):
    """PickScore v1 (Kirstain et al. 2023): the cosine times the learned scale, about 15 to 25."""

    name = "pickscore"
    version = "1.0"
    sizes = VIT_H_14
    framing = preprocess.crop_down
    cleaning = clean_as_hugging_face

    def _scores(self, images: Tensor, prompts: Sequence[str], /) -> Tensor:
        return self._opened().scale * super()._scores(images, prompts)


class ClipScore(CosineReward):
    """The plain cosine of OpenAI's CLIP ViT-L/14: whether the prompt is in the image at all."""

    name = "clip_score"
    version = "1.0"
    sizes = VIT_L_14
    framing = preprocess.crop
    cleaning = clean_as_openai
