from __future__ import annotations

import pytest

from lib_automerge.domain.widths import heads, norm_groups, unet_heads


@pytest.mark.parametrize(
    ("width", "count"), [(1280, 20), (768, 12), (640, 10), (320, 5), (64, 1), (16, 1), (200, 2)]
)
def test_heads_are_64_wide_where_the_width_allows(width: int, count: int) -> None:
    assert heads(width) == count
    assert unet_heads("sdxl", width) == unet_heads("sd2", width) == count
    assert unet_heads("sd1", width) == 8


@pytest.mark.parametrize(
    ("widths", "count"),
    [((320, 640, 1280), 32), ((384, 768, 1536), 32), ((32, 96, 32), 32), ((16, 64), 16), ((5,), 1)],
)
def test_groups_divide_all_widths(widths: tuple[int, ...], count: int) -> None:
    assert norm_groups(widths) == count
