r"""From the prompt syntax of the WebUI to the words that a reward should read.

A reward reads few words (ImageReward 33 pieces), so numbers and brackets push the subject out of
what it sees. `cleaned` keeps the words that the finished image is meant to show:

    (word:1.2) ((word)) [word]   the words; a weight of 0 or less drops all that is inside
    [from:to:when]               whichever is active for more of the steps; `to` if it is a draw
    [to:when] [from::when]       the words, if they are active for half of the steps or more
    [one|two]                    one after the other: the image is a blend of all of them
    BREAK                        a comma
    words :0.5 AND words :0      a comma between the parts; one of weight 0 or less is dropped
    <lora:name:0.8>              nothing, like every tag of an extra network
    \( \) \[ \] \\               the character itself; a backslash before anything else vanishes
    { | } __name__ ${name}       unchanged: they belong to dynamic prompts
    # to the end of a line        nothing: a comment

A prompt without `AND` is one part, so that a number after a colon at its very end is a weight too:
the WebUI draws `photo, 16:9` as `photo, 16`. Brackets do not reach from one part into another.

Words of different weights are read one by one, so `(red:1.2)car` is two words. A bracket without
its partner is dropped. Whitespace, newlines included, becomes one space; nothing
is left between two commas, or before the first and after the last. All other text is kept.

The grammar is the one that the WebUI documents ("Attention/emphasis", "Prompt editing",
"Alternating Words", "Composable Diffusion" in its wiki). Where the WebUI reads syntax as literal
text (`(word:1.2.3)`, `[a:b]`, `[a:b:c:0.5]`), the text is kept.
"""

from __future__ import annotations

import re

VERSION = 3
"""Belongs into the key of everything that depends on cleaned prompts; counts every change here."""

_TAG = re.compile(r"<\w+:[^<>]+>")
_TOKEN = re.compile(r"\\.?|[()\[\]{}:|]|\bBREAK\b|[^\\()\[\]{}:|B]+|B", re.DOTALL)
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
_WEIGHT = re.compile(rf"\s*({_NUMBER})\s*")
_WHEN = re.compile(rf"\s*({_NUMBER}(?:[eE][+-]?\d+)?)\s*")
_AND = re.compile(r"\bAND\b")
_WEIGHT_OF_PART = re.compile(rf":\s*({_NUMBER})\s*$")
_SEAM = "\ud800"
"""Between words of different weights; not a character that a text can hold."""

_BETWEEN_WORDS = re.compile(rf"(?<=\w){_SEAM}+(?=\w)")
_COMMENT = re.compile(r"#[^\n]*")
_COMMAS = re.compile(r" ?,[, ]*")


def cleaned(prompt: str, steps: int = 20) -> str:
    """Return what a reward should read of a prompt.

    Takes time in proportion to the length and accepts any text. A prompt without syntax comes back
    with tidied whitespace and commas only, so cleaning twice changes nothing unless the first
    pass uncovered syntax: characters that had been escaped, or a colon and a number at the end.

    Args:
        prompt: in the syntax of the WebUI.
        steps: the sampling steps, for schedules that count steps (`[to:5]`).

    Returns:
        The words; empty if the prompt asks for nothing.
    """
    parts = _AND.split(_TAG.sub("", without_comments(prompt)))
    return _tidy(", ".join(_read(part, steps) for part in parts))


def without_comments(prompt: str) -> str:
    """Return the prompt without what the WebUI's setting "Enable comments" hides: `#` and the rest
    of its line.
    """
    return _COMMENT.sub("", prompt)


def _read(part: str, steps: int) -> str:
    """The words of what stands between two `AND`, without its weight."""
    weight = _WEIGHT_OF_PART.search(part)
    if weight is not None:
        if float(weight.group(1)) <= 0:
            return ""
        part = part[: weight.start()]
    reading = _Reading(steps)
    for match in _TOKEN.finditer(part):
        reading.take(match.group())
    return reading.text()


class _Open:
    """A bracket that waits for its partner; positions are those of pieces in `_Reading`."""

    def __init__(self, bracket: str, start: int) -> None:
        self.bracket = bracket
        self.start = start
        self.colons: list[int] = []
        self.bars: list[int] = []
        self.braces = 0


class _Reading:
    """The pieces of text so far, and the brackets that are open."""

    def __init__(self, steps: int) -> None:
        self._steps = max(1, steps)
        self._pieces: list[str] = []
        self._open: list[_Open] = []
        self._waiting = {"(": 0, "[": 0}

    def take(self, token: str) -> None:
        """Read the next token."""
        if token[0] == "\\":
            self._pieces.append(token[1:])
        elif token in "([":
            self._open.append(_Open(token, len(self._pieces)))
            self._waiting[token] += 1
        elif token in ")]":
            self._close("(" if token == ")" else "[")
        elif token == "BREAK":
            self._pieces.append(", ")
        else:
            if self._open:
                self._note_separator(self._open[-1], token)
            self._pieces.append(token)

    def text(self) -> str:
        """All that was read."""
        return _BETWEEN_WORDS.sub(" ", "".join(self._pieces)).replace(_SEAM, "")

    def _note_separator(self, bracket: _Open, token: str) -> None:
        if token == "{":
            bracket.braces += 1
        elif token == "}":
            bracket.braces -= 1
        elif token == ":" and bracket.braces <= 0:
            bracket.colons.append(len(self._pieces))
        elif token == "|" and bracket.braces <= 0:
            bracket.bars.append(len(self._pieces))

    def _close(self, bracket: str) -> None:
        if not self._waiting[bracket]:
            return
        latest = self._open[-1]
        closed = self._pop()
        while closed.bracket != bracket:
            closed = self._pop()
        if bracket == "(":
            # a bracket inside that has no partner does not hide the weight: `(a [b:0)`
            self._weigh(closed.start, latest.colons)
            self._set_apart(closed.start)
        elif closed.bars:
            self._blend(closed)
        elif 1 <= len(closed.colons) <= 2:
            self._schedule(closed)
        elif not closed.colons:
            self._set_apart(closed.start)

    def _set_apart(self, start: int) -> None:
        if len(self._pieces) > start:
            self._pieces[start:start] = [_SEAM]
            self._pieces.append(_SEAM)

    def _pop(self) -> _Open:
        bracket = self._open.pop()
        self._waiting[bracket.bracket] -= 1
        return bracket

    def _weigh(self, start: int, colons: list[int]) -> None:
        number = self._last(_WEIGHT, colons)
        if number is not None:
            keep = float(number) > 0
            del self._pieces[colons[-1] if keep else start :]

    def _blend(self, bracket: _Open) -> None:
        starts = [bracket.start, *(bar + 1 for bar in bracket.bars)]
        ends = [*bracket.bars, len(self._pieces)]
        words = ("".join(self._pieces[start:end]) for start, end in zip(starts, ends))
        bare = ((word.replace(_SEAM, "").strip(), word) for word in words)
        different = {key: word for key, word in bare if key}
        self._pieces[bracket.start :] = [" ".join(different.values())]

    def _schedule(self, bracket: _Open) -> None:
        number = self._last(_WHEN, bracket.colons)
        if number is None:
            return
        # the WebUI reads a number with a point as a share of the steps, any other as a step
        until = float(number) if "." in number else float(number) / self._steps
        last = bracket.colons[-1]
        if len(bracket.colons) == 1:
            before, after = [], self._pieces[bracket.start : last]
        else:
            before = self._pieces[bracket.start : bracket.colons[0]]
            after = self._pieces[bracket.colons[0] + 1 : last]
        later = until < 0.5 or (until == 0.5 and bool(after))
        self._pieces[bracket.start :] = after if later else before

    def _last(self, kind: re.Pattern[str], colons: list[int]) -> str | None:
        """The number of a kind between the last colon and the end of a bracket, or None."""
        if not colons or len(self._pieces) != colons[-1] + 2:
            return None
        match = kind.fullmatch(self._pieces[-1])
        return match and match.group(1)


def _tidy(text: str) -> str:
    def comma(match: re.Match[str]) -> str:
        return ", " if match.group().endswith(" ") else ","

    return _COMMAS.sub(comma, " ".join(text.split())).strip(" ,")
