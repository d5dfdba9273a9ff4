"""What was found in checkpoints: as data, and as text for a terminal of 100 columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

BAR = 36
"""Characters of the longest bar in a table."""

NUMBER_TYPE = "number type"

LISTED_TYPES = 20
"""Keys whose number type differs that a text lists; merging does not mind any number of them."""


class Part(msgspec.Struct, frozen=True):
    """A block or a component with the number of its keys and parameters."""

    name: str
    keys: int
    parameters: int


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What one file holds.

    Attributes:
        file: the path as given.
        size: in bytes.
        architecture: a name of `domain.architectures`.
        label: the family to show.
        variant: None for a plain model, see `Detection`.
        prediction: what the UNet predicts, "unknown" if nothing tells.
        standard_size: False for models of the same topology with other widths.
        dtypes: number type -> parameters stored in it, most common first.
        components: UNet, text encoders, VAE and what is copied along (EMA, buffers), if present.
        blocks: every block that is present, in canonical order.
        missing: weights of a present component that a complete model has.
        renamed: prefixes of the file that differ from the original naming.
        strays: keys that do not belong to the model.
        metadata: the file's own.
    """

    file: str
    size: int
    architecture: str
    label: str
    variant: str | None
    prediction: str
    standard_size: bool
    dtypes: dict[str, int]
    components: tuple[Part, ...]
    blocks: tuple[Part, ...]
    missing: tuple[str, ...]
    renamed: tuple[str, ...]
    strays: tuple[str, ...]
    metadata: dict[str, str]


class BlockDistance(msgspec.Struct, frozen=True):
    """How far two models are apart in a block.

    Attributes:
        name: the block.
        distance: norm of A - B over norm of A; NaN if weights are not finite.
        keys: how many weights both have.
        identical: how many of them hold the same values.
    """

    name: str
    distance: float
    keys: int
    identical: int


class Mismatch(msgspec.Struct, frozen=True):
    """A key whose shape or number type differs between two files."""

    key: str
    a: str
    b: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """How two files differ.

    Attributes:
        file_a: the path of A.
        file_b: the path of B.
        label_a: the family of A.
        label_b: the family of B.
        blocks: distances by block; empty if the families differ.
        only_a: keys that only A has.
        only_b: keys that only B has.
        shapes: keys with different shapes.
        dtypes: keys with different number types.
        not_finite: keys with NaN or infinite values, with their number in A and in B.
    """

    file_a: str
    file_b: str
    label_a: str
    label_b: str
    blocks: tuple[BlockDistance, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    shapes: tuple[Mismatch, ...]
    dtypes: tuple[Mismatch, ...]
    not_finite: tuple[Mismatch, ...]


def format_inspection(found: Inspection) -> str:
    """Return an inspection as text for a terminal of 100 columns."""
    kind = found.label + (f", {found.variant}" if found.variant else "")
    total = sum(found.dtypes.values())
    dtypes = ", ".join(f"{dtype} {count / total:.0%}" for dtype, count in found.dtypes.items())
    facts = [
        ("family", kind if found.standard_size else f"{kind}, with other widths than usual"),
        ("predicts", found.prediction),
        ("stored as", dtypes),
        ("size", f"{found.size / 1e6:,.1f} MB, {total:,} parameters"),
    ]
    facts += [("renamed", f"{prefix} to the original naming") for prefix in found.renamed]
    facts += [("metadata", _shortened(f"{k}: {v}", 80)) for k, v in found.metadata.items()]
    lines = [found.file, *(f"  {name:<10}{value}" for name, value in facts), ""]
    lines += _part_table("component", found.components)
    lines += ["", *_part_table("block", found.blocks)]
    lines += _key_list("missing from a complete model", found.missing)
    lines += _key_list("not part of the model, copied from A", found.strays)
    return "\n".join(lines)


def format_comparison(found: Comparison) -> str:
    """Return a comparison as text for a terminal of 100 columns, with every key that differs."""
    lines = [f"A  {found.file_a}", f"   {found.label_a}", f"B  {found.file_b}"]
    lines += [f"   {found.label_b}", ""]
    if found.blocks:
        lines += _distance_table(found.blocks)
    else:
        lines += ["These models are of different families and cannot be merged."]
    lines += _key_list("only in A", found.only_a)
    lines += _key_list("only in B", found.only_b)
    lines += _mismatches("shape", found.shapes)
    lines += _mismatches(NUMBER_TYPE, found.dtypes)
    lines += _mismatches("NaN or infinite numbers", found.not_finite)
    lists = (found.only_a, found.only_b, found.shapes, found.dtypes, found.not_finite)
    if not any(lists):
        lines += ["", "Every key is in both files, with the same shape and number type."]
    return "\n".join(lines)


def _part_table(title: str, parts: Sequence[Part]) -> list[str]:
    largest = max(part.parameters for part in parts) or 1
    lines = [f"  {title:<22}{'keys':>6}{'parameters':>16}"]
    for part in parts:
        bar = "#" * round(BAR * part.parameters / largest)
        lines.append(f"  {part.name:<22}{part.keys:>6}{part.parameters:>16,}  {bar}".rstrip())
    return lines


def _distance_table(blocks: Sequence[BlockDistance]) -> list[str]:
    finite = [block.distance for block in blocks if math.isfinite(block.distance)]
    largest = max(finite, default=0.0) or 1.0
    lines = [f"  {'block':<12}{'distance':>10}{'keys':>7}{'identical':>11}"]
    for block in blocks:
        known = math.isfinite(block.distance)
        bar = "#" * round(BAR * block.distance / largest) if known else "not finite"
        row = (
            f"  {block.name:<12}{block.distance:>10.5f}{block.keys:>7}{block.identical:>11}  {bar}"
        )
        lines.append(row.rstrip())
    return lines


def _key_list(title: str, keys: Sequence[str]) -> list[str]:
    return ["", f"  {title} ({len(keys)}):", *(f"    {key}" for key in keys)] if keys else []


def _mismatches(title: str, found: Sequence[Mismatch]) -> list[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for mismatch in found:
        groups.setdefault((mismatch.a, mismatch.b), []).append(mismatch.key)
    lines = []
    for (a, b), keys in groups.items():
        heading = f"{title}: {a} in A, {b} in B"
        if title == NUMBER_TYPE and len(keys) > LISTED_TYPES:
            lines += ["", f"  {heading} ({len(keys)}); merged in A's type"]
        else:
            lines += _key_list(heading, keys)
    return lines


def _shortened(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."
