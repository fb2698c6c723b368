"""The MAE score through a neck as a sum over the neck's stages: an upper bound that is nearly the score itself.

Of the maps that a stage joins, one has by far the most convolutions behind it, and its variance outweighs the others'. With
that one alone the logarithm of a variance is a sum over stages; what the others can add to it is bounded for each pyramid.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nas.lowering.repgfpn import FusionNode, neck_graph
from nas.scorers.base import Weights
from nas.scorers.formula import Array
from nas.scorers.neck_entropy import Widths, block_gain, stage_widths
from nas.spec import NeckSpec

_LOG_9 = float(np.log(9.0))


class NeckGains:
    """What the stages of necks add to `mae_neck`, beside what the backbone's gains up to C5 count (`deepest`) times those.

    weights: of N3, N4, N5, none negative; smallest, largest: ends of the necks that are compared, of one graph.
    """

    def __init__(self, weights: Weights, smallest: NeckSpec, largest: NeckSpec) -> None:
        self.deepest, self._weights, self._ends = sum(weights), weights, (smallest, largest)
        # The graph on stand-ins for the widths of C3, C4, C5 (1, 2, 3) and N3, N4, N5 (4, 5, 6) tells who reads whom.
        self._nodes = neck_graph(replace(smallest, out=(4, 5, 6)), (1, 2, 3))
        order = ["C3", "C4", "C5", *(node.name for node in self._nodes)]
        self._loudest = {node.name: max(node.sources, key=lambda s: order.index(s.origin)) for node in self._nodes}
        self._counted = dict.fromkeys(order, 0.0) | {
            f"N{level}": weight / 2 for level, weight in zip((3, 4, 5), weights, strict=True)
        }
        for node in reversed(self._nodes):
            self._counted[self._loudest[node.name].origin] += self._counted[node.name]

    def entering(self, node: FusionNode, width: Array | Widths | int) -> Array:
        """What a stage counts for its loudest source of that width."""
        return self._counted[node.name] * self._entry(node, np.asarray(width, dtype=np.float64))

    def inside(self, neck: NeckSpec, node: FusionNode, out: Widths) -> Array:
        """What a stage of widths `out` (n,) counts for its blocks and its output."""
        result = self._counted[node.name] * self._blocks(neck, node, out)
        if node.name.startswith("N"):
            result = result + self._weights[node.level] * np.log(out)
        return result

    def feeds(self, origin: str, node: FusionNode) -> bool:
        """Whether a map is the loudest source of a stage."""
        return self._loudest[node.name].origin == origin

    def sums(self, neck: NeckSpec, channels: Widths) -> Array:
        """What a neck counts on maps C3, C4, C5 of widths (n, 3)."""
        widths = dict(enumerate((*channels.T, *np.tile(neck.out, (len(channels), 1)).T), 1))
        total = np.zeros(len(channels))
        for node in self._nodes:
            total += self.entering(node, widths[self._loudest[node.name].channels])
            total += self.inside(neck, node, widths[node.out_channels])
        return total

    def slack(self, channels: Widths, to_c4: Array, to_c5: Array) -> Array:
        """By how much the score of any of the necks on maps of widths (n, 3) is more than these sums say, at most.

        to_c4, to_c5: the least (n,) that the backbone's gains rise by from C3 to C4, and from there to C5.
        """
        (least, most), ones = self._ends, np.ones(len(channels))
        low = dict(enumerate((*channels.T, *(out * ones for out in least.out)), 1))
        high = dict(enumerate((*channels.T, *(out * ones for out in most.out)), 1))
        #: The least by which the log-variance of a map is above those that it rests on.
        above = {"C3": {}, "C4": {"C3": 2 * to_c4}, "C5": {"C4": 2 * to_c5, "C3": 2 * (to_c5 + to_c4)}}
        result = dict.fromkeys(above, 0 * ones)
        for node in self._nodes:
            loudest = self._loudest[node.name]
            entry = self._entry(node, low[loudest.channels])
            beside = 0 * ones
            for source in node.sources:
                if (source.origin, source.move) != (loudest.origin, loudest.move):
                    quieter = np.log(high[source.channels]) * (2 if source.move == "down" else 1)
                    quieter += _LOG_9 * (source.move == "down")
                    if source.origin != loudest.origin:
                        quieter -= above[loudest.origin][source.origin]
                    beside += np.exp(quieter - entry)
            narrow = low[node.out_channels].astype(np.int64)
            inside = self._blocks(least, node, narrow)
            result[node.name] = result[loudest.origin] + np.log1p(beside) + self._beside_last(least, node, narrow)
            rise = entry + inside
            above[node.name] = {origin: rise + more for origin, more in above[loudest.origin].items()}
            above[node.name][loudest.origin] = rise
        halves = zip(self._weights, ("N3", "N4", "N5"), strict=True)
        total: Array = sum((weight / 2 * result[name] for weight, name in halves), 0 * ones)
        return total

    def _merges(self, node: FusionNode) -> float:
        """Logarithm of how often a stage reads its loudest source."""
        loudest = self._loudest[node.name]
        same = [source for source in node.sources if (source.origin, source.move) == (loudest.origin, loudest.move)]
        return float(np.log(len(same)))

    def _entry(self, node: FusionNode, width: Array) -> Array:
        """Log-variance that a stage adds to its loudest source on the way to its blocks."""
        down = self._loudest[node.name].move == "down"
        entry: Array = np.log(width) * (2 if down else 1) + _LOG_9 * down + self._merges(node)
        return entry

    def _blocks(self, neck: NeckSpec, node: FusionNode, out: Widths) -> Array:
        """Log-variance that the rest of a stage adds, its last block alone counted where all are kept."""
        if neck.fusion == "conv":
            return np.full(len(out), _LOG_9)
        _, width, hidden = stage_widths(neck, out, node.level)
        blocks: Array = neck.depth * block_gain(neck, width, hidden) + np.log(width)
        return blocks

    def _beside_last(self, neck: NeckSpec, node: FusionNode, out: Widths) -> Array:
        """What the kept branch and the other blocks of a stage at least as wide and deep can add."""
        if neck.fusion == "conv":
            return np.zeros(len(out))
        _, width, hidden = stage_widths(neck, out, node.level)
        share = np.exp(-block_gain(neck, width, hidden))
        others = share / (1 - share) if neck.fusion == "elan" else 0.0
        added: Array = np.log1p(share**neck.depth + others)
        return added
