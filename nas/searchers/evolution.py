"""Searchers over arrays, that are asked and told: random search, evolution, and NSGA-II.

Evolution after MAE-DET (arXiv 2111.13336, algorithm 1): a truncated population, coarse moves, then minor ones. Ours
beside the paper: crossover, a generation at a time, infeasible individuals ranked by how far they are outside (Deb,
2000), so that a search may start outside a tight budget.
NSGA-II (Deb et al., IEEE TEC 2002): the front of score against every budgeted metric, for objectives of microseconds;
costly ones are searched with Optuna's (`nas.searchers.optuna`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

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

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Nothing to go back to."""


def first_draws(problem: Problem, keys: Words, first: int) -> Proposals:
    """Proposals from number `first` on before anything is known: what every search starts from, then random draws."""
    individuals, start, count = problem.sample(keys), problem.initial(), len(keys)
    given = max(0, min(len(start) - first, count))
    individuals[:given] = start[first : first + given]
    return Proposals(individuals, np.arange(first, first + count), np.full(count, -1))


class Evolution:
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
        self._problem, self._seed, self._size = problem, seed, population
        self._crossover, self._minor_from = crossover, minor_from
        self._told, self._rounds = 0, 1
        self._individuals: Individuals = problem.initial()[:0]
        self._score = np.zeros(0)
        self._excess = np.zeros(0)
        self._born = np.zeros(0, dtype=np.int64)

    def ask(self, first: int, count: int) -> Proposals:
        keys = candidate_keys(self._seed, first, count)
        born = np.arange(first, first + count)
        if len(self._born) < 2:
            return first_draws(self._problem, keys, first)
        stream = Stream(mix(keys))
        mothers = stream.below(len(self._born))
        fathers = stream.below(len(self._born))
        crossed = stream.chance(self._crossover)
        changed = ~crossed | stream.chance(0.5)
        minor = np.zeros(count, dtype=bool)
        if self._minor_from is not None and self._told >= self._minor_from:
            minor = stream.chance(0.5)
        individuals = self._individuals[mothers]
        if crossed.any():
            individuals[crossed] = self._problem.crossover(
                individuals[crossed], self._individuals[fathers[crossed]], keys[crossed]
            )
        for small in (False, True):
            rows = changed & (minor == small)
            if rows.any():
                for turn in range(1, self._rounds + 1):
                    fresh = mix(keys[rows] ^ np.uint64(turn))
                    individuals[rows] = self._problem.mutate(individuals[rows], fresh, small)
        return Proposals(individuals, born, self._born[mothers])

    def tell(self, proposals: Proposals, evaluation: Evaluation) -> None:
        self._told += len(proposals)
        new = len(proposals) / self.batch
        self._rounds = min(self._rounds + 1, _MOST_ROUNDS) if new < 0.4 else max(self._rounds - (new > 0.8), 1)
        individuals = np.concatenate([self._individuals, proposals.individuals])
        score = np.concatenate([self._score, np.nan_to_num(evaluation.score, nan=-np.inf)])
        outside = np.concatenate([self._excess, excess(self._problem, evaluation)])
        born = np.concatenate([self._born, proposals.born])
        best = np.lexsort((born, -score, outside))[: self._size]
        self._individuals, self._score = individuals[best], score[best]
        self._excess, self._born = outside[best], born[best]

    def state(self) -> Arrays:
        return {
            "individuals": self._individuals,
            "score": self._score,
            "excess": self._excess,
            "born": self._born,
            "counts": np.array([self._told, self._rounds]),
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        self._individuals, self._score = state["individuals"], state["score"]
        self._excess, self._born = state["excess"], state["born"]
        self._told, self._rounds = (int(value) for value in state["counts"])


class Nsga2:
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
        self._problem, self._seed, self._crossover = problem, seed, crossover
        self._columns = [problem.metrics.index(metric) for metric in problem.budget.metrics]
        self._individuals: Individuals = problem.initial()[:0]
        self._points = np.zeros((0, 1 + len(self._columns)))
        self._excess = np.zeros(0)
        self._born = np.zeros(0, dtype=np.int64)

    def ask(self, first: int, count: int) -> Proposals:
        keys, born = candidate_keys(self._seed, first, count), np.arange(first, first + count)
        if len(self._born) < 2:
            return first_draws(self._problem, keys, first)
        stream = Stream(mix(keys))
        mothers, fathers = (self._winners(stream) for _ in range(2))
        crossed = stream.chance(self._crossover)
        individuals = self._individuals[mothers]
        if crossed.any():
            individuals[crossed] = self._problem.crossover(
                individuals[crossed], self._individuals[fathers[crossed]], keys[crossed]
            )
        individuals = self._problem.mutate(individuals, mix(keys ^ np.uint64(1)), False)
        return Proposals(individuals, born, self._born[mothers])

    def tell(self, proposals: Proposals, evaluation: Evaluation) -> None:
        score = np.nan_to_num(evaluation.score, nan=-np.inf)
        points = np.column_stack([-score, evaluation.metrics[:, self._columns]])
        individuals = np.concatenate([self._individuals, proposals.individuals])
        points = np.concatenate([self._points, points])
        outside = np.concatenate([self._excess, excess(self._problem, evaluation)])
        born = np.concatenate([self._born, proposals.born])
        chosen = survivors(points, outside, self.batch)
        self._individuals, self._points = individuals[chosen], points[chosen]
        self._excess, self._born = outside[chosen], born[chosen]

    def state(self) -> Arrays:
        return {
            "individuals": self._individuals,
            "points": self._points,
            "excess": self._excess,
            "born": self._born,
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        self._individuals, self._points = state["individuals"], state["points"]
        self._excess, self._born = state["excess"], state["born"]

    def _winners(self, stream: Stream) -> Rows:
        """The better of two random members each: survivors are kept best first, so the lower number wins."""
        return np.minimum(stream.below(len(self._born)), stream.below(len(self._born)))
