"""One merge by sd-mecha, for `merge_lab.py`; needs a Python that has sd-mecha 1.1.8.

python benchmarks/merge_lab_mecha.py METHOD OUTPUT BASE MODEL...
"""

from __future__ import annotations

import json
import resource
import sys
import time

import sd_mecha
import torch
from sd_mecha.extensions.builtin.merge_methods import linear


def recipe(method: str, base: object, models: list[object]) -> object:
    if method == "geometric_median":
        return sd_mecha.geometric_median(*models, maxiter=100)
    changes = [sd_mecha.subtract(model, base) for model in models]
    if method == "ties":
        # True is the vote of the paper
        merged = sd_mecha.ties_sum(*changes, k=0.2, vote_sgn=True)
    elif method == "della":
        merged = sd_mecha.ties_sum_with_dropout(
            *changes, probability=0.7, della_eps=0.2, k=1.0, vote_sgn=True, apply_stock=True, seed=1
        )
    else:
        raise SystemExit(f"no such method here: {method}")
    # the wrapper of this name fails here: it compares a merge space with None
    return linear.add_difference(base, merged, alpha=1.0)


def main() -> None:
    torch.set_num_threads(1)
    method, output, *paths = sys.argv[1:]
    base, *models = [sd_mecha.model(p, "sd1-ldm") for p in paths]
    wall, cpu = time.perf_counter(), time.process_time()
    sd_mecha.merge(
        recipe(method, base, models),
        output=output,
        threads=1,
        # its own fastest setting: these two checks are about a third of its time
        omit_non_finite_inputs=False,
        check_finite_output=False,
        strict_mandatory_keys=False,
        merge_dtype=torch.float32,
        output_dtype=torch.float16,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "cpu": time.process_time() - cpu,
                "wall": time.perf_counter() - wall,
                "peak": peak,
            }
        )
    )


if __name__ == "__main__":
    main()
