"""What `reward_speed.py` measures, each in a process of its own: prints one JSON object.

    python benchmarks/reward_parts.py PART FOLDER

CPU seconds are those of the process; memory is the most that it held, by `ru_maxrss`. A process
takes over the maximum of the one that starts it, so that one must not have imported torch.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

from lib_automerge.reward import digests
from lib_automerge.reward.aesthetic import LaionV2
from lib_automerge.reward.blip import BlipSizes
from lib_automerge.reward.cache import cached
from lib_automerge.reward.clip import VIT_L_14
from lib_automerge.reward.clip_rewards import ClipScore
from lib_automerge.reward.image_reward import ImageReward

BATCH = 8
GPU_BATCHES = (1, 8, 16)
PROMPT = "a painting of a lighthouse at dusk, waves and gulls, warm light, number {}"

Numbers = dict[str, Any]


def weights_of_image_reward(folder: Path) -> Path:
    return folder / "ImageReward.pt"


def clip(folder: Path) -> Path:
    return folder / "clip.safetensors"


def head(folder: Path) -> Path:
    return folder / "head.safetensors"


def images(count: int, first: int = 0) -> list[Image.Image]:
    """Noise of 512x512; no two are the same."""
    made = []
    for number in range(first, first + count):
        pixels = np.random.default_rng(number).integers(0, 256, (512, 512, 3), dtype=np.uint8)
        made.append(Image.fromarray(pixels))
    return made


def prompts(count: int, first: int = 0) -> list[str]:
    return [PROMPT.format(number) for number in range(first, first + count)]


class Clock:
    """CPU seconds of this process by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[name] = time.process_time() - start


def peak() -> float:
    """The most memory that the process has held, in GB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e9


def write(folder: Path) -> Numbers:
    """Write random weights of the published sizes, as they are published."""
    import safetensors.torch

    from tests.reward.tiny_clip import random_encoder
    from tests.reward.tiny_image_reward import random_tensor, random_tensors

    torch.save(random_tensors(BlipSizes()), weights_of_image_reward(folder))
    safetensors.torch.save_file(random_encoder(VIT_L_14), clip(folder))
    with torch.device("meta"):
        shapes = LaionV2._build(VIT_L_14.embedding).state_dict()
    tensors = {key: random_tensor(key, tuple(t.shape)) for key, t in shapes.items()}
    safetensors.torch.save_file(tensors, head(folder))
    return {"bytes": weights_of_image_reward(folder).stat().st_size}


def ours_at_first(folder: Path) -> Numbers:
    """This project's load of a file that it has never seen: its SHA-256 is computed."""
    clock = Clock()
    store = folder / digests.FILE
    store.unlink(missing_ok=True)
    with digests.kept_in(store), clock.timed("load of an unknown file"):
        ImageReward(weights_of_image_reward(folder), device="cpu", batch_size=BATCH)
    assert store.is_file()
    return clock.seconds


def ours(folder: Path) -> Numbers:
    """This project's ImageReward; `ours_at_first` has left the file's SHA-256 on disk."""

    def load() -> ImageReward:
        with digests.kept_in(folder / digests.FILE):
            return ImageReward(weights_of_image_reward(folder), device="cpu", batch_size=BATCH)

    return _image_reward(load, lambda reward, some, told: reward.score(some, told))


def package(folder: Path) -> Numbers:
    """The package's own loader and scoring, with autograd off and its tokenizer given."""
    # its extension is built for another torch; only transforms of PIL images are used
    sys.modules["torchvision._meta_registrations"] = ModuleType("torchvision._meta_registrations")
    from lib_automerge.reward.image_reward_package import imported
    from lib_automerge.reward.image_reward_pip import _own_tokenizer, _text_config

    _, pretraining = imported()
    config = folder / "med_config.json"
    config.write_text(json.dumps(_text_config(BlipSizes())))
    import ImageReward as theirs  # noqa: N813 - the package, not our class

    def load() -> Any:
        with _own_tokenizer(pretraining):
            file = str(weights_of_image_reward(folder))
            return theirs.load(file, device="cpu", med_config=str(config))

    def score(model: Any, some: list[Image.Image], told: list[str]) -> list[float]:
        with torch.inference_mode():
            return [float(model.score(p, i)) for p, i in zip(told, some, strict=True)]

    return _image_reward(load, score)


def _image_reward(
    load: Callable[[], Any], score: Callable[[Any, list[Image.Image], list[str]], list[float]]
) -> Numbers:
    clock = Clock()
    base = peak()
    with clock.timed("load"):
        reward = load()
    loaded = peak()
    with clock.timed("first image"):
        score(reward, images(1), prompts(1))
    with clock.timed("batch"):
        scores = score(reward, images(BATCH), prompts(BATCH))
    return {
        **clock.seconds,
        "image": clock.seconds["batch"] / BATCH,
        "imports GB": base,
        "loaded GB": loaded,
        "peak GB": peak(),
        "scores": scores,
    }


def shared(folder: Path) -> Numbers:
    """Two rewards over one encoder, each alone and together; texts of known images."""
    clock = Clock()
    likeness = ClipScore(clip(folder), device="cpu", batch_size=BATCH)
    beauty = LaionV2(encoder=clip(folder), weights=head(folder), device="cpu", batch_size=BATCH)
    told = prompts(BATCH)
    for reward in (likeness, beauty):
        reward.score(images(1, 1000), told[:1])
    likeness.score(images(1, 1000) * BATCH, told)
    with clock.timed("CLIPScore alone"):
        likeness.score(images(BATCH), told)
    with clock.timed("LAION V2 alone"):
        beauty.score(images(BATCH, 100), told)
    with clock.timed("both"):
        both = images(BATCH, 200)
        likeness.score(both, told)
        beauty.score(both, told)
    known = images(BATCH)
    with clock.timed("known images, known prompt"):
        likeness.score(known, told)
    with clock.timed("known images, one new prompt"):
        likeness.score(known, prompts(1, 500) * BATCH)
    with clock.timed("known images, a new prompt each"):
        likeness.score(known, prompts(BATCH, 600))
    return clock.seconds


def kept(folder: Path) -> Numbers:
    """The file of known scores: a batch that is not in it, and the same once more."""
    clock = Clock()
    reward = cached(
        ImageReward(weights_of_image_reward(folder), device="cpu", batch_size=BATCH),
        folder / "scores.sqlite",
    )
    reward.score(images(1, 1000), prompts(1))
    some, told = images(BATCH), prompts(BATCH)
    with clock.timed("miss"):
        first = reward.score(some, told)
    with clock.timed("hit"):
        again = reward.score(some, told)
    assert first == again
    return clock.seconds


def gpu(folder: Path) -> Numbers:
    """Images per second on a GPU in fp16, and how far the scores are from those in fp32."""
    if not torch.cuda.is_available():
        return {}
    return {"name": torch.cuda.get_device_name(), **on_device(folder, "cuda", "fp16")}


def on_device(folder: Path, device: str, dtype: str, repeat: int = 5) -> Numbers:
    file, count = weights_of_image_reward(folder), max(GPU_BATCHES)
    some, told = images(count), prompts(count)
    exact = ImageReward(file, dtype="fp32", device=device)
    expected = exact.score(some, told)
    exact.close()
    found: Numbers = {}
    for size in GPU_BATCHES:
        reward = ImageReward(file, dtype=dtype, device=device, batch_size=size)
        scores = reward.score(some, told)
        start = time.perf_counter()
        for _ in range(repeat):
            reward.score(some, told)
        found[f"batch {size}"] = repeat * count / (time.perf_counter() - start)
        gaps = [abs(one - other) for one, other in zip(scores, expected, strict=True)]
        found["deviation"] = max(found.get("deviation", 0.0), *gaps)
        reward.close()
    return found


PARTS = {part.__name__: part for part in (write, ours_at_first, ours, package, shared, kept, gpu)}


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]))))
