"""NSGA-II (Deb et al., IEEE TEC 2002) over arrays: the front of score against every budgeted metric.

For objectives of microseconds; costly ones are searched with Optuna's (`optuna_search`). Individuals outside the budget
are dominated by those nearer to it (Deb, 2000).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le

from nas.options import Share
from nas.searchers.base import Arrays, Proposals
from nas.searchers.problem.base import Evaluation, Individuals, Problem, excess
from search_spaces.streams import Integers, Stream, candidate_keys, mix

Array = npt.NDArray[np.float64]


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
            individuals, start = self._problem.sample(keys), self._problem.initial()
            given = max(0, min(len(start) - first, count))
            individuals[:given] = start[first : first + given]
            return Proposals(individuals, born, np.full(count, -1))
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

    def _winners(self, stream: Stream) -> Integers:
        """The better of two random members each: survivors are kept best first, so the lower number wins."""
        return np.minimum(stream.below(len(self._born)), stream.below(len(self._born)))


def survivors(points: Array, outside: Array, count: int) -> Integers:
    """Rows of the best `count` points (all columns to be minimised), best first: by rank, then by crowding distance."""
    rows = np.arange(len(points))
    chosen: list[Integers] = []
    taken = 0
    inside = rows[outside == 0]
    for front in ranks(points[inside], count):
        members = inside[front]
        members = members[np.argsort(-crowding(points[members]), kind="stable")]
        chosen.append(members[: count - taken])
        taken += len(chosen[-1])
        if taken == count:
            break
    if taken < count:
        beyond = rows[outside > 0]
        chosen.append(beyond[np.argsort(outside[beyond], kind="stable")][: count - taken])
    return np.concatenate(chosen)


def ranks(points: Array, enough: int) -> list[Integers]:
    """Rows of the successive fronts of points, until at least `enough` rows are in one."""
    if len(points) == 0:
        return []
    no_worse = np.ones((len(points), len(points)), dtype=bool)
    better = np.zeros_like(no_worse)
    for column in points.T:
        no_worse &= column[:, None] <= column[None, :]
        better |= column[:, None] < column[None, :]
    dominates = no_worse & better
    beaten = dominates.sum(axis=0)
    fronts, taken = [], 0
    while taken < min(enough, len(points)):
        front = np.flatnonzero(beaten == 0)
        fronts.append(front)
        taken += len(front)
        beaten = beaten - dominates[front].sum(axis=0)
        beaten[front] = -1
    return fronts


def crowding(points: Array) -> Array:
    """Crowding distance of the points of one front: the extremes of every column are infinitely apart."""
    distance = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        ranked = column[order]
        span = ranked[-1] - ranked[0]
        distance[order[[0, -1]]] = np.inf
        if span > 0 and len(points) > 2:
            distance[order[1:-1]] += (ranked[2:] - ranked[:-2]) / span
    return distance
