"""Chains of residual blocks under TinyNAS limits: which there are, how many, and what breaks a limit.

How members are drawn and changed says `search_spaces.genes`; the named spaces are in `search_spaces.tinynas`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen

from nas.blocks.residual import LAYERS_PER_UNIT
from nas.errors import UserError
from nas.options import DISTINCT, ENDLESS, LOWEST_FIRST, CountOrNone, Pixels, Width
from nas.spec import Activation, Backbone, Plain, Residual, ResidualKind, SppKind, Stem
from search_spaces.base import (
    Cost,
    Depths,
    Factor,
    Factors,
    Kernels,
    Moves,
    Range,
    SearchSpace,
    Step,
    differing_fields,
    parameters,
    require_on_grid,
    round_to,
)


@dataclass(frozen=True, kw_only=True)
class ResidualChains(SearchSpace[Backbone]):
    """Backbones of a stem, one residual block per entry of `strides`, and an optional fixed closing convolution.

    channels: (lowest, highest) output width of each block, on multiples of `step`; widths never decrease along the net.
    depths: the most units of each block; max_layers: the most convolution layers of the whole backbone.
    bottleneck: lowest and highest bottleneck as a fraction of the output width, the lowest rounded to `step`.
    ratios: if given, bottlenecks are these multiples of the output width instead (rounded to `step`).
    growth: the most that a block may widen its input, from the second block on.
    kernels: allowed kernels; a block at map side r (before its stride) takes only those with 1.5 k <= r.
    scales, depth_steps: coarse moves of a width (factors) and of a depth; minor_steps: minor moves, in units of `step`.
    start_stem, start: widths of the first candidate's stem, and (out, bottleneck) of its blocks of depth 1, clipped to
        the limits.
    Raises UserError if a limit makes no sense.
    """

    kind: ResidualKind
    strides: Annotated[tuple[Annotated[int, Ge(1), Le(2)], ...], MinLen(1)] = (2, 2, 2, 1, 2)
    channels: Annotated[tuple[Range, ...], MinLen(1)]
    depths: Depths
    max_layers: Annotated[int, Ge(1), Le(10_000)]
    stem_kind: Literal["conv", "focus"] = "focus"
    stem_channels: Range = (8, 32)
    step: Step = 8
    bottleneck: Annotated[tuple[Factor, Factor], LOWEST_FIRST] = (0.1, 1.0)
    ratios: Annotated[tuple[Factor, ...], DISTINCT] = ()
    growth: Annotated[float, ENDLESS, Ge(1)] = math.inf
    kernels: Kernels = (3,)
    scales: Factors = (2.0, 1.5, 1.25, 0.8, 0.6, 0.5)
    depth_steps: Moves = (-2, -1, 1, 2)
    minor_steps: Moves = (-2, -1, 1, 2)
    start_stem: Width = 32
    start: tuple[tuple[Width, Width], ...]
    closing: Annotated[int, Ge(0), Le(65_536)] = 0
    out_blocks: tuple[CountOrNone, ...] = (1, 3, 4)
    spp: SppKind = "spp"
    activation: Activation = "relu"
    reparam: bool = True
    shortcut: Literal["pooled", "stride1"] = "stride1"
    image_size: Pixels = 640

    def __post_init__(self) -> None:
        n = len(self.strides)
        for field, value in (("channels", self.channels), ("depths", self.depths), ("start", self.start)):
            if len(value) != n:
                raise UserError(f"space {self.name}: {field} needs {n} entries, one per block, got {len(value)}")
        ranges = (*self.channels, self.stem_channels)
        require_on_grid(f"space {self.name}: channel", ((limits, self.step) for limits in ranges))
        if min(self.depths) < 1 or self.layers_of(self.initial()) > self.max_layers:
            least = self.layers_of(self.initial())
            raise UserError(f"space {self.name}: depths must be >= 1 and max_layers >= {least}, got {self.max_layers}")
        self.check(self.initial())

    # ------------------------------------------------------------------ limits of one block

    def widths(self, index: int) -> tuple[int, ...]:
        """All output widths that block `index` can take in some member."""
        return tuple(range(self._lowest[index], self._highest[index] + 1, self.step))

    def stem_widths(self) -> tuple[int, ...]:
        """All output widths that the stem can take."""
        low, high = self.stem_channels
        return tuple(range(low, min(high, self._highest[0]) + 1, self.step))

    def bottlenecks(self, out: int) -> tuple[int, ...]:
        """All bottleneck widths of a block with `out` output channels, increasing."""
        return _bottlenecks(out, self.step, self.bottleneck, self.ratios)

    def block_kernels(self, index: int) -> tuple[int, ...]:
        """All kernels that block `index` can take."""
        return self._kernels[index]

    def width_interval(self, index: int, before: int, after: int | None) -> tuple[int, int]:
        """Range of widths of block `index` between an input of `before` and a next block of `after` channels."""
        low = max(self._lowest[index], before)
        high = self._highest[index]
        if after is not None and after < high:
            high = after
        if self.growth < math.inf:
            if after is not None:
                low = max(low, self._shrunk(after))
            if index:
                high = min(high, int(self.growth * before) // self.step * self.step)
        return low, high

    def layers_of(self, spec: Backbone) -> int:
        """Convolution layers of a member by the TinyNAS count."""
        return self._fixed_layers + self.unit_layers * sum(block.depth for block in self.searched(spec))

    @property
    def unit_layers(self) -> int:
        """Convolution layers of one unit."""
        return LAYERS_PER_UNIT[self.kind]

    def block(self, index: int, out: int, bottleneck: int, depth: int, kernel: int) -> Residual:
        """The block at position `index` with these free fields."""
        return Residual(self.kind, out, bottleneck, depth, self.strides[index], kernel, self.shortcut)

    # ------------------------------------------------------------------ members

    def initial(self) -> Backbone:
        return self.frame

    def smallest(self, cost: Cost = parameters, image_size: int | None = None) -> Backbone:
        """Every width, bottleneck, depth and kernel at its lowest, which is least in every such cost."""
        blocks = []
        for i in range(len(self.strides)):
            out = self.widths(i)[0]
            blocks.append(self.block(i, out, self.bottlenecks(out)[0], 1, min(self._kernels[i])))
        stem, tail = Stem(self.stem_kind, self.stem_widths()[0]), self.frame.blocks[len(self.strides) :]
        return replace(self.frame, stem=stem, blocks=(*blocks, *tail))

    def reached(self, spec: Backbone) -> list[str]:
        blocks = self.searched(spec)
        lines = []
        if self.max_layers - self.layers_of(spec) < self.unit_layers:
            lines.append(f"max_layers {self.max_layers}")
        full = [i for i, (block, cap) in enumerate(zip(blocks, self.depths, strict=True)) if block.depth == cap]
        if len(full) == len(blocks):
            lines.append(f"depths {list(self.depths)}")
        wide = [i for i, block in enumerate(blocks) if block.out == self._highest[i]]
        if len(wide) == len(blocks):
            lines.append(f"channels {[high for _, high in self.channels]}")
        return lines

    def violations(self, spec: Backbone) -> list[str]:
        """All broken limits; only the first kind of trouble if the backbone is not such a chain at all."""
        if len(spec.blocks) != len(self.frame.blocks):
            return [f"{len(spec.blocks)} blocks, the space has {len(self.frame.blocks)}"]
        blocks, broken = self.searched(spec), []
        for index, block in enumerate(blocks):
            if not isinstance(block, Residual) or block.kind != self.kind:
                broken.append(f"block {index} is not a {self.kind} residual block")
        chain = not broken
        broken += self._frame_violations(spec)
        if not chain:
            return broken
        before, (low, high) = spec.stem.out, self.stem_channels
        if not low <= before <= high or before % self.step:
            broken.append(f"stem width {before} is not a multiple of {self.step} in [{low}, {high}]")
        for index, block in enumerate(blocks):
            broken += [f"block {index}: {line}" for line in self._block_violations(index, block, before)]
            before = block.out
        if self.layers_of(spec) > self.max_layers:
            broken.append(f"{self.layers_of(spec)} layers exceed max_layers {self.max_layers}")
        return broken

    def size(self) -> int:
        """The exact number of members, by dynamic programming over width and units used."""
        units = (self.max_layers - self._fixed_layers) // self.unit_layers
        counts = {(width, 0): 1 for width in self.stem_widths()}
        for i, cap in enumerate(self.depths):
            grid = sorted({width for width, _ in counts})
            sums = {u: [0, *accumulate(counts.get((w, u), 0) for w in grid)] for u in range(units + 1)}
            counts = {}
            for out in self.widths(i):
                first = sum(w < self._shrunk(out) for w in grid) if i else 0
                last = sum(w <= out for w in grid)
                options = len(self.bottlenecks(out)) * len(self._kernels[i])
                for used in range(units + 1):
                    ways = sum(sums[used - d][last] - sums[used - d][first] for d in range(1, min(cap, used) + 1))
                    if last > first and ways:
                        counts[out, used] = options * ways
        return sum(counts.values())

    # ------------------------------------------------------------------ inside

    @cached_property
    def frame(self) -> Backbone:
        """The first candidate, which also holds whatever the space keeps fixed."""
        tail = (Plain(self.closing),) if self.closing else ()
        low, high = self.stem_channels
        before = min(max(self.start_stem, low), high, self._highest[0])
        stem, blocks = Stem(self.stem_kind, before), []
        for i, (out, mid) in enumerate(self.start):
            low, high = self.width_interval(i, before, None)
            before = min(max(out, low), high)
            wanted = self.block(i, out, mid, 1, self._kernels[i][0])
            blocks.append(self.block(i, before, self._fitted(before, wanted), 1, wanted.kernel))
        return Backbone(stem, (*blocks, *tail), self.out_blocks, self.spp, self.activation, self.reparam)

    def _frame_violations(self, spec: Backbone) -> list[str]:
        """What differs from the parts that the space holds fixed."""
        frame, n = self.frame, len(self.strides)
        broken, strides = [], [block.stride for block in spec.blocks[:n]]
        if strides != list(self.strides):
            broken.append(f"strides {strides} differ from {list(self.strides)}")
        if spec.blocks[n:] != frame.blocks[n:]:
            broken.append(f"the closing convolution is not 1x1 to {self.closing}")
        return broken + differing_fields(spec, frame)

    def _block_violations(self, index: int, block: Residual, before: int) -> list[str]:
        broken, (low, high), out = [], self.channels[index], block.out
        if not low <= out <= high or out % self.step:
            broken.append(f"width {out} is not a multiple of {self.step} in [{low}, {high}]")
        if out < before:
            broken.append(f"width {out} is below its input's {before}")
        if index and out > self.growth * before:
            broken.append(f"width {out} exceeds {self.growth:g} times its input's {before}")
        if block.bottleneck not in self.bottlenecks(out):
            broken.append(f"bottleneck {block.bottleneck} of width {out} is not {self._bottleneck_rule}")
        if block.depth > self.depths[index]:
            broken.append(f"depth {block.depth} exceeds {self.depths[index]}")
        if block.kernel not in self.block_kernels(index):
            broken.append(f"kernel {block.kernel} is not among {list(self.block_kernels(index))}")
        if block.shortcut != self.shortcut:
            broken.append(f"shortcut {block.shortcut} differs from {self.shortcut}")
        return broken

    @property
    def _bottleneck_rule(self) -> str:
        if self.ratios:
            return f"at one of the ratios {', '.join(f'{ratio:g}' for ratio in self.ratios)}"
        low, high = self.bottleneck
        return f"a multiple of {self.step} from {low:g} to {high:g} times the width"

    def searched(self, spec: Backbone) -> tuple[Residual, ...]:
        """The blocks of a member that the space varies: all but a closing convolution."""
        return spec.blocks[: len(self.strides)]  # type: ignore[return-value]

    @cached_property
    def _fixed_layers(self) -> int:
        return 2 if self.closing else 1

    @cached_property
    def _highest(self) -> tuple[int, ...]:
        """Highest width of each block once no later block may be narrower."""
        return tuple(min(high for _, high in self.channels[i:]) for i in range(len(self.channels)))

    @cached_property
    def _lowest(self) -> tuple[int, ...]:
        """Lowest width of each block that the stem allows and from which the later blocks' ranges can be reached."""
        lows: list[int] = []
        for low, _ in reversed(self.channels):
            lows.insert(0, max(low, self._shrunk(lows[0])) if lows else low)
        return tuple(accumulate([self.stem_channels[0], *lows], max))[1:]

    def _shrunk(self, out: int) -> int:
        """The narrowest input from which a block may grow to `out`."""
        return max(self.step, math.ceil(out / (self.growth * self.step)) * self.step)

    @cached_property
    def _kernels(self) -> tuple[tuple[int, ...], ...]:
        side, allowed = self.image_size / 2, []
        for stride in self.strides:
            allowed.append(tuple(k for k in self.kernels if 1.5 * k <= side) or (min(self.kernels),))
            side /= stride
        return tuple(allowed)

    def _fitted(self, out: int, block: Residual) -> int:
        """The bottleneck of a block that becomes `out` wide: clipped, or at the allowed ratio nearest to the old."""
        if self.ratios:
            ratio = block.bottleneck / block.out
            return round_to(out * min(self.ratios, key=lambda r: abs(r - ratio)), self.step)
        options = self.bottlenecks(out)
        return min(max(block.bottleneck, options[0]), options[-1])


@lru_cache(maxsize=1 << 14)
def _bottlenecks(out: int, step: int, bounds: tuple[float, float], ratios: tuple[float, ...]) -> tuple[int, ...]:
    if ratios:
        return tuple(sorted({round_to(out * ratio, step) for ratio in ratios}))
    low = round_to(out * bounds[0], step)
    return tuple(range(low, max(low, int(out * bounds[1]) // step * step) + 1, step))
