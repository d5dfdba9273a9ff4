"""The pairwise tree: winners of one level meet at the next, and the clearly worse leave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib_automerge.app.chain_plan import ChainPlan, paired, staying
from lib_automerge.app.chain_record import ChainRecord
from lib_automerge.app.chain_steps import Workshop
from lib_automerge.app.chain_studio import Studio
from lib_automerge.domain.chain import TreeStep, winner_name
from lib_automerge.domain.chain_events import Compared, Paired, Purpose, Ranked, Removed, StepDone
from lib_automerge.errors import ConfigError

POOL_LEVEL = 0
"""The level of the models that a tree begins with."""


class Tree:
    """Goes through a tree, from wherever the journal stands.

    Args:
        step: the tree.
        place: folder for its runs.
        plan: of the chain.
        record: takes every event.
        studio: makes and judges images.
        workshop: searches.
    """

    def __init__(
        self,
        step: TreeStep,
        place: Path,
        plan: ChainPlan,
        record: ChainRecord,
        studio: Studio,
        workshop: Workshop,
    ) -> None:
        self._step = step
        self._place = place
        self._plan = plan
        self._record = record
        self._studio = studio
        self._workshop = workshop
        self._pool = plan.models(step.models, record.state)

    def run(self) -> StepDone:
        """Go on until one model is left, and compare it with the best of the pool.

        Raises:
            StopRequested: the user asked.
            AutomergeError: a search could not go on, or no model makes whole images.
        """
        current = self._ranked(POOL_LEVEL, self._pool)
        level = POOL_LEVEL
        while len(current) > 1:
            level += 1
            winners = self._level(level, current)
            current = self._ranked(level, winners) if len(winners) > 1 else winners
            self._tidy(level, current)
        return self._conclusion(current[0])

    def _ranked(self, level: int, models: Sequence[str]) -> tuple[str, ...]:
        """Who goes on of the models of a level, the best first."""
        known = self._record.state.ranked.get((self._step.name, level))
        if known is not None:
            return known.kept
        self._studio.score(models, Purpose.RANK)
        standings = self._studio.ranking(models, self._pool)
        if level == POOL_LEVEL:
            kept = tuple(s.model for s in standings if s.mean is not None)
        else:
            kept = staying(self._step, standings)
        self._record.add(Ranked(step=self._step.name, standings=standings, kept=kept, level=level))
        return kept

    def _level(self, level: int, models: Sequence[str]) -> tuple[str, ...]:
        """Search every pair of a level; returns the winners in the order of their pairs."""
        name = self._step.name
        known = self._record.state.paired.get((name, level))
        if known is None:
            pairs, bye = paired(models)
            known = Paired(step=name, level=level, pairs=pairs, bye=bye)
            self._record.add(known)
        winners = []
        for number, (a, b) in enumerate(known.pairs, start=1):
            self._studio.show((a, b))
            place = self._place / f"level-{level}-pair-{number}"
            merge = winner_name(self._step, level, number)
            decided = self._workshop.search(self._step, {"a": a, "b": b}, place, merge, level=level)
            self._studio.show((decided.model,))
            winners.append(decided.model)
        return (*winners, *([] if known.bye is None else [known.bye]))

    def _tidy(self, level: int, current: Sequence[str]) -> None:
        """Remove the merges that have left the tree by a level, if they are not to be kept.

        What later levels made, before this process took the tree up, is left alone.
        """
        if self._plan.config.keep_intermediate:
            return
        state = self._record.state
        for decided in [*state.decided.values()]:
            mine = decided.step == self._step.name and (decided.level or 0) <= level
            settled = decided.model in current or decided.model in state.removed
            if mine and decided.gain and not settled:
                self._workshop.remove(decided.model)
                self._record.add(Removed(model=decided.model))

    def _conclusion(self, winner: str) -> StepDone:
        """The last winner against the best of the pool, on images that nobody saw."""
        name = self._step.name
        best = self._record.state.ranked[name, POOL_LEVEL].kept[0]
        if winner == best:
            said = (
                f"No merge of the tree was proved better than the best model of the pool, {best}, "
                "which is the result."
            )
            return StepDone(step=name, models=(best,), sentence=said)
        compared = self._record.state.compared.get(name)
        if compared is None:
            self._studio.score((winner, best), Purpose.FINAL)
            try:
                compared = self._compared(winner, best)
            except ConfigError as error:
                said = f"{winner} cannot be compared with the pool's best model: {error}"
                return StepDone(
                    step=name, models=(best,), sentence=f"{said} So {best} is the result."
                )
            self._record.add(compared)
        chosen = winner if compared.gain else best
        return StepDone(step=name, models=(chosen,), sentence=compared.sentence)

    def _compared(self, winner: str, best: str) -> Compared:
        found, means = self._studio.comparison(winner, best, self._pool)
        broken = self._studio.broken(winner, Purpose.FINAL)
        gain = found.p_value < 0.05 and found.difference > 0 and broken is None
        unseen = "prompts and seeds" if self._plan.reserved else "seeds"
        where = f"{found.pairs} images of {unseen} that no step saw"
        apart = f"{found.difference:+.3f} ± {found.standard_error:.3f}"
        if gain:
            said = f"Better: on {where}, {winner} beats the pool's best model, {best}, by {apart}."
        else:
            why = f"differs from the pool's best model, {best}, by {apart}"
            if broken is not None:
                why = f"makes a {broken} image"
            said = f"No significant gain: on {where}, {winner} {why}. So {best} is the result."
        return Compared(
            step=self._step.name,
            winner=winner,
            best=best,
            difference=found.difference,
            standard_error=found.standard_error,
            low=found.low,
            high=found.high,
            p_value=found.p_value,
            pairs=found.pairs,
            held_out=self._plan.reserved,
            gain=gain,
            sentence=said,
            means=means,
        )
