"""Backbones of hand-drawn stages: a stem, one stage per resolution, each described by its width and a few choices.

A stage is a function of its position, its width and one option per choice (ratios, depth, kind of down-sampler), so a
family only says which choices there are and how a block is made of them; the moves are the same for all.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product
from random import Random
from typing import Annotated, Any, Generic, TypeVar

from annotated_types import MinLen

from nas.blocks.operation import halved
from nas.errors import UserError
from nas.lowering import block_operations
from nas.options import Pixels, Width
from nas.spec import Activation, Backbone, Block, SppKind, Stem
from search_spaces.base import (
    Cost,
    Factors,
    Mode,
    Moves,
    Range,
    SearchSpace,
    Step,
    differing_fields,
    draw,
    parameters,
    require_on_grid,
    round_to,
)

#: One option per choice, as `block` of a family takes them.
Choice = TypeVar("Choice", bound=tuple[object, ...])
_Choice = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class StageSpace(SearchSpace[Backbone], Generic[Choice]):
    """Chains of stages whose widths never decrease, between a convolution stem and an optional closing block.

    stem_channels, channels: (lowest, highest) width of the stem and of each stage, on multiples of `step` and `steps`.
    scales: coarse moves of a width (factors); minor_steps: minor moves, in steps.
    start_stem, start: widths of the first candidate, clipped to the limits; its choices are the first options.
    Raises UserError if a limit makes no sense.
    """

    stem_channels: Range = (16, 64)
    step: Step = 16
    channels: Annotated[tuple[Range, ...], MinLen(3)]
    steps: tuple[Step, ...] = (16, 16, 16, 16)
    scales: Factors = (2.0, 1.5, 1.25, 0.8, 0.6, 0.5)
    minor_steps: Moves = (-2, -1, 1, 2)
    start_stem: Width = 16
    start: tuple[Width, ...]
    spp: SppKind = "none"
    activation: Activation = "silu"
    image_size: Pixels = 640

    def __post_init__(self) -> None:
        count = len(self.channels)
        if len(self.steps) != count or len(self.start) != count:
            raise UserError(f"space {self.name}: channels, steps and start need one entry per stage")
        limits = [(self.stem_channels, self.step), *zip(self.channels, self.steps, strict=True)]
        require_on_grid(f"space {self.name}: channel", limits)
        if any(not options for stage in range(count) for options in self.options(stage)):
            raise UserError(f"space {self.name}: every choice needs at least one option")
        if any(low > high for low, high in zip(self._lowest, self._highest, strict=True)):
            raise UserError(f"space {self.name}: widths may never decrease, the channel ranges leave no room for that")
        self.check(self.initial())

    # ------------------------------------------------------------------ what a family says

    @abstractmethod
    def options(self, stage: int) -> tuple[Sequence[object], ...]:
        """The options of each choice of a stage."""

    @abstractmethod
    def block(self, stage: int, out: int, choice: Choice) -> Block:
        """The stage of that width with one option per choice."""

    def closing(self, out: int, depth: int) -> tuple[Block, ...]:
        """Blocks behind the last stage, which keep its width."""
        return ()

    def closing_depths(self) -> tuple[int, ...]:
        """Depths that the closing block can take."""
        return (1,)

    @property
    def out_blocks(self) -> tuple[int, ...]:
        """Indices of the blocks whose maps are C3, C4 and C5: the last three stages, the closing block for the last."""
        last = len(self.channels) - 1
        return (last - 2, last - 1, last + len(self.closing(self.channels[-1][0], self.closing_depths()[0])))

    # ------------------------------------------------------------------ limits of one stage

    def stem_widths(self) -> tuple[int, ...]:
        """All output widths that the stem can take."""
        low, high = self.stem_channels
        return tuple(range(low, min(high, self._highest[0]) + 1, self.step))

    def widths(self, stage: int) -> tuple[int, ...]:
        """All output widths that a stage can take in some member."""
        return tuple(range(self._lowest[stage], self._highest[stage] + 1, self.steps[stage]))

    def blocks(self, stage: int, out: int) -> tuple[Block, ...]:
        """All different blocks of a stage of that width."""
        return tuple(self._by_block(stage, out))

    def assembled(self, stem: int, blocks: Sequence[Block]) -> Backbone:
        """The backbone of a stem's width and all its blocks, the closing one included."""
        return replace(self._frame, stem=Stem("conv", stem), blocks=tuple(blocks))

    # ------------------------------------------------------------------ members

    def initial(self) -> Backbone:
        return self._frame

    def smallest(self, cost: Cost = parameters, image_size: int | None = None) -> Backbone:
        """Every width at its lowest, each stage with the choices that cost least there."""
        side = self.image_size if image_size is None else image_size
        before, size, choices = self.stem_channels[0], halved((side, side), 2), []
        for stage, out in enumerate(self._lowest):
            spp = self.spp if stage + 1 == len(self._lowest) else "none"
            blocks = _tables(self, stage, out)[0]
            prices = {
                choice: cost(block_operations(block, before, *size, self.activation, self._frame.reparam, spp))
                for choice, block in blocks.items()
            }
            choices.append(min(prices, key=lambda choice: prices[choice]))  # noqa: B023
            before, size = out, halved(size, blocks[choices[-1]].stride)
        return self._assembled(self.stem_channels[0], self._lowest, choices, min(self.closing_depths()))

    def sample(self, rng: Random) -> Backbone:
        low, high = self.stem_channels
        before = stem = draw(range(low, min(high, self._highest[0]) + 1, self.step), rng)
        widths, choices = [], []
        for stage, step in enumerate(self.steps):
            low, high = self._interval(stage, before, None)
            before = draw(range(low, high + 1, step), rng)
            widths.append(before)
            choices.append(tuple(draw(options, rng) for options in self.options(stage)))
        return self._assembled(stem, widths, choices, draw(self.closing_depths(), rng))

    def mutate(self, spec: Backbone, rng: Random, mode: Mode = "coarse") -> Backbone:
        """Two moves of a width, a choice or the closing depth (in minor mode one of a width)."""
        stem, depth = spec.stem.out, self._closing_depth(spec)
        stages = self._stages(spec)
        widths = [block.out for block in stages]
        choices = [self._choice(stage, block) for stage, block in enumerate(stages)]
        for _ in range(2 if mode == "coarse" else 1):
            stage = int(rng.random() * (len(widths) + 1)) - 1
            if stage < 0:
                low, high = self.stem_channels
                stem = min(max(self._moved(stem, self.step, rng, mode), low), high, self._grid_below(widths[0]))
                if mode == "coarse":
                    depth = draw(self.closing_depths(), rng)
                continue
            options = self.options(stage)
            what = 0 if mode == "minor" else int(rng.random() * (1 + len(options)))
            if what == 0:
                after = widths[stage + 1] if stage + 1 < len(widths) else None
                low, high = self._interval(stage, widths[stage - 1] if stage else stem, after)
                widths[stage] = min(max(self._moved(widths[stage], self.steps[stage], rng, mode), low), high)
            else:
                changed = list(choices[stage])
                changed[what - 1] = draw(options[what - 1], rng)
                choices[stage] = tuple(changed)
        return self._assembled(stem, widths, choices, depth)

    def crossover(self, a: Backbone, b: Backbone, rng: Random) -> Backbone:
        """The first stages of `a`, then those of `b`, their widths clipped to the limits."""
        cut = 1 + int(rng.random() * (len(self.channels) - 1))
        before, widths, choices = a.stem.out, [], []
        for stage, block in enumerate((*self._stages(a)[:cut], *self._stages(b)[cut:])):
            low, high = self._interval(stage, before, None)
            before = min(max(block.out, low), high)
            widths.append(before)
            choices.append(self._choice(stage, block))
        return self._assembled(a.stem.out, widths, choices, self._closing_depth(b))

    def violations(self, spec: Backbone) -> list[str]:
        if not isinstance(spec, Backbone):
            return ["a whole detector: this space holds backbones"]
        frame = self.initial()
        if len(spec.blocks) != len(frame.blocks):
            return [f"{len(spec.blocks)} blocks, the space has {len(frame.blocks)}"]
        broken, before = [], spec.stem.out
        low, high = self.stem_channels
        if not low <= before <= high or before % self.step:
            broken.append(f"stem width {before} is not a multiple of {self.step} in [{low}, {high}]")
        broken += differing_fields(spec, frame)
        for stage, (block, (low, high)) in enumerate(zip(self._stages(spec), self.channels, strict=True)):
            if not low <= block.out <= high or block.out % self.steps[stage]:
                broken.append(
                    f"stage {stage}: width {block.out} is not a multiple of {self.steps[stage]} in [{low}, {high}]"
                )
            elif block not in self._by_block(stage, block.out):
                broken.append(f"stage {stage}: {block} is not among the space's choices")
            if block.out < before:
                broken.append(f"stage {stage}: width {block.out} is below its input's {before}")
            before = block.out
        closings = [self.closing(before, depth) for depth in self.closing_depths()]
        if spec.blocks[len(self.channels) :] not in closings:
            broken.append("the closing block differs from the space's")
        return broken

    def size(self) -> int:
        """The exact number of members."""
        low, high = self.stem_channels
        counts = {width: 1 for width in range(low, high + 1, self.step)}
        for stage, ((low, high), step) in enumerate(zip(self.channels, self.steps, strict=True)):
            counts = {
                out: len(self._by_block(stage, out)) * sum(ways for before, ways in counts.items() if before <= out)
                for out in range(low, high + 1, step)
            }
        return sum(counts.values()) * len(self.closing_depths())

    def reached(self, spec: Backbone) -> list[str]:
        wide = all(block.out == high for block, high in zip(self._stages(spec), self._highest, strict=True))
        return [f"channels {[high for _, high in self.channels]}"] if wide else []

    # ------------------------------------------------------------------ inside

    def _assembled(self, stem: int, widths: Sequence[int], choices: Sequence[_Choice], closing_depth: int) -> Backbone:
        rows = enumerate(zip(widths, choices, strict=True))
        blocks = tuple(self._made(stage, out, choice) for stage, (out, choice) in rows)
        return self.assembled(stem, (*blocks, *self.closing(widths[-1], closing_depth)))

    @cached_property
    def _frame(self) -> Backbone:
        """The first candidate, which also holds what all members share."""
        before = stem = min(max(self.start_stem, self.stem_channels[0]), self.stem_channels[1], self._highest[0])
        widths = []
        for stage, wanted in enumerate(self.start):
            low, high = self._interval(stage, before, None)
            before = min(max(wanted, low), high)
            widths.append(before)
        rows = enumerate(zip(widths, self._first_choices, strict=True))
        blocks = tuple(self.block(stage, out, choice) for stage, (out, choice) in rows)
        blocks += self.closing(widths[-1], self.closing_depths()[0])
        return Backbone(Stem("conv", stem), blocks, self.out_blocks, self.spp, self.activation)

    @cached_property
    def _first_choices(self) -> list[Any]:
        return [tuple(options[0] for options in self.options(stage)) for stage in range(len(self.channels))]

    def _made(self, stage: int, out: int, choice: _Choice) -> Block:
        return _tables(self, stage, out)[0][choice]

    def _by_block(self, stage: int, out: int) -> dict[Block, _Choice]:
        return _tables(self, stage, out)[1]

    def _choice(self, stage: int, block: Block) -> _Choice:
        return self._by_block(stage, block.out)[block]

    def _stages(self, spec: Backbone) -> tuple[Block, ...]:
        return spec.blocks[: len(self.channels)]

    def _closing_depth(self, spec: Backbone) -> int:
        closing = spec.blocks[len(self.channels) :]
        return next(d for d in self.closing_depths() if self.closing(spec.blocks[-1].out, d) == closing)

    @cached_property
    def _highest(self) -> tuple[int, ...]:
        """Highest width of each stage once no later stage may be narrower."""
        highs: list[int] = []
        for (_, high), step in zip(reversed(self.channels), reversed(self.steps), strict=True):
            highs.insert(0, min([high, *highs[:1]]) // step * step)
        return tuple(highs)

    @cached_property
    def _lowest(self) -> tuple[int, ...]:
        """Lowest width of each stage once no earlier stage, nor the stem, may be wider."""
        lows: list[int] = []
        for (low, _), step in zip(self.channels, self.steps, strict=True):
            lows.append(-(-max(low, lows[-1] if lows else self.stem_channels[0]) // step) * step)
        return tuple(lows)

    def _interval(self, stage: int, before: int, after: int | None) -> tuple[int, int]:
        """Range of widths between an input of `before` and a next stage of `after` channels."""
        step, high = self.steps[stage], self._highest[stage]
        low = max(-(-before // step) * step, self._lowest[stage])
        return low, high if after is None else min(high, after // step * step)

    def _grid_below(self, width: int) -> int:
        return max(self.stem_channels[0], width // self.step * self.step)

    def _moved(self, width: int, step: int, rng: Random, mode: Mode) -> int:
        if mode == "coarse":
            return round_to(width * draw(self.scales, rng), step)
        return max(step, width + step * draw(self.minor_steps, rng))


@lru_cache(maxsize=1 << 14)
def _tables(space: StageSpace[Any], stage: int, out: int) -> tuple[dict[_Choice, Block], dict[Block, _Choice]]:
    """Blocks by choice, and the first choice of each block."""
    blocks = {choice: space.block(stage, out, choice) for choice in product(*space.options(stage))}
    first: dict[Block, _Choice] = {}
    for choice, block in blocks.items():
        first.setdefault(block, choice)
    return blocks, first
