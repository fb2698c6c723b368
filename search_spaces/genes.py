"""The moves of a TinyNAS space, on integer arrays: thousands of backbones are drawn, changed and combined at a time.

After TinyNAS (MAE-NAS, arXiv 2111.13336) with three differences: every block can change, the last included; a move clips
to the limits instead of drawing again; and a change of width leaves the next block's bottleneck alone.

A row holds the stem's width, then (out, bottleneck, kernel, depth) of every block: the values themselves. The limits
are asked of the space once and kept as look-up tables; `spec` and `encode` are the way to and from specs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nas.spec import Backbone, Residual, Spec, backbone_of
from search_spaces.chain import ResidualChains
from search_spaces.streams import Stream, Words, row_hashes

Genes = npt.NDArray[np.int64]
OUT, MID, KERNEL, DEPTH = 1, 2, 3, 4
FIELDS = 4
#: A coarse mutation makes at most so many moves.
_MOST_MOVES = 4


class GeneCodec:
    """Moves of `space` on arrays of genes. Every returned row is a member."""

    def __init__(self, space: ResidualChains) -> None:
        self.space = space
        self.blocks = len(space.strides)
        self.width = 1 + FIELDS * self.blocks
        self._step = space.step
        self._highest = max(widths[-1] for widths in map(space.widths, range(self.blocks)))
        self._mids = [space.bottlenecks(out) for out in range(self._step, self._highest + 1, self._step)]
        self._mid_table = np.full((len(self._mids), max(map(len, self._mids))), np.iinfo(np.int64).max)
        for row, mids in enumerate(self._mids):
            self._mid_table[row, : len(mids)] = mids
        self._mid_counts = np.array([len(mids) for mids in self._mids])
        self._units = (space.max_layers - space.layers_of(space.initial())) // space.unit_layers + self.blocks
        self._caps = np.array(space.depths)
        self._scales = np.array(space.scales)
        self._steps = np.array(space.depth_steps)
        self._minor = np.array(space.minor_steps) * self._step
        self._kernels = [np.array(space.block_kernels(i)) for i in range(self.blocks)]
        low = [[space.width_interval(i, 1, None)[0]] for i in range(self.blocks)]
        self._low = np.array(low)[:, 0]
        self._high = np.array([space.widths(i)[-1] for i in range(self.blocks)])

    # ------------------------------------------------------------------ specs

    def encode(self, specs: Sequence[Spec]) -> Genes:
        """Rows of members, or of the backbones of detectors; raises SpecError for another backbone."""
        rows = []
        for spec in map(backbone_of, specs):
            self.space.check(spec)
            row = [spec.stem.out]
            for block in self.space.searched(spec):
                row += [block.out, block.bottleneck, block.kernel, block.depth]
            rows.append(row)
        return np.array(rows, dtype=np.int64).reshape(len(rows), self.width)

    def spec(self, individual: Genes) -> Backbone:
        template = self.space.initial()
        values = [int(value) for value in individual]
        blocks = []
        for index in range(self.blocks):
            out, mid, kernel, depth = values[1 + FIELDS * index : 1 + FIELDS * (index + 1)]
            blocks.append(self.space.block(index, out, mid, depth, kernel))
        stem = replace(template.stem, out=values[0])
        return replace(template, stem=stem, blocks=(*blocks, *template.blocks[self.blocks :]))

    def nearest(self, spec: Backbone) -> Backbone | None:
        """The member most like a backbone of as many residual blocks of the same strides; None for any other backbone."""
        blocks = self.space.searched(spec)
        if [getattr(block, "stride", 0) for block in blocks] != list(self.space.strides):
            return None
        if not all(isinstance(block, Residual) for block in blocks):
            return None
        row = [round(spec.stem.out / self._step) * self._step]
        for index, block in enumerate(blocks):
            out, mid = (max(round(width / self._step), 1) * self._step for width in (block.out, block.bottleneck))
            kernel = min(self.space.block_kernels(index), key=lambda size: abs(size - block.kernel))
            row += [min(out, self._highest), mid, kernel, min(block.depth, self.space.depths[index])]
        found = self.spec(self.repaired(np.array([row], dtype=np.int64))[0])
        return found if self.space.contains(found) else None

    def initial(self) -> Genes:
        return self.encode([self.space.initial()])

    def repaired(self, rows: Genes) -> Genes:
        """Rows with fields in range, brought into the space: widths from the front, then bottlenecks and depths."""
        rows = rows.copy()
        self._repair(rows)
        return self._fit_depths(rows, Stream(row_hashes(rows)))

    # ------------------------------------------------------------------ moves

    def sample(self, keys: Words) -> Genes:
        """Random members: widths one after the other between what is allowed, bottlenecks and depths uniform."""
        stream, count = Stream(keys), len(keys)
        rows = np.empty((count, self.width), dtype=np.int64)
        stems = np.array(self.space.stem_widths())
        rows[:, 0] = stems[stream.below(len(stems))]
        for index in range(self.blocks):
            low, high = self._interval(rows, index)
            columns = FIELDS * index
            out = low + self._step * stream.below((high - low) // self._step + 1)
            rows[:, columns + OUT] = out
            place = out // self._step - 1
            rows[:, columns + MID] = self._mid_table[place, stream.below(self._mid_counts[place])]
            rows[:, columns + KERNEL] = self._kernels[index][stream.below(len(self._kernels[index]))]
            rows[:, columns + DEPTH] = 1 + stream.below(int(self._caps[index]))
        return self._fit_depths(rows, stream)

    def mutate(self, parents: Genes, keys: Words, minor: bool) -> Genes:
        """One to four moves of one block (or the stem) each, half as often with each further one.

        In the minor phase one move, of widths only and by small steps.
        """
        stream, rows = Stream(keys), parents.copy()
        active = np.arange(len(rows))
        for _ in range(1 if minor else _MOST_MOVES):
            part = rows[active]
            self._move(part, stream, minor)
            rows[active] = part
            goes_on = stream.chance(0.5)
            active, stream = active[goes_on], stream.take(goes_on)
        return rows

    def crossover(self, first: Genes, second: Genes, keys: Words) -> Genes:
        """The head of one parent and the tail of the other, or each block from either; then repaired."""
        stream = Stream(keys)
        cut = 1 + stream.below(self.blocks)
        mixed = stream.chance(0.5)
        rows = first.copy()
        for index in range(self.blocks):
            swap = np.where(mixed, stream.chance(0.5), index >= cut)
            span = slice(FIELDS * index + OUT, FIELDS * index + DEPTH + 1)
            rows[:, span] = np.where(swap[:, None], second[:, span], first[:, span])
        self._repair(rows)
        return self._fit_depths(rows, stream)

    # ------------------------------------------------------------------ inside

    def _interval(self, rows: Genes, index: int) -> tuple[Genes, Genes]:
        """Lowest and highest width of a block behind its predecessor's."""
        before = rows[:, 0] if index == 0 else rows[:, FIELDS * (index - 1) + OUT]
        low = np.maximum(before, self._low[index])
        high = np.full(len(rows), self._high[index])
        if index and np.isfinite(self.space.growth):
            high = np.minimum(high, (self.space.growth * before).astype(np.int64) // self._step * self._step)
        return low, high

    def _move(self, rows: Genes, stream: Stream, minor: bool) -> None:
        where = stream.below(self.blocks + 1) - 1
        what = stream.below(2 if minor else 3 + (len(self.space.kernels) > 1))
        scale, minor_step = stream.uniform(), stream.uniform()
        step = self._steps[stream.below(len(self._steps))]
        pick = stream.uniform()
        lines = np.arange(len(rows))

        def moved(widths: Genes) -> Genes:
            if minor:
                return widths + self._minor[(minor_step * len(self._minor)).astype(np.int64)]
            factor = self._scales[(scale * len(self._scales)).astype(np.int64)]
            return (np.rint(widths * factor / self._step) * self._step).astype(np.int64)

        stem = where < 0
        low, high = self.space.stem_channels
        rows[stem, 0] = np.clip(moved(rows[:, 0])[stem], low, np.minimum(high, rows[stem, OUT]))
        column = FIELDS * np.maximum(where, 0)
        for field in (OUT, MID, DEPTH, KERNEL):
            chosen = ~stem & (what == (OUT, MID, DEPTH, KERNEL).index(field))
            if not chosen.any():
                continue
            line, place = lines[chosen], column[chosen] + field
            if field == OUT:
                rows[line, place] = self._held(rows[chosen], where[chosen], moved(rows[lines, column + OUT])[chosen])
            elif field == MID and self.space.ratios:
                row = rows[line, column[chosen] + OUT] // self._step - 1
                rows[line, place] = self._mid_table[row, (pick[chosen] * self._mid_counts[row]).astype(np.int64)]
            elif field == MID:
                rows[line, place] = np.maximum(moved(rows[lines, column + MID])[chosen], self._step)
            elif field == DEPTH:
                used = rows[line][:, DEPTH::FIELDS].sum(axis=1) - rows[line, place]
                cap = np.minimum(self._caps[where[chosen]], self._units - used)
                rows[line, place] = np.clip(rows[line, place] + step[chosen], 1, cap)
            else:
                counts = np.array([len(kernels) for kernels in self._kernels])[where[chosen]]
                table = np.array([np.resize(kernels, counts.max()) for kernels in self._kernels])
                rows[line, place] = table[where[chosen], (pick[chosen] * counts).astype(np.int64)]
        self._repair(rows)

    def _held(self, rows: Genes, where: Genes, out: Genes) -> Genes:
        """A new width of block `where`, held between what its neighbours allow."""
        lines = np.arange(len(rows))
        before = np.where(where == 0, rows[:, 0], rows[lines, FIELDS * np.maximum(where - 1, 0) + OUT])
        after = rows[lines, FIELDS * np.minimum(where + 1, self.blocks - 1) + OUT]
        low = np.maximum(before, self._low[where])
        high = np.where(where + 1 < self.blocks, np.minimum(self._high[where], after), self._high[where])
        if np.isfinite(self.space.growth):
            shrunk = -(-after // (self.space.growth * self._step)).astype(np.int64) * self._step
            low = np.where(where + 1 < self.blocks, np.maximum(low, shrunk), low)
            most = (self.space.growth * before).astype(np.int64) // self._step * self._step
            high = np.where(where > 0, np.minimum(high, most), high)
        return np.maximum(np.minimum(np.maximum(out, low), high), np.minimum(low, high))

    def _repair(self, rows: Genes) -> None:
        """Bring widths into their intervals from the front, and bottlenecks to the nearest allowed one."""
        low, high = self.space.stem_channels
        rows[:, 0] = np.clip(rows[:, 0], low, min(high, int(self._high[0])))
        for index in range(self.blocks):
            least, most = self._interval(rows, index)
            column = FIELDS * index
            out = np.clip(rows[:, column + OUT], least, most)
            ratio = rows[:, column + MID] / rows[:, column + OUT]
            mid = np.where(bool(self.space.ratios), np.rint(ratio * out), rows[:, column + MID]).astype(np.int64)
            rows[:, column + OUT] = out
            rows[:, column + MID] = self._nearest_mid(out, mid)

    def _nearest_mid(self, out: Genes, mid: Genes) -> Genes:
        place = out // self._step - 1
        if not self.space.ratios:
            low = self._mid_table[place, 0]
            high = self._mid_table[place, self._mid_counts[place] - 1]
            return np.clip(mid, low, high)
        options = self._mid_table[place]
        distance = np.where(options == np.iinfo(np.int64).max, options, np.abs(options - mid[:, None]))
        return options[np.arange(len(out)), distance.argmin(axis=1)]

    def _fit_depths(self, rows: Genes, stream: Stream) -> Genes:
        """Take units away, block by block from a random start, until the layer limit of the space holds."""
        depths = rows[:, DEPTH::FIELDS]
        surplus = np.maximum(depths.sum(axis=1) - self._units, 0)
        start = stream.below(self.blocks)
        for turn in range(self.blocks):
            if not surplus.any():
                break
            column = (start + turn) % self.blocks
            lines = np.arange(len(rows))
            cut = np.minimum(depths[lines, column] - 1, surplus)
            depths[lines, column] -= cut
            surplus = surplus - cut
        return rows
