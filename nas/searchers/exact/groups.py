"""Spaces whose grids are too fine to price every block: widths in groups, halved where the optimum can still lie.

A box is all blocks of one kernel and depth whose input, bottleneck and output widths lie in three groups. Where costs and
amounts are monotone in widths, the corners of a box tell the least that its blocks cost and the most that they score. With
the limits as prices (Lagrange multipliers) a path through boxes has a bound, which every member in them keeps; the prices
are those of the lowest bound. Boxes on no path above the best that is known go, the others are halved. Where the groups
are single widths at last, the blocks that are left are few enough for exact search to go on with (`Narrowed`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from nas.errors import UserError
from nas.searchers.base import admitted
from nas.searchers.exact.effort import Effort
from nas.searchers.exact.parts import ChainProblem, Integers, Pricing, logs_of
from nas.searchers.problem import Array

Mask = npt.NDArray[np.bool_]

#: Blocks of one position that are priced one by one, and states of a chain that are told apart.
_MOST_BLOCKS, _MOST_STATES = 1_000_000, 1_000_000
#: Boxes of one position that are kept: of more, those whose paths promise most.
MOST_BOXES = 60_000
#: Boxes that are priced at a time, and the steps of the effort that one takes.
_CHUNK, _STEPS = 100_000, 40
#: Turns in which the price of one limit is sought, and rounds over several limits.
_TURNS, _ROUNDS = 12, 3
#: Members of a path that are looked at for one inside the budget.
_HALVINGS = 6
#: Share of a score or a limit that sums in other orders may differ by.
HAIR = 1e-9


@runtime_checkable
class GridProblem(ChainProblem, Protocol):
    """What is asked of a problem whose blocks have widths on grids."""

    @property
    def monotone(self) -> bool:
        """Whether every limited cost rises, and the score's amount only rises or only falls, with the widths of a block."""

    def mids(self, index: int) -> Integers:
        """Bottlenecks that block `index` can take, increasing."""

    def variants(self, index: int) -> Integers:
        """(n, 2) kernels and depths that block `index` can take."""

    def allowed(self, index: int) -> tuple[Mask, Mask]:
        """Which widths may follow which (ins, outs), and which bottlenecks a width may have (outs, mids)."""

    def block_vectors(
        self, index: int, kernel: Integers, before: Integers, mid: Integers, after: Integers, depth: Integers
    ) -> Array:
        """(n, width) vectors of blocks, by the numbers of their widths."""


class Narrowed:
    """A problem of which only some blocks are left. blocks: (n, 5) numbers of input, bottleneck and output width, kernel and
    depth, by position."""

    def __init__(self, problem: GridProblem, widths: list[Integers], blocks: list[Integers]) -> None:
        self._problem, self._full, self._blocks = problem, widths, blocks
        used = [np.unique(blocks[0][:, 0]), *(np.unique(rows[:, 2]) for rows in blocks)]
        self._used = [np.intersect1d(here, rows[:, 0]) for here, rows in zip(used, blocks, strict=False)] + used[-1:]
        self.stem_widths = tuple(widths[0][self._used[0]].tolist())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._problem, name)

    def outs(self, index: int) -> tuple[int, ...]:
        return tuple(self._full[index + 1][self._used[index + 1]].tolist())

    def check_size(self, most: int) -> None:
        """Whatever is left is few."""

    def priced(
        self, index: int, ins: Integers, outs: Integers
    ) -> Iterator[tuple[Integers, Integers, Integers, Integers, Array]]:
        rows, before, after = self._blocks[index], self._used[index], self._used[index + 1]
        rows = rows[np.isin(rows[:, 0], before) & np.isin(rows[:, 2], after)]
        i, m, o, kernel, depth = rows.T
        choice = np.stack([self._problem.mids(index)[m], kernel, depth], axis=1)
        vectors = self._problem.block_vectors(index, kernel, i, m, o, depth)
        yield np.searchsorted(before, i), np.searchsorted(after, o), choice, depth, vectors


@dataclass(frozen=True)
class Axis:
    """Widths, increasing, in groups: numbers of the first and of the last of each."""

    values: Integers
    low: Integers
    high: Integers

    @classmethod
    def of(cls, values: Integers) -> Axis:
        return cls(values, np.zeros(1, dtype=np.int64), np.array([len(values) - 1]))

    @property
    def single(self) -> bool:
        return bool((self.low == self.high).all())

    def halved(self) -> tuple[Axis, Integers]:
        """Groups split at the geometric mean of their ends, and the number of the first half of each."""
        middle = np.sqrt(self.values[self.low].astype(float) * self.values[self.high])
        cut = np.clip(np.searchsorted(self.values, middle, side="right") - 1, self.low, self.high)
        cut = np.where(self.low < self.high, np.minimum(cut, self.high - 1), cut)
        two = self.low < self.high
        first = np.cumsum(1 + two) - 1 - two
        low, high = np.repeat(self.low, 1 + two), np.repeat(self.high, 1 + two)
        high[first], low[first[two] + 1] = cut, cut[two] + 1
        return replace(self, low=low, high=high), first

    def kept(self, used: Mask) -> tuple[Axis, Integers]:
        """The used groups alone, and the new number of each."""
        return replace(self, low=self.low[used], high=self.high[used]), np.cumsum(used) - 1


@dataclass(frozen=True)
class Boxes:
    """Boxes of one position, sorted by (before, after): groups, kernel, depth, whether input and output width are equal;
    the least that they cost, the last column being units, and the most that they score."""

    groups: Integers
    kernel: Integers
    depth: Integers
    same: Mask
    costs: Array
    score: Array

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: npt.NDArray[Any]) -> Boxes:
        return Boxes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


class _Allowed:
    """How many pairs of two grids are allowed in rectangles of them."""

    def __init__(self, pairs: Mask) -> None:
        self._sums = np.zeros((pairs.shape[0] + 1, pairs.shape[1] + 1), dtype=np.int64)
        self._sums[1:, 1:] = pairs.cumsum(axis=0).cumsum(axis=1)

    def any(self, rows: tuple[Integers, Integers], columns: tuple[Integers, Integers]) -> Mask:
        """Of rectangles from a first to a last row and column."""
        (a, b), (c, d), sums = rows, columns, self._sums
        return sums[b + 1, d + 1] - sums[a, d + 1] - sums[b + 1, c] + sums[a, c] > 0


@dataclass(frozen=True)
class _Reach:
    """The bound of all paths at prices; for every part, the best behind each state after it, and of every pair of groups
    the best box with its value (n_before, n_after); the costs of the best path, its boxes and its stem."""

    value: float
    behind: list[Array]
    best: list[Array]
    costs: Array
    path: list[int]
    stem: int


def _above(values: Integers, widths: Integers, beyond: Mask | bool) -> Integers:
    """Numbers of the first values that are not below the widths; `beyond`: above them."""
    return np.searchsorted(values, widths) + (beyond & np.isin(widths, values))


class Groups:
    """Halves groups of widths as long as boxes remain that may hold the optimum.

    lower: a score that is reached; best: gene rows found on the way. upper: no member scores more; `left` is what remains.
    Raises Halt from the effort; `upper` holds then, too.
    """

    def __init__(self, problem: GridProblem, effort: Effort, start: Integers) -> None:
        self.problem, self.effort, self.price = problem, effort, Pricing(problem, True)
        self.lower, self.best = -np.inf, start[:0]
        self.upper, self.dropped, self.done = np.inf, -np.inf, False
        values = [np.array(problem.stem_widths), *(np.array(problem.outs(i)) for i in range(problem.blocks))]
        self.axes, self.mids = [Axis.of(v) for v in values], [Axis.of(problem.mids(i)) for i in range(problem.blocks)]
        self._limits = np.append(np.where(self.price.lower, -self.price.limits, 1.0), problem.most_units)
        self._weights = np.zeros(len(self._limits))
        outs = problem.template.out_blocks if problem.objective.frame is not None else ()
        self._taps = [index + 1 for index in outs if index < problem.blocks - 1]
        self._pairs = [problem.allowed(index) for index in range(problem.blocks)]
        self._depths = [int(problem.variants(index)[:, 1].max()) for index in range(problem.blocks)]
        self._rules = [self._rules_of(index) for index in range(problem.blocks)]
        if len(start):
            self._offer(start)
        self.boxes = [self._first(index) for index in range(problem.blocks)]

    def solve(self) -> None:
        """Halve until all groups are single widths, or nothing is left that may beat `lower`."""
        while True:
            self.effort.tell(f"bounds of {sum(map(len, self.boxes)):,} groups of blocks")
            self._parts()
            reach = self._bounded()
            known = max(self.lower, self.dropped)
            self.done = reach is None or reach.value - self.lower <= self.rounding or not self._filter()
            self.upper = min(self.upper, max(known if reach is None else reach.value, known))
            if self.done or all(axis.single for axis in (*self.axes, *self.mids)):
                return
            self._halve()

    @property
    def rounding(self) -> float:
        """What sums in floating point can hide."""
        return HAIR * max(abs(self.lower), 1.0) if self.lower > -np.inf else 0.0

    @property
    def left(self) -> ChainProblem:
        """The problem with the blocks that are left once all groups are single, or with those of the best alone."""
        values, blocks = [axis.values for axis in self.axes], list[Integers]()
        for index, boxes in enumerate(self.boxes):
            if self.done:
                before, after = self.best[:, 4 * index - 3 if index else 0], self.best[:, 4 * index + 1]
                grids = values[index], self.mids[index].values, values[index + 1]
                widths = before, self.best[:, 4 * index + 2], after
                numbers = [np.searchsorted(grid, width) for grid, width in zip(grids, widths, strict=True)]
                blocks.append(np.stack([*numbers, *self.best[:, 4 * index + 3 : 4 * index + 5].T], axis=1))
            else:
                axes = self.axes[index], self.mids[index], self.axes[index + 1]
                numbers = [axis.low[group] for axis, group in zip(axes, boxes.groups.T, strict=True)]
                blocks.append(np.stack([*numbers, boxes.kernel, boxes.depth], axis=1))
        return cast(ChainProblem, Narrowed(self.problem, values, blocks))

    # ------------------------------------------------------------------ boxes

    def _rules_of(self, index: int) -> tuple[_Allowed, _Allowed, _Allowed]:
        """Which (before, after) are allowed, of unequal and of equal widths, and which (after, mid)."""
        follows, has = self._pairs[index]
        equal = self.axes[index].values[:, None] == self.axes[index + 1].values
        return _Allowed(follows & ~equal), _Allowed(follows & equal), _Allowed(has)

    def _first(self, index: int) -> Boxes:
        variants = np.repeat(self.problem.variants(index), 2, axis=0)
        same = np.arange(len(variants)) % 2 == 1
        groups = np.zeros((len(variants), 3), dtype=np.int64)
        return self._joined(index, [self._priced(index, groups, *variants.T, same)[1]])

    def _priced(
        self, index: int, groups: Integers, kernel: Integers, depth: Integers, same: Mask
    ) -> tuple[Integers, Boxes]:
        """Those that hold a block, and their corners priced."""
        (ins, outs), mids = self.axes[index : index + 2], self.mids[index]
        unequal, equal, has = self._rules[index]
        self.effort.spend(_STEPS * len(groups))
        a, m, b = groups.T
        i, mid, o = (ins.low[a], ins.high[a]), (mids.low[m], mids.high[m]), (outs.low[b], outs.high[b])
        rows = np.flatnonzero(np.where(same, equal.any(i, o), unequal.any(i, o)) & has.any(o, mid))
        (i0, i1), (m0, m1), (o0, o1), alike = *((low[rows], high[rows]) for low, high in (i, mid, o)), same[rows]
        # Corners: equal widths are in both groups; of unequal ones the input's is below the output's.
        i0 = np.where(alike, np.maximum(i0, np.searchsorted(ins.values, outs.values[o0])), i0)
        o0 = np.maximum(o0, _above(outs.values, ins.values[i0], ~alike))
        o1 = np.where(alike, np.minimum(o1, _above(outs.values, ins.values[i1], True) - 1), o1)
        i1 = np.minimum(i1, _above(ins.values, outs.values[o1], alike) - 1)
        k, d = kernel[rows], depth[rows]
        low = self.problem.block_vectors(index, k, i0, m0, o0, d)
        high = self.problem.block_vectors(index, k, i1, m1, o1, d)
        costs, score = self._corners(low, high, outs.values[o0], outs.values[o1], index + 1)
        return rows, Boxes(groups[rows], k, d, alike, np.column_stack([costs, d]), score)

    def _corners(self, low: Array, high: Array, narrow: Integers, wide: Integers, part: int) -> tuple[Array, Array]:
        """The least costs and the highest score of what lies between two corners."""
        costs = np.minimum(self.price.costs(low), self.price.costs(high))
        scores = [self.price.score(v, w, part) for v in (low, high) for w in (narrow, wide)]
        return costs, np.max(scores, axis=0)

    def _joined(self, index: int, pieces: list[Boxes]) -> Boxes:
        joined = Boxes(*(np.concatenate([getattr(p, n) for p in pieces]) for n in Boxes.__dataclass_fields__))
        return joined.take(np.lexsort((joined.groups[:, 2], joined.groups[:, 0])))

    def _parts(self) -> None:
        """Price the stem's groups and what stands behind the chain."""
        problem, axis = self.problem, self.axes[0]
        narrow, wide = axis.values[axis.low], axis.values[axis.high]
        costs, score = self._corners(problem.stem_vectors(narrow), problem.stem_vectors(wide), narrow, wide, 0)
        self._stem = np.column_stack([costs, np.zeros(len(costs))]), score
        sizes = [len(self.axes[tap].low) for tap in (*self._taps, problem.blocks)]
        places = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)
        ends = []
        for end in ("low", "high"):
            chosen = {
                tap: self.axes[tap].values[getattr(self.axes[tap], end)[places[:, column]]]
                for column, tap in enumerate((*self._taps, problem.blocks))
            }
            fixed = np.full(len(places), problem.template.blocks[-1].out)
            ends.append(np.stack([chosen.get(i + 1, fixed) for i in problem.template.out_blocks], axis=1))
            ends.append(chosen[problem.blocks])
        low, last_low, high, last_high = ends
        low = np.maximum.accumulate(low, axis=1)
        high = np.minimum.accumulate(high[:, ::-1], axis=1)[:, ::-1]
        reached = (low <= high).all(axis=1)
        vectors = np.zeros((2, len(places), problem.objective.width))
        for row, channels in enumerate((low, high)):
            vectors[row, reached] = problem.closings(channels[reached], self.effort.spend)
        score = np.maximum(*map(self.price.behind, vectors))
        if len(problem.template.blocks) > problem.blocks:
            tails = [problem.tail_vectors(last) for last in (last_low, last_high)]
            fixed = np.full(len(places), problem.template.blocks[-1].out)
            score = score + self._corners(*tails, fixed, fixed, len(problem.levels) - 1)[1]
            vectors += np.stack(tails)
        costs = np.minimum(*map(self.price.costs, vectors))
        self._end = np.column_stack([costs, np.zeros(len(costs))]), np.where(reached, score, -np.inf)

    # ------------------------------------------------------------------ bounds

    def _reach(self, weights: Array, scored: float = 1.0) -> _Reach:
        """All paths at these prices of the costs; scored 0: as if no score counted."""
        values = [boxes.score * scored - boxes.costs @ weights for boxes in self.boxes]
        end = (
            np.where(self._end[1] > -np.inf, self._end[1] * scored if scored else 0.0, -np.inf) - self._end[0] @ weights
        )
        stem = self._stem[1] * scored - self._stem[0] @ weights
        best, firsts = [], []
        for index, (boxes, value) in enumerate(zip(self.boxes, values, strict=True)):
            ins, outs = len(self.axes[index].low), len(self.axes[index + 1].low)
            table = np.full((ins, outs), -np.inf)
            keys = boxes.groups[:, 0] * outs + boxes.groups[:, 2]
            first = np.flatnonzero(np.diff(keys, prepend=-1))
            if len(first):
                table.reshape(-1)[keys[first]] = np.maximum.reduceat(value, first)
            best.append(table)
            firsts.append((keys, first))
        behind = [end.reshape(-1, best[-1].shape[1])]
        for index in range(len(best) - 1, -1, -1):
            behind.insert(0, (best[index] + self._after(index, behind[0])).max(axis=2))
        start = int((stem + behind[0][0]).argmax())
        value = float((stem + behind[0][0])[start])
        costs, path, carry, here = self._stem[0][start].copy(), [], 0, start
        if value == -np.inf:
            return _Reach(value, behind, best, costs, path, start)
        for index, (keys, _) in enumerate(firsts):
            after = self._after(index, behind[index + 1])
            out = int((best[index][here] + after[carry, here if index in self._taps else 0]).argmax())
            key = here * best[index].shape[1] + out
            a, b = np.searchsorted(keys, [key, key + 1])
            row = int(a + values[index][a:b].argmax())
            path.append(row)
            costs += self.boxes[index].costs[row]
            carry = carry * best[index].shape[0] + here if index in self._taps else carry
            here = out
        costs += self._end[0][carry * best[-1].shape[1] + here]
        return _Reach(value + float(weights @ self._limits), behind, best, costs, path, start)

    def _after(self, index: int, behind: Array) -> Array:
        """Values of states after block `index` as (states before it, its inputs or 1, its outputs)."""
        ins = len(self.axes[index].low) if index in self._taps else 1
        return behind.reshape(-1, ins, behind.shape[1])

    def _through(self, reach: _Reach, weights: Array, scored: float = 1.0) -> list[Array]:
        """Of every pair of groups of a block, the bound of all paths through it but for the block's own value."""
        front = (self._stem[1] * scored - self._stem[0] @ weights)[None] + float(weights @ self._limits)
        result = []
        for index, best in enumerate(reach.best):
            after = self._after(index, reach.behind[index + 1])
            result.append((front[:, :, None] + after).max(axis=0))
            step = front[:, :, None] + best
            front = step.reshape(-1, best.shape[1]) if index in self._taps else step.max(axis=1)
        return result

    def _bounded(self) -> _Reach | None:
        """The paths at the prices of the lowest bound that is found; None if none keeps every limit."""
        for column in range(len(self._limits)):
            weights = np.eye(len(self._limits))[column]
            reach = self._reach(weights, 0.0)
            room = HAIR * max(abs(self._limits[column]), 1.0)
            if reach.value < -room:
                return None
            self._keep(weights, self._through(reach, weights, 0.0), -room, 0.0)
        best = self._reach(self._weights)
        self._try(best)
        for _ in range(_ROUNDS if len(self._limits) > 1 else 1):
            before = best.value
            for column in range(len(self._limits)):
                best = self._along(column, best)
            if before - best.value <= 1e-4 * max(abs(best.value), 1.0):
                break
        return best

    def _along(self, column: int, best: _Reach) -> _Reach:
        """The same with the price of one limit moved to where the bound is lowest: tangents from both sides."""
        limit, at = self._limits[column], self._weights[column]

        def look(price: float) -> tuple[float, float, float, _Reach]:
            weights = self._weights.copy()
            weights[column] = price
            reach = self._reach(weights)
            self._try(reach)
            return price, reach.value, limit - float(reach.costs[column]), reach

        here = (at, best.value, limit - float(best.costs[column]), best)
        least = 1e-4 * max(abs(best.value), 1.0) / max(abs(limit), 1e-9)
        left = right = None
        for _ in range(40):
            if here[2] >= 0:
                right = here
            else:
                left = here
            if left and right or (right and right[0] == 0.0):
                break
            price = max(2 * here[0], least) if here[2] < 0 else here[0] / 2
            here = look(price if price >= least or here[2] < 0 else 0.0)
        if left and right:
            for _ in range(_TURNS):
                price = (right[1] - left[1] + left[2] * left[0] - right[2] * right[0]) / (left[2] - right[2])
                if not left[0] < price < right[0]:
                    break
                here = look(price)
                meet = left[1] + left[2] * (price - left[0])
                left, right = (left, here) if here[2] >= 0 else (here, right)
                if here[1] - meet <= 1e-6 * max(abs(meet), 1.0):
                    break
        for found in (left, right):
            if found is not None and found[1] < best.value:
                best, self._weights[column] = found[3], found[0]
        return best

    # ------------------------------------------------------------------ what remains

    def _filter(self) -> bool:
        """Drop boxes on no path above the best that is known; whether any remain."""
        reach = self._reach(self._weights)
        through = self._through(reach, self._weights)
        for index, boxes in enumerate(self.boxes):
            value = boxes.score - boxes.costs @ self._weights
            value += through[index][boxes.groups[:, 0], boxes.groups[:, 2]]
            if np.count_nonzero(value > self._least) > MOST_BOXES:
                self.dropped = max(self.dropped, float(np.partition(value, -MOST_BOXES)[-MOST_BOXES]))
        self._known = through
        self._keep(self._weights, through, self._least, 1.0)
        return all(map(len, self.boxes))

    @property
    def _least(self) -> float:
        return max(self.lower, self.dropped)

    def _keep(self, weights: Array, through: list[Array], least: float, scored: float) -> None:
        for index, boxes in enumerate(self.boxes):
            value = boxes.score * scored - boxes.costs @ weights
            value += through[index][boxes.groups[:, 0], boxes.groups[:, 2]]
            self.boxes[index] = boxes.take(value > least)

    def _halve(self) -> None:
        """Halve every group, and price the boxes that this makes of those that are left."""
        old, halves = self.axes, [axis.halved() for axis in self.axes]
        mids = [axis.halved() for axis in self.mids]
        old_mids = self.mids
        self.axes, self.mids = [axis for axis, _ in halves], [axis for axis, _ in mids]
        for index, boxes in enumerate(self.boxes):
            axes = old[index], old_mids[index], old[index + 1]
            firsts = halves[index][1], mids[index][1], halves[index + 1][1]
            pieces = [boxes.take(slice(0))]
            for half in np.ndindex(2, 2, 2):
                there = np.ones(len(boxes), dtype=bool)
                for column, (axis, second) in enumerate(zip(axes, half, strict=True)):
                    group = boxes.groups[:, column]
                    there &= (axis.low[group] < axis.high[group]) | (second == 0)
                part = boxes.take(there)
                groups = np.stack(
                    [f[part.groups[:, c]] + h for c, (f, h) in enumerate(zip(firsts, half, strict=True))], 1
                )
                ahead = self._known[index][part.groups[:, 0], part.groups[:, 2]]
                pieces += self._promising(index, part, groups, ahead)
            self.boxes[index] = self._joined(index, pieces)
        self._drop_unused()

    def _promising(self, index: int, part: Boxes, groups: Integers, ahead: Array) -> Iterator[Boxes]:
        """Of parts of boxes, those on a path above the best that is known, as far as the boxes before tell."""
        for first in range(0, len(part), _CHUNK):
            here = slice(first, first + _CHUNK)
            rows, boxes = self._priced(index, groups[here], part.kernel[here], part.depth[here], part.same[here])
            yield boxes.take(boxes.score - boxes.costs @ self._weights + ahead[here][rows] > self._least)

    def _drop_unused(self) -> None:
        """Number the groups anew without those that no box has."""
        for place in range(len(self.axes)):
            used = np.ones(len(self.axes[place].low), dtype=bool)
            if place:
                used &= np.isin(np.arange(len(used)), self.boxes[place - 1].groups[:, 2])
            if place < len(self.boxes):
                used &= np.isin(np.arange(len(used)), self.boxes[place].groups[:, 0])
            self.axes[place], number = self.axes[place].kept(used)
            for index, column in ((place - 1, 2), (place, 0)):
                if 0 <= index < len(self.boxes):
                    boxes = self.boxes[index].take(used[self.boxes[index].groups[:, column]])
                    boxes.groups[:, column] = number[boxes.groups[:, column]]
                    self.boxes[index] = boxes

    def _try(self, reach: _Reach) -> None:
        """Take the widest member of a path inside the budget, and what is better beside it."""
        inside, outside = 0.0, 1.0
        for turn in range(_HALVINGS if reach.path else 0):
            share = (outside, inside)[turn] if turn < 2 else (inside + outside) / 2
            better, fits = self._offer(self._member(reach, share))
            while better is not None:
                better, _ = self._offer(self._around(better))
            if turn < 2 and fits != bool(turn):  # the widest fits, or not even the narrowest
                break
            if turn > 1:
                inside, outside = (share, outside) if fits else (inside, share)

    def _around(self, row: Integers) -> Integers:
        """Members that differ by one unit of every block, or by one step of every bottleneck, at most."""
        steps = np.array(list(product((-1, 0, 1), repeat=self.problem.blocks)))
        deeper, wider = np.tile(row, (len(steps), 1)), np.tile(row, (len(steps), 1))
        for index in range(self.problem.blocks):
            depths, mids = self._depths[index], self.mids[index].values
            mids = mids[self._pairs[index][1][np.searchsorted(self.axes[index + 1].values, row[4 * index + 1])]]
            deeper[:, 4 * index + 4] = np.clip(row[4 * index + 4] + steps[:, index], 1, depths)
            place = np.searchsorted(mids, row[4 * index + 2]) + steps[:, index]
            wider[:, 4 * index + 2] = mids[np.clip(place, 0, len(mids) - 1)]
        return np.concatenate([deeper, wider])

    def _member(self, reach: _Reach, share: float) -> Integers:
        """The row (1, genes) of the member nearest to the widths at a share of the way through the boxes of a path."""

        def nearest(axis: Axis, group: int, fits: Mask) -> int:
            wanted = axis.low[group] + share * (axis.high[group] - axis.low[group])
            found = np.flatnonzero(fits)
            return int(found[np.abs(found - wanted).argmin()])

        axis = self.axes[0]
        here = nearest(axis, reach.stem, np.ones(len(axis.values), dtype=bool))
        genes = [int(axis.values[here])]
        for index, row in enumerate(reach.path):
            boxes, (follows, has) = self.boxes[index], self._pairs[index]
            axis, mids, (_, mid, after) = self.axes[index + 1], self.mids[index], boxes.groups[row].tolist()
            equal = follows[here] & (axis.values == genes[-4 if index else 0]) & boxes.same[row]
            here = nearest(axis, after, equal if equal.any() else follows[here])
            inner = nearest(mids, mid, has[here])
            genes += [int(axis.values[here]), int(mids.values[inner]), int(boxes.kernel[row]), int(boxes.depth[row])]
        return np.array([genes])

    def _offer(self, rows: Integers) -> tuple[Integers | None, bool]:
        """Take the best of gene rows inside the budget, and tell it if it beats what is known; whether any is inside."""
        evaluation = self.problem.evaluate(rows)
        inside = admitted(self.problem.budget, self.problem.metrics, evaluation)
        inside &= rows[:, 4::4].sum(axis=1) <= self.problem.most_units
        row = int(np.where(inside, evaluation.score, -np.inf).argmax())
        if not inside[row] or evaluation.score[row] <= self.lower:
            return None, bool(inside[row])
        self.best, self.lower = rows[row : row + 1], float(evaluation.score[row])
        return rows[row], True


def groups_of(problem: ChainProblem, effort: Effort, start: Integers) -> Groups | None:
    """The groups of a problem whose blocks or states are too many to price all; None for every other, and where costs or
    amounts are not known to be monotone in widths."""
    if not isinstance(problem, GridProblem) or logs_of(problem.objective.formula) is not None or not problem.monotone:
        return None
    try:
        problem.check_size(_MOST_BLOCKS)
        blocks, taps = problem.blocks, (problem.template.out_blocks if problem.objective.frame is not None else ())
        counts = [len(problem.stem_widths), *(len(problem.outs(index)) for index in range(blocks))]
        carries = [int(np.prod([counts[t + 1] for t in taps if t + 1 < part])) for part in range(blocks + 1)]
        if sum(carry * count for carry, count in zip(carries, counts, strict=True)) <= _MOST_STATES:
            return None
    except UserError:
        pass
    return Groups(problem, effort, start)
