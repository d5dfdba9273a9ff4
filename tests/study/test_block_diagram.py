from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections import Counter

import pytest

from lib_automerge.domain import architectures
from lib_automerge.study import shades
from lib_automerge.study.block_diagram import WIDTH, Diagram, block_diagram

SVG = "{http://www.w3.org/2000/svg}"


def drawing(name: str, values: dict[str, float], *, lacking: tuple[str, ...] = ()) -> ET.Element:
    architecture = architectures.get(name)
    sizes: Counter[str] = Counter()
    for key, shape in architecture.reference_keys.items():
        block = architecture.block_of(key)
        if block and block not in lacking:
            sizes[block] += math.prod(shape)
    shown = Diagram(
        title="Weights <&>",
        subtitle="a & b",
        measure="weight",
        values=values,
        sizes=dict(sizes),
        shades=shades.of_weights(),
        ends=("0: A", "1: B"),
        text=lambda value: f"{value:.2f}",
    )
    return ET.fromstring(block_diagram("d", architecture, shown))


def cells(root: ET.Element) -> dict[str, ET.Element]:
    """Block -> its group, by the name in its hint."""
    groups = [group for group in root.iter(f"{SVG}g") if group.find(f"{SVG}title") is not None]
    return {re.split("[: ]", str(g.findtext(f"{SVG}title")))[0]: g for g in groups}


@pytest.mark.parametrize("name", architectures.names())
def test_every_block_is_drawn_once_inside_and_apart_from_the_others(name: str) -> None:
    root = drawing(name, {})
    found = cells(root)
    assert sorted(found) == sorted(architectures.get(name).blocks)
    assert len(list(root.iter(f"{SVG}g"))) == len(found)
    height = float(root.attrib["height"])
    boxes = []
    for group in found.values():
        box = group.find(f"{SVG}rect")
        assert box is not None
        x, y, w, h = (float(box.attrib[side]) for side in ("x", "y", "width", "height"))
        assert x >= 8
        assert x + w <= WIDTH - 8
        assert y >= 80
        assert y + h <= height - 8
        assert not any(abs(x - ox) < w and abs(y - oy) < h for ox, oy in boxes)
        boxes.append((x, y))


def test_a_unet_has_each_decoder_block_beside_the_encoder_block_it_is_joined_to() -> None:
    found = cells(drawing("sdxl", {}))

    def row(name: str) -> str:
        box = found[name].find(f"{SVG}rect")
        assert box is not None
        return box.attrib["y"]

    assert [row(f"IN{n:02}") for n in range(9)] == [row(f"OUT{8 - n:02}") for n in range(9)]
    assert row("OUT") == row("OUT08") == row("IN00")
    assert float(row("M00")) > float(row("IN08"))


def test_numbers_are_written_and_coloured() -> None:
    found = cells(drawing("flux1", {"D00": 0.0, "D01": 0.5, "D02": 1.0, "S37": -0.25, "S36": 7.0}))
    fills = {name: group.find(f"{SVG}rect").attrib["fill"] for name, group in found.items()}  # type: ignore[union-attr]
    assert fills["D00"] == fills["S37"] == "#3f6fb5"  # beyond the ends: the end's colour
    assert fills["D02"] == fills["S36"] == "#a9602c"
    assert fills["D01"] == "#f3f1ec"
    texts = [t.text for t in found["S37"].iter(f"{SVG}text")]
    assert texts == ["S37", "\N{MINUS SIGN}0.25"]
    assert [t.text for t in found["S00"].iter(f"{SVG}text")] == ["S00"]
    assert "light" in found["D00"].findall(f"{SVG}text")[1].attrib["class"]
    assert "light" not in found["D01"].findall(f"{SVG}text")[1].attrib["class"]


def test_blocks_that_the_model_lacks_are_dashed() -> None:
    found = cells(drawing("flux1", {}, lacking=("GUIDANCE_IN", "VAE")))
    for name, dashed in {"GUIDANCE_IN": True, "VAE": True, "IMG_IN": False}.items():
        box = found[name].find(f"{SVG}rect")
        assert box is not None
        assert (box.attrib["class"] == "dashed") is dashed


def test_names_are_escaped() -> None:
    root = drawing("sd1", {"IN00": 0.5})
    assert "Weights <&>" in [text.text for text in root.iter(f"{SVG}text")]
