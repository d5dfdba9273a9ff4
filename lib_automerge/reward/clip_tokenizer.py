"""CLIP's tokenizer: text to the ids of the vendored vocabulary, by byte-pair encoding.

Written from the description of byte-pair encoding (Sennrich et al. 2016) and of its byte-level form
(Radford et al. 2019), and checked against open_clip's `SimpleTokenizer` and transformers'
`CLIPTokenizer`. It needs no package, so the ids depend on nothing but the vocabulary. One
difference is intended: `<|endoftext|>` and `<|startoftext|>` inside a prompt are text, not control
ids.

The packages differ in how they clean a text before that, and a reward reads what its own package
would have read: see `Cleaning`.
"""

from __future__ import annotations

import functools
import heapq
import html
import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from importlib.resources import files

import msgspec

START, END = 49406, 49407

Cleaning = Callable[[str], str]

_CONTRACTION = re.compile("'s|'t|'re|'ve|'m|'ll|'d", re.IGNORECASE)
_WORD_END = "</w>"


class Encoded(msgspec.Struct, frozen=True):
    """A text as ids.

    Attributes:
        ids: START, the pieces that found room, END.
        dropped: How many pieces at the end of the text found no room.
    """

    ids: tuple[int, ...]
    dropped: int


def encode(text: str, length: int, cleaning: Cleaning) -> Encoded:
    """Turn a text into at most `length` ids (at least 2), cut at the end."""
    pieces = [id_ for word in _words(cleaning(text)) for id_ in _split_word(word)]
    kept = pieces[: length - 2]
    return Encoded(ids=(START, *kept, END), dropped=len(pieces) - len(kept))


def clean_as_openai(text: str) -> str:
    """What OpenAI's and open_clip's tokenizers make of a text before they split it.

    They let the package ftfy (6.3) repair it: typographic quotes, ligatures and full-width letters
    become plain ones, control characters vanish. That is done here without ftfy, except its guesses
    at text that was decoded wrongly. HTML entities are resolved, white space becomes one blank.
    """
    if "<" not in text:
        text = html.unescape(text)
    text = unicodedata.normalize("NFC", text.translate(_plain_characters()))
    text = html.unescape(html.unescape(text))
    return " ".join(text.split()).lower()


def clean_as_hugging_face(text: str) -> str:
    """What transformers' tokenizer makes of a text: NFC, white space as one blank, lower case."""
    # Character by character: its lower case knows no final sigma.
    lower = "".join(char.lower() for char in unicodedata.normalize("NFC", text))
    return re.sub(r"\s+", " ", lower)


@functools.cache
def _plain_characters() -> Mapping[int, str]:
    """What ftfy replaces, character by character."""
    table = dict.fromkeys((*range(0x2018, 0x201C), 0x02BC), "'")
    table |= dict.fromkeys(range(0x201C, 0x2020), '"')
    table |= dict.fromkeys((0x2028, 0x2029, 0x000D), "\n")
    # Control characters that Windows-1252 uses for others, some of them quotes.
    for code in range(0x80, 0xA0):
        char = bytes([code]).decode("cp1252", "replace")
        table[code] = chr(code) if char == "\ufffd" else table.get(ord(char), char)
    vanishing = (*range(0x09), 0x0B, *range(0x0E, 0x20), 0x7F, 0xFEFF)
    vanishing += (*range(0x206A, 0x2070), *range(0xFFF9, 0xFFFD))
    table |= dict.fromkeys(vanishing, "")
    ligatures = (0x0132, 0x0133, 0x0149, *range(0x01C4, 0x01CD), *range(0x01F1, 0x01F4))
    wide = (0x3000, *range(0xFF01, 0xFFEF))
    for code in (*ligatures, *range(0xFB00, 0xFB05), 0xFB06, *wide):
        table[code] = unicodedata.normalize("NFKC", chr(code))
    # NFKC would make these a plain s as well, which ftfy does not.
    table[0xFB05] = "\u017ft"
    return table


def _words(text: str) -> list[str]:
    """Split at white space and between letters, digits, and everything else.

    Digits are words by themselves; so are English contractions from the apostrophe on.
    """
    words = []
    start = 0
    while start < len(text):
        contraction = _CONTRACTION.match(text, start)
        kind = _kind(text[start])
        if contraction:
            end = contraction.end()
        else:
            end = start + 1
            while kind != "N" and end < len(text) and _kind(text[end]) == kind:
                end += 1
        if contraction or kind != " ":
            words.append(text[start:end])
        start = end
    return words


def _kind(char: str) -> str:
    """Return "L" for letters, "N" for numbers, a blank for white space, "" for the rest."""
    if char.isspace():
        return " "
    category = unicodedata.category(char)[0]
    return category if category in "LN" else ""


@functools.lru_cache(maxsize=4096)
def _split_word(word: str) -> tuple[int, ...]:
    """Join the word's bytes, most frequent pair first and from the left, until no pair is known."""
    alphabet, ranks, ids = _vocabulary()
    pieces = [alphabet[byte] for byte in word.encode("utf-8", "replace")]
    pieces[-1] += _WORD_END
    # A piece that was joined to the one on its left is empty; these lead past it.
    before, after = list(range(-1, len(pieces) - 1)), list(range(1, len(pieces) + 1))

    def rank(left: int) -> int | None:
        inside = left >= 0 and after[left] < len(pieces)
        return ranks.get((pieces[left], pieces[after[left]])) if inside else None

    queue = [(found, left) for left in range(len(pieces)) if (found := rank(left)) is not None]
    heapq.heapify(queue)
    while queue:
        expected, left = heapq.heappop(queue)
        # A neighbour may have changed since the pair was queued.
        if rank(left) != expected:
            continue
        right = after[left]
        pieces[left] += pieces[right]
        pieces[right] = ""
        after[left] = after[right]
        if after[left] < len(pieces):
            before[after[left]] = left
        for start in (before[left], left):
            if (found := rank(start)) is not None:
                heapq.heappush(queue, (found, start))
    return tuple(ids[piece] for piece in pieces if piece)


@functools.cache
def _vocabulary() -> tuple[list[str], Mapping[tuple[str, str], int], Mapping[str, int]]:
    """The character that stands for each byte, the rank of each pair, the id of each piece."""
    folder = files("lib_automerge") / "data" / "clip_tokenizer"
    ids: Mapping[str, int] = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")[1:]
    pairs = [tuple(line.split(" ")) for line in lines if line]
    ranks = {(first, second): rank for rank, (first, second) in enumerate(pairs)}
    # Printable bytes stand for themselves, the others for the characters from 256 on, in order.
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(256, 512))
    alphabet = [chr(byte if byte in printable else next(spare)) for byte in range(256)]
    return alphabet, ranks, ids
