"""The costs of every residual block that a position can hold, as sums of small tables over pairs of widths.

Each operation of a residual unit sees at most two of the block's input, bottleneck and output widths, so the costs of a block
split into tables over pairs (a functional ANOVA with a fixed base point):

    first unit  F(i, b, o) = F(i, b, o') + [F(i', b, o) - F(i', b, o')] + [rest of (i, o)]      for i != o
                F(o, b, o) = E(b, o)                                                    (no projection: its own table)
    block       V(i, b, o, L) = F(i, b, o) + (L - 1) R(b, o)

The amount that a score counts grows with the depth as the score's formula says (`Formula.repeats`), in the place of L - 1.
A few thousand blocks priced one by one then stand for millions, and a generation is priced by a few array look-ups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nas.errors import UserError
from nas.searchers.problem import AMOUNT, Array
from search_spaces.streams import Integers

#: (input, bottleneck, out, depth) of a block.
Point = tuple[int, int, int, int]
#: Cost vectors (n, columns) of n blocks.
Cost = Callable[[Sequence[Point]], Array]


class Inseparable(UserError):
    """The costs of a block family do not split into pairs of widths."""


class _Pairs:
    """A table over two widths whose missing cells are computed when they are first asked for."""

    def __init__(
        self, cost: Callable[[Sequence[tuple[int, int]]], Array], rows: Integers, columns: Integers, width: int
    ) -> None:
        self._cost = cost
        self._rows, self._columns = rows, columns
        self._stride = len(columns)
        self._cells = np.zeros((len(rows) * len(columns), width))
        self._known = np.zeros(len(rows) * len(columns), dtype=bool)

    def __call__(self, rows: Integers, columns: Integers) -> Array:
        """(..., width) costs at row and column numbers."""
        cells = rows * self._stride + columns
        missing = ~self._known[cells]
        if missing.any():
            new = np.unique(cells[missing])
            pairs = [(int(self._rows[c // self._stride]), int(self._columns[c % self._stride])) for c in new]
            self._cells[new] = self._cost(pairs)
            self._known[new] = True
        return self._cells[cells]


class BlockTable:
    """Cost vectors of the residual blocks of one position and one kernel.

    inputs, mids, outs: the widths that can occur, increasing; cost: prices (input, bottleneck, out, depth) points
    one by one; repeats: how often the second unit's amount stands behind the first, by the depth. `probe` compares the
    tables with direct prices at random blocks.
    """

    def __init__(
        self,
        cost: Cost,
        inputs: Sequence[int],
        mids: Sequence[int],
        outs: Sequence[int],
        width: int,
        repeats: Sequence[float],
    ) -> None:
        self.cost = cost
        self._repeats = np.array(repeats)
        self._linear = bool((self._repeats[1:] == np.arange(len(repeats) - 1)).all())
        self.inputs, self.mids, self.outs = (np.asarray(values, dtype=np.int64) for values in (inputs, mids, outs))
        # A base point off the channel grid: an input and an output that differ from each other and from every width.
        base_in, base_mid, base_out = int(inputs[0]) + 1, int(mids[0]), int(outs[-1]) - 1
        if base_in == base_out or base_in in set(outs) or base_out in set(inputs):
            base_in, base_out = int(max(inputs[-1], outs[-1])) + 1, int(max(inputs[-1], outs[-1])) + 2

        known: dict[tuple[int, int, int], Array] = {}

        def first(points: Sequence[tuple[int, int, int]]) -> Array:
            new = [point for point in dict.fromkeys(points) if point not in known]
            if new:
                known.update(zip(new, cost([(*point, 1) for point in new]), strict=True))
            return np.array([known[point] for point in points])

        corner = first([(base_in, base_mid, base_out)])
        self._reduce = _Pairs(lambda ps: first([(i, b, base_out) for i, b in ps]), self.inputs, self.mids, width)
        self._expand = _Pairs(
            lambda ps: first([(base_in, b, o) for b, o in ps]) - first([(base_in, b, base_out) for b, _ in ps]),
            self.mids,
            self.outs,
            width,
        )
        self._project = _Pairs(
            lambda ps: (
                first([(i, base_mid, o) for i, o in ps])
                - first([(i, base_mid, base_out) for i, _ in ps])
                - first([(base_in, base_mid, o) for _, o in ps])
                + corner
            ),
            self.inputs,
            self.outs,
            width,
        )
        self._equal = _Pairs(lambda ps: first([(o, b, o) for b, o in ps]), self.mids, self.outs, width)
        self._repeat = _Pairs(
            lambda ps: cost([(base_in, b, o, 2) for b, o in ps]) - first([(base_in, b, o) for b, o in ps]),
            self.mids,
            self.outs,
            width,
        )

    def first_unit(self, i: Integers, b: Integers, o: Integers) -> Array:
        """(n, width) costs of blocks of depth 1, by the numbers of their input, bottleneck and output widths."""
        same = self.inputs[i] == self.outs[o]
        if not same.any():
            return self._reduce(i, b) + self._expand(b, o) + self._project(i, o)
        result = np.empty((len(i), self._repeat._cells.shape[1]))
        result[same] = self._equal(b[same], o[same])
        i, b, o = i[~same], b[~same], o[~same]
        result[~same] = self._reduce(i, b) + self._expand(b, o) + self._project(i, o)
        return result

    def later_unit(self, b: Integers, o: Integers) -> Array:
        """(n, width) costs of one more unit."""
        return self._repeat(b, o)

    def __call__(self, i: Integers, b: Integers, o: Integers, depth: Integers) -> Array:
        """(n, width) costs of whole blocks."""
        return self.whole(self.first_unit(i, b, o), self.later_unit(b, o), depth)

    def whole(self, first: Array, later: Array, depth: Integers) -> Array:
        """(n, width) costs of blocks of these depths, from those of their first and of a later unit."""
        result: Array = first + (depth - 1)[:, None] * later
        if not self._linear:
            result[:, AMOUNT] = first[:, AMOUNT] + self._repeats[depth] * later[:, AMOUNT]
        return result

    def probe(self, depths: Sequence[int], count: int = 24) -> None:
        """Raise UserError if tables and direct prices differ at random blocks: the family does not split into pairs."""
        rng = np.random.default_rng(0)
        i, b, o = (rng.integers(len(axis), size=count) for axis in (self.inputs, self.mids, self.outs))
        depth = rng.choice(np.asarray(depths, dtype=np.int64), size=count)
        points = list(
            zip(self.inputs[i].tolist(), self.mids[b].tolist(), self.outs[o].tolist(), depth.tolist(), strict=True)
        )
        direct = self.cost(points)
        if not np.allclose(self(i, b, o, depth), direct, rtol=1e-9, atol=1e-9 * np.abs(direct).max()):
            raise Inseparable(
                "the costs of this block family do not split into pairs of widths; use a general searcher"
            )
