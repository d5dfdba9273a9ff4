from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from lib_automerge.study.pool_charts import LETTER, map_chart, matrix_chart, tree_chart
from lib_automerge.study.pool_geometry import Matrix, places, tree

SVG = "{http://www.w3.org/2000/svg}"


def between(points: Matrix) -> Matrix:
    found = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(found, 0.0)
    return found


def crowd(count: int) -> tuple[list[str], Matrix]:
    """Models in a few tight clusters in 30 dimensions."""
    random = np.random.default_rng(count)
    centres = random.normal(size=(max(count // 6, 1), 30)) * 20
    points = centres[random.integers(len(centres), size=count)] + random.normal(size=(count, 30))
    return [f"model_with_a_name_{n}" for n in range(count)], between(points)


def test_a_map_of_points_in_a_plane_is_true() -> None:
    random = np.random.default_rng(0)
    distances = between(random.normal(size=(9, 2)) * 7)
    found = places(distances)
    np.testing.assert_allclose(between(found.points), distances, atol=1e-10)
    assert found.kept == pytest.approx(1.0)


def test_a_line_stays_a_line() -> None:
    distances = between(np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 6.0]]))
    found = places(distances)
    np.testing.assert_allclose(found.points[:, 1], 0.0, atol=1e-6)
    np.testing.assert_allclose(between(found.points), distances, atol=1e-10)


def test_a_map_says_how_much_it_leaves_out() -> None:
    """The corners of a regular simplex: every direction is as long, a plane holds two of four."""
    assert places(between(np.eye(5))).kept == pytest.approx(0.5)


def test_the_tree_joins_by_mean_distance() -> None:
    distances = np.array(
        [[0.0, 2.0, 6.0, 10.0], [2.0, 0.0, 8.0, 12.0], [6.0, 8.0, 0.0, 3.0], [10.0, 12.0, 3.0, 0.0]]
    )
    found = tree(distances)
    assert [joint.height for joint in found.joints] == [2.0, 3.0, (6 + 10 + 8 + 12) / 4]
    assert {found.joints[0].left, found.joints[0].right} == {0, 1}
    assert {found.joints[2].left, found.joints[2].right} == {4, 5}
    assert found.leaves in {(1, 0, 2, 3), (3, 2, 0, 1)}  # 0 and 2 are the nearer pair


@pytest.mark.parametrize("count", [2, 3, 12, 13, 50])
def test_every_model_is_named_on_every_drawing(count: int) -> None:
    names, distances = crowd(count)
    for draw in (tree_chart, map_chart, matrix_chart):
        root = ET.fromstring(draw("d", "A & B", names, distances))
        texts = {text.text or text[0].tail for text in root.iter(f"{SVG}text")}
        assert texts.issuperset(names)


@pytest.mark.parametrize("count", [2, 12, 50])
def test_labels_of_a_map_do_not_overlap(count: int) -> None:
    names, distances = crowd(count)
    root = ET.fromstring(map_chart("d", "t", names, distances, base=True))
    boxes = []
    for group in root.iter(f"{SVG}g"):
        label = group.find(f"{SVG}text")
        assert label is not None
        assert label.text
        x, y = float(label.attrib["x"]), float(label.attrib["y"])
        boxes.append((x, y - 9, x + LETTER * len(label.text), y + 2))
    assert len(boxes) == count
    for index, one in enumerate(boxes):
        for other in boxes[:index]:
            beside = one[0] >= other[2] or other[0] >= one[2]
            assert beside or one[1] >= other[3] or other[1] >= one[3]


def test_models_that_are_all_equal_can_be_drawn() -> None:
    for draw in (tree_chart, map_chart, matrix_chart):
        ET.fromstring(draw("d", "t", ["a", "b", "c"], np.zeros((3, 3))))


def test_long_names_keep_their_ends_and_are_told_whole() -> None:
    name = "a_very_long_name_of_a_checkpoint_that_goes_on_and_on_v12_pruned"
    drawn = tree_chart("d", "t", [name, "b"], np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert "v12_pruned" in re.sub("<title>.*?</title>", "", drawn)
    assert f"<title>{name}</title>" in drawn


@pytest.mark.parametrize("size", [1e-150, 1e-9, 1e12, 1e153])
def test_sizes_that_no_model_has_are_drawn_with_short_numbers(size: float) -> None:
    points = np.random.default_rng(0).normal(size=(5, 3))
    names, distances = list("abcde"), between(points) * size
    np.testing.assert_allclose(places(distances).points / size, places(between(points)).points)
    for chart in (tree_chart, map_chart, matrix_chart):
        drawn = chart("pool", "title", names, distances)
        texts = [text.text or "" for text in ET.fromstring(drawn).iter(f"{SVG}text")]
        assert not re.search("nan|inf", drawn.replace("information", ""), re.IGNORECASE)
        numbers = [text for text in texts if re.search(r"\d", text)]
        assert numbers
        assert max(map(len, numbers)) < 60
        assert all(len(word) < 12 for text in numbers for word in text.split())
