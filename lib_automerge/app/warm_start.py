"""What earlier work is worth to a run: evaluations that count as known, or recipes to try first.

Scores can be compared only if everything that makes them is the same: the models' content, the
method, the prompts with their seeds and settings, the reward, the image backend. An earlier run
like that gives observations. Of any other source only the best recipes are used, and scored anew:
another reward or prompt set has another scale, and ranks recipes differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from lib_automerge.app.earlier import Source
from lib_automerge.app.plan import as_known, room_for_earlier, space_of
from lib_automerge.domain.candidate import given
from lib_automerge.domain.config import RunConfig
from lib_automerge.domain.events import Origin
from lib_automerge.domain.payload import Payload
from lib_automerge.domain.recipe import ParameterValue
from lib_automerge.domain.run import Evaluation
from lib_automerge.search.space import Key, Space
from lib_automerge.study.formats import listed, plural
from lib_automerge.study.store import RunManifest

START_POINTS = 3
"""So many recipes of a source are scored first: in case the log's first was luck. More bring
nothing that a search of its own would not (`benchmarks/search/warm_start.py`)."""

_TOLERANCE = 1e-9


def begin(manifest: RunManifest, sources: Sequence[Source]) -> tuple[RunManifest, tuple[str, ...]]:
    """Begin a new run with what earlier work knows.

    Args:
        manifest: the run, without a warm start.
        sources: of `app.earlier.read`.

    Returns:
        The run with its observations and start points, and sentences about what was done.
    """
    space = space_of(manifest)
    differences = [_difference(source, manifest) for source in sources]
    observations: dict[Key, Evaluation] = {}
    notes: list[str] = []
    for source, difference in zip(sources, differences, strict=True):
        if difference is None:
            notes += _observe(source, manifest, space, observations)
    start, repeated = _own_start(manifest, space, observations)
    notes += repeated
    room = manifest.config.search.evaluations - given(manifest.config) - len(start)
    scored = sum(e.score is not None for e in observations.values())
    room -= min(room_for_earlier(manifest.config, len(start)), scored)
    for source, difference in zip(sources, differences, strict=True):
        taken = {*observations, *start}
        # of a run whose scores count, only what this space cannot hold is worth trying
        best = source.recipes if difference else source.recipes[:START_POINTS]
        recipes = _understood(best, source, manifest.config, space)
        fitted = _fit(recipes, space, taken, min(START_POINTS, room), manifest.distances)
        start |= {fit.key: fit.weights for fit in fitted}
        room -= len(fitted)
        notes += _told(source, difference, recipes, fitted, room)
    search = msgspec.structs.replace(manifest.config.search, start=tuple(start.values()))
    begun = msgspec.structs.replace(
        manifest,
        config=msgspec.structs.replace(manifest.config, search=search),
        observations=_numbered(tuple(observations.values())),
    )
    return begun, tuple(f"Warm start: {note}" for note in notes)


def _difference(source: Source, now: RunManifest) -> str | None:
    """Why the scores of a source cannot be compared with this run's; None if they can be."""
    then = source.manifest
    if then is None:
        return "they were not made by a run with this one's models, prompts and reward"
    digests = [{role: ref.sha256 for role, ref in m.models.items()} for m in (then, now)]
    methods = [
        (m.config.method, m.config.parameters, _listed_values(m.config)) for m in (then, now)
    ]
    ensembles = [m.config.reward.ensemble for m in (then, now)]
    backends = [m.generator.get("backend") for m in (then, now)]
    prompts = [_searched(m.config, seeds=False) for m in (then, now)]
    seeded = [_searched(m.config, seeds=True) for m in (then, now)]
    causes = (
        (digests, "it merged other models"),
        (methods, "it used another method"),
        ([then.reward, now.reward], "it was judged by another reward"),
        (ensembles, "its rewards were put together in another way"),
        (backends, "its images came from another generator"),
        (prompts, "it had other prompts or image settings"),
        (seeded, "its images had other seeds"),
    )
    return next((cause for (was, is_), cause in causes if was != is_), None)


def _listed_values(config: RunConfig) -> dict[str, tuple[ParameterValue, ...]]:
    """The parameters of which the search knows the place of a value in a list."""
    rules = config.search.parameters
    return {name: rule.values for name, rule in rules.items() if rule.values}


def _understood(
    recipes: Sequence[Mapping[str, float]], source: Source, config: RunConfig, space: Space
) -> list[Mapping[str, float]]:
    """The recipes without what means nothing in this run, or something else; those that say
    anything then.

    A parameter of another method may be called the same, and places are places of a list.
    """
    settings = set(config.search.parameters)
    then = source.manifest.config if source.manifest else None
    if then is not None and then.method == config.method:
        was, now = _listed_values(then), _listed_values(config)
        settings = {name for name in settings if was.get(name) != now.get(name)}
    known = [name for name in space.blocks if name.partition(".")[0] not in settings]
    kept = [{name: recipe[name] for name in known if name in recipe} for recipe in recipes]
    return [recipe for recipe in kept if recipe]


def _searched(config: RunConfig, *, seeds: bool) -> Mapping[str, Payload]:
    """What decides the images of the search; their batches only decide last bits."""
    return {
        p.name: msgspec.structs.replace(p, batch_size=1, seeds=p.seeds if seeds else ())
        for p in config.payloads
        if not p.held_out
    }


def _observe(
    source: Source, now: RunManifest, space: Space, observations: dict[Key, Evaluation]
) -> list[str]:
    """Add what a comparable run knows to the observations; the fuller of two equal ones stays."""
    inside = [e for e in as_known(now, source.evaluations) if space.contains(e.weights)]
    for evaluation in inside:
        key = space.key(space.vector(evaluation.weights))
        if key not in observations or _worth(evaluation) > _worth(observations[key]):
            observations[key] = evaluation
    rejected = sum(e.score is None for e in inside)
    notes = []
    if inside:
        count = plural(len(inside), "evaluation")
        note = f"{count} of {source.name} {'counts' if len(inside) == 1 else 'count'} as known"
        notes.append(f"{note}, {rejected} of them rejected." if rejected else f"{note}.")
    outside = len(source.evaluations) - len(inside)
    if outside:
        notes.append(
            f"{plural(outside, 'evaluation')} of {source.name} "
            f"{'lies' if outside == 1 else 'lie'} outside this run's search space."
        )
    assert source.manifest is not None
    then = source.manifest.generator
    changed = sorted(k for k in {*then, *now.generator} if then.get(k) != now.generator.get(k))
    if changed and inside:
        notes.append(
            f"the images of {source.name} were made with another {listed(changed)}: scores may "
            "differ a little from what they would be now."
        )
    return notes


def _worth(evaluation: Evaluation) -> tuple[bool, int]:
    return evaluation.score is not None, evaluation.images


def _own_start(
    manifest: RunManifest, space: Space, observations: Mapping[Key, Evaluation]
) -> tuple[dict[Key, dict[str, float]], list[str]]:
    """The user's start points that are not known, each once."""
    points = [space.point(weights) for weights in manifest.config.search.start]
    keyed = {space.key(space.vector(point)): point for point in points}
    start = {key: point for key, point in keyed.items() if key not in observations}
    known = len(keyed) - len(start)
    if not known:
        return start, []
    return start, [f"{plural(known, 'start point')} of the configuration: scored already."]


class _Fitted(msgspec.Struct, frozen=True):
    """A recipe as a point of the space: blocks moved into their range, blocks under other rules."""

    key: Key
    weights: dict[str, float]
    moved: tuple[str, ...]
    ruled: tuple[str, ...]


def _fit(
    recipes: Sequence[Mapping[str, float]],
    space: Space,
    taken: set[Key],
    most: int,
    distances: Mapping[str, float],
) -> list[_Fitted]:
    """The first of the recipes, distinct and not taken, as points of the space.

    In a block in which the models do not differ, a weight means nothing and is not missed.
    """
    fitted: dict[Key, _Fitted] = {}
    for recipe in recipes:
        if len(fitted) >= most:
            break
        vector = space.filled(recipe)
        key, weights = space.key(vector), space.weights(vector)
        if key not in taken and key not in fitted:
            outside = (vector < space.low - _TOLERANCE) | (vector > space.high + _TOLERANCE)
            fitted[key] = _Fitted(
                key=key,
                weights=weights,
                moved=tuple(n for n, out in zip(space.names, outside, strict=True) if out),
                ruled=tuple(
                    block
                    for block, value in recipe.items()
                    if block not in space.names
                    and distances.get(block)
                    and abs(weights[block] - value) > _TOLERANCE
                ),
            )
    return list(fitted.values())


def _told(
    source: Source,
    difference: str | None,
    recipes: Sequence[Mapping[str, float]],
    fitted: Sequence[_Fitted],
    room: int,
) -> list[str]:
    """Sentences about the recipes of a source."""
    name = source.name
    notes = []
    if source.unusable:
        rows = plural(source.unusable, "row")
        notes.append(f"{rows} of {name} could not be read or had no finite score.")
    if not fitted:
        if difference is not None:
            cause = "the budget has no room" if room <= 0 else "all are known or tried already"
            if not recipes:
                cause = "they say nothing about what this run searches"
            notes.append(f"no recipe of {name} is scored: {cause}.")
        return notes
    are = "is" if len(fitted) == 1 else "are"
    some = plural(len(fitted), "recipe")
    if source.scored and difference is not None:
        best = "the best" if len(fitted) == 1 else f"the {len(fitted)} best"
        notes.append(
            f"{best} of {plural(len(source.recipes), 'recipe')} of {name} {are} scored first. Its "
            f"scores do not count: {difference}."
        )
    elif source.scored:
        notes.append(f"{some} of {name}, moved into it, {are} scored first.")
    elif len(source.recipes) > len(fitted):
        notes.append(
            f"{len(fitted)} of the {len(source.recipes)} recipes of {name} {are} scored first."
        )
    else:
        notes.append(f"{some} of {name} {are} scored first.")
    moved = list(dict.fromkeys(block for fit in fitted for block in fit.moved))
    if moved:
        count = sum(bool(fit.moved) for fit in fitted)
        notes.append(
            f"{plural(count, 'recipe')} of {name} left this run's ranges in {listed(moved)}: moved "
            "to the nearest end."
        )
    ruled = list(dict.fromkeys(block for fit in fitted for block in fit.ruled))
    if ruled:
        follow = "follows" if len(ruled) == 1 else "follow"
        notes.append(f"{listed(ruled)} {follow} this run's rules instead of {name}.")
    return notes


def _numbered(observations: Sequence[Evaluation]) -> tuple[Evaluation, ...]:
    """The observations with the numbers, origin and cost that they have in this run."""
    return tuple(
        msgspec.structs.replace(e, number=at - len(observations), origin=Origin.EARLIER, seconds={})
        for at, e in enumerate(observations)
    )
