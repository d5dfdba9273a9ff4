"""The card's numbers: `python -m lib_automerge.demo.evaluate`.

Scores the demo's two parents, uniform merges and the merges of `SPLITS` on the held-out prompts
with fresh seeds, through the same generator and reward as a run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from lib_automerge import demo
from lib_automerge.demo.specialists import SPLITS
from lib_automerge.domain import architectures
from lib_automerge.domain.payload import Payload, batches_of, jobs_of
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.generate.diffusers_ import DiffusersGenerator, DiffusersSession
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.reward.demo import DemoReward

FIRST_SEED = 900_000

Weights = Mapping[str, float]


def main() -> None:
    """Print one line for each merge: its name, mean score, standard error, and shares right."""
    parser = argparse.ArgumentParser(
        prog="python -m lib_automerge.demo.evaluate", description=__doc__
    )
    parser.add_argument("--models", type=Path, default=demo.MODEL_A.parent, help="their folder")
    parser.add_argument("--seeds", type=int, default=16, help="for each prompt (default: 16)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--search-prompts", action="store_true", help="instead of the held-out")
    options = parser.parse_args()
    payloads = _payloads(options.seeds, held_out=not options.search_prompts)
    a, b = options.models / demo.MODEL_A.name, options.models / demo.MODEL_B.name
    base = options.models / "automerge-demo-base.safetensors"
    reward = DemoReward()
    generator = DiffusersGenerator(threads=options.threads)
    with (
        open_checkpoint(a) as model_a,
        open_checkpoint(b) as model_b,
        generator.open({"a": model_a, "b": model_b}) as session,
    ):
        for name, weights in merges().items():
            _say(_line(name, session, payloads, reward, weights))
    if base.exists():
        with (
            open_checkpoint(base) as model,
            generator.open({"a": model, "b": model}) as session,
        ):
            _say(_line("base", session, payloads, reward, {}))


def merges() -> dict[str, Weights]:
    """Name -> weights of everything that is compared."""
    searched = architectures.get("sd1").parameters
    uniform = {"A": 0.0, "B": 1.0, "25:75": 0.25, "50:50": 0.5, "75:25": 0.75}
    table: dict[str, Weights] = {
        name: dict.fromkeys(searched, weight) for name, weight in uniform.items()
    }
    for name, of in SPLITS.items():
        table[name] = {block: of(block) for block in searched}
    return table


def _payloads(seeds: int, *, held_out: bool) -> list[Payload]:
    chosen = [payload for payload in demo.load_payloads() if payload.held_out == held_out]
    return [
        msgspec.structs.replace(
            payload, seeds=tuple(range(FIRST_SEED + seeds * i, FIRST_SEED + seeds * (i + 1)))
        )
        for i, payload in enumerate(chosen)
    ]


def _line(
    name: str,
    session: DiffusersSession,
    payloads: Sequence[Payload],
    reward: DemoReward,
    weights: Weights,
) -> str:
    models = {"a": ModelRef("a"), "b": ModelRef("b")}
    session.apply(
        Recipe(architecture="sd1", method="weighted_sum", models=models, weights=dict(weights))
    )
    started = time.monotonic()
    pairs = [
        pair for batch in batches_of(jobs_of(payloads)) for pair in session.images(batch, _never)
    ]
    seconds = (time.monotonic() - started) / len(pairs)
    images = [image for _, image in pairs]
    prompts = [job.payload.prompt for job, _ in pairs]
    scores = reward.score(images, prompts)
    error = statistics.stdev(scores) / len(scores) ** 0.5
    words = [reward.named(prompt) for prompt in prompts]
    parts = "  ".join(
        f"{kind} {statistics.fmean(reward.score(images, [word[kind] for word in words])):.3f}"
        for kind in words[0]
    )
    return (
        f"{name:24} {statistics.fmean(scores):.3f} +- {error:.3f}  {parts}  "
        f"({len(pairs)} images, {seconds:.3f} s each)"
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _never() -> bool:
    return False


if __name__ == "__main__":
    main()
