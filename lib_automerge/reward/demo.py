"""The demo's reward: does a 64x64 picture show the subject, the colour and the scene it should?

A small convolutional network, trained on procedurally drawn pictures only. It judges the pictures
of the built-in demo and says nothing about any other image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lib_automerge.errors import RewardError
from lib_automerge.reward.base import check_lengths
from lib_automerge.reward.files import sha256_of_file
from lib_automerge.reward.rgb import as_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

WEIGHTS = Path(__file__).parent.parent / "data" / "demo" / "demo_reward.safetensors"
_SIZE = 64
_BATCH = 64

Vocabulary = Mapping[str, Sequence[str]]


class AttributeNetwork(nn.Module):
    """Judges which word of each kind of attribute a picture shows."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        widths = (3, 24, 48, 64, 96)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after)]
            layers += [nn.SiLU()]
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 16, 96), nn.SiLU())
        self.heads = nn.ModuleDict(
            {kind: nn.Linear(96, len(words)) for kind, words in vocabulary.items()}
        )
        self.temperature = nn.Parameter(torch.ones(len(vocabulary)), requires_grad=False)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Pictures (N, 3, 64, 64) in [-1, 1] to calibrated logits: kind -> (N, words)."""
        features = self.features(pictures)
        return {
            kind: head(features) / self.temperature[position]
            for position, (kind, head) in enumerate(self.heads.items())
        }


class DemoReward:
    """Scores in [0, 1]: the probability that everything which the prompt names is right.

    The probabilities of the named subject, colour and scene are multiplied; what the prompt does
    not name does not count. Words are those of the weights file's vocabulary; all others are
    ignored.
    """

    name = "demo"

    def __init__(self, weights: Path | None = None) -> None:
        """Load the network.

        Args:
            weights: A file that `lib_automerge.demo.train` wrote; the shipped one by default.

        Raises:
            RewardError: The file is missing or is not a demo reward.
        """
        path = weights or WEIGHTS
        self._vocabulary, tensors = _read(path)
        self.fingerprint = f"demo:1:fp32:{sha256_of_file(path)[:16]}"
        self._model: AttributeNetwork | None = AttributeNetwork(self._vocabulary)
        try:
            self._model.load_state_dict(tensors)
        except RuntimeError as error:
            raise RewardError(
                f"demo reward does not fit its network: {path}. Reinstall Automerge."
            ) from error
        self._model.requires_grad_(False).eval()

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Score each image against its prompt.

        Args:
            images: Any sizes and modes; they are resized to 64x64.
            prompts: One for each image, each with at least one word of the vocabulary.

        Raises:
            RewardError: Lengths differ, a prompt names nothing, or the reward was closed.
        """
        check_lengths(images, prompts)
        model = self._model
        if model is None:
            raise RewardError("the demo reward was closed: nothing can be scored. Make a new one.")
        named = [self.named(prompt) for prompt in prompts]
        scores: list[float] = []
        for start in range(0, len(images), _BATCH):
            part = slice(start, start + _BATCH)
            with torch.inference_mode():
                logits = model(torch.stack([_tensor(image) for image in images[part]]))
            probabilities = {kind: values.softmax(1) for kind, values in logits.items()}
            for row, wanted in enumerate(named[part]):
                score = 1.0
                for kind, word in wanted.items():
                    score *= float(probabilities[kind][row, self._vocabulary[kind].index(word)])
                scores.append(score)
        return scores

    def named(self, prompt: str) -> dict[str, str]:
        """The first word of each kind that the prompt names: kind -> word.

        Raises:
            RewardError: It names none.
        """
        found: dict[str, str] = {}
        for word in re.findall(r"[a-z]+", prompt.lower()):
            for kind, words in self._vocabulary.items():
                if word in words:
                    found.setdefault(kind, word)
        if not found:
            known = ", ".join(word for words in self._vocabulary.values() for word in words)
            raise RewardError(
                f"the demo reward knows no word of this prompt: {prompt!r}. "
                f"Use the demo's words ({known}) or another reward."
            )
        return found

    def read(self, prompts: Sequence[str]) -> None:
        """Nothing: it reads prompts of any length."""

    def place(self, device: str) -> None:
        """Nothing: it is so small that it stays on the CPU."""

    def warnings(self) -> list[str]:
        """None; see `read`."""
        return []

    def close(self) -> None:
        """Forget the network; scoring afterwards is an error."""
        self._model = None


def _read(path: Path) -> tuple[dict[str, list[str]], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RewardError(
            f"demo reward cannot be read: {path} ({error}). Reinstall Automerge."
        ) from error
    if "vocabulary" not in metadata:
        raise RewardError(
            f"not a demo reward, it has no vocabulary: {path}. Choose the shipped file."
        )
    return json.loads(metadata["vocabulary"]), tensors


def _tensor(image: Image) -> Tensor:
    picture = as_rgb(image)
    if picture.size != (_SIZE, _SIZE):
        picture = picture.resize((_SIZE, _SIZE))
    values = np.asarray(picture, dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(values).permute(2, 0, 1)
