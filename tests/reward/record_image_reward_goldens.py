"""Record what the package image-reward gives for the small model of the tests.

    python -m tests.reward.record_image_reward_goldens            writes the fixture
    python -m tests.reward.record_image_reward_goldens --full     compares at the published size

Needs an environment of its own with image-reward 1.5 and transformers 4.30 to 4.57, for example

    pip install --no-deps image-reward==1.5 timm==0.6.13 fairscale==0.4.13 clip-anytorch==2.6.0
    pip install transformers==4.46.1 setuptools==69.5.1 torchvision ftfy regex

besides what Automerge needs. `--full` writes 1.8 GB of random numbers into a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lib_automerge.reward import image_reward_package
from lib_automerge.reward.blip import BlipSizes
from lib_automerge.reward.image_reward import ImageReward
from lib_automerge.reward.image_reward_pip import ImageRewardPip
from tests.contracts.reward import sample_images
from tests.reward.tiny_image_reward import PROMPTS, TINY, random_tensors, write_tiny

GOLDEN = Path(__file__).parent / "golden" / "image_reward.json"


class TinyPip(ImageRewardPip):
    """The package's model at the tiny size; for after `shrink`."""

    sizes = TINY


def shrink() -> None:
    """Have the package build its networks at the sizes TINY; it knows only its own."""
    module, pretraining = image_reward_package.imported()
    vit: Any = sys.modules["ImageReward.models.BLIP.vit"]
    whole, head, transform = pretraining.BLIP_Pretrain, module.MLP, module._transform

    def small_vit(*_arguments: object, **_more: object) -> tuple[Any, int]:
        network = vit.VisionTransformer(
            img_size=TINY.image_side,
            patch_size=16,
            embed_dim=TINY.image_width,
            depth=TINY.image_layers,
            num_heads=TINY.image_width // 64,
        )
        return network, TINY.image_width

    pretraining.create_vit = small_vit
    module.MLP = lambda _width: head(TINY.text_width)
    module._transform = lambda _side: transform(TINY.image_side)
    module.BLIP_Pretrain = lambda image_size, vit, med_config: whole(
        image_size=TINY.image_side, vit=vit, med_config=med_config
    )


def table(reward: ImageReward | ImageRewardPip) -> list[list[float]]:
    """A row per prompt, a column per sample image."""
    images = sample_images()
    return [reward.score(images, [prompt] * len(images)) for prompt in PROMPTS]


def record() -> None:
    """Write the fixture."""
    shrink()
    with tempfile.TemporaryDirectory() as folder:
        scores = table(TinyPip(write_tiny(Path(folder)), device="cpu"))
    names = ("image-reward", "transformers", "timm", "torch")
    recorded = {
        "versions": {name: version(name) for name in names},
        "prompts": PROMPTS,
        "scores": [[round(score, 7) for score in row] for row in scores],
    }
    GOLDEN.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def compare() -> float:
    """The largest difference between the package's scores and ours at the published size."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "ImageReward.pt")
        torch.save(random_tensors(BlipSizes()), file)
        tables = []
        for judge in (ImageRewardPip, ImageReward):
            begin = time.process_time()
            reward = judge(file, device="cpu")
            loaded = time.process_time()
            tables.append(torch.tensor(table(reward)))
            seconds = (time.process_time() - loaded) / tables[-1].numel()
            print(f"{judge.name}: load {loaded - begin:.1f}, image {seconds:.2f} CPU-seconds")  # noqa: T201
            reward.close()
    return float((tables[0] - tables[1]).abs().max())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    if parser.parse_args().full:
        print(f"largest difference {compare():.2e}")  # noqa: T201
    else:
        record()
