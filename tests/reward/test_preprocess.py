"""The digests are those of open_clip and transformers, recorded by record_goldens.py."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lib_automerge.reward.preprocess import Framing, crop, crop_down, pad, squeeze
from tests.contracts.reward import sample_images

FRAMINGS = (crop, crop_down, pad, squeeze)
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SIGLIP = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "clip.json").read_text(encoding="utf-8")
)["pixels"]


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 10_000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("framing", [crop, crop_down, pad])
def test_normalises_as_clip_does(framing: Framing) -> None:
    pixels = framing(Image.new("RGB", (48, 48), (255, 0, 128)), 48)
    expected = (
        (1 - 0.48145466) / 0.26862954,
        -0.4578275 / 0.26130258,
        (128 / 255 - 0.40821073) / 0.27577711,
    )
    assert pixels.shape == (3, 48, 48)
    assert pixels.dtype is torch.float32
    assert pixels[:, 20, 20].tolist() == pytest.approx(expected, abs=1e-6)


def test_normalises_as_siglip_does() -> None:
    pixels = squeeze(Image.new("RGB", (48, 30), (255, 0, 128)), 48)
    assert pixels[:, 20, 20].tolist() == pytest.approx((1, -1, 128 / 127.5 - 1), abs=1e-6)


# Half a pixel: torchvision rounds it to the even number, transformers down.
@pytest.mark.parametrize(
    ("framing", "size", "box"),
    [
        (crop, (48, 53), (0, 2, 48, 50)),
        (crop, (51, 48), (2, 0, 50, 48)),
        (crop, (49, 48), (0, 0, 48, 48)),
        (crop_down, (48, 53), (0, 2, 48, 50)),
        (crop_down, (51, 48), (1, 0, 49, 48)),
        (crop_down, (49, 48), (0, 0, 48, 48)),
    ],
)
def test_cuts_the_centre(
    framing: Framing, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    image = noise(*size)
    assert torch.equal(framing(image, 48), framing(image.crop(box), 48))


@pytest.mark.parametrize(
    ("size", "inside"), [((48, 31), (8, 39, 0, 48)), ((20, 48), (0, 48, 14, 34))]
)
def test_pad_shows_the_whole_image_on_black(
    size: tuple[int, int], inside: tuple[int, int, int, int]
) -> None:
    top, bottom, left, right = inside
    pixels = pad(noise(*size), 48)
    outside = torch.ones(48, 48, dtype=torch.bool)
    outside[top:bottom, left:right] = False
    mean, sd = (torch.tensor(numbers).view(3, 1, 1) for numbers in CLIP)
    own = (pixels * sd + mean) * 255
    assert torch.allclose(own[:, outside], torch.zeros(1), atol=1e-4)
    # Unscaled: the image's own pixels.
    expected = torch.from_numpy(np.array(noise(*size))).permute(2, 0, 1)
    assert torch.allclose(own[:, top:bottom, left:right], expected.float(), atol=1e-3)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("size", [(1, 1), (33, 32), (61, 150), (300, 301), (1000, 3), (3, 1000)])
def test_gives_a_square_of_any_size(framing: Framing, size: tuple[int, int]) -> None:
    pixels = framing(Image.new("RGB", size), 48)
    assert pixels.shape == (3, 48, 48)
    assert bool(pixels.isfinite().all())


@pytest.mark.parametrize("framing", [crop, crop_down])
@pytest.mark.parametrize("size", [(8, 200), (200, 8)])
def test_of_a_strip_only_the_middle_is_scaled(framing: Framing, size: tuple[int, int]) -> None:
    strip = noise(*size)
    whole = strip.resize((size[0] * 6, size[1] * 6), Image.Resampling.BICUBIC)
    assert torch.equal(framing(strip, 48), framing(whole, 48))


def test_a_strip_takes_no_memory() -> None:
    largest = 0
    resize = Image.Image.resize

    def watched(image: Image.Image, size: tuple[int, int], how: Any) -> Image.Image:
        nonlocal largest
        largest = max(largest, size[0] * size[1])
        return resize(image, size, how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", watched)
        for size in ((1, 8192), (8192, 1)):
            for framing in FRAMINGS:
                framing(Image.new("RGB", size), 224)
    assert largest <= 224 * 224 * 17


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I"])
def test_makes_rgb_before_it_resizes(framing: Framing, mode: str) -> None:
    image = sample_images()[3].convert("RGB")
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    assert torch.equal(framing(image, 48), framing(image.convert("RGB"), 48))
    assert image.mode == mode


@pytest.mark.parametrize("framing", FRAMINGS)
def test_scales_bit_for_bit_as_the_packages_do(framing: Framing) -> None:
    recorded: dict[str, str] = GOLDEN[framing.__name__]
    side = 384 if framing is squeeze else 224
    mean, sd = (SIGLIP if framing is squeeze else CLIP)[:2]
    assert recorded
    for size, expected in recorded.items():
        width, _, height = size.partition("x")
        pixels = framing(noise(int(width), int(height)), side)
        own = pixels * torch.tensor(sd).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
        eight_bit = (own * 255).round().to(torch.uint8).numpy().tobytes()
        assert hashlib.sha256(eight_bit).hexdigest()[:16] == expected, size
