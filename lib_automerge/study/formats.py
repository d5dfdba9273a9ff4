"""Numbers as people read them: scores, differences, durations, shares and sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

MINUS = "\N{MINUS SIGN}"


def decimals_for(values: Iterable[float]) -> int:
    """How many decimals tell values apart that differ by a hundredth of their spread.

    Between 0 and 8; 3 where there is no spread.
    """
    finite = [value for value in values if math.isfinite(value)]
    spread = max(finite) - min(finite) if finite else 0.0
    if spread <= 0.0:
        return 3
    return min(max(2 - math.floor(math.log10(spread)), 0), 8)


def number(value: float | None, decimals: int) -> str:
    """A number with fixed decimals and a real minus sign; an en dash for None and NaN."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0.0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float | None, decimals: int) -> str:
    """A difference: like `number`, with a plus sign where it is above zero."""
    text = number(value, decimals)
    return f"+{text}" if value is not None and value > 0 and text[0].isdigit() else text


def plus_minus(value: float | None, error: float | None, decimals: int) -> str:
    """A number with its standard error, which is left out where it is unknown."""
    text = number(value, decimals)
    if value is None or error is None or not math.isfinite(error):
        return text
    return f"{text} ± {number(error, decimals)}"


def two_digits(value: float) -> str:
    """A size (0 or more) with two significant digits: "0.0031", "0.42", "17", "1,200", "3.1e12"."""
    if value == 0.0 or not math.isfinite(value):
        return number(value, 0)
    if not 1e-6 <= value < 1e9:
        return f"{value:.1e}".replace("e+", "e").replace("e0", "e").replace("e-0", "e-")
    digits = 1 - math.floor(math.log10(value))
    return number(round(value, digits), min(max(digits, 0), 12))


def percent(share: float) -> str:
    """A share (1 is all, never negative): "<0.1 %", "4.2 %", "42 %", "99.2 %"."""
    value = 100.0 * share
    if 0.0 < value < 0.05:
        return "<0.1 %"
    whole = 9.95 <= value < 98.5 or value in (0.0, 100.0)
    return f"{value:.0f} %" if whole else f"{value:.1f} %"


def duration(seconds: float) -> str:
    """Seconds in words: "0.4 s", "38 s", "5 min 12 s", "7 h 42 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"


def size(count: float) -> str:
    """Bytes in words: "512 MB", "3.1 GB"."""
    megabytes = count / 1e6
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def plural(count: int, word: str) -> str:
    """A count with its noun: "1 image", "1,200 images"."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def listed(words: Iterable[str]) -> str:
    """Words as a phrase: "A", "A and B", "A, B and C"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def clock(time: float) -> str:
    """A time (seconds since the epoch) in the zone of this machine: "2026-05-03 06:41 +0200"."""
    return datetime.fromtimestamp(time).astimezone().strftime("%Y-%m-%d %H:%M %z")


def shortened(text: str, length: int) -> str:
    """The text's first words, at most `length` characters; an ellipsis stands for the rest."""
    flat = " ".join(text.split())
    if len(flat) <= length:
        return flat
    cut = flat[: length - 1]
    words = cut.rsplit(" ", 1)[0]
    return (words if len(words) > length // 2 else cut).rstrip(" ,;.") + "\N{HORIZONTAL ELLIPSIS}"
