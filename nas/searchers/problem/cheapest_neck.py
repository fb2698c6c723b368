"""The cheapest of all necks that a space holds, for every width of the maps C3, C4, C5 that they stand on.

What a neck adds to a score may count as well, with a weight below zero: the best neck at a price is the cheapest one, too.
What a fusion stage costs is a sum of what joins its sources, by the sum of their widths, and of what is inside, by depth
and hidden ratio. Stages are coupled by the depth, by the ratio that those of one level share, and by the output width that
a level hands to the next. So a dynamic programme over the levels, from N5 back to N3, finds the neck of the least weighted
sum of costs, whatever the table that prices them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

import numpy as np

from nas.errors import UserError
from nas.lowering.network import head_level_operations, neck_and_head_operations
from nas.lowering.repgfpn import FusionNode, moving_operations, neck_graph
from nas.scorers.neck_gains import NeckGains
from nas.searchers.problem import AMOUNT, LOWERING, Array, Objective, Size, joined_operations
from nas.spec import NeckSpec
from search_spaces.giraffe import GiraffeSpace
from search_spaces.streams import Integers

Spend = Callable[[int, str], None]
#: Sums that are held at a time, and those that take one step of the effort.
_CELLS, _PER_STEP = 4_000_000, 4
#: Necks whose sums are compared with direct prices.
_PROBES = 12


@dataclass(frozen=True)
class Choices:
    """A neck for each of n pyramids, in numbers: of its depth (n,), of its widths and of its hidden ratios (n, 3), N3 first."""

    depth: Integers
    out: Integers
    ratio: Integers

    @classmethod
    def smallest(cls, count: int) -> Choices:
        return cls(*(np.zeros(shape, dtype=np.int64) for shape in (count, (count, 3), (count, 3))))


class Necks:
    """Every neck of a space under its head, on maps of `sizes`; raises UserError if their costs are no such sums.

    gains: what the stages of a neck add to the score, in the column AMOUNT; None adds nothing. smallest: the neck that
    others are compared with. spend: told the steps of the work before it is done.
    """

    def __init__(
        self, space: GiraffeSpace, objective: Objective, sizes: tuple[Size, ...], gains: NeckGains | None = None
    ) -> None:
        self.space, self.objective, self.sizes, self._gains = space, objective, sizes, gains
        self.smallest, largest = space.necks
        self.depths = np.arange(space.neck_depth[0], space.neck_depth[1] + 1)
        self.ratios = tuple(sorted(space.hidden_ratios))
        ends = zip(self.smallest.out, largest.out, strict=True)
        self.widths = [np.arange(low, high + 1, space.step) for low, high in ends]
        # The graph on stand-ins for the widths of C3, C4, C5 (1, 2, 3) and N3, N4, N5 (4, 5, 6) tells who reads whom.
        graph = neck_graph(replace(self.smallest, out=(4, 5, 6)), (1, 2, 3))
        self._outputs = {node.level: node for node in graph if node.out_channels > 3}
        self._others = {node.level: node for node in graph if node.out_channels <= 3}
        self._joining = lru_cache(maxsize=1 << 14)(self._joining_of)
        self._inside = lru_cache(maxsize=1 << 12)(self._inside_of)
        self._leaving = [self._leaving_of(level) for level in range(3)]
        self._own = [
            np.stack([self._inside(self._outputs[level], out) for out in widths.tolist()])
            for level, widths in enumerate(self.widths)
        ]
        self._probe()

    def spec(self, choices: Choices, row: int) -> NeckSpec:
        """The neck of one pyramid."""
        o3, o4, o5 = (int(widths[place]) for widths, place in zip(self.widths, choices.out[row], strict=True))
        r3, r4, r5 = (self.ratios[place] for place in choices.ratio[row])
        depth = int(self.depths[choices.depth[row]])
        return replace(self.smallest, out=(o3, o4, o5), depth=depth, hidden_ratio=(r3, r4, r5))

    def differences(self, channels: Integers, choices: Choices) -> Array:
        """(n, width) vectors of what necks on maps of widths (n, 3) cost more than the smallest."""
        return self._varying(channels, choices) - self._varying(channels, Choices.smallest(len(channels)))

    def cheapest(self, channels: Integers, weights: Array, spend: Spend) -> Choices:
        """The necks of the least `vector @ weights`; of equal ones the shallowest and narrowest."""
        cells = len(self.depths) * sum(len(a) * len(b) for a, b in zip(self.widths, self.widths[1:], strict=False))
        step, parts = max(1, _CELLS // cells), [Choices.smallest(0)]
        for start in range(0, len(channels), step):
            part = channels[start : start + step]
            spend(LOWERING + len(part) * cells // _PER_STEP, f"the cheapest necks of {len(channels):,} pyramids")
            parts.append(self._cheapest(part, weights))
        return Choices(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("depth", "out", "ratio")))

    def _cheapest(self, channels: Integers, weights: Array) -> Choices:
        count, lines = len(channels), np.arange(len(channels))
        behind = np.zeros((count, len(self.depths), len(self.widths[2])))
        outs, ratios = list[Integers](), list[Integers]()
        for level in (2, 1, 0):
            before, here = self.widths[level - 1] if level else np.zeros(1, dtype=np.int64), self.widths[level]
            joined = self._read(level, channels)[:, None] + before
            found, places = np.unique(joined, return_inverse=True)
            joining = np.stack([self._joining(level, width) @ weights for width in found.tolist()])
            several, kinds = np.unique(channels[:, level], return_inverse=True)
            inside = (self._own[level] @ weights)[None] + (self._beside(level, several) @ weights)[:, None]
            ratios.insert(0, inside.argmin(axis=3)[kinds])
            entering = joining[places.reshape(joined.shape)] + self._leaving[level] @ weights
            entering[:, before[:, None] > here] = np.inf
            total = entering[:, None] + (behind + inside.min(axis=3).transpose(0, 2, 1)[kinds])[:, :, None]
            outs.insert(0, total.argmin(axis=3))
            behind = np.take_along_axis(total, outs[0][..., None], axis=3)[..., 0]
        depth, place, out, ratio = behind[:, :, 0].argmin(axis=1), np.zeros(count, dtype=np.int64), [], []
        for level in range(3):
            place = outs[level][lines, depth, place]
            out.append(place)
            ratio.append(ratios[level][lines, place, depth])
        return Choices(depth, np.stack(out, axis=1), np.stack(ratio, axis=1))

    def _varying(self, channels: Integers, choices: Choices) -> Array:
        """(n, width) vectors of all that the choice of a neck changes, less the same of every neck."""
        total, before = np.zeros((len(channels), self.objective.width)), np.zeros(len(channels), dtype=np.int64)
        for level, widths in enumerate(self.widths):
            place = choices.out[:, level]
            found, places = np.unique(self._read(level, channels) + before, return_inverse=True)
            joining = np.stack([self._joining(level, width) for width in found.tolist()])
            total += joining[places, place] + self._leaving[level][place]
            depth, ratio = choices.depth, choices.ratio[:, level]
            total += self._own[level][place, depth, ratio]
            total += self._beside(level, channels[:, level])[np.arange(len(channels)), depth, ratio]
            before = widths[place]
        return total

    # ------------------------------------------------------------------ prices

    def _read(self, level: int, channels: Integers) -> Integers:
        """How many channels of C3, C4, C5 the output of a level reads, beside those of the output before (n,)."""
        sources = self._outputs[level].sources
        return np.asarray(sum(channels[:, source.channels - 1] for source in sources if source.channels <= 3))

    def _beside(self, level: int, widths: Integers) -> Array:
        """(n, depths, ratios, width) of what is inside the other stage of a level, whose width (n,) is the backbone's."""
        if level not in self._others:
            return np.zeros((len(widths), len(self.depths), len(self.ratios), self.objective.width))
        found, places = np.unique(widths, return_inverse=True)
        vectors: Array = np.stack([self._inside(self._others[level], width) for width in found.tolist()])[places]
        return vectors

    def _inside_of(self, node: FusionNode, out: int) -> Array:
        """(depths, ratios, width) of what is inside a stage, less the same at the lowest depth and ratio."""
        necks = [
            replace(self.smallest, depth=depth, hidden_ratio=(ratio,) * 3)
            for depth in self.depths.tolist()
            for ratio in self.ratios
        ]
        vectors = self.objective.closing_vectors([joined_operations(n, node, self.sizes, out, out) for n in necks])
        if self._gains is not None:
            vectors[:, AMOUNT] = [float(self._gains.inside(neck, node, np.array([out]))[0]) for neck in necks]
        return (vectors - vectors[0]).reshape(len(self.depths), len(self.ratios), -1)

    def _joining_of(self, level: int, joined: int) -> Array:
        """(outs, width) of the output of a level that reads so many channels, at the lowest depth and ratio."""
        node, neck, outs = self._outputs[level], self.smallest, self.widths[level]
        groups = [joined_operations(neck, node, self.sizes, joined, out) for out in outs.tolist()]
        vectors = self.objective.closing_vectors(groups)
        if self._gains is not None:
            vectors[:, AMOUNT] = self._gains.inside(neck, node, outs)
        return vectors

    def _leaving_of(self, level: int) -> Array:
        """(outs, width) of the head on the output of a level, and of what brings it to the next."""
        neck, head, size, groups = self.smallest, self.space.frame.head, self.sizes[level], []
        for out in self.widths[level].tolist():
            groups.append(head_level_operations(head, out, size, neck.activation))
            for source in self._outputs[level + 1].sources if level < 2 else ():
                if source.channels > 3:
                    groups[-1] += moving_operations(neck, replace(source, channels=out), level + 1, self.sizes)
        vectors = self.objective.closing_vectors(groups)
        if (
            self._gains is not None
            and level < 2
            and self._gains.feeds(self._outputs[level].name, self._outputs[level + 1])
        ):
            vectors[:, AMOUNT] = self._gains.entering(self._outputs[level + 1], self.widths[level])
        return vectors

    def _probe(self) -> None:
        """Compare sums with direct prices at random necks and pyramids."""
        drawn = [self.space.sample(Random(seed)) for seed in range(_PROBES)]
        necks, channels = [spec.neck for spec in drawn], [spec.backbone.out_channels for spec in drawn]
        out = [list(map(np.searchsorted, self.widths, neck.out)) for neck in necks]
        ratio = [list(map(self.ratios.index, neck.hidden_ratio)) for neck in necks]
        choices = Choices(np.array([n.depth for n in necks]) - self.depths[0], np.array(out), np.array(ratio))

        def direct(necks: Sequence[NeckSpec]) -> Array:
            lowered = [
                neck_and_head_operations.__wrapped__(neck, self.space.frame.head, (c3, c4, c5), self.sizes)
                for neck, (c3, c4, c5) in zip(necks, channels, strict=True)
            ]
            vectors = self.objective.closing_vectors(lowered)
            if self._gains is not None:
                pairs = zip(necks, np.array(channels)[:, None], strict=True)
                vectors[:, AMOUNT] = [float(self._gains.sums(neck, widths)[0]) for neck, widths in pairs]
            return vectors

        found, wanted = self.differences(np.array(channels), choices), direct(necks) - direct([self.smallest] * _PROBES)
        if not np.allclose(found, wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max()):
            raise UserError(
                f"what the necks of space {self.space.name} cost is no sum over their stages; use evolution"
            )
