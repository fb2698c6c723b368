"""The fast problem: TinyNAS spaces with a closed-form score, thousands of candidates per NumPy call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from nas.blocks.operation import halved
from nas.cost.budget import Budget
from nas.errors import UserError
from nas.scorers.formula import uncounted
from nas.searchers.base import Evaluation
from nas.searchers.problem.block_tables import BlockTable, Point
from nas.searchers.problem.objective import METRICS, WIDTH, Array, Objective
from search_spaces.chain import ResidualChains
from search_spaces.genes import DEPTH, FIELDS, KERNEL, MID, OUT, GeneCodec, Genes
from search_spaces.streams import Words, row_hashes

#: What it costs to lower and price one neck and head (1.5 ms).
_CLOSING_STEPS = 30_000


def index_of(values: Sequence[int]) -> npt.NDArray[np.int64]:
    """A look-up array from a value to its number in `values`."""
    table = np.full(max(values) + 1, -1, dtype=np.int64)
    table[list(values)] = np.arange(len(values))
    return table


class GeneProblem(GeneCodec):
    """Evaluations of gene rows, which are drawn and changed as `GeneCodec` says; equal to `Objective.evaluate` of the specs.

    Raises UserError if the budget limits a metric that the objective does not give.
    """

    generous: bool = True
    metrics: tuple[str, ...] = METRICS

    def __init__(self, space: ResidualChains, objective: Objective, budget: Budget) -> None:
        for metric in budget.metrics:
            if metric not in METRICS:
                raise UserError(f"this search gives no {metric}; it gives {', '.join(METRICS)}")
        super().__init__(space)
        self.objective, self.budget = objective, budget
        self.template = space.initial()
        self._lay_out()

    # ------------------------------------------------------------------ individuals

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
        """Score and METRICS of gene rows (n, genes)."""
        rows, blocks = individuals, self.blocks
        parts = np.empty((len(rows), 1 + len(self.template.blocks), WIDTH))
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

    def closing(self, channels: npt.NDArray[np.int64], spend: Callable[[int, str], None] | None = None) -> Array:
        """(n, WIDTH) vectors of neck and head for widths C3, C4, C5 (n, 3).

        spend: told the steps of each that is new and how far it has come, before it is priced.
        """
        if self.objective.frame is None:
            return np.broadcast_to(self.objective.closing((), ()), (len(channels), WIDTH))
        keys = channels @ np.array([1 << 40, 1 << 20, 1], dtype=np.int64)
        found, places = np.unique(keys, return_inverse=True)
        vectors = np.empty((len(found), WIDTH))
        for row, key in enumerate(found.tolist()):
            if spend is not None and key not in self._closings:
                spend(_CLOSING_STEPS, f"neck and head {row:,} of {len(found):,}")
            vectors[row] = self._closing_of(key)
        return vectors[places]

    def stem_vectors(self, widths: npt.NDArray[np.int64]) -> Array:
        """(n, WIDTH) vectors of stems."""
        return self._stems[self.stem_index[widths]]

    def tail_vectors(self, widths: npt.NDArray[np.int64]) -> Array:
        """(n, WIDTH) vectors of the closing convolution behind last blocks of these widths."""
        return self._tails[self.out_index[self.blocks - 1][widths]]

    def _closing_of(self, key: int) -> Array:
        vector = self._closings.get(key)
        if vector is None:
            channels = (key >> 40, (key >> 20) & 0xFFFFF, key & 0xFFFFF)
            vector = self._closings[key] = self.objective.closing(channels, self.maps)
        return vector

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
                    kernel: BlockTable(partial(self._cost, index, kernel, size, spp), before, mids, outs, WIDTH)
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

    def _stem(self, width: int) -> Array:
        row = self.initial()[0]
        row[0] = width
        return self.objective.stem(self.spec(row).stem, self.template.activation)

    def _cost(self, index: int, kernel: int, size: tuple[int, int], spp: str, points: Sequence[Point]) -> Array:
        blocks = [(self.space.block(index, out, mid, depth, kernel), width) for width, mid, out, depth in points]
        return self.objective.blocks(blocks, size, self.template.activation, self.template.reparam, spp)
