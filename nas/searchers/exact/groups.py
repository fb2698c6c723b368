"""Spaces whose grids are too fine to price every block: widths in groups, halved where the optimum can still lie.

A box is all blocks of one kernel and depth whose input, bottleneck and output widths lie in three groups. Where costs and
amounts are monotone in widths, the corners of a box tell the least that its blocks cost and the most that they score, so
paths through boxes (`paths`) bound what every member scores. Boxes on no path above the best that is known go, the others
are halved. Where the groups are single widths at last, the blocks that are left are few enough for exact search to go on
with (`grids.Narrowed`). Under a convex score paths are bounded by the plane above it (`convex`), which comes nearer as
boxes go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import cast

import numpy as np

from nas.errors import UserError
from nas.searchers.exact.convex import convex_score, counted
from nas.searchers.exact.effort import CELLS, Effort, Halt
from nas.searchers.exact.grids import Allowed, Axis, Boxes, GridProblem, Narrowed
from nas.searchers.exact.incumbent import Incumbent
from nas.searchers.exact.parts import ChainProblem, Integers, Mask, Pricing, channels_of
from nas.searchers.exact.paths import Paths, Reach
from nas.searchers.problem import Array

#: Blocks of one position that are priced one by one, and states of a chain that are told apart.
_MOST_BLOCKS, _MOST_STATES = 1_000_000, 1_000_000
#: Boxes of one position that are kept: of more, those whose paths promise most.
MOST_BOXES = 60_000
#: Boxes that are priced at a time, and the steps of the effort that one takes.
_CHUNK, _STEPS = 20_000, 40
#: Members of a path that are looked at for one inside the budget.
_HALVINGS = 6
#: Share of a score or a limit that sums in other orders may differ by.
HAIR = 1e-9


def _above(values: Integers, widths: Integers, beyond: Mask | bool) -> Integers:
    """Numbers of the first values that are not below the widths; `beyond`: above them."""
    return np.searchsorted(values, widths) + (beyond & np.isin(widths, values))


def _with_units(costs: Array, units: Integers | int = 0) -> Array:
    """Costs with units as a last column."""
    return np.column_stack([costs, np.broadcast_to(units, len(costs))])


@dataclass(frozen=True)
class _Ends:
    """Costs (n, limits), and the least and the most of the scores (n, 2), of the stem's groups and of what stands behind the
    chain by the states there; channels: the widest C3, C4 and C5 of these, of which only some are reached."""

    stem: tuple[Array, Array]
    behind: tuple[Array, Array]
    channels: Integers
    reached: Mask


class Groups:
    """Halves groups of widths as long as boxes remain that may hold the optimum.

    upper: no member scores more; `left` is what remains.
    Raises Halt from the effort; `upper` holds then, too.
    """

    def __init__(self, problem: GridProblem, effort: Effort, start: Integers) -> None:
        self.problem, self.effort, self.price = problem, effort, Pricing(problem, True)
        self._incumbent = Incumbent(problem, start)
        self.upper, self.dropped, self.done = np.inf, -np.inf, False
        values = [np.array(problem.stem_widths), *(np.array(problem.outs(i)) for i in range(problem.blocks))]
        self.axes, self.mids = [Axis.of(v) for v in values], [Axis.of(problem.mids(i)) for i in range(problem.blocks)]
        self._limits = np.append(np.where(self.price.lower, -self.price.limits, 1.0), problem.most_units)
        self._prices = np.zeros(len(self._limits))
        outs = problem.template.out_blocks if problem.objective.frame is not None else ()
        self._taps = [index + 1 for index in outs if index < problem.blocks - 1]
        self._pairs = [problem.allowed(index) for index in range(problem.blocks)]
        self._ahead = list[Array]()
        self._convex = convex_score(problem)
        #: What a gain counts, by part, and what a state counts: the plane above a convex score.
        self._factors, self._base = np.ones(problem.blocks + 2), np.zeros(1)
        self._rules = [self._rules_of(index) for index in range(problem.blocks)]
        self.boxes = [self._first(index) for index in range(problem.blocks)]

    def solve(self) -> None:
        """Halve until all groups are single widths, or nothing is left that may beat `lower` (`done`)."""
        while all(map(len, self.boxes)):
            self.effort.tell(f"bounds of {sum(map(len, self.boxes)):,} groups of blocks")
            ends = self._ends()
            if not self._affordable(ends) or not self._bent(ends):
                break
            paths = self._paths(ends)
            reach, self._prices = paths.lowest(self._prices, self._try)
            self.upper = min(self.upper, max(reach.value, self._least))
            if reach.value - self.lower <= self.rounding or not self._promising(paths, reach):
                break
            if all(axis.single for axis in (*self.axes, *self.mids)):
                return
            self._halve()
        self.done, self.upper = True, min(self.upper, self._least)

    @property
    def lower(self) -> float:
        """A score that is reached; -inf where nothing is known."""
        return self._incumbent.score

    @property
    def best(self) -> Integers:
        """The gene row (1, genes) that reaches it, or none."""
        return self._incumbent.rows

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

    def _rules_of(self, index: int) -> tuple[Allowed, Allowed, Allowed]:
        """Which (before, after) are allowed, of unequal and of equal widths, and which (after, mid)."""
        follows, has = self._pairs[index]
        equal = self.axes[index].values[:, None] == self.axes[index + 1].values
        return Allowed(follows & ~equal), Allowed(follows & equal), Allowed(has)

    def _first(self, index: int) -> Boxes:
        variants = np.repeat(self.problem.variants(index), 2, axis=0)
        same = np.arange(len(variants)) % 2 == 1
        groups = np.zeros((len(variants), 3), dtype=np.int64)
        return Boxes.joined([self._priced(index, groups, variants[:, 0], variants[:, 1], same)[1]])

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
        costs, gains = self._corners(low, high, outs.values[o0], outs.values[o1], index + 1)
        return rows, Boxes(
            groups[rows], k, d, alike, _with_units(costs, d), gains, gains[:, 1] * self._factors[index + 1]
        )

    def _corners(self, low: Array, high: Array, narrow: Integers, wide: Integers, part: int) -> tuple[Array, Array]:
        """The least costs, and the least and the most of the scores (n, 2), of what lies between two corners."""
        costs = np.minimum(self.price.costs(low), self.price.costs(high))
        scores = [self.price.score(v, w, part) for v in (low, high) for w in (narrow, wide)]
        return costs, np.stack([np.min(scores, axis=0), np.max(scores, axis=0)], axis=1)

    def _ends(self) -> _Ends:
        """The stem's groups, and what stands behind the chain, priced; Halt for too many."""
        problem, axis = self.problem, self.axes[0]
        counts, taps = [len(axis.low) for axis in self.axes], (*self._taps, problem.blocks)
        sizes = [counts[tap] for tap in taps]
        if max(counts) * (states := int(np.prod(sizes))) > CELLS // 4:
            raise Halt(f"the bounds of {states:,} groups of states do not fit into memory", False)
        narrow, wide = axis.values[axis.low], axis.values[axis.high]
        costs, gains = self._corners(problem.stem_vectors(narrow), problem.stem_vectors(wide), narrow, wide, 0)
        places = dict(zip(taps, np.unravel_index(np.arange(states), sizes), strict=True))
        low, first = channels_of(
            problem, {tap: self.axes[tap].values[self.axes[tap].low[at]] for tap, at in places.items()}
        )
        high, last = channels_of(
            problem, {tap: self.axes[tap].values[self.axes[tap].high[at]] for tap, at in places.items()}
        )
        low = np.maximum.accumulate(low, axis=1)
        high = np.minimum.accumulate(high[:, ::-1], axis=1)[:, ::-1]
        behind = self._end(low, high, first, last)
        return _Ends((_with_units(costs), gains), behind, high, np.all(low <= high, axis=1))

    def _paths(self, ends: _Ends, sums: Array | None = None) -> Paths:
        """The paths through the boxes; sums: what a gain counts, by part, instead of the score."""
        (stem, first), (behind, last), boxes = ends.stem, ends.behind, self.boxes
        factors, base = (self._factors, self._base) if sums is None else (sums, 0.0)
        if sums is not None:
            scores = [here.gains[:, 1] * factor for here, factor in zip(boxes, sums[1:-1], strict=True)]
            boxes = [replace(here, score=score) for here, score in zip(boxes, scores, strict=True)]
        score = np.where(ends.reached, last[:, 1] * factors[-1] + base, -np.inf)
        counts = [len(axis.low) for axis in self.axes]
        return Paths(boxes, (stem, first[:, 1] * factors[0]), (behind, score), self._taps, counts, self._limits)

    def _bent(self, ends: _Ends) -> bool:
        """Put the plane above a convex score where the boxes that are left have it lowest; whether anything may be left."""
        if self._convex is None:
            return True
        columns = counted(self.problem, self._convex).T
        parts = [ends.stem[1], *(boxes.gains for boxes in self.boxes), ends.behind[1][ends.reached]]
        least = np.array([sum(f * g[:, 0].min() for f, g in zip(sums, parts, strict=True)) for sums in columns])
        paths = (self._paths(ends, sums) for sums in columns)
        most = np.array([path.lowest(np.zeros(len(self._limits)), lambda reach: None)[0].value for path in paths])
        box = self._convex.box(least, most, ends.channels, ends.reached)
        box = None if box is None else box.below(self._least)
        if box is None:
            return False
        self._factors, self._base = columns.T @ box.slopes, np.asarray(box.base)
        self.boxes = [
            replace(boxes, score=boxes.gains[:, 1] * factor)
            for boxes, factor in zip(self.boxes, self._factors[1:-1], strict=True)
        ]
        return True

    def _end(self, low: Integers, high: Integers, first: Integers, last: Integers) -> tuple[Array, Array]:
        """Costs, and the least and the most of the scores (n, 2), of what stands behind the chain, between its lowest and
        highest widths."""
        problem = self.problem
        reached = (low <= high).all(axis=1)
        vectors = np.zeros((2, len(low), problem.objective.width))
        for row, channels in enumerate((low, high)):
            vectors[row, reached] = problem.closings(channels[reached], self.effort.spend)
        gains = np.sort(np.stack([self.price.behind(v) for v in vectors], axis=1), axis=1)
        if len(problem.template.blocks) > problem.blocks:
            tails = problem.tail_vectors(first), problem.tail_vectors(last)
            fixed = np.full(len(low), problem.template.blocks[-1].out)
            gains = gains + self._corners(*tails, fixed, fixed, len(problem.levels) - 1)[1]
            vectors += np.stack(tails)
        return _with_units(np.minimum(*map(self.price.costs, vectors))), gains

    # ------------------------------------------------------------------ what remains

    def _affordable(self, ends: _Ends) -> bool:
        """Drop boxes on no path that keeps each limit alone; whether there is any such path."""
        for prices, limit in zip(np.eye(len(self._limits)), self._limits, strict=True):
            paths = self._paths(ends, self._factors)
            reach, room = paths.reach(prices, scored=False), HAIR * max(abs(limit), 1.0)
            if reach.value < -room:
                return False
            self._keep(paths.through(reach, prices, scored=False), -room)
        return True

    def _promising(self, paths: Paths, reach: Reach) -> bool:
        """Drop boxes on no path above the best that is known, and of too many the others; whether any remain."""
        reach = paths.reach(self._prices)
        through = paths.through(reach, self._prices)
        for values in through:
            if np.count_nonzero(values > self._least) > MOST_BOXES:
                self.dropped = max(self.dropped, float(np.partition(values, -MOST_BOXES)[-MOST_BOXES]))
        self._ahead = [value - boxes.worth(self._prices) for value, boxes in zip(through, self.boxes, strict=True)]
        self._ahead = [ahead[value > self._least] for ahead, value in zip(self._ahead, through, strict=True)]
        self._keep(through, self._least)
        return all(map(len, self.boxes))

    @property
    def _least(self) -> float:
        return max(self.lower, self.dropped)

    def _keep(self, values: list[Array], least: float) -> None:
        """Of the boxes, those of a value above `least`."""
        for index, value in enumerate(values):
            self.boxes[index] = self.boxes[index].take(value > least)

    def _halve(self) -> None:
        """Halve every group, and price the boxes that this makes of those that are left."""
        before, inner = self.axes, self.mids
        halves, mids = [axis.halved() for axis in before], [axis.halved() for axis in inner]
        self.axes, self.mids = [axis for axis, _ in halves], [axis for axis, _ in mids]
        for index, boxes in enumerate(self.boxes):
            axes = (
                (before[index], halves[index][1]),
                (inner[index], mids[index][1]),
                (before[index + 1], halves[index + 1][1]),
            )
            pieces = [boxes.take(np.zeros(0, dtype=np.int64))]
            for half in product((0, 1), repeat=3):
                there, groups = np.ones(len(boxes), dtype=bool), list[Integers]()
                for (axis, first), group, second in zip(axes, boxes.groups.T, half, strict=True):
                    there &= (axis.low[group] < axis.high[group]) | (second == 0)
                    groups.append(first[group] + second)
                pieces += self._halved(
                    index, boxes.take(there), np.stack(groups, axis=1)[there], self._ahead[index][there]
                )
            self.boxes[index] = Boxes.joined(pieces)
        self._drop_unused()

    def _halved(self, index: int, part: Boxes, groups: Integers, ahead: Array) -> Iterator[Boxes]:
        """Of parts of boxes, those on a path above the best that is known, as far as the boxes before tell."""
        for first in range(0, len(part), _CHUNK):
            here = slice(first, first + _CHUNK)
            rows, boxes = self._priced(index, groups[here], part.kernel[here], part.depth[here], part.same[here])
            yield boxes.take(boxes.worth(self._prices) + ahead[here][rows] > self._least)

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

    # ------------------------------------------------------------------ members

    def _try(self, reach: Reach) -> None:
        """Take the widest member of a path inside the budget, and what is better beside it."""
        inside, outside = 0.0, 1.0
        for turn in range(_HALVINGS if reach.path else 0):
            share = (outside, inside)[turn] if turn < 2 else (inside + outside) / 2
            fits = self._incumbent.improve(self._member(reach, share))
            if turn < 2 and fits != bool(turn):  # the widest fits, or not even the narrowest
                break
            if turn > 1:
                inside, outside = (share, outside) if fits else (inside, share)

    def _member(self, reach: Reach, share: float) -> Integers:
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


def groups_of(problem: ChainProblem, effort: Effort, start: Integers) -> Groups | None:
    """The groups of a problem whose blocks or states are too many to price all; None for every other, and where costs or
    amounts are not known to be monotone in widths."""
    if not isinstance(problem, GridProblem) or not problem.monotone:
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
