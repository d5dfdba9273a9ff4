"""The search of a run from the form's values, and back; see `form`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lib_automerge.domain import architectures, weights
from lib_automerge.domain.config import BlockRule, SearchConfig
from lib_automerge.ui.fields import Reader
from lib_automerge.ui.search_fields import (
    BUDGETS,
    CUSTOM,
    LIMITS,
    OPTIMIZERS,
    PATIENCE,
    PATIENT,
    STOPS,
)
from lib_automerge.ui.texts import paths_of, rules_of, rules_text, start_points


def search_of(
    form: Reader,
    architecture: str | None,
    *,
    weighted: bool = True,
    parameters: Collection[str] = (),
) -> SearchConfig:
    """The search that the form describes, but for parameters of the method.

    Args:
        form: its values.
        architecture: that of model A, None if unknown.
        weighted: whether blocks have weights; without them, the range and the rules of blocks are
            not read: they are out of sight.
        parameters: the names of the method's parameters, which start points may name too.

    Raises:
        ConfigError: a value is missing or cannot be read; the text names the field.
    """
    custom = form.text("budget") not in BUDGETS
    ending = form.text("stop")
    patience = None if ending == LIMITS else form.whole_or_none("patience")
    if patience is None and ending == PATIENT:
        patience = PATIENCE
    return SearchConfig(
        optimizer=OPTIMIZERS.name(form.text("optimizer")),
        evaluations=form.whole("evaluations") if custom else BUDGETS[form.text("budget")],
        hours=form.number_or_none("hours") if custom else None,
        images=form.whole_or_none("images") if custom else None,
        target=form.number_or_none("target") if custom else None,
        patience=patience,
        # an unknown word is refused where the configuration is checked
        stop=STOPS.get(ending, ending),
        low=form.number("low") if weighted else SearchConfig().low,
        high=form.number("high") if weighted else SearchConfig().high,
        blocks=block_rules(form, architecture) if weighted else {},
        seed=form.whole("seed"),
        seeds_per_payload=form.whole("seeds_per_payload"),
        start=start_points(form.text("start"), form.text("start_order"), architecture, parameters),
        warm_start=paths_of(form.text("warm_start")),
        coarse_first=form.check("coarse_first"),
        early_reject=form.check("early_reject"),
        calibration=form.whole("calibration"),
    )


def search_values(search: SearchConfig, architecture: str | None) -> dict[str, object]:
    """The fields that describe a search; `search_of` gives the search again."""
    rules = dict(search.blocks)
    text_encoder = vae = False
    if architecture is not None:
        found = architectures.get(architecture)
        text_encoder = _take_opted(rules, found.text_encoders)
        vae = _take_opted(rules, found.vae)
    limits = (search.hours, search.images, search.target)
    simple = {count: label for label, count in BUDGETS.items()}
    budget = simple.get(search.evaluations, CUSTOM) if limits == (None, None, None) else CUSTOM
    custom: dict[str, object] = {
        "evaluations": search.evaluations,
        "hours": number_text(search.hours),
        "images": number_text(search.images),
        "target": number_text(search.target),
    }
    return {
        "budget": budget,
        **(custom if budget == CUSTOM else {}),
        "stop": _ending(search),
        "patience": number_text(search.patience),
        "optimizer": OPTIMIZERS.label(search.optimizer),
        "seed": search.seed,
        "seeds_per_payload": search.seeds_per_payload,
        "low": search.low,
        "high": search.high,
        "text_encoder": text_encoder,
        "vae": vae,
        "coarse_first": search.coarse_first,
        "rules": rules_text(rules),
        "start": "\n".join(weights.format(point) or "{}" for point in search.start),
        "warm_start": "\n".join(search.warm_start),
        "early_reject": search.early_reject,
        "calibration": search.calibration,
    }


def waits(form: Reader) -> bool:
    """Whether the number of evaluations without a better one counts, so that it must be shown."""
    ending = form.text("stop")
    return ending == PATIENT or (ending != LIMITS and bool(form.text("patience")))


def block_rules(form: Reader, architecture: str | None) -> dict[str, BlockRule]:
    """The rules of the form, with those that its boxes for text encoder and VAE stand for.

    Raises:
        ConfigError: the rules' text cannot be read.
    """
    rules = rules_of(form.text("rules"))
    if architecture is not None:
        found = architectures.get(architecture)
        opted = found.text_encoders if form.check("text_encoder") else ()
        opted += found.vae if form.check("vae") else ()
        rules |= {block: BlockRule() for block in opted if block not in rules}
    return rules


def number_text(value: float | None) -> str:
    """A number as a field of kind OPTIONAL holds it; None is an empty text."""
    return "" if value is None else repr(float(value)).removesuffix(".0")


def _ending(search: SearchConfig) -> str:
    if search.stop == "never":
        return LIMITS if search.patience is None else PATIENT
    return next((label for label, stop in STOPS.items() if stop == search.stop), search.stop)


def _take_opted(rules: dict[str, BlockRule], blocks: Sequence[str]) -> bool:
    """Whether all blocks are searched by default; their rules are then taken out."""
    opted = bool(blocks) and all(rules.get(block) == BlockRule() for block in blocks)
    if opted:
        for block in blocks:
            del rules[block]
    return opted
