"""ImageReward as its authors' package computes it, to compare our own with it.

It is slow (one image at a time, every number made up before it is read from the file) and needs
packages that most environments cannot hold; `lib_automerge.reward.image_reward` gives the same
scores. What is done for it here: no network, a file that is read without running code and fits
exactly, no gradients, and fp16 only as autocast, the one way in which the package survives it.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from lib_automerge.errors import ConfigError, RewardError
from lib_automerge.reward.blip import BlipSizes
from lib_automerge.reward.image_reward_base import ImageRewardBase
from lib_automerge.reward.image_reward_package import imported, package_version
from lib_automerge.reward.placement import move
from lib_automerge.reward.rgb import as_rgb
from lib_automerge.reward.weights import read_tensors

_POSITIONS = "blip.text_encoder.embeddings.position_ids"


class ImageRewardPip(ImageRewardBase[nn.Module]):
    """The package `image-reward`; scores equal those of `ImageReward` to about 1e-6."""

    name: ClassVar[str] = "image_reward_pip"

    def __init__(self, weights: Path, dtype: str | None = None, device: str | None = None) -> None:
        """Import the package and load the model.

        Args:
            weights: as `ImageRewardBase`.
            dtype: fp32, or fp16 on a GPU for autocast; None for fp32.
            device: as `ImageRewardBase`.

        Raises:
            ConfigError: the package does not work here, or an option has an impossible value.
            RewardError: the file is missing, damaged, unsafe or not exactly this model.
        """
        if dtype == "bf16":
            raise ConfigError(
                "the package image-reward cannot compute in bf16: 'bf16'. Use 'fp32', or the "
                "reward image_reward."
            )
        self._package = imported()
        super().__init__(weights, package_version(), dtype or "fp32", device, 1)

    def place(self, device: str) -> None:
        """Move the model; see `lib_automerge.reward.base.Reward.place`."""
        super().place(device)
        if self._model is not None:
            # the package sends its inputs there
            self._model.device = self._device  # type: ignore[assignment]

    def _load(self, weights: Path) -> nn.Module:
        module, pretraining = self._package
        tensors = read_tensors(weights)
        with tempfile.TemporaryDirectory() as folder, _own_tokenizer(pretraining):
            config = Path(folder, "med_config.json")
            config.write_text(json.dumps(_text_config(self.sizes)))
            model: nn.Module = module.ImageReward(str(config), device=self._device)
        _check_structure(model.state_dict(), tensors, weights)
        model.load_state_dict(tensors, strict=False)
        model.eval().requires_grad_(False)
        move(model, torch.device("cpu"), str(self._device))
        return model

    def _score_batch(
        self, model: Any, images: Sequence[Image.Image], prompts: Sequence[str]
    ) -> list[float]:
        self.read(prompts)
        pairs = zip(images, prompts, strict=True)
        with torch.inference_mode(), self._precision():
            # RGB first: the package scales palettes as if their numbers were colours
            return [float(model.score(prompt, as_rgb(image))) for image, prompt in pairs]

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        if self._dtype == "fp16":
            return torch.autocast(self._device.type, torch.float16)
        return contextlib.nullcontext()


@contextlib.contextmanager
def _own_tokenizer(pretraining: Any) -> Iterator[None]:
    """The package makes its tokenizer without asking; this is the one that it makes."""
    theirs = pretraining.init_tokenizer
    pretraining.init_tokenizer = _tokenizer
    try:
        yield
    finally:
        pretraining.init_tokenizer = theirs


def _tokenizer() -> Any:
    """The package's, but from the vocabulary that comes with us instead of from the network."""
    from transformers import BertTokenizer

    with as_file(files("lib_automerge") / "data" / "bert_tokenizer" / "vocab.txt") as vocabulary:
        tokenizer = BertTokenizer(str(vocabulary))
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    tokenizer.enc_token_id = tokenizer.convert_tokens_to_ids("[ENC]")
    return tokenizer


def _text_config(sizes: BlipSizes) -> dict[str, object]:
    """What the published `med_config.json` says, for these sizes."""
    return {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": sizes.text_width,
        "initializer_range": 0.02,
        "intermediate_size": 4 * sizes.text_width,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": sizes.positions,
        "model_type": "bert",
        "num_attention_heads": sizes.text_width // 64,
        "num_hidden_layers": sizes.text_layers,
        "pad_token_id": 0,
        "add_type_embeddings": False,
        "vocab_size": 30524,
        "encoder_width": sizes.image_width,
        "add_cross_attention": True,
    }


def _check_structure(
    expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], weights: Path
) -> None:
    """The package ignores what does not fit and keeps random numbers there.

    Raises:
        RewardError: a key is missing, unexpected or of another shape.
    """
    wrong = [key for key in expected if key not in tensors and key != _POSITIONS]
    wrong += [key for key in tensors if key not in expected and key != _POSITIONS]
    wrong += [k for k in expected if k in tensors and tensors[k].shape != expected[k].shape]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise RewardError(
            f"weights file has another structure: {weights}: {wrong[0]!r}{more}. Use the published "
            "ImageReward.pt."
        )
