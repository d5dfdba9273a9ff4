"""What was found in checkpoints: as data, and as text for a terminal of 100 columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

ABREAST = 4
"""Files whose tables stand side by side."""

BAR = 24
"""Characters of the longest bar in a table."""

_ORDER = ("UNet", "transformer", "text", "VAE", "EMA", "not")
"""First words of the components' names, as tables list them."""

NUMBER_TYPE = "number type"

LISTED_TYPES = 20
"""Keys whose number type differs that a text lists; merging does not mind any number of them."""


class Part(msgspec.Struct, frozen=True):
    """A block or a component.

    Attributes:
        name: a block's or component's name.
        keys: how many weights it has.
        parameters: how many numbers these hold.
        size: their bytes in the file.
        dtypes: number type -> parameters stored in it, most common first.
    """

    name: str
    keys: int
    parameters: int
    size: int
    dtypes: dict[str, int]


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What one file holds.

    Attributes:
        file: the path as given.
        size: in bytes.
        architecture: a name of `domain.architectures`.
        label: the family to show.
        variant: None for a plain model, see `Detection`.
        edition: `dev` or `schnell` and the like, see `Detection`.
        prediction: what the denoiser predicts, "unknown" if nothing tells.
        standard_size: False for models of the same topology with other widths.
        dtypes: number type -> parameters stored in it, most common first.
        layers: group -> blocks of the numbered layers, as merge tools count them: 25 for SD1.
        components: denoiser, text encoders, VAE and what is copied along (EMA, buffers), if there.
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
    edition: str | None
    prediction: str
    standard_size: bool
    dtypes: dict[str, int]
    layers: dict[str, int]
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
    kind = kind_of(found)
    total = sum(found.dtypes.values())
    facts = [
        ("family", kind if found.standard_size else f"{kind}, with other widths than usual"),
        ("predicts", found.prediction),
        ("layers", layers_of(found)),
        ("stored as", mix_of(found.dtypes)),
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


def format_table(files: Sequence[Inspection]) -> str:
    """Return several inspections side by side, for a terminal of 100 columns.

    Families, layers, number types and bytes, then the parameters of every component and block;
    with more files than fit beside each other, in several tables.
    """
    tables = []
    for start in range(0, len(files), ABREAST):
        tables += [_table(files[start : start + ABREAST], start), ""]
    notes = [note for number, found in enumerate(files, 1) for note in _notes(number, found)]
    return "\n".join([*tables, *notes]).rstrip("\n")


def _table(files: Sequence[Inspection], before: int) -> str:
    def row(name: str, cells: Iterable[str]) -> str:
        return f"  {name:<26}" + "".join(f"{_shortened(cell, 17):>18}" for cell in cells).rstrip()

    def parts(groups: Sequence[Sequence[Part]], order: Sequence[str] = ()) -> list[str]:
        names = list(dict.fromkeys(part.name for group in groups for part in group))
        if order:
            names.sort(key=lambda name: order.index(name.split()[0]))
        found = [{part.name: part.parameters for part in group} for group in groups]
        return [
            row(name, (f"{group[name]:,}" if name in group else "-" for group in found))
            for name in names
        ]

    lines = [f"{before + n:>3}  {found.file}" for n, found in enumerate(files, 1)]
    lines += ["", row("", (f"[{before + n}]" for n in range(1, len(files) + 1)))]
    lines += [
        row("family", (found.architecture for found in files)),
        row("widths", ("usual" if found.standard_size else "other" for found in files)),
        row("kind", (found.edition or found.variant or "plain" for found in files)),
        row("predicts", (found.prediction for found in files)),
        row("layers", (str(sum(found.layers.values())) for found in files)),
        row("stored as", (mix_of(found.dtypes) for found in files)),
        row("MB", (f"{found.size / 1e6:,.1f}" for found in files)),
        row("parameters", (f"{sum(found.dtypes.values()):,}" for found in files)),
        "",
        *parts([found.components for found in files], _ORDER),
        "",
        *parts([found.blocks for found in files]),
    ]
    return "\n".join(lines)


def _notes(number: int, found: Inspection) -> list[str]:
    """What a table has no room for, file by file."""
    lines = [f"[{number}] {prefix}: renamed to the original naming" for prefix in found.renamed]
    lines += _key_list(f"[{number}] missing from a complete model", found.missing)
    return lines + _key_list(f"[{number}] not part of the model, copied from A", found.strays)


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


def kind_of(found: Inspection) -> str:
    """Return family, edition and variant in words."""
    return found.label + "".join(f", {word}" for word in (found.edition, found.variant) if word)


def layers_of(found: Inspection) -> str:
    """Return the number of layers and of what kind they are: "25: 12 IN, 1 M, 12 OUT"."""
    groups = ", ".join(f"{count} {group}" for group, count in found.layers.items())
    return f"{sum(found.layers.values())}: {groups}"


def mix_of(dtypes: Mapping[str, int]) -> str:
    """Return number types with their shares of the parameters, such as "F16 98%, F32 2%"."""
    total = sum(dtypes.values()) or 1
    if len(dtypes) == 1:
        return next(iter(dtypes))
    return ", ".join(f"{dtype} {_share(count / total)}" for dtype, count in dtypes.items())


def _share(part: float) -> str:
    return "<1%" if 0 < part < 0.005 else f"{part:.0%}"


def _part_table(title: str, parts: Sequence[Part]) -> list[str]:
    largest = max(part.parameters for part in parts) or 1
    lines = [f"  {title:<24}{'keys':>5}{'parameters':>15}{'MB':>11}  stored as"]
    for part in parts:
        bar = "#" * round(BAR * part.parameters / largest)
        sizes = f"{part.keys:>5}{part.parameters:>15,}{part.size / 1e6:>11,.2f}"
        mix = _shortened(mix_of(part.dtypes), 14)
        lines.append(f"  {part.name:<24}{sizes}  {mix:<14} {bar}".rstrip())
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
