from __future__ import annotations

from pathlib import Path

import pytest

from lib_automerge.app.configfile import read_config
from lib_automerge.domain.config import VerdictConfig, decode_config
from lib_automerge.domain.payload import Payload, batches_of, jobs_of, named
from lib_automerge.errors import AutomergeError, ConfigError, StorageError

GOOD: dict[str, object] = {
    "models": {"a": "a.safetensors", "b": "b.safetensors"},
    "payloads": [{"prompt": "a cat"}],
}


def test_defaults_are_a_whole_configuration() -> None:
    config = decode_config(GOOD)
    assert config.search.optimizer == "bayes"
    assert config.search.evaluations == 80
    assert config.method == "weighted_sum"
    assert config.output.checkpoint == "never"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"serch": {}}, "unknown key: 'serch'. Did you mean 'search'?"),
        ({"payloads": [{"promt": "x"}]}, "unknown key in payloads[0]: 'promt'. Did you mean"),
        ({"search": {"blocks": {"IN00": {"lo": 1}}}}, "'lo'. Did you mean 'low'?"),
        ({"search": {"evaluations": "many"}}, "expected `int | null`, got `str`|`int`, got `str`"),
        ({"search": {"evaluations": 2}}, "search.evaluations is 2. It must be between 4"),
        ({"search": {"hours": -1}}, "search.hours is -1"),
        ({"payloads": []}, "there are no payloads"),
        ({"payloads": [{"prompt": "x", "held_out": True}]}, "all 1 payloads are held out"),
        ({"models": {"a": "x"}}, "a run needs the models 'a' and 'b'; given: ['a']"),
        ({"output": {"checkpoint": "yes"}}, "output.checkpoint is 'yes'. Use one of: never"),
        ({"output": {"dtype": "fp8"}}, "output.dtype is 'fp8'"),
    ],
)
def test_each_mistake_is_one_sentence_with_the_field(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_config({**GOOD, **change})
    assert any(part in str(caught.value) for part in words.split("|")), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_is_not_a_configuration() -> None:
    with pytest.raises(ConfigError, match="is a list, not a mapping"):
        decode_config([1, 2])


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (Payload(prompt="  "), "empty prompt"),
        (Payload(prompt="x", width=100), "multiple of 8: use 96"),
        (Payload(prompt="x", steps=0), "steps is 0"),
        (Payload(prompt="x", seeds=(-1,)), "random seed"),
        (Payload(prompt="x", seeds=(1, 1)), "lists a seed twice"),
        (Payload(prompt="x", weight=0.0), "weight is 0.0"),
    ],
)
def test_payloads_out_of_range_are_refused(payload: Payload, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        named([payload])


def test_names_are_given_and_unique() -> None:
    assert [p.name for p in named([Payload(prompt="x"), Payload(prompt="y", name="z")])] == [
        "p01",
        "z",
    ]
    with pytest.raises(ConfigError, match="two payloads have the name 'z'"):
        named([Payload(prompt="x", name="z"), Payload(prompt="y", name="z")])


def test_batches_hold_equal_settings_and_never_too_many() -> None:
    payloads = [
        Payload(prompt="a", seeds=(1, 2, 3), batch_size=2),
        Payload(prompt="b", seeds=(4,), batch_size=2),
        Payload(prompt="c", seeds=(5,), batch_size=2, steps=5),
    ]
    jobs = jobs_of(payloads)
    assert [job.number for job in jobs] == [0, 1, 2, 3, 4]
    assert [[job.seed for job in batch] for batch in batches_of(jobs)] == [[1, 2], [3, 4], [5]]


def test_files_are_read_relative_to_themselves(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text('[{"prompt": "a cat"}, {"prompt": "ein Bär"}]')
    file = tmp_path / "night.yaml"
    file.write_text(
        "models: {a: m/a.safetensors, b: /abs/b.safetensors}\n"
        "payloads: prompts.json\n"
        "reward: {name: image_reward, options: {weights: ir.pt}}\n",
        encoding="utf-8",
    )
    config = read_config(file)
    assert config.models == {"a": str(tmp_path / "m/a.safetensors"), "b": "/abs/b.safetensors"}
    assert [p.prompt for p in config.payloads] == ["a cat", "ein Bär"]
    assert config.reward.options["weights"] == str(tmp_path / "ir.pt")


@pytest.mark.parametrize(
    ("name", "text", "kind", "words"),
    [
        ("c.yaml", "models: {a: x", ConfigError, "is not YAML"),
        ("c.json", '{"models": }', ConfigError, "is not JSON: Expecting value in line 1"),
        ("c.yaml", "!!python/object/apply:os.system ['true']", ConfigError, "is not YAML"),
        ("c.yaml", "", ConfigError, "is a NoneType, not a mapping"),
        ("c.yaml", None, StorageError, "cannot read"),
    ],
)
def test_unreadable_files_are_named(
    tmp_path: Path, name: str, text: str | None, kind: type[AutomergeError], words: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(kind, match=words):
        read_config(tmp_path / name)


def test_a_verdict_has_six_seeds_or_sixty_images() -> None:
    seeds = {payloads: VerdictConfig().seeds_for(payloads) for payloads in (0, 1, 4, 7, 10, 11, 40)}
    assert seeds == {0: 60, 1: 60, 4: 15, 7: 9, 10: 6, 11: 6, 40: 6}
    assert VerdictConfig(seeds=3).seeds_for(1) == 3
