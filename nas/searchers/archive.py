"""The best candidate and the front of score against every budgeted metric, kept while a search goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.searchers.base import Proposals
from nas.searchers.candidate import Candidate
from nas.searchers.pareto import nondominated
from nas.searchers.problem.base import Evaluation, Problem
from nas.spec import digest

#: New candidates that wait before they are sorted into the front.
_PATIENCE = 8192


class Archive:
    """Candidates inside the budget that no other beats in score and in every budgeted metric.

    Equal ones give way to the earlier born, so the archive depends only on what was evaluated.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._columns = [problem.metrics.index(metric) for metric in problem.budget.metrics]
        self._individuals = problem.initial()[:0]
        self._values = np.zeros((0, 1 + len(problem.metrics)))
        self._lineage = np.zeros((0, 2), dtype=np.int64)
        self._waiting: list[tuple[npt.NDArray[Any], npt.NDArray[np.float64], npt.NDArray[np.int64]]] = []
        self._top: tuple[float, npt.NDArray[np.float64]] | None = None
        self.closest = np.inf

    def add(self, proposals: Proposals, evaluation: Evaluation, outside: npt.NDArray[np.float64]) -> None:
        """Take in what was evaluated; `outside` is its excess over the budget."""
        if len(outside):
            self.closest = min(self.closest, float(outside.min()))
        inside = np.flatnonzero((outside == 0) & np.isfinite(evaluation.score))
        if len(inside) == 0:
            return
        values = np.column_stack([evaluation.score, evaluation.metrics])[inside]
        lineage = np.stack([proposals.born, proposals.parents], axis=1)[inside]
        first = int(values[:, 0].argmax())
        if self._top is None or values[first, 0] > self._top[0]:
            self._top = (float(values[first, 0]), values[first])
        self._waiting.append((proposals.individuals[inside], values, lineage))
        if sum(len(item[2]) for item in self._waiting) >= _PATIENCE:
            self._settle()

    def best_metrics(self) -> dict[str, float] | None:
        """Score and metrics of the best candidate so far."""
        if self._top is None:
            return None
        return dict(zip(("score", *self._problem.metrics), self._top[1].tolist(), strict=True))

    def best(self) -> Candidate | None:
        """The candidate with the highest score; of equal ones the cheapest by the first limit, then the elder."""
        front = self.front()
        return front[0] if front else None

    def front(self) -> list[Candidate]:
        """The front, highest score first."""
        self._settle()
        order = np.lexsort((self._lineage[:, 0], *self._values[:, 1:].T[self._columns[::-1]], -self._values[:, 0]))
        return [self._candidate(row) for row in order]

    def state(self) -> dict[str, npt.NDArray[Any]]:
        self._settle()
        return {
            "archive.individuals": self._problem.pack(self._individuals),
            "archive.values": self._values,
            "archive.lineage": self._lineage,
            "archive.closest": np.array([self.closest]),
        }

    def restore(self, stored: Mapping[str, npt.NDArray[Any]]) -> None:
        self._individuals = self._problem.unpack(stored["archive.individuals"])
        self._values, self._lineage = stored["archive.values"], stored["archive.lineage"]
        self.closest = float(stored["archive.closest"][0])
        if len(self._values):
            row = self._values[self._values[:, 0].argmax()]
            self._top = (float(row[0]), row)

    def _candidate(self, row: int) -> Candidate:
        spec = self._problem.spec(self._individuals[row])
        metrics = dict(zip(("score", *self._problem.metrics), self._values[row].tolist(), strict=True))
        born, parent = self._lineage[row].tolist()
        return Candidate(spec, digest(spec), metrics, parent, born)

    def _settle(self) -> None:
        """Merge what waits into the front."""
        if not self._waiting:
            return
        individuals, values, lineage = zip(*self._waiting, strict=True)
        self._waiting = []
        self._individuals = np.concatenate([self._individuals, *individuals])
        self._values = np.concatenate([self._values, *values])
        self._lineage = np.concatenate([self._lineage, *lineage])
        costs = self._values[:, 1:][:, self._columns]
        order = np.argsort(self._lineage[:, 0], kind="stable")
        keep = np.sort(order[nondominated(np.column_stack([-self._values[:, 0], costs])[order])])
        self._individuals, self._values, self._lineage = (
            self._individuals[keep],
            self._values[keep],
            self._lineage[keep],
        )
