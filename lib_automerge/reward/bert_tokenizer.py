"""The uncased BERT tokenizer: text to the ids of the vendored vocabulary.

Written from the description of WordPiece in the BERT paper (Devlin et al. 2018, section 3) and
checked against the `BertTokenizer` of transformers 4.46, the one that the `image-reward` package
uses (later versions treat unassigned characters otherwise). It needs no package, so the ids depend
on nothing but the vocabulary. One difference is intended: `[SEP]`, `[CLS]` and the like inside a
prompt are text, not control ids.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping
from importlib.resources import files

import msgspec

PAD, UNKNOWN, START, END = 0, 100, 101, 102
_LONGEST_WORD = 100
# Every Chinese character is a word of its own. First and last code point of each ideograph range;
# the same ranges as in BERT, which has no later extensions.
_IDEOGRAPHS = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


class Encoded(msgspec.Struct, frozen=True):
    """A text as ids.

    Attributes:
        ids: Exactly `length` ids: START, the pieces, END, then PAD.
        used: How many of them are not PAD.
        dropped: How many pieces at the end of the text found no room.
    """

    ids: tuple[int, ...]
    used: int
    dropped: int


def encode(text: str, length: int) -> Encoded:
    """Turn a text into exactly `length` ids (at least 2), cut or padded at the end."""
    pieces = piece_ids(text)
    kept = pieces[: length - 2]
    ids = [START, *kept, END]
    padding = [PAD] * (length - len(ids))
    return Encoded(ids=(*ids, *padding), used=len(ids), dropped=len(pieces) - len(kept))


def piece_ids(text: str) -> list[int]:
    """Return the ids of all word pieces of a text, without START and END."""
    vocabulary = load_vocabulary()
    return [id_ for word in _words(text) for id_ in _split_word(word, vocabulary)]


@functools.cache
def load_vocabulary() -> Mapping[str, int]:
    """Return piece -> id for the 30,522 pieces of bert-base-uncased."""
    resource = files("lib_automerge") / "data" / "bert_tokenizer" / "vocab.txt"
    # Not splitlines(): some pieces are themselves characters that it takes for line ends.
    lines = resource.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return {piece: id_ for id_, piece in enumerate(lines)}


def _words(text: str) -> list[str]:
    """Split cleaned text at white space, then each lower-case, accent-free word at punctuation."""
    words = []
    for token in _clean(text).split():
        decomposed = unicodedata.normalize("NFD", token.lower())
        bare = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
        spaced = "".join(f" {c} " if _is_punctuation(c) else c for c in bare)
        words.extend(spaced.split(" "))
    return [word for word in words if word]


def _clean(text: str) -> str:
    """Drop control characters, make every white space a blank, set ideographs apart."""
    cleaned = []
    for char in text:
        category = unicodedata.category(char)
        if char in "\t\n\r" or category == "Zs":
            cleaned.append(" ")
        elif category.startswith("C") or char == "\ufffd":
            continue
        elif any(first <= ord(char) <= last for first, last in _IDEOGRAPHS):
            cleaned.append(f" {char} ")
        else:
            cleaned.append(char)
    return "".join(cleaned)


def _is_punctuation(char: str) -> bool:
    """Tell whether a character is Unicode punctuation or any ASCII symbol, `$` and `^` included."""
    if char.isascii():
        return char.isprintable() and not char.isalnum() and char != " "
    return unicodedata.category(char).startswith("P")


def _split_word(word: str, vocabulary: Mapping[str, int]) -> list[int]:
    """Cover a word with the longest known pieces from the left; UNKNOWN if that is impossible."""
    if len(word) > _LONGEST_WORD:
        return [UNKNOWN]
    ids: list[int] = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if prefix + word[start:end] in vocabulary), None)
        if end is None:
            return [UNKNOWN]
        ids.append(vocabulary[prefix + word[start:end]])
        start = end
    return ids
