"""Backbone and neck searched together under one whole-detector budget (after GiraffeDet, arXiv 2202.04256).

GiraffeDet's idea is a light space-to-depth backbone under a heavy neck. Here both are free: the backbone moves in a
TinyNAS space, the RepGFPN in its depth, its output widths and its hidden ratio per level; the budget decides who gets
the compute. Score these detectors with `mae_neck`, which sees the neck: under a score of the backbone the cheapest neck wins.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import accumulate
from random import Random
from typing import Annotated

from annotated_types import MinLen

from nas.errors import UserError
from nas.frame import Frame, HiddenRatio
from nas.options import DISTINCT, LOWEST_FIRST, Width
from nas.spec import Backbone, DetectorSpec, NeckSpec
from search_spaces.base import Cost, Depth, Mode, Range, SearchSpace, Step, draw, parameters, require_on_grid, round_to
from search_spaces.tinynas import SPACES as TINYNAS
from search_spaces.tinynas import TinyNASSpace

Widths = tuple[int, int, int]
Ratios = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class GiraffeSpace(SearchSpace[DetectorSpec]):
    """Detectors of a backbone from `backbone`, a RepGFPN within the neck limits, and the head of `frame`.

    neck_depth: fewest and most blocks of a fusion stage; neck_channels: (lowest, highest) width of N3, N4, N5 on
    multiples of `step`, never decreasing; hidden_ratios: allowed ratios, chosen for each level.
    start_neck: output widths of the first candidate, whose depth and ratio are the smallest.
    frame: what is not searched: head, image size, and the neck's activation, fusion and edges.
    """

    backbone: TinyNASSpace
    neck_depth: Annotated[tuple[Depth, Depth], LOWEST_FIRST] = (1, 6)
    neck_channels: tuple[Range, Range, Range] = ((32, 128), (64, 256), (128, 512))
    hidden_ratios: Annotated[tuple[HiddenRatio, ...], MinLen(1), DISTINCT] = (0.5, 0.75, 1.0)
    start_neck: tuple[Width, Width, Width] = (48, 96, 192)
    step: Step = 8
    frame: Frame = field(default_factory=Frame)

    def __post_init__(self) -> None:
        require_on_grid(f"space {self.name}: neck", ((limits, self.step) for limits in self.neck_channels))
        self.check(self.initial())

    def in_frame(self, frame: Frame) -> GiraffeSpace:
        usual = Frame()
        for name in ("depth", "out", "hidden_ratio"):
            if getattr(frame, name) != getattr(usual, name):
                raise UserError(
                    f"space {self.name} searches the neck's {name}: take neck.{name} (or neck=) away; "
                    "its limits are space.neck_depth, space.neck_channels and space.hidden_ratios"
                )
        return replace(self, frame=frame)

    def initial(self) -> DetectorSpec:
        lowest = min(self.hidden_ratios)
        o3, o4, o5 = self.start_neck
        return self._detector(self.backbone.initial(), (o3, o4, o5), self.neck_depth[0], (lowest, lowest, lowest))

    def smallest(self, cost: Cost = parameters, image_size: int | None = None) -> DetectorSpec:
        """The smallest backbone under the narrowest, shallowest neck."""
        neck = self.necks[0]
        return self._detector(self.backbone.smallest(cost, image_size), neck.out, neck.depth, neck.hidden_ratio)

    @property
    def necks(self) -> tuple[NeckSpec, NeckSpec]:
        """The narrowest and shallowest neck, and the widest and deepest."""
        o3, o4, o5 = accumulate((low for low, _ in self.neck_channels), max)
        h5, h4, h3 = accumulate((high for _, high in reversed(self.neck_channels)), min)
        ends = zip(((o3, o4, o5), (h3, h4, h5)), self.neck_depth, (min, max), strict=True)
        small, large = (self._neck(out, depth, (end(self.hidden_ratios),) * 3) for out, depth, end in ends)
        return small, large

    def reached(self, spec: DetectorSpec | Backbone) -> list[str]:
        """The limits that a member uses up; of a bare backbone, those of its part."""
        if isinstance(spec, Backbone):
            return self.backbone.reached(spec)
        lines = [f"backbone {line}" for line in self.backbone.reached(spec.backbone)]
        if spec.neck.depth == self.neck_depth[1]:
            lines.append(f"neck_depth {self.neck_depth[1]}")
        if all(width == high for width, (_, high) in zip(spec.neck.out, self.neck_channels, strict=True)):
            lines.append(f"neck_channels {[high for _, high in self.neck_channels]}")
        return lines

    def sample(self, rng: Random) -> DetectorSpec:
        backbone, out, before = self.backbone.sample(rng), [], 0
        for level, (low, _) in enumerate(self.neck_channels):
            highest = min(high for _, high in self.neck_channels[level:])
            before = draw(range(max(low, before), highest + 1, self.step), rng)
            out.append(before)
        depth = draw(range(self.neck_depth[0], self.neck_depth[1] + 1), rng)
        ratios = tuple(draw(self.hidden_ratios, rng) for _ in range(3))
        return self._detector(backbone, tuple(out), depth, ratios)  # type: ignore[arg-type]

    def mutate(self, spec: DetectorSpec, rng: Random, mode: Mode = "coarse") -> DetectorSpec:
        """A move of the backbone's space, or of the neck, or (one time in three) both."""
        what = int(rng.random() * 3)
        backbone = self.backbone.mutate(spec.backbone, rng, mode) if what != 1 else spec.backbone
        neck = self._moved_neck(spec.neck, rng, mode) if what != 0 else spec.neck
        return replace(spec, backbone=backbone, neck=neck)

    def crossover(self, a: DetectorSpec, b: DetectorSpec, rng: Random) -> DetectorSpec:
        """A crossing of the backbones with either neck."""
        return replace(
            a, backbone=self.backbone.crossover(a.backbone, b.backbone, rng), neck=draw((a.neck, b.neck), rng)
        )

    def violations(self, spec: DetectorSpec) -> list[str]:
        if not isinstance(spec, DetectorSpec):
            return ["a bare backbone: this space holds whole detectors"]
        broken = [f"backbone: {line}" for line in self.backbone.violations(spec.backbone)]
        frame, neck, before = self.initial(), spec.neck, 0
        for level, (width, (low, high)) in enumerate(zip(neck.out, self.neck_channels, strict=True), start=3):
            if not low <= width <= high or width % self.step:
                broken.append(f"neck width N{level} {width} is not a multiple of {self.step} in [{low}, {high}]")
            if width < before:
                broken.append(f"neck width N{level} {width} is below the level before, {before}")
            before = width
        low, high = self.neck_depth
        if not low <= neck.depth <= high:
            broken.append(f"neck depth {neck.depth} is not in [{low}, {high}]")
        broken += [f"hidden ratio {r:g} is not allowed" for r in neck.hidden_ratio if r not in self.hidden_ratios]
        fixed = replace(neck, out=frame.neck.out, depth=frame.neck.depth, hidden_ratio=frame.neck.hidden_ratio)
        if fixed != frame.neck:
            broken.append("the neck's activation, fusion or edges differ from the space's")
        if spec.head != frame.head or spec.image_size != frame.image_size:
            broken.append("the head or the image size differs from the space's")
        return broken

    def size(self) -> int:
        """The exact number of members."""
        ways = {0: 1}
        for low, high in self.neck_channels:
            widths = range(low, high + 1, self.step)
            ways = {out: sum(n for before, n in ways.items() if before <= out) for out in widths}
        necks = sum(ways.values()) * (self.neck_depth[1] - self.neck_depth[0] + 1) * len(self.hidden_ratios) ** 3
        return self.backbone.size() * necks

    def _neck(self, out: Widths, depth: int, ratios: Ratios) -> NeckSpec:
        return replace(self.frame.neck(out), depth=depth, hidden_ratio=ratios)

    def _detector(self, backbone: Backbone, out: Widths, depth: int, ratios: Ratios) -> DetectorSpec:
        return DetectorSpec(backbone, self._neck(out, depth, ratios), self.frame.head, self.frame.image_size)

    def _moved_neck(self, neck: NeckSpec, rng: Random, mode: Mode) -> NeckSpec:
        """The neck with its depth, one width or one hidden ratio moved (in minor mode, a width)."""
        out, depth, ratios = neck.out, neck.depth, neck.hidden_ratio
        what = 0 if mode == "minor" else int(rng.random() * 3)
        level = int(rng.random() * 3)
        if what == 0:
            low, high = self.neck_channels[level]
            low = max(low, out[level - 1]) if level else low
            high = min(high, out[level + 1]) if level < 2 else high
            if mode == "coarse":
                width = round_to(out[level] * draw(self.backbone.scales, rng), self.step)
            else:
                width = out[level] + self.step * draw(self.backbone.minor_steps, rng)
            out = (*out[:level], min(max(width, low), high), *out[level + 1 :])  # type: ignore[assignment]
        elif what == 1:
            depth = min(max(depth + draw((-1, 1), rng), self.neck_depth[0]), self.neck_depth[1])
        else:
            ratios = (*ratios[:level], draw(self.hidden_ratios, rng), *ratios[level + 1 :])  # type: ignore[assignment]
        return self._neck(out, depth, ratios)


#: GiraffeDet's proportions: at most two thin units per block under a neck of up to eight.
_LIGHT = replace(
    TINYNAS["tinynas_k1kx"],
    name="giraffe_light_backbone",
    channels=((8, 64), (32, 96), (32, 128), (64, 192), (96, 320)),
    depths=(1, 1, 2, 2, 2),
    max_layers=17,
    start=((32, 16), (48, 24), (64, 32), (96, 48), (160, 80)),
)

SPACES: dict[str, GiraffeSpace] = {
    space.name: space
    for space in (
        GiraffeSpace(name="giraffe", backbone=TINYNAS["tinynas_k1kx"]),
        GiraffeSpace(name="giraffe_light", backbone=_LIGHT, neck_depth=(2, 8), hidden_ratios=(0.5, 0.75, 1.0, 1.25)),
    )
}
