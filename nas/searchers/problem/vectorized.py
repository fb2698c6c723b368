"""The fast problem: TinyNAS spaces with a closed-form score, thousands of candidates per NumPy call.

The costs of every residual block that a position can hold are sums of small tables over pairs of widths:
each operation of a residual unit sees at most two of the block's input, bottleneck and output widths, so the costs of
a block split into tables over pairs (a functional ANOVA with a fixed base point):

    first unit  F(i, b, o) = F(i, b, o') + [F(i', b, o) - F(i', b, o')] + [rest of (i, o)]      for i != o
                F(o, b, o) = E(b, o)                                                    (no projection: its own table)
    block       V(i, b, o, L) = F(i, b, o) + (L - 1) R(b, o)

The amount that a score counts grows with the depth as the score's formula says (`Formula.repeats`), in the place of L - 1.
A few thousand blocks priced one by one then stand for millions, and a generation is priced by a few array look-ups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from nas.blocks.operation import halved, main_convolutions
from nas.cost.budget import Budget
from nas.errors import UserError
from nas.scorers.formula import uncounted
from nas.searchers.base import Evaluation
from nas.searchers.problem import AMOUNT, Array, Objective
from nas.spec import Spec
from search_spaces.chain import ResidualChains
from search_spaces.genes import DEPTH, FIELDS, KERNEL, MID, OUT, GeneCodec, Genes
from search_spaces.streams import Integers, Words, row_hashes

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

        def first(points: Sequence[tuple[int, int, int]]) -> Array:
            return cost([(i, b, o, 1) for i, b, o in points])

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


def index_of(values: Sequence[int]) -> npt.NDArray[np.int64]:
    """A look-up array from a value to its number in `values`."""
    table = np.full(max(values) + 1, -1, dtype=np.int64)
    table[list(values)] = np.arange(len(values))
    return table


class GeneProblem(GeneCodec):
    """Evaluations of gene rows, which are drawn and changed as `GeneCodec` says; equal to `Objective.evaluate` of the specs.

    Raises UserError if the budget limits a metric that the objective does not give, Inseparable for a block family or a
    score whose tables are none over pairs of widths.
    """

    generous: bool = True
    counts_layers: bool = True

    def __init__(self, space: ResidualChains, objective: Objective, budget: Budget) -> None:
        self.metrics = objective.metrics
        for metric in budget.metrics:
            if metric not in self.metrics:
                raise UserError(f"this search gives no {metric}; it gives {', '.join(self.metrics)}")
        super().__init__(space)
        self.objective, self.budget = objective, budget
        self.template = space.initial()
        self._lay_out()

    # ------------------------------------------------------------------ individuals

    def specs(self, individuals: Genes) -> list[Spec]:
        return [self.spec(row) for row in individuals]

    def identities(self, individuals: Genes) -> Words:
        return row_hashes(individuals)

    def pack(self, individuals: Genes) -> Genes:
        return individuals

    def unpack(self, stored: Genes) -> Genes:
        return stored.astype(np.int64)

    def close(self) -> None:
        """Nothing to give back."""

    # ------------------------------------------------------------------ evaluation

    def evaluate(self, individuals: Genes, stop: Callable[[], bool] = lambda: False) -> Evaluation:
        """Score and `metrics` of gene rows (n, genes)."""
        rows, blocks = individuals, self.blocks
        parts = np.empty((len(rows), 1 + len(self.template.blocks), self.objective.width))
        widths = np.empty((len(rows), parts.shape[1]), dtype=np.int64)
        depths = rows[:, DEPTH::FIELDS][:, uncounted(self.space.kind) :]
        parts[:, 0] = self.stem_vectors(rows[:, 0])
        widths[:, 0] = rows[:, 0]
        before = rows[:, 0]
        for index in range(blocks):
            fields = rows[:, FIELDS * index : FIELDS * (index + 1) + 1]
            out, mid, kernel, depth = (fields[:, field] for field in (OUT, MID, KERNEL, DEPTH))
            widths[:, index + 1] = out
            for value, table in self.tables[index].items():
                chosen = slice(None) if len(self.tables[index]) == 1 else np.flatnonzero(kernel == value)
                parts[chosen, index + 1] = table(
                    self.in_index[index][before[chosen]],
                    self.mid_index[index][mid[chosen]],
                    self.out_index[index][out[chosen]],
                    depth[chosen],
                )
            before = out
        if len(self.template.blocks) > blocks:
            parts[:, -1] = self.tail_vectors(before)
            widths[:, -1] = self.template.blocks[-1].out
        closing = self.closing(widths[:, [index + 1 for index in self.template.out_blocks]])
        score, metrics = self.objective.combine(parts, widths, depths, self.levels, self.sides, closing)
        return Evaluation(score, metrics)

    def closing(self, channels: npt.NDArray[np.int64]) -> Array:
        """(n, width) vectors of neck and head for widths C3, C4, C5 (n, 3)."""
        if self.objective.frame is None:
            return np.broadcast_to(self.objective.closing((), ()), (len(channels), self.objective.width))
        keys = channels @ np.array([1 << 40, 1 << 20, 1], dtype=np.int64)
        found, places = np.unique(keys, return_inverse=True)
        vectors = np.empty((len(found), self.objective.width))
        for row, key in enumerate(found.tolist()):
            vectors[row] = self._closing_of(key)
        return vectors[places]

    def closings(self, channels: npt.NDArray[np.int64], spend: Callable[[int, str], None]) -> Array:
        """The same to the rounding of sums, priced node by node for all of them together."""
        return self.objective.closings(channels, self.maps, spend)

    def stem_vectors(self, widths: npt.NDArray[np.int64]) -> Array:
        """(n, width) vectors of stems."""
        return self._stems[self.stem_index[widths]]

    def tail_vectors(self, widths: npt.NDArray[np.int64]) -> Array:
        """(n, width) vectors of the closing convolution behind last blocks of these widths."""
        return self._tails[self.out_index[self.blocks - 1][widths]]

    def _closing_of(self, key: int) -> Array:
        vector = self._closings.get(key)
        if vector is None:
            channels = (key >> 40, (key >> 20) & 0xFFFFF, key & 0xFFFFF)
            vector = self._closings[key] = self.objective.closing(channels, self.maps)
        return vector

    # ------------------------------------------------------------------ the space as exact search sees it

    @property
    def name(self) -> str:
        return self.space.name

    @property
    def most_units(self) -> int:
        space = self.space
        fixed = space.layers_of(self.template) - space.unit_layers * self.blocks
        return max(int((min(self.budget["layers"], space.max_layers) - fixed) // space.unit_layers), 0)

    def size(self) -> int:
        return self.space.size()

    def outs(self, index: int) -> tuple[int, ...]:
        return self.space.widths(index)

    def check_size(self, most: int) -> None:
        """Raise UserError if a position of the space holds more blocks than `most`."""
        space, before = self.space, len(self.stem_widths)
        for index in range(self.blocks):
            outs = space.widths(index)
            variants = len(space.block_kernels(index)) * len(self._depths(index))
            count = before * sum(len(space.bottlenecks(out)) for out in outs) * variants
            if count > most:
                raise UserError(
                    f"exact search of space {space.name} would price up to {count:,} blocks at position {index}; narrow its "
                    "channels or bottlenecks, raise its step, or use searcher=evolution"
                )
            before = len(outs)

    def priced(
        self, index: int, ins: Integers, outs: Integers
    ) -> Iterator[tuple[Integers, Integers, Integers, Integers, Array]]:
        """Every block of a position, by kernel and depth: see `nas.searchers.exact.parts.ChainProblem`."""
        space, rows = self.space, list[tuple[Integers, Integers, Integers]]()
        intervals = [space.width_interval(index, width, None) for width in ins.tolist()]
        for o, out in enumerate(outs.tolist()):
            mids = np.array(space.bottlenecks(out), dtype=np.int64)
            allowed = np.array([i for i, (low, high) in enumerate(intervals) if low <= out <= high], dtype=np.int64)
            rows.append(
                (np.repeat(allowed, len(mids)), np.tile(mids, len(allowed)), np.full(len(allowed) * len(mids), o))
            )
        before, mid, after = (np.concatenate(column) for column in zip(*rows, strict=True))
        for kernel in space.block_kernels(index):
            table = self.tables[index][kernel]
            numbers = self.mid_index[index][mid]
            first, later = table.first_unit(before, numbers, after), table.later_unit(numbers, after)
            for depth in self._depths(index):
                units = np.full_like(mid, depth)
                choice = np.stack([mid, np.full_like(mid, kernel), units], axis=1)
                yield before, after, choice, units, table.whole(first, later, units)

    def shapes(self, rows: Genes) -> tuple[Integers, Array]:
        """Depths, and logarithms of widths and bottlenecks, of every block of gene rows."""
        return rows[:, DEPTH::FIELDS], np.log(np.concatenate([rows[:, OUT::FIELDS], rows[:, MID::FIELDS]], axis=1))

    def _depths(self, index: int) -> range:
        most = self.space.max_layers // self.space.unit_layers - self.blocks + 1
        return range(1, min(self.space.depths[index], most) + 1)

    # ------------------------------------------------------------------ layout

    def _lay_out(self) -> None:
        """Widths, map sizes and empty tables of every position."""
        space, objective, template = self.space, self.objective, self.template
        size = (objective.image_size, objective.image_size)
        stems = space.stem_widths()
        self.stem_index = index_of(stems)
        self.stem_widths = stems
        self._stems = np.stack([self._stem(width) for width in stems])
        size = halved(size, template.stem.stride)
        self.levels = (0, *template.levels)
        sides, maps = [min(size)], [size]
        self.tables: list[dict[int, BlockTable]] = []
        self.in_index, self.mid_index, self.out_index = [], [], []
        before: tuple[int, ...] = stems
        for index in range(self.blocks):
            outs = space.widths(index)
            mids = sorted({mid for out in outs for mid in space.bottlenecks(out)})
            last = index + 1 == len(template.blocks)
            spp = template.spp if last else "none"
            self.tables.append(
                {
                    kernel: BlockTable(
                        partial(self._cost, index, kernel, size, spp),
                        before,
                        mids,
                        outs,
                        objective.width,
                        self._repeats(index, kernel, size),
                    )
                    for kernel in space.block_kernels(index)
                }
            )
            self.in_index.append(index_of(before))
            self.mid_index.append(index_of(mids))
            self.out_index.append(index_of(outs))
            for table in self.tables[index].values():
                table.probe(range(1, min(space.depths[index], 4) + 1))
            size = halved(size, space.strides[index])
            sides.append(min(size))
            maps.append(size)
            before = outs
        if len(template.blocks) > self.blocks:
            tail = template.blocks[-1]
            self._tails = np.stack(
                [
                    objective.block(tail, width, size, template.activation, template.reparam, template.spp)
                    for width in before
                ]
            )
            size = halved(size, tail.stride)
            sides.append(min(size))
            maps.append(size)
        self.sides = sides
        self.maps = tuple(maps[index + 1] for index in template.out_blocks)
        self._closings: dict[int, Array] = {}

    def _repeats(self, index: int, kernel: int, size: tuple[int, int]) -> list[float]:
        """`Formula.repeats` by depth; raises Inseparable where it depends on widths, as a shortcut at equal ones alone does."""
        depths, formula = range(1, self.space.depths[index] + 1), self.objective.formula
        if formula is None:
            return [0.0, *(depth - 1.0 for depth in depths)]
        out = self.space.widths(index)[-1]
        block = self.space.block(index, out, self.space.bottlenecks(out)[0], 1, kernel)
        lowered = [block.operations(width, size, self.template.activation, False) for width in (out, out + 1)]
        adds = [any(op.fused_add for op in main_convolutions(operations)) for operations in lowered]
        equal, other = ([formula.repeats(depth, add) for depth in depths] for add in adds)
        if equal != other:
            raise Inseparable("the shortcuts of this block family depend on its widths, and so does this score")
        return [0.0, *equal]

    def _stem(self, width: int) -> Array:
        row = self.initial()[0]
        row[0] = width
        return self.objective.stem(self.spec(row).stem, self.template.activation)

    def _cost(self, index: int, kernel: int, size: tuple[int, int], spp: str, points: Sequence[Point]) -> Array:
        blocks = [(self.space.block(index, out, mid, depth, kernel), width) for width, mid, out, depth in points]
        return self.objective.blocks(blocks, size, self.template.activation, self.template.reparam, spp)
