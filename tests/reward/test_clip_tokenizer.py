"""The expected ids are those of open_clip and transformers, recorded by record_goldens.py."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

import lib_automerge
from lib_automerge.reward.clip_tokenizer import (
    END,
    START,
    Cleaning,
    clean_as_hugging_face,
    clean_as_openai,
    encode,
)

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "clip.json").read_text(encoding="utf-8")
)["tokens"]
TEXTS: list[str] = GOLDEN["texts"]


@pytest.mark.parametrize("text", TEXTS)
def test_splits_as_open_clip_does(text: str) -> None:
    expected = GOLDEN["openai"][TEXTS.index(text)]
    assert list(encode(text, 77, clean_as_openai).ids) == expected


@pytest.mark.parametrize("text", TEXTS)
def test_splits_as_transformers_does(text: str) -> None:
    expected = GOLDEN["hugging_face"][TEXTS.index(text)]
    assert list(encode(text, 77, clean_as_hugging_face).ids) == expected


def test_the_two_ways_of_cleaning_differ() -> None:
    assert clean_as_openai("“A” &amp;\tＢ ﬁ") == '"a" & b fi'
    assert clean_as_hugging_face("“A” &amp;\tＢ ﬁ") == "“a” &amp; ｂ ﬁ"


@pytest.mark.parametrize("cleaning", [clean_as_openai, clean_as_hugging_face])
def test_control_names_in_a_prompt_are_text(cleaning: Cleaning) -> None:
    encoded = encode("a cat <|endoftext|> <|startoftext|>", 77, cleaning)
    assert encoded.ids.count(END) == 1
    assert encoded.ids.count(START) == 1
    assert encoded.ids[-1] == END


def test_a_text_that_just_fits_loses_nothing() -> None:
    encoded = encode("a cat a cat", 6, clean_as_openai)
    assert encoded.ids == (START, 320, 2368, 320, 2368, END)
    assert encoded.dropped == 0


def test_a_long_text_is_cut_at_the_end_and_says_how_much() -> None:
    encoded = encode("a cat a cat a", 5, clean_as_openai)
    assert encoded.ids == (START, 320, 2368, 320, END)
    assert encoded.dropped == 2


@pytest.mark.parametrize(
    "text", ["abcdefghijklmnopqrstuvwxyz" * 385, "東京タワー" * 2000, "😀" * 10_000, "1" * 10_000]
)
def test_a_word_of_ten_thousand_characters_takes_no_time(text: str) -> None:
    start = time.process_time()
    encoded = encode(text, 77, clean_as_openai)
    assert len(encoded.ids) == 77
    assert encoded.dropped > 1000
    # 0.1 s here; a loop over all pairs for every join takes ten.
    assert time.process_time() - start < 3


def test_half_of_a_surrogate_pair_is_still_a_text() -> None:
    assert encode("a \ud83d b", 77, clean_as_openai).ids[1] == 320


def test_the_vocabulary_is_the_published_one() -> None:
    data = Path(lib_automerge.__file__).parent / "data" / "clip_tokenizer"
    ids = json.loads((data / "vocab.json").read_text(encoding="utf-8"))
    assert len(ids) == 49408
    assert (ids["<|startoftext|>"], ids["<|endoftext|>"]) == (START, END)
    merges = (data / "merges.txt").read_bytes()
    assert hashlib.sha256(merges).hexdigest().startswith("9fd691f7c8039210")
