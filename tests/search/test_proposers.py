from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lib_automerge.errors import ConfigError
from lib_automerge.search.design import SobolSequence
from lib_automerge.search.proposers import (
    RandomProposer,
    SobolProposer,
    available,
    create,
    missing,
    names,
)
from tests.contracts.proposer import grown, single, unet


def test_random_points_are_uniform() -> None:
    space = unet()
    history = grown(RandomProposer(space, seed=2), space, 43)
    values = np.array([space.vector(e.weights) for e in history[3:]]).ravel()
    assert stats.kstest(values, "uniform").pvalue > 0.01


def test_sobol_points_come_in_order_after_the_baselines() -> None:
    space = unet()
    history = grown(SobolProposer(space, seed=2), space, 12)
    sequence = SobolSequence(27, 2, "sobol")
    for index, evaluation in enumerate(history[3:]):
        expected = space.scaled(sequence.point(index)).tolist()
        assert space.vector(evaluation.weights).tolist() == expected


def test_sobol_points_fill_the_space_evenly() -> None:
    sequence = SobolSequence(5, 0, "test")
    points = np.array([sequence.point(index) for index in range(16)])
    for column in points.T:
        # One point in each sixteenth: the defining property in one dimension.
        assert sorted((column * 16).astype(int).tolist()) == list(range(16))


def test_a_sequence_can_be_entered_anywhere() -> None:
    walked, jumped = (SobolSequence(3, 7, "test") for _ in range(2))
    points = [walked.point(index).tolist() for index in range(10)]
    assert jumped.point(9).tolist() == points[9]
    assert next(jumped.points(start=4)).tolist() == points[4]


@pytest.mark.parametrize(
    ("package", "optimizers"),
    [("cma", {"cma"}), ("optuna", {"tpe", "gp"}), ("torch", {"gp"})],
)
def test_an_optimizer_without_its_package_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, package: str, optimizers: set[str]
) -> None:
    before = set(available())
    monkeypatch.setitem(sys.modules, package, None)
    assert before - set(available()) == optimizers & before
    assert optimizers <= set(names())
    for name in optimizers:
        assert package in missing(name)
        said = rf"'{name}' needs.*: .*{package}.*\. Run `pip install .*{package}"
        with pytest.raises(ConfigError, match=said):
            create(name, single())


def test_what_needs_no_package_is_always_available() -> None:
    assert {"bayes", "hill-climb", "coordinate", "sobol", "random"} <= set(available())


def test_a_package_that_is_broken_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cma.py").write_text("import surely_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in sys.modules if n.partition(".")[0] == "cma"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "lib_automerge.search.evolution", raising=False)
    with pytest.raises(ConfigError, match=r"'cma' cannot be loaded: .*surely_not_there"):
        create("cma", single())


def test_only_the_default_searches_groups_first() -> None:
    create("bayes", unet(), coarse_first=True)
    for name in set(names()) - {"bayes"}:
        with pytest.raises(ConfigError, match=f"coarse first is on with the optimizer '{name}'"):
            create(name, unet(), coarse_first=True)


def test_all_but_one_do_without_torch() -> None:
    code = (
        "import sys\n"
        "from lib_automerge.search.proposers import available, create\n"
        "from lib_automerge.search.space import Space\n"
        "space = Space.box({'x': (0.0, 1.0), 'y': (0.0, 1.0)})\n"
        "for name in available():\n"
        "    if name != 'gp': create(name, space).propose((), (), 1)\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
