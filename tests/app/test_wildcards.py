from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lib_automerge.app.wildcards import expand, has_syntax
from lib_automerge.domain.config import RunConfig, SearchConfig
from lib_automerge.domain.payload import Hires, Payload
from lib_automerge.errors import ConfigError


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
    (own / "animal.txt").write_text("cat\ndog\nhorse\ncow\nbee\nfox\n")
    (own / "nested.txt").write_text("a __color__ __animal__\n")
    (other / "animal.txt").write_text("zebra\n")
    (other / "color.txt").write_text("red\nblue\n")
    return own, other, tmp_path / "missing"


def run(*payloads: Payload, seed: int = 0) -> RunConfig:
    return RunConfig(models={"a": "a", "b": "b"}, payloads=payloads, search=SearchConfig(seed=seed))


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat (red:1.2) [a|b] {curly}",
        "snake_case and __ alone, a__b c__d",
        "<lora:my__style__v2:0.8> a cat",
        "an escaped \\(bracket\\)  and   spaces, # a hash",
    ],
)
def test_prompts_without_the_syntax_are_never_touched(prompt: str, folders):
    config = run(Payload(prompt=prompt, negative_prompt=prompt))
    assert expand(config, folders) == (config, ())
    assert not has_syntax(prompt)


def test_the_draw_depends_on_the_seed_alone(folders):
    config = run(Payload(prompt="a __animal__, {big|small|tiny}"))
    results = {
        expand(run(*config.payloads, seed=s), folders)[0].payloads[0].prompt for s in range(8)
    }
    assert len(results) > 3
    assert expand(config, folders) == expand(config, folders)


def test_payloads_are_drawn_apart(folders):
    payloads = [Payload(prompt="__animal__") for _ in range(12)]
    drawn = {p.prompt for p in expand(run(*payloads), folders)[0].payloads}
    assert len(drawn) > 2


def test_the_first_folder_wins_and_others_fill_in(folders):
    config, _ = expand(run(*[Payload(prompt="__nested__")] * 6), folders)
    words = {p.prompt.split()[-1] for p in config.payloads}
    assert "zebra" not in words
    assert {p.prompt.split()[1] for p in config.payloads} <= {"red", "blue"}


def test_what_is_recorded_is_what_came_out(folders):
    payload = Payload(
        name="zoo",
        prompt="a __animal__ in a {field|forest}",
        negative_prompt="{bad|ugly}",
        score_prompt="a __animal__ in a {field|forest}",
        hires=Hires(prompt="a __animal__ in a {field|forest}"),
        held_out=True,
    )
    config, notes = expand(run(Payload(prompt="plain"), payload), folders)
    drawn = config.payloads[1]
    assert drawn.judged_prompt == drawn.prompt
    assert drawn.hires is not None
    assert drawn.hires.prompt == drawn.prompt
    assert drawn.negative_prompt in ("bad", "ugly")
    assert not has_syntax(drawn.prompt)
    assert notes == (f"The prompt 'zoo' was drawn as: {drawn.prompt}",)


def test_the_judged_prompt_follows_without_a_prompt_of_its_own(folders):
    config, _ = expand(run(Payload(prompt="a __animal__")), folders)
    assert config.payloads[0].score_prompt is None
    assert config.payloads[0].judged_prompt == config.payloads[0].prompt


def test_network_tags_come_through(folders):
    prompt = "<lora:x__animal__y:1> {a|b} {<lora:one:0.5>|<lora:two:0.5>}"
    config, _ = expand(run(Payload(prompt=prompt)), folders)
    drawn = config.payloads[0].prompt
    assert drawn.startswith("<lora:x__animal__y:1> ")
    assert drawn.endswith((" <lora:one:0.5>", " <lora:two:0.5>"))


def test_a_missing_wildcard_is_named_with_its_prompt(folders):
    with pytest.raises(ConfigError, match=r"__unicorn__ of the prompt 'p02'.*unicorn\.txt"):
        expand(run(Payload(prompt="x"), Payload(prompt="a __unicorn__")), folders)


def test_broken_syntax_is_a_sentence(folders):
    with pytest.raises(ConfigError, match="cannot be read"):
        expand(run(Payload(prompt="{a|b} and {c|d")), folders)


def test_without_the_package_only_the_syntax_fails(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "dynamicprompts", None)
    monkeypatch.setitem(sys.modules, "dynamicprompts.generators", None)
    assert expand(run(Payload(prompt="x")), folders)[1] == ()
    with pytest.raises(ConfigError, match="dynamicprompts is not installed"):
        expand(run(Payload(prompt="{a|b}")), folders)
