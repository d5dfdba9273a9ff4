"""Merges that are made with Re-Basin: sums of models, one of them permuted.

All are `Tensors`: they are computed in float64 for the rows that are asked for, and can be matched
and merged like files. Here `alpha` is the share of A, as in the formulas in use: 1 is A. (A block
weight elsewhere in Automerge is the share of B.)

A matching is found for two models. Where one of them is itself a sum, `amplified` for instance,
match with that sum:

    amp = amplified(model, base)
    found = match(base, amp, shared_symmetries("sdxl", base, amp))
    result = half_way_back(model, base, found.permuted(amp))
"""

from __future__ import annotations

from lib_automerge.merge.rebasin.tensors import Combined, Tensors


def amplified(model: Tensors, base: Tensors) -> Combined:
    """Return 2 model - base: twice the way that the model went from its base."""
    return Combined(f"2 {model.name} - {base.name}", (2.0, model), (-1.0, base))


def rebasin(a: Tensors, permuted_b: Tensors, alpha: float) -> Combined:
    """Return alpha A + (1 - alpha) pi(B) (Git Re-Basin, arXiv 2209.04836, algorithm 1)."""
    return Combined(
        f"Re-Basin of {a.name} and {permuted_b.name}", (alpha, a), (1.0 - alpha, permuted_b)
    )


def basin_sum(a: Tensors, b: Tensors, permuted_b: Tensors, alpha: float) -> Combined:
    """Return alpha (alpha A + (1 - alpha) B) + (1 - alpha) Rebasin(A, B, alpha).

    Multiplied out: alpha A + alpha (1 - alpha) B + (1 - alpha)^2 pi(B). 1 is A, 0 is pi(B).
    """
    other = 1.0 - alpha
    return Combined(
        f"basin sum of {a.name} and {b.name}",
        (alpha, a),
        (alpha * other, b),
        (other * other, permuted_b),
    )


def half_way_back(model: Tensors, base: Tensors, permuted_amplified: Tensors) -> Combined:
    """Return (model + Rebasin(base, amp, 1/2)) / 2 with amp = 2 model - base.

    Multiplied out: model / 2 + base / 4 + pi(amp) / 4. If no channel moves this is the model, since
    base and amp lie on either side of it, equally far.
    """
    return Combined(
        f"{model.name}, half way back", (0.5, model), (0.25, base), (0.25, permuted_amplified)
    )
