"""The best member that is known of a space with widths on grids, and the members beside one that are tried."""

from __future__ import annotations

from itertools import product

import numpy as np

from nas.searchers.base import admitted
from nas.searchers.exact.grids import GridProblem
from nas.searchers.exact.parts import Integers


class Incumbent:
    """The best of all gene rows that were offered: rows (1, genes), none before anything fits, and its score."""

    def __init__(self, problem: GridProblem, start: Integers) -> None:
        self._problem, self.rows, self.score = problem, start[:0], -np.inf
        self._outs = [np.array(problem.outs(index)) for index in range(problem.blocks)]
        self._has = [problem.allowed(index)[1] for index in range(problem.blocks)]
        self._depths = [int(problem.variants(index)[:, 1].max()) for index in range(problem.blocks)]
        if len(start):
            self._offer(start)

    def improve(self, rows: Integers) -> bool:
        """Take the best of the rows inside the budget, if it is better, and what is better beside it; whether any is
        inside."""
        better, fits = self._offer(rows)
        while better is not None:
            better, _ = self._offer(self._around(better))
        return fits

    def _offer(self, rows: Integers) -> tuple[Integers | None, bool]:
        """Take the best of gene rows inside the budget, and tell it if it beats what is known; whether any is inside."""
        evaluation = self._problem.evaluate(rows)
        inside = admitted(self._problem.budget, self._problem.metrics, evaluation)
        inside &= rows[:, 4::4].sum(axis=1) <= self._problem.most_units
        row = int(np.where(inside, evaluation.score, -np.inf).argmax())
        if not inside[row] or evaluation.score[row] <= self.score:
            return None, bool(inside[row])
        self.rows, self.score = rows[row : row + 1], float(evaluation.score[row])
        return rows[row], True

    def _around(self, row: Integers) -> Integers:
        """Members that differ by one unit of every block, or by one step of every bottleneck, at most."""
        steps = np.array(list(product((-1, 0, 1), repeat=self._problem.blocks)))
        deeper, wider = np.tile(row, (len(steps), 1)), np.tile(row, (len(steps), 1))
        for index in range(self._problem.blocks):
            mids = self._problem.mids(index)
            mids = mids[self._has[index][np.searchsorted(self._outs[index], row[4 * index + 1])]]
            deeper[:, 4 * index + 4] = np.clip(row[4 * index + 4] + steps[:, index], 1, self._depths[index])
            place = np.searchsorted(mids, row[4 * index + 2]) + steps[:, index]
            wider[:, 4 * index + 2] = mids[np.clip(place, 0, len(mids) - 1)]
        return np.concatenate([deeper, wider])
