"""The experiments beside the table of regrets: which runs each needs, and their Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.search import (
    cheap_look,
    demo_pair,
    images,
    landscapes,
    ours,
    parallel,
    payload_order,
    records,
    stopping,
    verdict,
)
from benchmarks.search.tables import markdown, number

RACED = ("additive", "levy", "classes", "domains", "classes-noisy")
SPENT = ("classes-noisy", "domains-noisy")
STOPPING_SEEDS, RACE_SEEDS, SPENDING_SEEDS, ORDER_SEEDS = 10, 7, 4, 10


def run_stopping(folder: Path, seeds: int) -> None:
    """Run what is missing of `stopping`."""
    done = {(stop.landscape, stop.seed) for stop in stopping.load(folder)}
    for name, seed in _missing(landscapes.names(), min(seeds, STOPPING_SEEDS), done):
        for stop in stopping.stops(landscapes.create(name, seed), seed):
            records.save("stopping", stop, folder)
        print("stopping", name, seed, flush=True)


def run_parallel(folder: Path, seeds: int) -> None:
    """Run what is missing of `parallel`."""
    races = records.load("parallel", parallel.Race, folder)
    for workers in parallel.WORKERS:
        done = {(race.landscape, race.seed) for race in races if race.workers == workers}
        for name, seed in _missing(RACED, min(seeds, RACE_SEEDS), done):
            race = parallel.race(landscapes.create(name, seed), seed, workers)
            records.save("parallel", race, folder)
            print("parallel", name, seed, workers, flush=True)


def run_images(folder: Path, seeds: int) -> None:
    """Run what is missing of `images`."""
    runs = records.load("images", images.Spending, folder)
    for policy in images.POLICIES:
        done = {(run.landscape, run.seed) for run in runs if run.policy == policy}
        for name, seed in _missing(SPENT, min(seeds, SPENDING_SEEDS), done):
            records.save(
                "images", images.spend(policy, landscapes.create(name, seed), seed), folder
            )
            print("images", policy, name, seed, flush=True)


def run_order(folder: Path) -> None:
    """Run what is missing of `order`."""
    done = {(f.landscape, f.seed) for f in records.load("order", payload_order.Foretold, folder)}
    for name, seed in _missing(SPENT, ORDER_SEEDS, done):
        found = payload_order.foretold(landscapes.create(name, seed), seed)
        records.save("order", found, folder)


def run_verdict(folder: Path) -> None:
    """Run what is missing of `verdict`."""
    done = {(v.held_out, v.gain) for v in records.load("verdict", verdict.Verdicts, folder)}
    for held_out in verdict.HELD_OUT:
        for gain in (0.0, verdict.GAIN):
            if (held_out, gain) not in done:
                records.save("verdict", verdict.verdicts(held_out, gain), folder)


def run_demo(folder: Path) -> None:
    """Run what is missing on the demo pair."""
    done = {(run.optimizer, run.seed) for run in records.load("demo", demo_pair.DemoRun, folder)}
    for seed in demo_pair.SEEDS:
        for name in demo_pair.OPTIMIZERS:
            if (name, seed) not in done:
                records.save("demo", demo_pair.run(name, seed), folder)
                print("demo", name, seed, flush=True)


def run_look(folder: Path) -> None:
    """Run what is missing of `look`."""
    done = {look.steps for look in records.load("look", cheap_look.Look, folder)}
    for steps in cheap_look.TRUTH_SEEDS:
        if steps not in done:
            for look in cheap_look.looks(steps):
                records.save("look", look, folder)
            print("look", steps, flush=True)


def _missing(
    names: Iterable[str], seeds: int, done: set[tuple[str, int]]
) -> Iterable[tuple[str, int]]:
    return [(name, seed) for seed in range(seeds) for name in names if (name, seed) not in done]


def stopping_table(folder: Path) -> str:
    """Return when each rule ends, with and without noise, and what is lost."""
    stops = stopping.load(folder)
    rows = []
    for rule in dict.fromkeys(stop.rule for stop in stops):
        cells = []
        for noisy in (False, True):
            mine = [s for s in stops if s.rule == rule and s.landscape.endswith("-noisy") == noisy]
            if not mine:
                cells += ["-"] * 3
                continue
            lost = [s.lost for s in mine]
            cells += [
                number(float(np.mean([s.evaluation for s in mine])), 0),
                number(float(np.mean(lost))),
                number(max(lost)),
            ]
        rows.append([rule, *cells])
    kinds = ("without noise", "with noise")
    heads = [f"{kind}: {what}" for kind in kinds for what in ("mean stop", "lost", "at worst")]
    return markdown(["rule", *heads], rows) + _seeds(stop.seed for stop in stops)


def parallel_table(folder: Path) -> str:
    """Return the share of one evaluator's time that several need, per landscape."""
    races = records.load("parallel", parallel.Race, folder)
    rows = []
    for workers in parallel.WORKERS[1:]:
        shares = parallel_shares(races, workers)
        shown = (*shares, float(np.median(shares)))
        cells = ["not reached" if np.isinf(share) else number(share) for share in shown]
        rows.append([str(workers), *cells])
    return markdown(["evaluators", *RACED, "median"], rows) + _seeds(r.seed for r in races)


def parallel_shares(races: list[parallel.Race], workers: int) -> list[float]:
    """Return the share of time for every landscape that was raced."""
    return [
        parallel.share_of_time([race for race in races if race.landscape == name], workers)
        for name in RACED
    ]


def images_table(folder: Path) -> str:
    """Return what every policy has after the plain run's images, and how many it needs."""
    runs = records.load("images", images.Spending, folder)
    rows = []
    for policy in (name for name in images.POLICIES if any(run.policy == name for run in runs)):
        cells = []
        for name in SPENT:
            here = [run for run in runs if run.landscape == name]
            final = [
                images.regret_at(run, np.array([images.BUDGET]))[0]
                for run in here
                if run.policy == policy
            ]
            candidates = [len(run.images) for run in here if run.policy == policy]
            share = images.share_of_images(here, policy)
            reached = f"{100 * share:.0f} %" if np.isfinite(share) else "not reached"
            cells += [f"{np.mean(candidates):.0f}", number(float(np.mean(final))), reached]
        rows.append([policy, *cells])
    heads = [f"{name}: {what}" for name in SPENT for what in ("candidates", "regret", "images")]
    return markdown(["policy", *heads], rows) + _seeds(run.seed for run in runs)


def order_table(folder: Path) -> str:
    """Return how far off the first payloads are in either order, mean over seeds."""
    found = records.load("order", payload_order.Foretold, folder)
    rows = []
    for name in SPENT:
        mine = [f.errors for f in found if f.landscape == name]
        for order in dict.fromkeys(order for errors in mine for order in errors):
            means = np.mean([errors[order] for errors in mine], axis=0)
            rows.append([name, order, *(number(float(mean), 2) for mean in means)])
    heads = [f"{count} of {images.PAYLOADS} payloads" for count in payload_order.COUNTS]
    return markdown(["landscape", "order", *heads], rows) + _seeds(f.seed for f in found)


def _seeds(seeds: Iterable[int]) -> str:
    return f"\n\nSeeds of each landscape: {len(set(seeds))}."


def verdict_table(folder: Path) -> str:
    """Return the share of wins with and without a true gain, by held-out payloads."""
    found = records.load("verdict", verdict.Verdicts, folder)
    rows = []
    for held_out in verdict.HELD_OUT:
        shares = {v.gain: v.wins / v.runs for v in found if v.held_out == held_out}
        cells = [f"{100 * shares[gain]:.1f} %" for gain in (0.0, verdict.GAIN)]
        rows.append([str(held_out), *cells])
    return markdown(["held-out payloads", "wins under pure noise", "wins with a true gain"], rows)


def demo_table(folder: Path) -> str:
    """Return the best score on the demo pair, mean over seeds."""
    runs = records.load("demo", demo_pair.DemoRun, folder)
    rows = []
    for name in demo_pair.OPTIMIZERS:
        mine = [run for run in runs if run.optimizer == name]
        scores = [np.mean([run.best(n) for run in mine]) for n in demo_pair.REPORTED]
        rows.append([name, str(len(mine)), *(number(float(score)) for score in scores)])
    return markdown(["optimizer", "seeds", *(f"@{n}" for n in demo_pair.REPORTED)], rows)


def look_table(folder: Path) -> str:
    """Return what every way to judge a recipe of the demo pair costs, and how it ranks them."""
    looks = records.load("look", cheap_look.Look, folder)
    goals = ("full settings", "truth")
    heads = [f"{group}: {goal}" for group in cheap_look.GROUPS for goal in goals]
    rows, better = [], []
    for steps in dict.fromkeys(look.steps for look in looks):
        told = cheap_look.rows([look for look in looks if look.steps == steps])
        rows += [[str(steps), name, *(number(n, 2) for n in cells)] for name, cells in told]
        better += [f"{name} of {steps}" for name in cheap_look.worth_it(told)]
    return (
        markdown(["steps", "what is made", "price", *heads], rows)
        + "\n\nNearer to the truth, in both groups, than full settings for the same price: "
        + f"{', '.join(better) or 'none'}."
    )


def play(name: str, landscape: str, seed: int, evaluations: int, folder: Path) -> None:
    """Run one of our optimizers."""
    row = ours.run(name, landscapes.create(landscape, seed), seed, evaluations, folder)
    last = row.regret(min(120, evaluations))
    print(name, f"{landscape}:{seed}", f"{last:.3f}", f"{row.seconds:.4f} s", flush=True)
