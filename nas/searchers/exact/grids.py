"""Blocks with widths on fine grids: groups of widths, boxes of blocks, and a problem of which only some blocks are left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from nas.searchers.exact.parts import ChainProblem, Integers, Mask
from nas.searchers.problem import Array


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

    def __getattr__(self, name: str) -> object:
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
    the least that they cost, the last column being units; the least and the most of what they are scored by (n, 2), and
    the most that they score."""

    groups: Integers
    kernel: Integers
    depth: Integers
    same: Mask
    costs: Array
    gains: Array
    score: Array

    def __len__(self) -> int:
        return len(self.score)

    def worth(self, prices: Array, scored: bool = True) -> Array:
        """Score less priced costs; scored False: as if no score counted."""
        return (self.score if scored else 0.0) - self.costs @ prices

    def take(self, rows: Integers | Mask) -> Boxes:
        return Boxes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @classmethod
    def joined(cls, pieces: list[Boxes]) -> Boxes:
        """All of several, sorted."""
        every = cls(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in cls.__dataclass_fields__))
        return every.take(np.lexsort((every.groups[:, 2], every.groups[:, 0])))


class Allowed:
    """How many pairs of two grids are allowed in rectangles of them."""

    def __init__(self, pairs: Mask) -> None:
        self._sums = np.zeros((pairs.shape[0] + 1, pairs.shape[1] + 1), dtype=np.int64)
        self._sums[1:, 1:] = pairs.cumsum(axis=0).cumsum(axis=1)

    def any(self, rows: tuple[Integers, Integers], columns: tuple[Integers, Integers]) -> Mask:
        """Of rectangles from a first to a last row and column."""
        (a, b), (c, d), sums = rows, columns, self._sums
        return sums[b + 1, d + 1] - sums[a, d + 1] - sums[b + 1, c] + sums[a, c] > 0
