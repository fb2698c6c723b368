"""Random small parts of the shipped search spaces, and every member of one: what brute force can look through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from random import Random
from typing import Any

import numpy as np

from nas.errors import UserError
from nas.searchers.base import Individuals, Problem
from nas.spec import Backbone, NeckSpec
from search_spaces import find_space
from search_spaces.base import SearchSpace
from search_spaces.c3k2 import C3k2Space
from search_spaces.gelan import GELANSpace
from search_spaces.giraffe import GiraffeSpace
from search_spaces.mixed import MixedSpace
from search_spaces.stages import StageSpace
from search_spaces.tinynas import TinyNASSpace

#: Members that a small space has at least and at most.
LEAST, MOST = 8, 2_500


#: Spaces that exact search serves: chains of blocks, with or without the neck.
Chain = TinyNASSpace | StageSpace[Any] | GiraffeSpace


def small_space(name: str, rng: Random) -> Chain:
    """A random part of a shipped space that exact search serves, of LEAST to MOST members."""
    space = find_space(name)
    while True:
        try:
            if isinstance(space, TinyNASSpace):
                small: Chain = _small_chain(space, rng)
            elif isinstance(space, GiraffeSpace):
                small = _small_giraffe(space, rng)
            else:
                assert isinstance(space, GELANSpace | C3k2Space | MixedSpace)
                small = _small_stages(space, rng)
        except UserError:  # limits that leave no member: draw others
            continue
        if LEAST <= small.size() <= MOST:
            return small


def members(space: SearchSpace[Any], problem: Problem) -> Individuals:
    """Every member, from the definition of the space, as the problem holds it."""
    if isinstance(space, TinyNASSpace):
        return problem.encode([space.genes.spec(row) for row in _rows(space)])
    if isinstance(space, GiraffeSpace):
        backbones = [space.backbone.genes.spec(row) for row in _rows(space.backbone)]
        whole = space.initial()
        return problem.encode([replace(whole, backbone=b, neck=neck) for b in backbones for neck in _necks(space)])
    assert isinstance(space, StageSpace)
    return problem.encode(_assembled(space))


def _widths(ranges: Sequence[tuple[int, int]], steps: Sequence[int], free: int, rng: Random) -> list[tuple[int, int]]:
    """Ranges of one or two widths inside the given ones, the lower ends rising; about `free` of them hold two."""
    found, before = [], 0
    for (low, high), step in zip(ranges, steps, strict=True):
        start = max(low, before)
        top = min(high, max(start, 384)) // step * step
        first = rng.randrange(start, top + 1, step) if rng.random() < 0.5 else start
        wide = first + step if rng.random() < free / len(ranges) and first + step <= high else first
        found.append((first, wide))
        before = first
    return found


def _small_chain(space: TinyNASSpace, rng: Random) -> TinyNASSpace:
    step = space.step * rng.choice((1, 2, 4))
    ranges = [(-(-low // step) * step, high // step * step) for low, high in space.channels]
    channels = _widths(ranges, [step] * len(ranges), 3, rng)
    stem = -(-space.stem_channels[0] // step) * step
    depths = tuple(rng.choice((1, 1, 2, min(3, depth))) if depth > 1 else 1 for depth in space.depths)
    units = len(depths) + rng.randint(1, max(1, sum(depths) - len(depths)))
    fixed = space.layers_of(space.initial()) - space.unit_layers * len(depths)
    share = rng.choice((0.3, 0.5, 0.8))
    ratios = tuple(sorted(rng.sample(space.ratios, min(len(space.ratios), rng.choice((1, 2))))))
    kernels = tuple(rng.sample(space.kernels, min(len(space.kernels), rng.choice((1, 2)))))
    return replace(
        space, name=f"part of {space.name}", step=step, channels=tuple(channels), depths=depths, kernels=kernels,
        stem_channels=(stem, stem + step * rng.choice((0, 1))), max_layers=fixed + space.unit_layers * units, ratios=ratios,
        bottleneck=(share, share + rng.choice((0.0, 0.2))), start=tuple((low, low) for low, _ in channels), start_stem=stem,
    )  # fmt: skip


def _small_giraffe(space: GiraffeSpace, rng: Random) -> GiraffeSpace:
    backbone = _small_chain(space.backbone, rng)
    n3, n4, n5 = _widths(space.neck_channels, [space.step] * 3, 2, rng)
    low = rng.randint(*space.neck_depth)
    depths = (low, min(low + rng.choice((0, 1, 2)), space.neck_depth[1]))
    ratios = tuple(rng.sample(space.hidden_ratios, rng.choice((1, 2))))
    return replace(
        space, name=f"part of {space.name}", backbone=backbone, neck_depth=depths, neck_channels=(n3, n4, n5),
        hidden_ratios=ratios, start_neck=(n3[0], n4[0], n5[0]),
    )  # fmt: skip


def _necks(space: GiraffeSpace) -> list[NeckSpec]:
    usual, ratios = space.initial().neck, space.hidden_ratios
    ranges = [range(low, high + 1, space.step) for low, high in space.neck_channels]
    depths = range(space.neck_depth[0], space.neck_depth[1] + 1)
    return [
        replace(usual, out=(o3, o4, o5), depth=depth, hidden_ratio=hidden)
        for (o3, o4, o5), depth in product(product(*ranges), depths)
        for hidden in product(ratios, ratios, ratios)
        if o3 <= o4 <= o5
    ]


def _small_stages(space: GELANSpace | C3k2Space | MixedSpace, rng: Random) -> StageSpace[Any]:
    channels = _widths(space.channels, space.steps, 2, rng)
    stem = rng.randrange(space.stem_channels[0], min(space.stem_channels[1], channels[0][0]) + 1, space.step)

    def some(options: Sequence[Any], most: int) -> tuple[Any, ...]:
        return tuple(rng.sample(options, rng.randint(1, min(most, len(options)))))

    shared: dict[str, Any] = {
        "name": f"part of {space.name}", "channels": tuple(channels), "stem_channels": (stem, stem),
        "start_stem": stem, "start": tuple(low for low, _ in channels),
        "depths": some(space.depths, 2),
    }  # fmt: skip
    if isinstance(space, MixedSpace):
        kinds, shares, kernels = some(space.kinds, 2), some(space.shares, 1), some(space.kernels, 1)
        return replace(space, kinds=kinds, shares=shares, kernels=kernels, **shared)
    shared |= {"entries": some(space.entries, 2), "hiddens": some(space.hiddens, 1)}
    if isinstance(space, GELANSpace):
        first = some(space.first_depths, 2)
        return replace(space, first_depths=first, inners=some(space.inners, 2), downs=some(space.downs, 1), **shared)
    return replace(space, kinds=some(space.kinds, 2), attention=some(space.attention, 2), **shared)


def _rows(space: TinyNASSpace) -> list[Any]:
    """Gene rows of every member, by recursion over the limits."""
    rows: list[list[int]] = [[width] for width in space.stem_widths()]
    for index in range(len(space.strides)):
        longer = []
        for row in rows:
            low, high = space.width_interval(index, row[-4] if index else row[0], None)
            for out in range(low, high + 1, space.step):
                for mid, kernel in product(space.bottlenecks(out), space.block_kernels(index)):
                    longer += [[*row, out, mid, kernel, depth] for depth in range(1, space.depths[index] + 1)]
        rows = longer
    fixed = space.layers_of(space.initial()) - space.unit_layers * len(space.strides)
    genes = np.array(rows, dtype=np.int64)
    units = (space.max_layers - fixed) // space.unit_layers
    return list(genes[genes[:, 4::4].sum(axis=1) <= units])


def _assembled(space: StageSpace[Any]) -> list[Backbone]:
    found: list[Backbone] = []
    stages = range(len(space.channels))
    for stem in space.stem_widths():
        for widths in product(*(space.widths(stage) for stage in stages)):
            if list((stem, *widths)) != sorted((stem, *widths)):
                continue
            blocks = [space.blocks(stage, out) for stage, out in enumerate(widths)]
            closings = [space.closing(widths[-1], depth) for depth in space.closing_depths()]
            found += [space.assembled(stem, (*chosen, *end)) for chosen in product(*blocks) for end in closings]
    return found
