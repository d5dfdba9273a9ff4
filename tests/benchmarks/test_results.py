from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.search import cheap_look, parallel, peers, records, tables


def row(optimizer: str, seed: int, *regrets: float, lowest: float = 0.5) -> records.Row:
    return records.Row(
        optimizer=optimizer,
        landscape="classes",
        seed=seed,
        evaluations=len(regrets),
        steps=records.steps(regrets),
        lowest=lowest,
        seconds=0.0,
    )


def test_a_curve_is_kept_by_its_changes() -> None:
    kept = row("bayes", 0, 0.9, 0.9, 0.4, 0.6, 0.6)
    assert kept.steps == ((1, 0.9), (3, 0.4), (4, 0.6))
    assert kept.curve().tolist() == [0.9, 0.9, 0.4, 0.6, 0.6]
    assert kept.regret(100) == 0.6


def test_of_a_run_that_was_made_twice_the_later_counts(tmp_path: Path) -> None:
    assert records.read("bayes", tmp_path) == {}
    for regret in (0.5, 0.3):
        records.append(row("bayes", 0, regret), tmp_path)
    assert records.read("bayes", tmp_path)["classes", 0].regret(1) == 0.3


def test_a_beaten_optimum_moves_and_the_parent_stays_at_one() -> None:
    first, other = row("bayes", 0, 0.2, lowest=-0.25), row("pycma", 0, 1.0)
    corrected = records.optima([first, other, row("pycma", 1, 0.3)])
    assert corrected(first, -0.25) == 0.0
    assert corrected(other, 1.0) == 1.0
    assert corrected(row("pycma", 1, 0.3), 0.3) == 0.3


def test_bayes_overtakes_a_peer_on_the_seeds_of_both(tmp_path: Path) -> None:
    records.append(row("pycma", 0, 0.9, 0.8, 0.5), tmp_path)
    records.append(row("bayes", 0, 0.9, 0.5, 0.1), tmp_path)
    records.append(row("bayes", 1, 0.9, 0.9, 0.9), tmp_path)
    assert tables.overtaken(tables.Results(tmp_path), "pycma", "classes", 3) == 2


def test_half_the_time_is_half_the_time() -> None:
    one = parallel.Race("levy", 0, 1, (1.0, 2.0, 3.0, 4.0), ((1, 0.9), (4, 0.1)))
    many = parallel.Race("levy", 0, 4, (1.0, 1.1, 2.0, 2.1), ((1, 0.9), (3, 0.05)))
    assert parallel.share_of_time([one, many], 4) == pytest.approx(0.5)
    slow = parallel.Race("levy", 0, 4, (1.0, 1.1, 2.0, 2.1), ((1, 0.9), (3, 0.2)))
    assert np.isinf(parallel.share_of_time([one, slow], 4))


def test_a_peer_is_judged_by_the_recipe_that_it_observed_to_be_best() -> None:
    made = peers.landscapes.create("additive-noisy", 0)
    found = peers.run("random-search", made, 0, 30)
    again = peers.run("random-search", made, 0, 30)
    assert found.steps == again.steps
    assert found.evaluations == 30
    draw, noise = np.random.default_rng(0), peers.landscapes.noise_source(made, 0)
    points = [draw.random(peers.DIMENSION) for _ in range(30)]
    seen = [made.observe(x, noise).score for x in points]
    best = points[int(np.argmax(seen))]
    assert found.regret(30) == pytest.approx(made.regret(made.score(best)), abs=1e-5)


def test_a_goal_counts_when_it_is_held() -> None:
    assert records.for_good(np.array([0.9, 0.2, 0.4, 0.3, 0.1]), 0.3) == 3
    assert records.for_good(np.array([0.1, 0.2, 0.4]), 0.3) is None
    assert records.for_good(np.array([0.1, 0.2]), 0.3) == 0


def test_a_look_is_judged_by_how_it_ranks_recipes_that_full_settings_rank() -> None:
    count = cheap_look.DESIGN + cheap_look.RANDOM + cheap_look.CLOSE
    scores = np.random.default_rng(0).random((count, 4))
    made = {
        cheap_look.FULL: (scores, 10.0),
        cheap_look.TRUTH: (np.repeat(scores, 2, axis=1), 40.0),
        "half the steps": (1.0 - scores, 4.0),
    }
    looks = [
        cheap_look.Look(6, name, tuple(map(tuple, s.tolist())), t) for name, (s, t) in made.items()
    ]
    told = cheap_look.rows(looks)
    assert cheap_look.worth_it(told) == []
    rows = dict(told)
    assert rows[cheap_look.FULL] == pytest.approx([1.0, 1.0, 1.0, 1.0, 1.0])
    assert rows["full settings, other seeds"] == pytest.approx(
        [1.0, 1.0, np.nan, 1.0, np.nan], nan_ok=True
    )
    assert rows["half the steps"] == pytest.approx([0.4, -1.0, -1.0, -1.0, -1.0])
    fewer = rows["full settings, 2 of 4 images"]
    assert fewer[0] == 0.5
    assert 0.0 < fewer[1] < 1.0
    truer = [
        (name, [0.5, 1.0, 1.0, 1.0, 1.0] if name == "half the steps" else c) for name, c in told
    ]
    assert cheap_look.worth_it(truer) == ["half the steps"]
