"""Searchers over arrays, that are asked and told: random search, evolution, and NSGA-II.

Evolution after MAE-DET (arXiv 2111.13336, algorithm 1): a truncated population, coarse moves, then minor ones. Ours
beside the paper: crossover, a generation at a time, infeasible individuals ranked by how far they are outside (Deb,
2000), so that a search may start outside a tight budget.
NSGA-II (Deb et al., IEEE TEC 2002): the front of score against every budgeted metric, for objectives of microseconds;
costly ones are searched with Optuna's (`nas.searchers.optuna`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le

from nas.options import CountOrNone, Share
from nas.searchers.base import Arrays, Evaluation, Individuals, Problem, Proposals, excess
from nas.searchers.pareto import Rows, survivors
from search_spaces.streams import Stream, Words, candidate_keys, mix

#: The most mutations in a row that duplicates can lead to.
_MOST_ROUNDS = 6


class RandomSearch:
    """Draws every proposal afresh from the space."""

    def __init__(
        self, problem: Problem, seed: int = 0, batch: Annotated[int, Ge(1), Le(1_000_000)] | None = None
    ) -> None:
        self.batch = batch or (2048 if problem.generous else 64)
        self._problem, self._seed = problem, seed

    def ask(self, first: int, count: int) -> Proposals:
        individuals = self._problem.sample(candidate_keys(self._seed, first, count))
        return Proposals(individuals, np.arange(first, first + count), np.full(count, -1))

    def tell(self, proposals: Proposals, evaluation: Evaluation) -> None:
        """Nothing is learnt."""

    def state(self) -> Arrays:
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Nothing to go back to."""


def first_draws(problem: Problem, keys: Words, first: int) -> Proposals:
    """Proposals from number `first` on before anything is known: what every search starts from, then random draws."""
    individuals, start, count = problem.sample(keys), problem.initial(), len(keys)
    given = max(0, min(len(start) - first, count))
    individuals[:given] = start[first : first + given]
    return Proposals(individuals, np.arange(first, first + count), np.full(count, -1))


class _Population:
    """The individuals that a searcher keeps, each with its excess over the budget, its birth and the searcher's own column."""

    def __init__(self, problem: Problem, seed: int, crossover: float, **own: np.ndarray) -> None:
        self._problem, self._seed, self._crossover = problem, seed, crossover
        born = np.zeros(0, dtype=np.int64)
        self._kept: Arrays = {"individuals": problem.initial()[:0], "excess": np.zeros(0), "born": born, **own}

    def _joined(self, proposals: Proposals, evaluation: Evaluation, **own: np.ndarray) -> Arrays:
        """What is kept, and behind it what was told."""
        told = {
            "individuals": proposals.individuals,
            "excess": excess(self._problem, evaluation),
            "born": proposals.born,
        }
        return {name: np.concatenate([self._kept[name], column]) for name, column in (told | own).items()}

    def _keep(self, joined: Arrays, rows: Rows) -> None:
        self._kept = {name: column[rows] for name, column in joined.items()}

    def _crossed(self, mothers: Rows, fathers: Rows, crossed: npt.NDArray[np.bool_], keys: Words) -> Individuals:
        """The mothers; those that are `crossed`, with their fathers."""
        individuals = self._kept["individuals"][mothers]
        if crossed.any():
            others = self._kept["individuals"][fathers[crossed]]
            individuals[crossed] = self._problem.crossover(individuals[crossed], others, keys[crossed])
        return individuals

    def state(self) -> Arrays:
        return dict(self._kept)

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._kept = {name: state[name] for name in self._kept}


class Evolution(_Population):
    """Keeps the best `population` distinct individuals; each proposal changes a uniformly drawn one of them.

    crossover: share of proposals that are first crossed with a second parent. minor_from: number of evaluations told
    after which only widths move, by small steps, in half of the proposals. batch: proposals of one generation; unless
    told, four times the population, or an eighth of it where evaluations are costly. Where most of a generation was
    seen before, the next is changed more than once.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int = 0,
        population: Annotated[int, Ge(2), Le(1_000_000)] = 512,
        crossover: Share = 0.3,
        minor_from: CountOrNone | None = 50_000,
        batch: Annotated[int, Ge(1), Le(1_000_000)] | None = None,
    ) -> None:
        self.batch = batch or (4 * population if problem.generous else max(population // 8, 16))
        super().__init__(problem, seed, crossover, score=np.zeros(0))
        self._size, self._minor_from = population, minor_from
        self._told, self._rounds = 0, 1

    def ask(self, first: int, count: int) -> Proposals:
        keys = candidate_keys(self._seed, first, count)
        born, size = np.arange(first, first + count), len(self._kept["born"])
        if size < 2:
            return first_draws(self._problem, keys, first)
        stream = Stream(mix(keys))
        mothers, fathers = stream.below(size), stream.below(size)
        crossed = stream.chance(self._crossover)
        changed = ~crossed | stream.chance(0.5)
        minor = np.zeros(count, dtype=bool)
        if self._minor_from is not None and self._told >= self._minor_from:
            minor = stream.chance(0.5)
        individuals = self._crossed(mothers, fathers, crossed, keys)
        for small in (False, True):
            rows = changed & (minor == small)
            if rows.any():
                for turn in range(1, self._rounds + 1):
                    fresh = mix(keys[rows] ^ np.uint64(turn))
                    individuals[rows] = self._problem.mutate(individuals[rows], fresh, small)
        return Proposals(individuals, born, self._kept["born"][mothers])

    def tell(self, proposals: Proposals, evaluation: Evaluation) -> None:
        self._told += len(proposals)
        new = len(proposals) / self.batch
        self._rounds = min(self._rounds + 1, _MOST_ROUNDS) if new < 0.4 else max(self._rounds - (new > 0.8), 1)
        score = np.nan_to_num(evaluation.score, nan=-np.inf)
        joined = self._joined(proposals, evaluation, score=score)
        self._keep(joined, np.lexsort((joined["born"], -joined["score"], joined["excess"]))[: self._size])

    def state(self) -> Arrays:
        return super().state() | {"counts": np.array([self._told, self._rounds])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        super().restore(state)
        self._told, self._rounds = (int(value) for value in state["counts"])


class Nsga2(_Population):
    """Keeps `population` individuals, spread over the front; parents win binary tournaments of rank and crowding.

    crossover: share of proposals that are crossed before they are changed.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int = 0,
        population: Annotated[int, Ge(4), Le(10_000)] = 512,
        crossover: Share = 0.5,
    ) -> None:
        self.batch = population
        self._columns = [problem.metrics.index(metric) for metric in problem.budget.metrics]
        super().__init__(problem, seed, crossover, points=np.zeros((0, 1 + len(self._columns))))

    def ask(self, first: int, count: int) -> Proposals:
        keys, born = candidate_keys(self._seed, first, count), np.arange(first, first + count)
        if len(self._kept["born"]) < 2:
            return first_draws(self._problem, keys, first)
        stream = Stream(mix(keys))
        mothers, fathers = (self._winners(stream) for _ in range(2))
        individuals = self._crossed(mothers, fathers, stream.chance(self._crossover), keys)
        individuals = self._problem.mutate(individuals, mix(keys ^ np.uint64(1)), False)
        return Proposals(individuals, born, self._kept["born"][mothers])

    def tell(self, proposals: Proposals, evaluation: Evaluation) -> None:
        score = np.nan_to_num(evaluation.score, nan=-np.inf)
        points = np.column_stack([-score, evaluation.metrics[:, self._columns]])
        joined = self._joined(proposals, evaluation, points=points)
        self._keep(joined, survivors(joined["points"], joined["excess"], self.batch))

    def _winners(self, stream: Stream) -> Rows:
        """The better of two random members each: survivors are kept best first, so the lower number wins."""
        size = len(self._kept["born"])
        return np.minimum(stream.below(size), stream.below(size))
