from __future__ import annotations

import csv
import io

import pytest

from lib_automerge.domain import architectures
from lib_automerge.domain.dialects import catalogue
from lib_automerge.domain.dialects.sketch import Hint, Sketch, recipe_of
from lib_automerge.errors import ConfigError

SD1, SDXL = architectures.get("sd1"), architectures.get("sdxl")
HEADER = (
    '"ID","time","name","weights alpha","weights beta","model A","model B","model C","alpha",'
    '"beta","mode","use MBW","plus lora","custum name","save setting","use ID"\n'
)
A26 = "0.25," + ",".join(f"{n / 32}" for n in range(25))
B26 = ",".join(f"{n / 64}" for n in range(26))
ROW = {
    "id": "1", "time": "2024.05.01 12.00.00",
    "name": f"a v1.0 x (1-alpha) + b x alpha (0.25,{A26})",
    "alphas": A26, "betas": "", "a": "1a1a1a1a1a", "b": "2b2b2b2b2b", "c": "1a1a1a1a1a",
    "alpha": "0.5", "beta": "0.25", "mode": "Weight sum:A*(1-alpha)+B*alpha", "blocks": "True",
    "called": "", "saved": "['safetensors', 'save metadata']", "infotext": "[]", "elements": "",
    "calculation": "normal", "seed": "0", "adjust": "0,0,0,0,0,0,0,0", "option": "0.3",
    "choosing": "Off", "chosen blocks": "[]", "chosen elements": "",
}  # fmt: skip


def rows(*changes: dict[str, str]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([list({**ROW, **changed}.values()) for changed in changes])
    return HEADER + text.getvalue()


def read(text: str, order: str | None = None, number: int | None = None) -> Sketch:
    (found,) = catalogue.read(text, order, None, number).found
    assert isinstance(found, Sketch)
    return found


def test_a_row_with_its_models_and_weights() -> None:
    found = read(rows({}))
    assert found.dialect == "SuperMerger's history, merge 1"
    assert found.models == {
        "a": Hint(name="a v1.0", sha256="1a1a1a1a1a"),
        "b": Hint(name="b", sha256="2b2b2b2b2b"),
    }
    given = recipe_of(found, SD1).weights
    assert (given["BASE"], given["VAE"]) == (0.25, 0.25)
    assert (given["IN00"], given["TIME_EMBED"], given["IN01"]) == (0.0, 0.0, 1 / 32)
    assert (given["OUT11"], given["OUT"]) == (24 / 32, 24 / 32)


def test_as_the_first_versions_wrote_it() -> None:
    row = [*ROW.values()][:12]
    row[5:7] = ["0a1b2c3d", "deadbeef"]  # A1111's old hashes, which are no digits of a SHA-256
    found = read(HEADER + ",".join(f'"{cell}"' for cell in row))
    assert found.models["b"] == Hint(name="b", legacy_hash="deadbeef")
    assert found.method == "weighted_sum"


def test_one_weight_for_all() -> None:
    found = read(
        rows({"blocks": "False", "alphas": "", "alpha": "0.7", "name": "a x 0.3 + b x 0.7"})
    )
    assert found.weights(SDXL) == dict.fromkeys(SDXL.blocks, 0.7)
    assert found.models["a"].name == "a"


def test_three_models() -> None:
    changed = {
        "mode": "sum Twice:(A*(1-alpha)+B*alpha)*(1-beta)+C*beta", "betas": B26, "c": "3c3c3c3c3c"
    }  # fmt: skip
    found = recipe_of(read(rows(changed)), SD1)
    assert found.method == "sum_twice"
    beta = found.parameters["beta"]
    assert isinstance(beta, dict)
    assert (beta["BASE"], beta["IN01"]) == (0.0, 2 / 64)
    assert set(found.models) == {"a", "b", "c"}
    trained = {"mode": "Add", "calculation": "trainDifference", "c": "3c3c3c3c3c"}
    assert read(rows(trained)).method == "train_difference"


def test_which_of_several_is_asked() -> None:
    text = rows({}, {"id": "2", "alphas": B26, "name": "second"}, {"id": "3", "mode": "Odd"})
    with pytest.raises(ConfigError, match=r"3 merges.*--number.*1 is a v1\.0.*2 is second"):
        read(text)
    assert read(text, number=2).weights(SD1)["IN01"] == 2 / 64
    assert read(text, number=2).dialect.endswith("merge 2")
    with pytest.raises(ConfigError, match=r"0 merges .*ID 7; there are 1 to 3"):
        read(text, number=7)
    with pytest.raises(ConfigError, match="'Odd'"):
        read(text, number=3)


def test_a_number_for_what_is_no_history_is_told() -> None:
    with pytest.raises(ConfigError, match="--number 1 chooses a merge"):
        catalogue.read(A26, "supermerger", None, 1)


def test_elements_and_exclusions() -> None:
    changed = {
        "elements": "OUT03::0.9\nOUT04::0.8",
        "choosing": "Exclude",
        "chosen blocks": "['IN05']",
    }
    found = read(rows(changed)).weights(SD1)
    assert (found["OUT03"], found["OUT04"], found["IN05"], found["IN06"]) == (0.9, 0.8, 0.0, 6 / 32)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"choosing": "Exclude", "chosen blocks": "['VAE']"}, "'VAE', .*other weights than were"),
        ({"choosing": "Exclude", "chosen elements": "attn"}, "'attn', .*other weights"),
        ({"calculation": "cosineA"}, "'cosineA'"),
        ({"a": "", "name": "?"}, "does not say which model A"),
        ({"alphas": "0.1,0.2"}, "this one 2"),
    ],
)  # fmt: skip
def test_what_a_row_does_not_tell_is_refused(changes: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read(rows(changes))


def test_an_excluded_block_of_sdxl_that_is_also_a_part_of_another() -> None:
    listed = ",".join(["0"] + ["0.5"] * 19)
    changes = {"alphas": listed, "choosing": "Exclude", "chosen blocks": "['OUT01']"}
    with pytest.raises(ConfigError, match=r"'OUT01', .*other weights"):
        read(rows(changes))
    found = read(rows({**changes, "chosen blocks": "['OUT02']"})).weights(SDXL)
    assert (found["OUT02"], found["OUT03"]) == (0.0, 0.5)


def test_what_else_was_done_is_told() -> None:
    found = read(rows({"adjust": "1,0,0,0,0,0,0,0", "saved": "['fp16', 'Reset CLIP ids']"}))
    assert "adjusted by 1,0" in found.unsaid[0]
    assert "position ids" in found.unsaid[1]
    assert "--dtype fp16" in found.notes[0]


@pytest.mark.parametrize("text", [HEADER, HEADER.strip(), HEADER + "\n\n"])
def test_a_history_without_rows(text: str) -> None:
    with pytest.raises(ConfigError, match="holds no merge"):
        read(text)
