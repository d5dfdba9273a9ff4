"""The package image-reward as a backend: a stand-in with the package's habits, bad ones included.

Its numbers are compared with ours by record_image_reward_goldens.py, where it can be installed.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from lib_automerge.errors import ConfigError, RewardError
from lib_automerge.reward import create, image_reward_package
from lib_automerge.reward.image_reward_pip import ImageRewardPip
from lib_automerge.reward.status import status
from tests.contracts.reward import Prompts, RewardContract, sample_images

PACKAGE = {
    "__init__.py": "from .ImageReward import *\nfrom .ReFL import *\n",
    "ReFL.py": "import diffusers_that_is_not_there\n",
    "models/__init__.py": "",
    "models/BLIP/__init__.py": "",
    "models/BLIP/blip_pretrain.py": """
import warnings
warnings.filterwarnings("ignore")
import transformers
transformers.utils.logging.set_verbosity(50)
from transformers.modeling_utils import (
    apply_chunking_to_forward, find_pruneable_heads_and_indices, prune_linear_layer,
)

def init_tokenizer():
    raise OSError("would ask the network")
""",
    "ImageReward.py": """
import json
import numpy as np
import torch
from torch import nn
from .models.BLIP import blip_pretrain

class ImageReward(nn.Module):
    def __init__(self, med_config, device="cpu"):
        super().__init__()
        self.device = device
        with open(med_config) as file:
            self.config = json.load(file)
        self.tokenizer = blip_pretrain.init_tokenizer()
        self.mlp = nn.Linear(1, 1)
        self.drop = nn.Dropout(0.5)

    def score(self, prompt, image):
        assert image.mode == "RGB" and torch.is_inference_mode_enabled()
        value = torch.tensor([float(np.asarray(image).mean()) / 255 + len(prompt) / 1000])
        return self.drop(self.mlp(value.to(self.device))).numpy().item()
""",
}
HELPERS = ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer")


class Tokenizer:
    """Stands in for BertTokenizer."""

    def __init__(self, vocabulary: str) -> None:
        self.pieces = len(Path(vocabulary).read_text(encoding="utf-8").rstrip("\n").split("\n"))
        self.added: dict[str, object] = {}

    def add_special_tokens(self, tokens: dict[str, object]) -> None:
        self.added |= tokens

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.pieces + 1


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The stand-in, with transformers 4.57 as far as it needs that."""
    root = tmp_path / "site" / "ImageReward"
    for name, text in PACKAGE.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(root.parent))
    transformers: Any = ModuleType("transformers")
    modeling: Any = ModuleType("transformers.modeling_utils")
    helpers: Any = ModuleType("transformers.pytorch_utils")
    utils: Any = ModuleType("transformers.utils")
    logs: Any = ModuleType("transformers.utils.logging")
    level = [30]
    logs.get_verbosity = lambda: level[0]
    logs.set_verbosity = lambda wanted: level.__setitem__(0, wanted)
    for name in HELPERS:
        setattr(helpers, name, object())
    transformers.__path__ = utils.__path__ = []
    transformers.utils, utils.logging = utils, logs
    transformers.BertTokenizer = Tokenizer
    for module in (transformers, modeling, helpers, utils, logs):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(image_reward_package, "version", lambda _: "4.57.6")
    monkeypatch.setattr(image_reward_package, "_NEEDED", ())
    yield root
    for name in [name for name in sys.modules if name.partition(".")[0] == "ImageReward"]:
        del sys.modules[name]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write(tmp_path / "ImageReward.pt")


def write(path: Path, **changes: torch.Tensor | None) -> Path:
    tensors = {
        "mlp.weight": torch.tensor([[2.0]]),
        "mlp.bias": torch.tensor([0.5]),
        "blip.text_encoder.embeddings.position_ids": torch.arange(3),
    }
    tensors |= {k.replace("__", "."): v for k, v in changes.items() if v is not None}
    for key, value in changes.items():
        if value is None:
            del tensors[key.replace("__", ".")]
    torch.save(tensors, path)
    return path


class TestTheContract(RewardContract):
    @pytest.fixture
    def reward(self, package: Path, weights: Path) -> ImageRewardPip:
        return ImageRewardPip(weights, device="cpu")

    @pytest.fixture
    def prompts(self) -> Prompts:
        return ("a cat", "", "東京", "a cat", "a cat " * 60)


def test_is_made_by_the_registry_with_the_files_numbers(package: Path, weights: Path) -> None:
    reward = create("image_reward_pip", weights=weights, device="cpu")
    white = Image.new("RGB", (8, 8), (255, 255, 255))
    assert reward.score([white, white.convert("P")], ["", ""]) == [2.5, 2.5]
    assert reward.fingerprint.startswith("image_reward_pip:4.57.6:fp32:")
    model = reward._model  # type: ignore[attr-defined]
    assert not model.training
    assert model.tokenizer.pieces == 30522
    assert model.config["hidden_size"] == 768
    reward.place("cpu")
    assert model.device == torch.device("cpu")


def test_the_process_is_left_as_it_was(package: Path, weights: Path) -> None:
    filters = list(warnings.filters)
    ImageRewardPip(weights, device="cpu")
    assert warnings.filters == filters
    assert sys.modules["transformers.utils.logging"].get_verbosity() == 30
    modeling = sys.modules["transformers.modeling_utils"]
    assert not any(hasattr(modeling, name) for name in HELPERS)
    assert "ImageReward.ReFL" not in sys.modules
    pretraining = sys.modules["ImageReward.models.BLIP.blip_pretrain"]
    assert pretraining.init_tokenizer.__module__ == pretraining.__name__


def test_helpers_that_are_there_are_left_alone(package: Path) -> None:
    modeling: Any = sys.modules["transformers.modeling_utils"]
    modeling.prune_linear_layer = "own"
    image_reward_package.imported()
    assert modeling.prune_linear_layer == "own"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mlp__bias": None}, "'mlp.bias'"),
        ({"extra": torch.zeros(1)}, "'extra'"),
        ({"mlp__bias": torch.zeros(2)}, "'mlp.bias'"),
        ({"mlp__bias": None, "mlp__weight": None}, "and 1 more"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    changes: dict[str, torch.Tensor | None], words: str, package: Path, tmp_path: Path
) -> None:
    """The package itself would go on with random numbers."""
    with pytest.raises(RewardError, match="another structure") as failure:
        ImageRewardPip(write(tmp_path / "other.pt", **changes), device="cpu")
    assert words in str(failure.value)


def test_a_missing_file_is_named(package: Path, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"not found: .*none\.pt"):
        ImageRewardPip(tmp_path / "none.pt", device="cpu")


def test_a_long_prompt_is_told_once(
    package: Path, weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reward = ImageRewardPip(weights, device="cpu")
    with caplog.at_level(logging.WARNING):
        reward.read(["a cat " * 20])
    (told,) = reward.warnings()
    assert "first 33 word pieces" in told
    reward.score(sample_images()[:2], ["a cat " * 20] * 2)
    assert reward.warnings() == []


def test_bf16_and_a_closed_reward_are_refused(package: Path, weights: Path) -> None:
    with pytest.raises(ConfigError, match="cannot compute in bf16"):
        ImageRewardPip(weights, dtype="bf16", device="cpu")
    reward = ImageRewardPip(weights, device="cpu")
    reward.close()
    with pytest.raises(RewardError, match="closed"):
        reward.score(sample_images()[:1], ["x"])


def test_a_package_that_is_not_there_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_reward_package, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="the package image-reward is not installed"):
        create("image_reward_pip", weights="x.pt")
    assert "is not installed" in status("image_reward_pip").told


def test_transformers_5_is_too_new(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_reward_package, "version", lambda _: "5.23.0")
    assert "does not work with transformers 5.23.0" in status("image_reward_pip").told


def test_what_the_package_needs_is_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_reward_package, "_NEEDED", ("json", "no_such_a", "no_such_b"))
    assert "not installed: no_such_a, no_such_b" in status("image_reward_pip").told


def test_an_import_that_fails_is_a_sentence(package: Path, weights: Path) -> None:
    (package / "ImageReward.py").write_text("raise RuntimeError('operator nms does not exist')")
    with pytest.raises(ConfigError, match="cannot be imported: RuntimeError: operator nms"):
        ImageRewardPip(weights, device="cpu")
