"""The fast problem: TinyNAS spaces with a closed-form score, thousands of candidates per NumPy call (`block_table`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from nas.blocks.operation import halved, main_convolutions
from nas.cost.budget import TIMES, Budget, Limited
from nas.errors import UserError
from nas.scorers.formula import uncounted
from nas.searchers.base import Evaluation
from nas.searchers.problem import Array, Objective
from nas.searchers.problem.block_table import BlockTable, Inseparable, Point
from nas.spec import Spec
from search_spaces.chain import ResidualChains
from search_spaces.genes import DEPTH, FIELDS, KERNEL, MID, OUT, GeneCodec, Genes
from search_spaces.streams import Integers, Words, row_hashes


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

    @property
    def monotone(self) -> bool:
        """Whether every limited cost rises, and the score's amount only rises or only falls, with the widths of a block."""
        objective = self.objective
        tables = [objective.tables.get(cost.hardware, objective.table) for cost in map(Limited.of, self.budget.metrics)
                  if cost.metric in TIMES]  # fmt: skip
        known = all(table is None or table.header.kind == "kernel_model" for table in tables)
        return known and (objective.formula is None or objective.formula.monotone)

    def mids(self, index: int) -> Integers:
        """Bottlenecks that block `index` can take, increasing."""
        return self.tables[index][self.space.block_kernels(index)[0]].mids

    def variants(self, index: int) -> Integers:
        """(n, 2) kernels and depths that block `index` can take."""
        return np.array([(k, depth) for k in self.space.block_kernels(index) for depth in self._depths(index)])

    def allowed(self, index: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which widths may follow which (ins, outs), and which bottlenecks a width may have (outs, mids)."""
        outs = np.array(self.space.widths(index))
        ins = self.space.widths(index - 1) if index else self.stem_widths
        ends = np.array([self.space.width_interval(index, width, None) for width in ins])
        follows = (ends[:, :1] <= outs) & (outs <= ends[:, 1:])
        has = np.array([np.isin(self.mids(index), self.space.bottlenecks(out)) for out in outs.tolist()])
        return follows, has

    def block_vectors(
        self, index: int, kernel: Integers, before: Integers, mid: Integers, after: Integers, depth: Integers
    ) -> Array:
        """(n, width) vectors of blocks, by the numbers of their widths."""
        vectors = np.empty((len(kernel), self.objective.width))
        for value, table in self.tables[index].items():
            chosen = np.flatnonzero(kernel == value)
            if len(chosen):
                vectors[chosen] = table(before[chosen], mid[chosen], after[chosen], depth[chosen])
        return vectors

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
        return self.objective.stem(replace(self.template.stem, out=width), self.template.activation)

    def _cost(self, index: int, kernel: int, size: tuple[int, int], spp: str, points: Sequence[Point]) -> Array:
        blocks = [(self.space.block(index, out, mid, depth, kernel), width) for width, mid, out, depth in points]
        return self.objective.blocks(blocks, size, self.template.activation, self.template.reparam, spp)
