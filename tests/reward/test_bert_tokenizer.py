"""The ids were checked against transformers 4.46's BertTokenizer, which image-reward uses."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import lib_automerge
from lib_automerge.reward.bert_tokenizer import END, PAD, START, encode, load_vocabulary, piece_ids

CASES = {
    "A cat, sitting.": "a cat , sitting .",
    "UPPERCASE Straße café naïve Ångström": "upper ##case st ##raße cafe naive ang ##strom",
    "cafe\u0301 İstanbul": "cafe istanbul",
    "masterpiece, (best:1.2), [[lowres]]": "masterpiece , ( best : 1 . 2 ) , [ [ low ##res ] ]",
    "<lora:detail:0.8> BREAK": "< lo ##ra : detail : 0 . 8 > break",
    "東京タワー at night": "東 京 タ ##ワ ##ー at night",
    "한국": "\u1112 ##\u1161 ##\u11ab ##\u1100 ##\u116e ##\u11a8",
    "😀 smile": "[UNK] smile",
    "électroluminescence": "electro ##lum ##ines ##cence",
    "zero\u200bwidth": "zero ##wi ##dt ##h",
    "$5 & 50%^~|`": "$ 5 & 50 % ^ ~ | `",
    "don't — “quote”…": "don ' t — “ quote ” …",
    "tab\tnew\nline\u3000wide\u00a0end": "tab new line wide end",
    "\x00\ufffd\x07bell": "bell",
    "y" * 101: "[UNK]",
    "": "",
    " ": "",
}


def pieces(text: str) -> str:
    by_id = {id_: piece for piece, id_ in load_vocabulary().items()}
    return " ".join(by_id[id_] for id_ in piece_ids(text))


@pytest.mark.parametrize("text", CASES)
def test_splits_as_bert_does(text: str) -> None:
    assert pieces(text) == CASES[text]


@pytest.mark.parametrize(
    "ideograph",
    [
        *"\u3400\u4dbf\u4e00\u9fff\uf900\ufad9",
        *"\U00020000\U0002a6df\U0002a700\U0002b740\U0002cea1\U0002fa1d",
    ],
)
def test_an_ideograph_is_a_word_of_its_own(ideograph: str) -> None:
    first, _, last = pieces(f"a{ideograph}b").split()
    assert (first, last) == ("a", "b")


def test_a_word_of_one_hundred_characters_is_still_split() -> None:
    assert pieces("x" * 100) == " ".join(["xx"] + ["##xx"] * 49)


def test_control_names_in_a_prompt_are_text() -> None:
    assert pieces("[SEP] [MASK]") == "[ sep ] [ mask ]"


def test_the_vocabulary_is_the_published_one() -> None:
    data = Path(lib_automerge.__file__).parent / "data" / "bert_tokenizer"
    text = (data / "vocab.txt").read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
    assert "Apache License" in (data / "LICENSE").read_text(encoding="utf-8")


def test_line_numbers_are_ids() -> None:
    vocabulary = load_vocabulary()
    assert len(vocabulary) == 30522
    some = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", "##\uff5e")
    assert [vocabulary[piece] for piece in some] == [0, 100, 101, 102, 4937, 30521]


def test_a_short_text_is_padded() -> None:
    encoded = encode("a cat", 6)
    assert encoded.ids == (START, 1037, 4937, END, PAD, PAD)
    assert (encoded.used, encoded.dropped) == (4, 0)


def test_a_text_that_just_fits_loses_nothing() -> None:
    encoded = encode("a cat a cat", 6)
    assert encoded.ids == (START, 1037, 4937, 1037, 4937, END)
    assert (encoded.used, encoded.dropped) == (6, 0)


def test_a_long_text_is_cut_at_the_end_and_says_how_much() -> None:
    encoded = encode("a cat a cat a", 5)
    assert encoded.ids == (START, 1037, 4937, 1037, END)
    assert (encoded.used, encoded.dropped) == (5, 2)
