"""What exact search chooses among: every stem, every block of every position, and what stands behind them, with costs.

Score and costs are sums over parts, so a network is a path: each option leads from an input width to an output width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nas.cost.budget import Budget
from nas.errors import UserError
from nas.scorers.formula import Formula, Linear, weighted
from nas.searchers.base import Evaluation
from nas.searchers.exact.effort import CELLS, Effort, Halt
from nas.searchers.problem import AMOUNT, Array, Objective
from nas.spec import Backbone, Spec

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

#: The scores that are such a sum, or a convex function of sums.
SUMS = "mae, mae_neck, mae_residual, level_balance, effective_rank, learned, params, macs or layers"
#: The most blocks of one position that are priced.
MOST_OPTIONS = 6_000_000
#: The most bins that bounds are refined to.
_FINEST = 4096
#: Share of a lower limit by which a sum may seem to miss it.
_HAIR = 1e-12


class ChainProblem(Protocol):
    """What exact search asks of a problem: a chain of blocks behind a stem, whose rows of genes are the stem's width, then
    (out, choice) of every block, the choice in three genes.

    counts_layers: whether the limit on layers is one on units, of which all blocks may have `most_units` together.
    levels: of stem and blocks; template: a member, which holds what all share.
    """

    budget: Budget
    objective: Objective
    metrics: tuple[str, ...]
    template: Backbone
    levels: tuple[int, ...]
    blocks: int
    width: int
    counts_layers: bool

    @property
    def name(self) -> str:
        """Of the space."""

    @property
    def stem_widths(self) -> Sequence[int]:
        """Widths of the stem, increasing."""

    @property
    def most_units(self) -> int:
        """The most units of all blocks together."""

    def size(self) -> int:
        """How many members the space has."""

    def outs(self, index: int) -> Sequence[int]:
        """Widths of block `index`, increasing."""

    def check_size(self, most: int) -> None:
        """Raise UserError if a position holds more than `most` blocks."""

    def priced(
        self, index: int, ins: Integers, outs: Integers
    ) -> Iterable[tuple[Integers, Integers, Integers, Integers, Array]]:
        """Every block of a position: numbers of its input and output width, choice (n, 3), units, vectors (n, width)."""

    def shapes(self, rows: Integers) -> tuple[Integers, Array]:
        """Depths, and logarithms of widths, by which rows are told apart."""

    def stem_vectors(self, widths: Integers) -> Array:
        """(n, width) vectors of stems."""

    def tail_vectors(self, widths: Integers) -> Array:
        """(n, width) vectors of a fixed closing block behind last blocks of these widths."""

    def closings(self, channels: Integers, spend: Callable[[int, str], None]) -> Array:
        """(n, width) vectors of neck and head for widths C3, C4, C5 (n, 3); `spend` is told the steps."""

    def evaluate(self, individuals: Integers) -> Evaluation:
        """Scores and metrics of rows."""

    def spec(self, individual: Integers) -> Spec:
        """The backbone of a row."""

    def encode(self, specs: Sequence[Spec]) -> Integers:
        """Rows of members."""


@dataclass(frozen=True)
class Options:
    """The choices of one part, sorted by their input width.

    before, after: numbers of the input and output width; choice: (bottleneck, kernel, depth), zeros for the stem;
    units: of the option; costs (n, resources); score (n,); starts: first option of each input width.
    """

    before: Integers
    after: Integers
    choice: Integers
    units: Integers
    costs: Array
    score: Array
    starts: Integers

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Parts:
    """A search problem as a chain of options; costs are shares of the limits.

    A lower limit is an upper one on what is left to the most that there can be: sum x >= low where every part lacks
    (its most - x), of which all together may lack at most (the most of all - low).
    widths: output widths of stem and blocks; options: of stem and blocks; taps: parts whose widths the costs behind the
    last block depend on; carries: how many combinations of earlier tapped widths a state after each part tells apart;
    resources, limits: the budgeted sums, and what each may come to; tops: of a lower limit the most of all, else 0; units:
    the most units of all blocks together; behind_costs, behind_score: of what is behind the last block, by the state after
    it.
    """

    widths: list[Integers]
    options: list[Options]
    taps: tuple[int, ...]
    carries: list[int]
    resources: tuple[str, ...]
    limits: Array
    tops: Array
    units: int
    behind_costs: Array
    behind_score: Array


def rising(group: Integers, rank: Integers) -> npt.NDArray[np.bool_]:
    """Which rows, sorted by group, have a higher rank (0, 1, 2 ...) than all rows before them in their group."""
    total = group * (int(rank.max()) + 1) + rank
    best = np.maximum.accumulate(total)
    return np.concatenate([np.ones(1, dtype=bool), total[1:] > best[:-1]])


def chain_of(problem: ChainProblem, effort: Effort | None = None, closed: bool = True) -> Parts:
    """The chain of a problem, every block priced.

    closed: with what stands behind the last block; without it the chain costs less than any network, but needs to tell
    far fewer states apart.
    Raises UserError for a score or a limit that is not a sum over blocks, and for a space with too many blocks; Halt
    from the effort that counts the work.
    """
    problem.check_size(MOST_OPTIONS)
    blocks, units = problem.blocks, problem.most_units
    widths = [np.array(problem.outs(index - 1) if index else problem.stem_widths) for index in range(blocks + 1)]
    taps = {blocks}
    if closed and problem.objective.frame is not None:
        taps |= {index + 1 for index in problem.template.out_blocks if index < blocks}
    carries = [int(np.prod([len(widths[t]) for t in taps if t < p])) for p in range(len(widths))]
    most_bins(widths, carries, units)  # before anything is priced
    price, effort = Pricing(problem, closed), effort or Effort()
    options = [_stem_options(price)]
    options += [_block_options(price, index, widths[index], widths[index + 1], effort) for index in range(blocks)]
    costs, score = (behind if closed else _open_end)(price, sorted(taps), widths, effort)
    tops, limits = np.zeros(len(price.limits)), price.limits.copy()
    for column in np.flatnonzero(price.lower):
        every = [*(part.costs for part in options), costs]
        tops[column] = -sum(part[:, column].min() for part in every)
        # Sums in another order differ: what is a hair below may be the limit itself, and evaluations tell.
        hair = _HAIR * max(tops[column], limits[column])
        room = tops[column] - limits[column] + hair
        limits[column] = max(room, hair)
        for part in every:
            part[:, column] = (part[:, column] - part[:, column].min()) / limits[column]
        if room < 0:  # the most of all is not enough
            costs[:, column] = 2.0
    return Parts(
        widths, options, tuple(sorted(taps)), carries, price.resources, limits, tops, units, costs, score
    )  # fmt: skip


def most_bins(widths: list[Integers], carries: list[int], units: int, cells: int = CELLS) -> int:
    """The finest bounds that `cells` numbers can hold; raises Halt if they hold none."""
    states = sum(carry * len(values) for carry, values in zip(carries, widths, strict=True))
    bins = min(cells // (states * (units + 1)) - 1, _FINEST)
    if bins < 1:
        raise Halt(f"the bounds of {states:,} states with up to {units} units each do not fit into memory", False)
    return bins


def logs_of(formula: Formula | None) -> tuple[float, ...] | None:
    """Weights by level of a score of logarithms of sums; None for every other."""
    return formula.logs() if formula is not None else None


def is_convex(formula: Formula | None) -> bool:
    """Whether a score is a convex function of sums over parts, and no sum itself."""
    return formula is not None and (formula.through_neck or formula.logs() is not None)


def linear_score(formula: Formula | None, levels: int) -> Linear:
    """The score as a sum over parts; for a convex function of sums, the gains that it rises with, or minus those that it
    falls with.

    Raises UserError for a score that is neither, or weights that do not fit the levels.
    """
    linear = formula.linear() if formula is not None else None
    if (logs := logs_of(formula)) is not None:
        linear = Linear((-1.0,) * len(logs), (0.0,) * len(logs))
    elif formula is not None and formula.through_neck:
        linear = Linear((1.0,) * levels, (0.0,) * levels)
    if linear is None:
        raise UserError(f"exact search needs a score that is a sum over blocks: {SUMS}")
    if not linear.metric:
        weighted(np.zeros((0, levels)), linear.widths)
    return linear


class Pricing:
    """Costs as shares of the limits, and scores, of parts from their vectors.

    What has a lower limit (`lower`) costs less than nothing until the most of every part is known; bounds without what
    stands behind the chain (`closed` false) let lower limits go.
    """

    def __init__(self, problem: ChainProblem, closed: bool) -> None:
        self.problem = problem
        ranges = [(name, low, high) for name, low, high in problem.budget.ranges]
        ends = [
            (name, high, False)
            for name, _, high in ranges
            if high < np.inf and not (name == "layers" and problem.counts_layers)
        ]
        ends += [(name, low, True) for name, low, _ in ranges if low and closed]
        self.resources = tuple(name for name, _, _ in ends)
        self.limits = np.array([limit for _, limit, _ in ends])
        self.lower = np.array([lower for _, _, lower in ends], dtype=bool)
        self._columns = [(*problem.objective.additive(name), -1.0 if lower else limit) for name, limit, lower in ends]
        levels = problem.levels
        self.linear = linear_score(problem.objective.formula, len(set(levels)))
        self.ends = [i + 1 == len(levels) or levels[i + 1] > level for i, level in enumerate(levels)]

    def costs(self, vectors: Array) -> Array:
        """(n, resources)."""
        if not self._columns:
            return np.zeros((len(vectors), 0))
        return np.stack([vectors[:, column] / unit / limit for column, unit, limit in self._columns], axis=1)

    def score(self, vectors: Array, widths: Integers, part: int) -> Array:
        """(n,) scores of the stem (part 0) or of a block."""
        if self.linear.metric:
            return self.behind(vectors)
        level = self.problem.levels[part]
        assert self.problem.objective.formula is not None
        result = self.problem.objective.formula.gains(vectors[:, AMOUNT]) * self.linear.gains[level]
        return result + self.linear.widths[level] * np.log(widths) if self.ends[part] else result

    def behind(self, vectors: Array) -> Array:
        """(n,) scores of what stands behind the backbone: of a neck that is searched, what it adds."""
        if not self.linear.metric:
            added: Array = vectors[:, AMOUNT].copy()
            return added
        column, unit = self.problem.objective.additive(self.linear.metric)
        return vectors[:, column] * (self.linear.factor / unit)


def pyramids(problem: ChainProblem, taps: Sequence[int], widths: list[Integers]) -> tuple[Integers, Integers, Mask]:
    """By the state after the last block: widths C3, C4, C5 (n, 3), the width of the last block, and whether there is any
    such network, as widths never decrease along a chain."""
    rest = np.arange(int(np.prod([len(widths[tap]) for tap in taps])))
    chosen: dict[int, Integers] = {}
    for tap in reversed(taps):
        chosen[tap] = widths[tap][rest % len(widths[tap])]
        rest = rest // len(widths[tap])
    channels, last = channels_of(problem, chosen)
    return channels, last, np.all(np.diff(channels, axis=1) >= 0, axis=1)


def channels_of(problem: ChainProblem, chosen: Mapping[int, Integers]) -> tuple[Integers, Integers]:
    """Widths C3, C4, C5 (n, 3), and of the last block, from those of the tapped parts."""
    last = chosen[problem.blocks]
    fixed = np.full(len(last), problem.template.blocks[-1].out)
    return np.stack([chosen.get(i + 1, fixed) for i in problem.template.out_blocks], axis=1), last


def behind(price: Pricing, taps: list[int], widths: list[Integers], effort: Effort) -> tuple[Array, Array]:
    """Costs and score of a closing convolution, neck and head, by the state after the last block."""
    problem = price.problem
    channels, last, reached = pyramids(problem, taps, widths)
    vectors = np.zeros((len(last), problem.objective.width))
    vectors[reached] = problem.closings(channels[reached], effort.spend)
    score = price.behind(vectors)
    if len(problem.template.blocks) > problem.blocks:
        tail, fixed = problem.tail_vectors(last), np.full(len(last), problem.template.blocks[-1].out)
        vectors = vectors + tail
        score = score + price.score(tail, fixed, len(problem.levels) - 1)
    return price.costs(vectors), score


def _open_end(price: Pricing, taps: list[int], widths: list[Integers], effort: Effort) -> tuple[Array, Array]:
    """Costs (none) and score by the width after the last block, as if nothing stood behind it."""
    problem = price.problem
    score = np.zeros(len(widths[-1]))
    if len(problem.template.blocks) > problem.blocks:
        fixed = np.full(len(widths[-1]), problem.template.blocks[-1].out)
        score = price.score(problem.tail_vectors(widths[-1]), fixed, len(problem.levels) - 1)
    return np.zeros((len(score), len(price.resources))), score


def _stem_options(price: Pricing) -> Options:
    widths = np.array(price.problem.stem_widths, dtype=np.int64)
    vectors = price.problem.stem_vectors(widths)
    zeros = np.zeros(len(widths), dtype=np.int64)
    choice = np.zeros((len(widths), 3), dtype=np.int64)
    score = price.score(vectors, widths, 0)
    starts = np.array([0, len(widths)])
    return Options(zeros, np.arange(len(widths)), choice, zeros, price.costs(vectors), score, starts)


def _block_options(price: Pricing, index: int, ins: Integers, outs: Integers, effort: Effort) -> Options:
    """Every block of a position that no other of the same widths and units beats in score and all costs."""
    found: list[tuple[Integers, Integers, Integers, Integers, Array, Array]] = []
    for before, after, choice, units, vectors in price.problem.priced(index, ins, outs):
        effort.spend(0, f"block {index + 1} of {price.problem.blocks}")
        score = price.score(vectors, outs[after], index + 1)
        found.append((before, after, choice, units, price.costs(vectors), score))
    before, after, choice, units, costs, score = (np.concatenate(column) for column in zip(*found, strict=True))
    group = (before * len(outs) + after) * (int(units.max()) + 1) + units
    keep = _unbeaten(group, costs, score, effort)
    keep = keep[np.argsort(before[keep], kind="stable")]
    starts = np.searchsorted(before[keep], np.arange(len(ins) + 1))
    return Options(before[keep], after[keep], choice[keep], units[keep], costs[keep], score[keep], starts)


def _unbeaten(group: Integers, costs: Array, score: Array, effort: Effort) -> Integers:
    """Rows that no other row of their group beats, in order of group and first cost.

    Exact for up to one cost; with more, a row counts as beaten only by one that is no dearer in any.
    """
    first = costs[:, 0] if costs.shape[1] else np.zeros(len(score))
    order = np.lexsort((-score, first, group))
    if costs.shape[1] > 1:
        return order[_unbeaten_in_all(group[order], costs[order], score[order], effort)]
    return order[rising(group[order], np.unique(score, return_inverse=True)[1][order])]


def _unbeaten_in_all(group: Integers, costs: Array, score: Array, effort: Effort) -> npt.NDArray[np.bool_]:
    """The same for sorted rows and several costs, group by group."""
    keep = np.zeros(len(score), dtype=bool)
    bounds = np.append(np.flatnonzero(np.diff(group, prepend=-1)), len(group))
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        block, gain = costs[start:stop], score[start:stop]
        effort.spend(400 + block.size * len(block) // 10, "blocks that none beats")
        cheaper = (block[None, :, :] <= block[:, None, :]).all(axis=2) & (gain[None, :] >= gain[:, None])
        cheaper &= np.tri(len(gain), k=-1, dtype=bool)
        keep[start:stop] = ~cheaper.any(axis=1)
    return keep
