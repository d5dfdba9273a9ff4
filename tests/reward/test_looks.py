from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageEnhance, ImageFilter

from lib_automerge.domain.ensemble import Ensemble, Member
from lib_automerge.domain.guards import GUARDS
from lib_automerge.domain.judging import value_of
from lib_automerge.domain.scale import Judged, scale_of
from lib_automerge.reward.looks import (
    diversity,
    embedding,
    looks,
    near_duplicate,
    perceptual_hash,
)
from tests import drawings

PER_IMAGE = [guard.name for guard in GUARDS if guard.name != "duplicate"]


def drawn(seed: int, size: int = 512, prompt: int = 0) -> Image.Image:
    """A drawing with the faint grain of a photograph."""
    image = drawings.draw(drawings.PROMPTS[prompt], seed, size, 1.0)
    return with_noise(image, 3.0, seed)


def with_noise(image: Image.Image, strength: float, seed: int = 0) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64)
    grain = np.random.default_rng(seed).normal(0, strength, pixels.shape)
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def flat(*colour: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.new("RGB", size, colour)  # type: ignore[arg-type]  # three numbers


# --- measures by hand ---


def test_measures_of_flat_images_by_hand() -> None:
    black, white, red = looks(flat(0, 0, 0)), looks(flat(255, 255, 255)), looks(flat(255, 0, 0))
    assert set(black) == set(PER_IMAGE)
    nothing = ("saturation", "colourfulness", "contrast", "sharpness", "fine_detail")
    assert [black[name] for name in nothing] == [0.0] * 5
    assert (black["brightness"], black["near_black"], black["clipped"]) == (0.0, 1.0, 1.0)
    assert (white["brightness"], white["near_black"], white["saturation"]) == (1.0, 0.0, 0.0)
    assert (red["saturation"], red["clipped"], red["near_black"]) == (1.0, 1.0, 0.0)
    # red - green 1, (red + green) / 2 - blue 0.5; no spread
    assert red["colourfulness"] == pytest.approx(0.3 * math.hypot(1, 0.5))
    grey = looks(flat(127, 127, 127))
    assert grey["brightness"] == pytest.approx(127 / 255)
    assert (grey["clipped"], grey["contrast"]) == (0.0, pytest.approx(0.0, abs=1e-9))
    # half of the light is colour
    assert looks(flat(200, 100, 150))["saturation"] == pytest.approx(0.5)


def test_measures_of_patterns_by_hand() -> None:
    pixels = np.zeros((64, 64), dtype=np.uint8)
    pixels[:, 32:] = 200
    halves = looks(Image.fromarray(pixels))
    assert halves["contrast"] == pytest.approx(100 / 255)
    assert (halves["near_black"], halves["clipped"]) == (0.5, 0.5)
    assert halves["fine_detail"] == pytest.approx(0.0)
    pixels[:, :] = np.where(np.indices((64, 64)).sum(0) % 2, 200, 0)
    checks = looks(Image.fromarray(pixels))
    assert checks["contrast"] == pytest.approx(100 / 255)
    assert checks["fine_detail"] == pytest.approx(1.0)
    # the Laplacian of a checkerboard is four times its height, up and down
    assert checks["sharpness"] == pytest.approx(math.log1p(800.0**2))
    # however faint
    faint = looks(Image.fromarray(100 + pixels // 100))
    assert faint["fine_detail"] == pytest.approx(1.0)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (1, 700), (2, 3), (37, 5), (900, 700)])
def test_any_image_can_be_measured(mode: str, size: tuple[int, int]) -> None:
    image = drawn(1, 64).resize(size)
    image = image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
    before = image.copy()
    measures = looks(image)
    assert set(measures) == set(PER_IMAGE)
    assert all(math.isfinite(value) and value >= 0 for value in measures.values())
    assert 0 <= perceptual_hash(image) < 2**64
    assert np.isfinite(embedding(image)).all()
    assert image.mode == before.mode
    assert image.tobytes() == before.tobytes()


def test_a_larger_copy_has_nearly_the_same_measures() -> None:
    small = drawings.draw(drawings.PROMPTS[0], 1, 512, 1.0)
    large = looks(small.resize((1024, 1024), Image.Resampling.BICUBIC))
    for name, value in looks(small).items():
        assert large[name] == pytest.approx(value, abs=0.01, rel=0.15), name


def test_measures_take_few_milliseconds() -> None:
    image = drawn(1)
    seconds = []
    for _ in range(10):
        start = time.process_time()
        looks(image)
        perceptual_hash(image)
        embedding(image)
        seconds.append(time.process_time() - start)
    # about 0.005 s
    assert min(seconds) < 0.05


# --- guards ---


def saturated(image: Image.Image) -> Image.Image:
    return ImageEnhance.Color(image).enhance(2.0)


def blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(3))


def burnt(image: Image.Image) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(3.0)


def foggy(image: Image.Image) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(0.4)


def dark(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(0.1)


def noisy(image: Image.Image) -> Image.Image:
    return with_noise(image, 25.0)


def oversharpened(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.UnsharpMask(2, 400, 0))


def judged(image: Image.Image, evaluation: int, seed: int) -> Judged:
    return Judged(evaluation=evaluation, payload="a", seed=seed, raw={"r": 0.0}, looks=looks(image))


@pytest.fixture(scope="module")
def parents() -> list[Judged]:
    """A draws pale and soft, B colourful and crisp."""
    made = []
    for seed in range(4):
        image = drawn(seed)
        made.append(judged(ImageEnhance.Color(image).enhance(0.8), 1, seed))
        made.append(judged(ImageEnhance.Color(image).enhance(1.05), 2, seed))
    return made


def flags(image: Image.Image, parents: list[Judged]) -> set[str]:
    ensemble = Ensemble(members=(Member(reward="r"),))
    return set(value_of(judged(image, 7, 0), ensemble, scale_of(parents, {"r": 1.0})).outside)


@pytest.mark.parametrize("seed", [10, 11, 12])
def test_an_image_between_the_parents_has_no_flag(parents: list[Judged], seed: int) -> None:
    assert flags(ImageEnhance.Color(drawn(seed)).enhance(0.9), parents) == set()


@pytest.mark.parametrize("seed", [10, 11])
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (saturated, {"saturation", "colourfulness"}),
        (blurred, {"sharpness"}),
        (burnt, {"contrast", "clipped"}),
        (foggy, {"contrast"}),
        (dark, {"brightness", "near_black"}),
        (noisy, {"sharpness", "fine_detail"}),
        (oversharpened, {"sharpness"}),
    ],
)
def test_each_way_to_spoil_an_image_raises_its_flag(
    parents: list[Judged], spoil: object, expected: set[str], seed: int
) -> None:
    assert callable(spoil)
    assert expected <= flags(spoil(drawn(seed)), parents)


def test_a_flag_is_raised_only_outside_the_tolerance(parents: list[Judged]) -> None:
    low, high = scale_of(parents, {"r": 1.0}).ranges["saturation"]["a"]
    limit = high + 0.15 * max(high - low, 0.05)
    found = []
    for strength in np.linspace(1.0, 1.6, 13):
        image = ImageEnhance.Color(drawn(10)).enhance(float(strength))
        flagged = "saturation" in flags(image, parents)
        assert flagged == (looks(image)["saturation"] > limit)
        found.append(flagged)
    assert found[0] is False
    assert found[-1] is True


# --- duplicates ---


@pytest.mark.parametrize("prompt", range(4))
def test_copies_are_near_duplicates_and_other_seeds_are_not(prompt: int) -> None:
    image = drawn(1, prompt=prompt)
    original = perceptual_hash(image)
    copies = (
        noisy(image),
        blurred(image),
        image.resize((300, 300)),
        ImageEnhance.Brightness(image).enhance(1.1),
        ImageEnhance.Color(image).enhance(0.7),
    )
    assert all(near_duplicate(original, perceptual_hash(copy)) for copy in copies)
    others = (drawn(2, prompt=prompt), drawn(3, prompt=prompt), drawn(1, prompt=prompt + 4))
    assert not any(near_duplicate(original, perceptual_hash(other)) for other in others)


def test_flat_images_are_duplicates_of_flat_images() -> None:
    one, other = perceptual_hash(flat(10, 20, 30)), perceptual_hash(flat(200, 150, 90))
    assert near_duplicate(one, other)
    assert not near_duplicate(one, perceptual_hash(drawn(1)))


def test_six_bits_of_difference_are_the_same_image() -> None:
    assert near_duplicate(0, 0b111111)
    assert not near_duplicate(0, 0b1111111)


def test_a_duplicate_is_outside_the_range_of_parents_that_have_none(parents: list[Judged]) -> None:
    ensemble = Ensemble(members=(Member(reward="r"),))
    without = [
        Judged(evaluation=1, payload="a", seed=n, raw={"r": 0.0}, looks={"duplicate": 0.0})
        for n in range(2)
    ]
    scale = scale_of(without, {"r": 1.0})
    twin = Judged(evaluation=7, payload="a", seed=1, raw={"r": 0.0}, looks={"duplicate": 1.0})
    assert value_of(twin, ensemble, scale).outside == pytest.approx({"duplicate": 0.85})


# --- diversity ---


MATRICES = arrays.arrays(
    np.float64, st.tuples(st.integers(2, 6), st.integers(2, 5)), elements=st.floats(-3, 3)
)


def test_diversity_by_hand() -> None:
    same = np.tile([3.0, 4.0], (4, 1))
    assert diversity(same) == pytest.approx(0.0)
    assert diversity(2 * np.eye(5)) == pytest.approx(1.0)
    assert diversity(np.array([[1.0, 0.0], [-2.0, 0.0]])) == pytest.approx(2.0)
    assert diversity(np.ones((1, 3))) == 0.0
    # by hand: cosines 0, 0 and 1
    assert diversity(np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 3.0]])) == pytest.approx(2 / 3)


@settings(max_examples=50)
@given(MATRICES, st.randoms(), st.floats(0.1, 10))
def test_order_and_lengths_play_no_part(rows: np.ndarray, random_: object, factor: float) -> None:
    rows = rows + np.where(np.abs(rows).sum(1, keepdims=True) < 0.1, 1.0, 0.0)
    order = np.random.default_rng(1).permutation(len(rows))
    assert diversity(factor * rows[order]) == pytest.approx(diversity(rows), abs=1e-9)


def test_without_a_model_other_seeds_and_prompts_are_further_apart_than_copies() -> None:
    image = drawn(1)
    own = embedding(image)
    assert np.linalg.norm(own) == pytest.approx(1.0)

    def distance(other: Image.Image) -> float:
        return float(1 - own @ embedding(other))

    copies = (noisy(image), blurred(image), image.resize((300, 300)))
    others = [drawn(seed) for seed in (2, 3, 4)] + [drawn(1, prompt=1)]
    assert max(map(distance, copies)) < 0.5 * min(map(distance, others))
    assert distance(drawn(2, prompt=1)) > distance(drawn(2))


def test_edges_tell_images_of_the_same_colours_apart() -> None:
    rows = np.where(np.indices((64, 64))[0] // 2 % 2, 255, 0).astype(np.uint8)
    upright, level = embedding(Image.fromarray(rows.T)), embedding(Image.fromarray(rows))
    assert upright @ level == pytest.approx(0.5, abs=0.01)
