"""Every mode of Pillow's is the picture that it shows, or a sentence."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lib_automerge.errors import RewardError
from lib_automerge.reward.rgb import as_rgb
from tests.contracts.reward import sample_images

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def grey(levels: NDArray[np.int64], mode: str) -> Image.Image:
    kind = {"I": "<i4", "I;16B": ">u2"}.get(mode, "<u2")
    size = (levels.shape[1], levels.shape[0])
    return Image.frombytes(mode, size, levels.astype(kind).tobytes())


def channels(image: Image.Image) -> list[list[list[int]]]:
    found: list[list[list[int]]] = np.asarray(image).astype(int).tolist()
    return found


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16L", "I;16B"])
def test_grey_of_16_bits_is_scaled_to_8(mode: str) -> None:
    """Exactly for what was 8 bits before, and to the nearest level between."""
    full = RAMP.astype(np.int64) * 257
    assert channels(as_rgb(grey(full, mode))) == np.stack([RAMP] * 3, axis=2).tolist()
    between = np.array([[0, 128, 129, 385, 386, 32_768, 65_406, 65_407, 65_535]])
    expected = [[[level] * 3 for level in (0, 0, 1, 1, 2, 128, 254, 255, 255)]]
    assert channels(as_rgb(grey(between, mode))) == expected


def test_a_png_of_16_bits_looks_as_it_does_in_8() -> None:
    file = io.BytesIO()
    grey(RAMP.astype(np.int64) * 257, "I;16").save(file, "PNG")
    with Image.open(file) as image:
        assert image.mode in ("I", "I;16")
        assert as_rgb(image).tobytes() == Image.fromarray(RAMP).convert("RGB").tobytes()


def test_8_bits_that_pillow_wrote_as_whole_numbers_stay_what_they_are() -> None:
    plain = Image.fromarray(RAMP)
    assert as_rgb(plain.convert("I")).tobytes() == plain.convert("RGB").tobytes()
    dark = Image.new("I", (2, 2), 200)
    assert as_rgb(dark).getpixel((0, 0)) == (200, 200, 200)
    assert as_rgb(Image.new("I;16", (2, 2), 200)).getpixel((0, 0)) == (1, 1, 1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_other_modes_are_pillows_own_conversion(mode: str) -> None:
    image = sample_images()[3].convert("P" if mode == "PA" else mode)
    image = image.convert(mode)
    before = image.tobytes()
    assert as_rgb(image).mode == "RGB"
    assert as_rgb(image).tobytes() == image.convert("RGB").tobytes()
    assert (image.mode, image.tobytes()) == (mode, before)


def test_transparency_is_dropped_as_the_packages_do() -> None:
    image = Image.new("RGBA", (2, 2), (10, 200, 30, 0))
    assert as_rgb(image).getpixel((0, 0)) == (10, 200, 30)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.new("F", (2, 2), 0.5), "mode 'F', floating-point numbers of no known scale"),
        (grey(np.array([[0, 65_536]]), "I"), "numbers from 0 to 65536, more than 16 bits"),
        (grey(np.array([[-1, 300]]), "I"), "numbers from -1 to 300"),
        (Image.new("La", (2, 2)), "cannot be read as RGB: mode 'La'"),
        (Image.new("RGB", (0, 3)), "image is empty: 0 x 3 pixels"),
    ],
)
def test_what_is_no_picture_is_a_sentence(image: Image.Image, words: str) -> None:
    with pytest.raises(RewardError, match=words):
        as_rgb(image)


def test_a_file_that_is_cut_off_is_a_sentence() -> None:
    file = io.BytesIO()
    sample_images()[3].save(file, "PNG")
    with (
        Image.open(io.BytesIO(file.getvalue()[:3000])) as image,
        pytest.raises(RewardError, match=r"cannot be read as RGB: mode 'RGB' .*truncated"),
    ):
        as_rgb(image)
