from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lib_automerge.domain.prompt_cleaning import cleaned


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        # tags of taste with weight 0, ahead of the subject: what published payloads look like
        (
            "( worst :0), (blurry:0), (text : 0.0), ((best:0)), (detailed:0), a woman in a red "
            "saree on a market",
            "a woman in a red saree on a market",
        ),
        (
            "(quality:0), (lighting:0), [[simple background]], [[[monochrome]]], 1girl, umbrella",
            "simple background, monochrome, 1girl, umbrella",
        ),
        ("((masterpiece)), (((cat))), [dog]", "masterpiece, cat, dog"),
        ("(masterpiece:1.2)(1girl)((smiling)), (red:1.2)car", "masterpiece 1girl smiling, red car"),
        ("[old]house, (cat), [(cat)|cat]s, a-(b)-c (end).", "old house, cat, cats, a-b-c end."),
        ("# for (the beach\na cat, # dog:0)\n(on sand:1.1)#", "a cat, on sand"),
        ("(red hair:1.3) and ( blue eyes : 0.8 )", "red hair and blue eyes"),
        ("(a (small:0) house:1.2) (by (the sea:1.1))", "a house by the sea"),
        ("(everything (nested:1.3) in here:0), a boat", "a boat"),
        ("(ugly:-0.5), a boat, (old:+1.), (grey:.5)", "a boat, old, grey"),
        ("(wet:1e-1) [dry:1e-1]", "wet:1e-1 dry"),
        ("(16:9:1.2) frame", "16:9 frame"),
        ("(wide:1.2.3) (tall:high)", "wide:1.2.3 tall:high"),
        ("(a:b:0.5:c)", "a:b:0.5:c"),
        ("(:0)(:1.2)()[]", ""),
    ],
)
def test_weights_go_and_words_stay_unless_they_weigh_nothing(prompt: str, words: str) -> None:
    assert cleaned(prompt) == words


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a [cat:dog:0.25] here", "a dog here"),
        ("a [cat:dog:0.75] here", "a cat here"),
        ("a [cat:dog:0.5] here", "a dog here"),
        ("a house[ in fog:0.4]", "a house in fog"),
        ("a house[ in fog:0.6]", "a house"),
        ("a house[ in fog::0.4]", "a house"),
        ("a house[ in fog::0.6]", "a house in fog"),
        # at half of the steps, neither coming nor going hides the words
        ("a house[ in fog:0.5], [moon::0.5]", "a house in fog, moon"),
        ("[cat:dog: 0.75 ]", "cat"),
        ("[(cat:1.2):(dog:1.3):.2]", "dog"),
        ("[cat:[dog:fox:0.9]:0.1]", "dog"),
        ("[cat:[dog:fox:0.1]:0.9]", "cat"),
        ("([cat:dog:0.1]:1.2)", "dog"),
        # not schedules: no number, or too many parts
        ("[cat:dog]", "cat:dog"),
        ("[cat:dog:]", "cat:dog:"),
        ("[cat:dog:fox:0.5]", "cat:dog:fox:0.5"),
        ("[cat:dog:-1], [fox:-1]", "dog, fox"),
        ("[:0.5][::0.5][a::0]", ""),
    ],
)
def test_schedules_read_as_what_is_active_for_more_of_the_steps(prompt: str, words: str) -> None:
    assert cleaned(prompt) == words


def test_whole_numbers_of_a_schedule_count_steps() -> None:
    assert cleaned("a [cat:dog:8]", steps=20) == "a dog"
    assert cleaned("a [cat:dog:8]", steps=12) == "a cat"
    assert cleaned("a [cat:dog:1]", steps=1) == "a cat"
    assert cleaned("a [cat:dog:1.0]", steps=20) == "a cat"


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a [red|blue] car", "a red blue car"),
        ("a [ red | blue | red | green ] car", "a red blue green car"),
        ("a [(red:1.2)|(blue:0)] car", "a red car"),
        ("[fe|]male", "female"),
        ("[a|[b|c]]", "a b c"),
        ("[|]x", "x"),
    ],
)
def test_alternating_words_are_all_read(prompt: str, words: str) -> None:
    assert cleaned(prompt) == words


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a cat BREAK a dog", "a cat, a dog"),
        ("a cat, BREAK, a dog", "a cat, a dog"),
        ("a cat AND a dog", "a cat, a dog"),
        ("a cat :1.2 AND a dog :0.5", "a cat, a dog"),
        ("a cat AND a dog :0 AND rain :-1", "a cat"),
        ("a cat\nAND\na dog: .5\n", "a cat, a dog"),
        ("(a cat AND a dog:1.2)", "a cat, a dog:1.2"),
        ("BREAKFAST FOR THE BAND, ANDROID, A AND", "BREAKFAST FOR THE BAND, ANDROID, A"),
    ],
)
def test_break_and_and_part_the_prompt(prompt: str, words: str) -> None:
    assert cleaned(prompt) == words


# Recorded from AUTOMATIC1111's WebUI 1.10: what modules.prompt_parser.get_multicond_prompt_list
# makes of a prompt, a text and a weight for each part.
PARTS: dict[str, list[tuple[str, float]]] = json.loads(
    (Path(__file__).parent / "webui_prompt_parts.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("prompt", PARTS)
def test_parts_and_their_weights_are_those_of_the_webui(prompt: str) -> None:
    def bare(text: str) -> str:
        return " ".join(re.sub(r"[()\\,]", " ", text).split())

    kept = [text for text, weight in PARTS[prompt] if weight > 0]
    assert bare(cleaned(prompt)) == bare(" ".join(kept))


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("<lora:style_v2:0.8>, a cat, <lyco:x:1:0.5> <hypernet:some name:1>", "a cat"),
        ("a <lora:x:1>cat", "a cat"),
        ("<lora:my (best) [v1]:0.8> a cat", "a cat"),
        ("a <3 b, 2 < 3 > 1, <word>", "a <3 b, 2 < 3 > 1, <word>"),
        ("<lora:x:1, a cat", "<lora:x:1, a cat"),
    ],
)
def test_tags_of_extra_networks_vanish(prompt: str, words: str) -> None:
    assert cleaned(prompt) == words


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (r"saber \(fate\), \[x\]", "saber (fate), [x]"),
        (r"(saber \(fate\):1.2)", "saber (fate)"),
        (r"(saber \(fate\):0), cat", "cat"),
        (r"[a\:b:c:0.1] [a\|b|c]", "c a|b c"),
        (r"a \\ b \c d\ ", "a \\ b c d"),
        ("a \\", "a"),
    ],
)
def test_escapes_are_the_character_itself(prompt: str, words: str) -> None:
    assert cleaned(prompt) == words


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("((a cat", "a cat"),
        ("a cat))]", "a cat"),
        ("(a [b) c]", "a b c"),
        ("(a [b:1.2) c] (d [e:0) f", "a b c f"),
        ("[a (b] c:0)", "a b c:0"),
        ("((a:1.2), b", "a, b"),
        ("((a][:b:c [d:3]", "a:b:c d"),
        (")(][", ""),
    ],
)
def test_brackets_without_partner_are_dropped(prompt: str, words: str) -> None:
    assert cleaned(prompt) == words


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("{red|blue} car, {2$$a|b|c}", "{red|blue} car, {2$$a|b|c}"),
        ("__colour__ {0.3::red|blue} ${x=a:b}", "__colour__ {0.3::red|blue} ${x=a:b}"),
        ("[{red|blue} car:0.2]", "{red|blue} car"),
        ("[{0.3::red|blue}|green] car", "{0.3::red|blue} green car"),
        ("({a:1|b}:0)c", "c"),
    ],
)
def test_dynamic_prompts_are_left_alone(prompt: str, words: str) -> None:
    assert cleaned(prompt) == words


def test_whitespace_and_commas_are_tidied() -> None:
    assert cleaned("  a cat,\n\n\tin   rain , , (x:0),, at night ,\n") == "a cat, in rain, at night"
    assert cleaned(",a,b,1,000 fish") == "a,b,1,000 fish"
    assert cleaned("") == cleaned(" \n,") == ""


def test_other_scripts_and_emoji_are_kept() -> None:
    assert cleaned("(猫:1.2), 东京。夜景, 🐱‍👤 (🔥:0)(é:1)") == "猫, 东京。夜景, 🐱‍👤 é"


SYNTAX = st.sampled_from(
    [*"()[]{}:|\\<>, \n", "AND", "BREAK", ":0.5", ":0)", ":1.2)", "<lora:x:1>", "cat", "犬", "🐱"]
)
PROMPTS = st.lists(SYNTAX, max_size=40).map("".join)


@given(PROMPTS | st.text(max_size=60))
@example("A(ND)")
@example("a AND b:1\\")
def test_any_text_is_cleaned_once_and_for_all(prompt: str) -> None:
    words = cleaned(prompt)
    assert words == words.strip()
    # what was escaped, or stands together only now, may be syntax again
    assume(not re.search(r"[\\()\[\]<]|\b(AND|BREAK)\b|:\s*[-+]?[.\d]+$", words))
    assert cleaned(words) == words


PLAIN = st.text(
    st.characters(exclude_characters="()[]\\<#", exclude_categories=["Cs"]), max_size=80
)


@given(PLAIN)
def test_plain_prompts_change_in_whitespace_and_empty_commas_only(prompt: str) -> None:
    assume(not re.search(r"\b(AND|BREAK)\b|:\s*[-+]?[.\d]+\s*$", prompt))

    def bare(text: str) -> str:
        return re.sub(",+", ",", "".join(text.split())).strip(",")

    assert bare(cleaned(prompt)) == bare(prompt)


@given(st.lists(st.sampled_from(["cat", "red", "sea", "old"]), min_size=1, max_size=5), st.data())
def test_a_weight_above_zero_never_changes_the_words(words: list[str], data: st.DataObject) -> None:
    plain = ", ".join(words)
    position = data.draw(st.integers(0, len(words) - 1))
    weight = data.draw(st.floats(0.01, 3).map("{:.2f}".format))
    for form in (f"({words[position]}:{weight})", f"({words[position]})", f"[{words[position]}]"):
        weighed = [*words[:position], form, *words[position + 1 :]]
        assert cleaned(", ".join(weighed)) == plain


@pytest.mark.parametrize(
    "unit",
    [
        "(",
        "[",
        "((x:1.1)",
        "(:",
        "[a|",
        "[a:",
        "<a:",
        ":",
        " ",
        "\\",
        "AND ",
        ": ",
        ", ",
        "a(b:0)",
        "1",
    ],
)
def test_long_prompts_take_time_in_proportion_to_their_length(unit: str) -> None:
    for opening, closing in [
        *(("", closing) for closing in ("", ")", "]", ":0.1]", " AND x")),
        ("(a:", "x)"),
        ("a AND b :", "x"),
    ]:
        ended = closing * (10_000 // max(1, len(closing)))
        prompt = opening + unit * (10_000 // len(unit)) + ended
        start = time.process_time()
        cleaned(prompt)
        # about 0.05 s; backtracking would take many seconds
        assert time.process_time() - start < 1.0
