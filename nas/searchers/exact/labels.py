"""Labels of exact search, ways to reach a state, and the bounds that drop them.

Bounds: the best that can still come, computed from the back with costs rounded down to bins.

Labels are extended part by part from the front. A state is (widths that what follows still needs, width now, units
used); a label has the costs and the score of one way to reach it. A label is dropped

- if not even the best completion, by the bound of any relaxation, takes it above `lower`: no loss;
- if another of its state costs no more and has a higher score, or lies in the same score bucket of size `delta`: the
  final optimum loses less than `delta` for every part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from nas.searchers.exact.effort import CELLS, MOST_LABELS, Effort
from nas.searchers.exact.parts import Integers, Options, Parts, most_bins, rising
from nas.searchers.problem import Array

#: Slack of costs that are compared with a limit after a handful of floating-point sums.
SLACK = 1e-12


class Relaxation:
    """A chain under one cost: a weighted sum of the budgeted costs as shares of their limits, so that 1 is the limit.

    Whatever keeps every limit keeps this one, so its optimum bounds theirs (a surrogate relaxation).
    weights: of the resources, summing to 1 (none for no resource); bins: resolution of the bounds; effort: what counts
    the work on them; cells: how many numbers they may hold, to which `bins` is cut.
    bounds[p]: best completion (state, units left, bins left) after part p; the last entry is before the stem.
    Raises Halt if they would hold more however coarse they are.
    """

    def __init__(
        self, parts: Parts, weights: Array, bins: int = 256, effort: Effort | None = None, cells: int = CELLS
    ) -> None:
        self.parts, self.weights, self._effort = parts, weights, effort or Effort()
        self.costs = [self.cost_of(options.costs) for options in parts.options]
        self.behind = self.cost_of(parts.behind_costs)
        self._most = most_bins(parts.widths, parts.carries, parts.units, cells)
        self._compute(min(bins, self._most))

    def refine(self) -> bool:
        """Compute the bounds anew with four times the bins, as far as they fit; whether that is more than before."""
        finer = min(4 * self.bins, self._most)
        if finer <= self.bins:
            return False
        self._compute(finer)
        return True

    def _compute(self, bins: int) -> None:
        self.bins, parts, self.bounds = bins, self.parts, []
        floor = self._binned(self.behind)
        inside = np.arange(bins + 1)[None, None, :] >= floor[:, None, None]
        bound = np.where(inside, parts.behind_score[:, None, None], -np.inf)
        bounds: list[Array] = [np.broadcast_to(bound, (len(floor), parts.units + 1, bins + 1))]
        for p in range(len(parts.options) - 1, -1, -1):
            bounds.insert(0, self._before(p, bounds[0]))
        self.bounds = [*bounds[1:], bounds[0]]

    def cost_of(self, costs: Array) -> Array:
        """The one cost of costs (n, resources)."""
        return costs @ self.weights if costs.shape[1] else np.zeros(len(costs))

    def upper(self, limit: float = 1.0, units: int | None = None) -> float:
        """A bound on the score of every network of at most this cost and so many units."""
        most = self.parts.units if units is None else units
        return float(self.bounds[-1][0, most, self.bin_of(np.array(limit))])

    def bin_of(self, left: Array) -> Integers:
        """The bin of what is left of the limit, never too low."""
        return np.floor(np.maximum(left, 0.0) * self.bins + 1e-9).astype(np.int64)

    def _binned(self, costs: Array) -> Integers:
        """Costs rounded down to bins; what is far above the limit stays there."""
        return np.floor(np.minimum(costs, 1e6) * self.bins + SLACK).astype(np.int64)

    def _before(self, p: int, behind: Array) -> Array:
        """Bounds before part p from those after it."""
        parts, units, bins, options = self.parts, self.parts.units, self.bins, self.parts.options[p]
        ins, outs = len(options.starts) - 1, len(parts.widths[p])
        carry = parts.carries[p - 1] if p else 1
        tapped = p > 0 and p - 1 in parts.taps
        after = behind.reshape(carry, ins if tapped else 1, outs, units + 1, bins + 1)
        result = np.full((carry, ins, units + 1, bins + 1), -np.inf)
        for before, out, used, cost, score in self._coarse(options, self.costs[p]):
            if used > units or cost > bins:
                continue
            self._effort.spend(100 + carry * (units + 1) * (bins + 1) // 50, "bounds")
            source = after[:, before if tapped else 0, out, : units + 1 - used, : bins + 1 - cost]
            target = result[:, before, used:, cost:]
            np.maximum(target, source + score, out=target)
        return result.reshape(carry * ins, units + 1, bins + 1)

    def _coarse(self, options: Options, costs: Array) -> Iterator[tuple[int, int, int, int, float]]:
        """Options with costs rounded down to bins; of those alike, the best that no cheaper one reaches."""
        bins = self._binned(costs)
        place = (options.before * (options.after.max() + 1) + options.after) * (options.units.max() + 1) + options.units
        order = np.lexsort((-options.score, bins, place))
        keep = order[rising(place[order], np.unique(options.score, return_inverse=True)[1][order])]
        columns = (options.before, options.after, options.units, bins, options.score)
        yield from zip(*(column[keep].tolist() for column in columns), strict=True)  # type: ignore[misc]


#: Combinations of labels and options that are looked at together.
_CHUNK = 1_000_000
#: Steps of the effort that it takes to look at one combination by one relaxation, and to keep or drop one label.
_LOOK, _THIN = 2, 20
#: Neighbours, in the order of their scores, that a label of several costs is compared with.
_NEIGHBOURS = 24


class TooManyLabels(Exception):
    """A search was given up because it had to keep too many labels; this says nothing about what exists."""


@dataclass(frozen=True)
class Labels:
    """Labels after one part: state, units used, costs (n, resources), score, shape (0 unless asked for), and where each
    comes from: the label before and the option."""

    state: Integers
    units: Integers
    costs: Array
    score: Array
    shape: Integers
    parent: Integers
    option: Integers

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Labels:
        return Labels(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class LabelSearch:
    """Which labels to keep.

    relaxations: whose bounds and limits hold. along: the one whose cost decides what is dropped for another label; None
    compares every resource, so that nothing that keeps all limits is lost. limit: of the relaxations' cost; units: the
    most; shapes: tell different depths apart, so that the best of every sequence of depths survives; most: labels after
    one part that are too many; effort: what counts the labels that are looked at.
    """

    parts: Parts
    relaxations: Sequence[Relaxation]
    along: Relaxation | None
    limit: float = 1.0
    units: int | None = None
    shapes: bool = False
    most: int = MOST_LABELS
    effort: Effort = field(default_factory=Effort)

    def run(self, delta: float, lower: float = -np.inf) -> list[Labels]:
        """Labels after every part; those after the last have costs and score complete.

        Nothing at the end means that nothing scores more than `lower` and a `delta` for every part. Raises
        TooManyLabels, and Halt from the effort.
        """
        zeros = np.zeros(1, dtype=np.int64)
        nothing = np.zeros((1, len(self.parts.limits)))
        labels = Labels(zeros, zeros, nothing, np.zeros(1), zeros, zeros, zeros)
        stages = []
        for p in range(len(self.parts.options)):
            pieces: list[Labels] = [labels.take(zeros[:0])]
            waiting, full = 0, self.most
            for piece in self._expanded(p, labels, lower):
                pieces.append(piece)
                waiting += len(piece)
                if waiting > full:
                    pieces = [self._thinned(_joined(pieces), delta)]
                    waiting = len(pieces[0])
                    if waiting > self.most:
                        raise TooManyLabels
                    full = max(self.most, 2 * waiting)
            labels = self._thinned(_joined(pieces), delta)
            stages.append(labels)
        costs, score = self.parts.behind_costs[labels.state], self.parts.behind_score[labels.state]
        return [*stages[:-1], replace(labels, costs=labels.costs + costs, score=labels.score + score)]

    def genes(self, stages: Sequence[Labels], rows: Integers) -> Integers:
        """Gene rows (n, genes) of labels after the last part."""
        columns: list[Integers] = []
        for p in range(len(stages) - 1, -1, -1):
            labels, options = stages[p], self.parts.options[p]
            option = labels.option[rows]
            out = self.parts.widths[p][options.after[option]][:, None]
            columns.insert(0, np.concatenate([out, options.choice[option]], axis=1) if p else out)
            rows = labels.parent[rows]
        return np.concatenate(columns, axis=1)

    def _expanded(self, p: int, labels: Labels, lower: float) -> Iterator[Labels]:
        """Every label followed by every option, as far as limits and bounds allow, piece by piece."""
        parts, options = self.parts, self.parts.options[p]
        most = parts.units if self.units is None else self.units
        outs, ins, last = len(parts.widths[p]), len(options.starts) - 1, p + 1 == len(parts.options)
        width, carry = labels.state % ins, labels.state // ins
        if p and p - 1 in parts.taps:
            carry = labels.state
        paid = [relaxation.cost_of(labels.costs) for relaxation in self.relaxations]
        looks = _LOOK * len(self.relaxations)
        for i in range(ins):
            chosen = np.arange(options.starts[i], options.starts[i + 1])
            lines = np.flatnonzero(width == i)
            step = max(1, _CHUNK // max(1, len(chosen)))
            for start in range(0, len(lines), step):
                line = lines[start : start + step]
                self.effort.spend(looks * len(line) * len(chosen), f"part {p + 1} of {len(parts.options)}")
                a, b = np.nonzero(labels.units[line, None] + options.units[chosen] <= most)
                a, b = line[a], chosen[b]
                for relaxation, before in zip(self.relaxations, paid, strict=True):
                    state = carry[a] * outs + options.after[b]
                    score = labels.score[a] + options.score[b]
                    cost = before[a] + relaxation.costs[p][b]
                    if last:
                        possible = cost + relaxation.behind[state] <= self.limit + SLACK
                        possible &= score + parts.behind_score[state] > lower
                    else:
                        left = most - labels.units[a] - options.units[b]
                        bound = relaxation.bounds[p][state, left, relaxation.bin_of(self.limit - cost)]
                        possible = (cost <= self.limit + SLACK) & (score + bound > lower)
                    a, b = a[possible], b[possible]
                shape = labels.shape[a]
                if self.shapes:
                    shape = shape * (options.units.max() + 1) + options.units[b]
                yield Labels(
                    carry[a] * outs + options.after[b],
                    labels.units[a] + options.units[b],
                    labels.costs[a] + options.costs[b],
                    labels.score[a] + options.score[b],
                    shape,
                    a,
                    b,
                )

    def _thinned(self, labels: Labels, delta: float) -> Labels:
        """Labels that no other of their state makes superfluous."""
        if len(labels) == 0:
            return labels
        self.effort.spend(_THIN * len(labels))
        group = labels.state * (self.parts.units + 1) + labels.units
        if self.shapes:
            group = group * (int(labels.shape.max()) + 1) + labels.shape
        if self.along is None and labels.costs.shape[1] > 1:
            return self._thinned_in_all(labels, group)
        cost = (self.along or self.relaxations[0]).cost_of(labels.costs)
        if delta:
            bucket = np.floor(labels.score / delta).astype(np.int64)
            bucket -= bucket.min()
        else:
            bucket = np.unique(labels.score, return_inverse=True)[1]
        order = np.lexsort((-labels.score, cost, group))
        return labels.take(order[rising(group[order], bucket[order])])

    def _thinned_in_all(self, labels: Labels, group: Integers) -> Labels:
        """The same for several costs: a label goes if a near one of no lower score is no dearer in any."""
        order = np.lexsort((labels.costs.sum(axis=1), -labels.score, group))
        labels, group = labels.take(order), group[order]
        keep = np.ones(len(labels), dtype=bool)
        for distance in range(1, min(_NEIGHBOURS, len(labels) - 1) + 1):
            cheaper = (labels.costs[:-distance] <= labels.costs[distance:]).all(axis=1)
            keep[distance:] &= ~(cheaper & (group[:-distance] == group[distance:]))
        return labels.take(keep)


def _joined(pieces: list[Labels]) -> Labels:
    return Labels(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in Labels.__dataclass_fields__))
