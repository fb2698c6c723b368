"""The networks of two tabular benchmarks: their strings, depths and counts.

NAS-Bench-201 (Dong and Yang, ICLR 2020): cells of four nodes whose six edges carry one of five operations.
NAS-Bench-Macro (Su et al., CVPR 2021): eight layers, each an identity or one of two inverted bottlenecks.
Both read images of 32 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

from nas.errors import SpecError

#: Operations of an edge, in the benchmark's order.
EDGE_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
#: (source node, target node) of the six edges, in the order of the cell string.
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
#: Width and output side (32-pixel images) of the three stages of five cells.
STAGES = ((16, 32), (32, 16), (64, 8))
CELLS_PER_STAGE = 5
_KERNEL = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}

#: (expansion, kernel) of the choices 0, 1, 2 of a macro network; None is the identity.
CHOICES: tuple[tuple[int, int] | None, ...] = (None, (3, 3), (6, 5))
#: (output width, stride) of the eight layers behind the 32-wide stem.
LAYERS = ((64, 2), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2), (256, 1), (256, 1))
STEM_WIDTH = 32
FINAL_WIDTH = 1280
IMAGE_SIZE = 32


@dataclass(frozen=True, slots=True)
class NetworkCounts:
    """Parameters (BN counted as two a channel), MACs of convolutions and classifier, and convolution layers."""

    params: int
    macs: int
    layers: int


@dataclass(frozen=True, slots=True)
class Cell:
    """Operations of the six edges, ordered as `EDGES`."""

    edges: tuple[str, str, str, str, str, str]

    def __post_init__(self) -> None:
        if len(self.edges) != len(EDGES):
            raise SpecError(f"a NAS-Bench-201 cell has {len(EDGES)} edges, got {len(self.edges)}")
        for name in self.edges:
            if name not in EDGE_OPERATIONS:
                raise SpecError(f"unknown cell operation {name!r}; known: {', '.join(EDGE_OPERATIONS)}")

    @classmethod
    def parse(cls, text: str) -> Cell:
        """The cell of a string such as `|skip_connect~0|+|none~0|none~1|+|none~0|none~1|none~2|`."""
        tokens = [token for node in text.strip().split("+") for token in node.strip("|").split("|")]
        names = [token.partition("~")[0] for token in tokens]
        sources = [token.partition("~")[2] for token in tokens]
        if sources != [str(source) for source, _ in EDGES]:
            raise SpecError(f"not a NAS-Bench-201 cell: {text!r} (edges must come from nodes 0 | 0 1 | 0 1 2)")
        return cls(tuple(names))  # type: ignore[arg-type]

    @property
    def depth(self) -> int:
        """Convolutions on the longest path through the cell (0 where nothing connects)."""
        return round(self._longest_path({name: 1.0 for name in _KERNEL}))

    def path_gain(self, channels: int) -> float:
        """Half the sum of ln fan-in along the path of greatest gain: MAE's entropy of one cell of this width."""
        return self._longest_path({name: 0.5 * log(kernel * kernel * channels) for name, kernel in _KERNEL.items()})

    def _longest_path(self, gains: Mapping[str, float]) -> float:
        """The greatest sum of gains (0 for an operation that is not listed) along a path through the cell."""
        longest = {0: 0.0}
        for (source, target), name in zip(EDGES, self.edges, strict=True):
            if source in longest and name != "none":
                longest[target] = max(longest.get(target, 0.0), longest[source] + gains.get(name, 0.0))
        return longest.get(3, 0.0)

    def counts(self, num_classes: int = 10) -> NetworkCounts:
        """Counts of the benchmark's network: stem, three stages of five cells, residual reductions, classifier.

        Operations on edges that lead nowhere count too, as in the published table.
        """
        kernels = [_KERNEL[name] for name in self.edges if name in _KERNEL]
        width, side = STAGES[0]
        params, macs, layers = 27 * width + 2 * width, 27 * width * side * side, 1
        for stage, (channels, size) in enumerate(STAGES):
            if stage:
                weights = 9 * width * channels + 9 * channels * channels + width * channels
                params += weights + 4 * channels
                macs += weights * size * size
                layers += 3
            for kernel in kernels:
                weights = kernel * kernel * channels * channels
                params += CELLS_PER_STAGE * (weights + 2 * channels)
                macs += CELLS_PER_STAGE * weights * size * size
                layers += CELLS_PER_STAGE
            width = channels
        return NetworkCounts(params + 2 * width + (width + 1) * num_classes, macs + width * num_classes, layers)


@dataclass(frozen=True, slots=True)
class MacroNet:
    """Eight choices; the benchmark's key is their digits, for example `22212220`."""

    choices: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.choices) != len(LAYERS) or any(choice not in range(len(CHOICES)) for choice in self.choices):
            raise SpecError(f"a NAS-Bench-Macro network is {len(LAYERS)} digits of 0, 1, 2; got {self.choices!r}")

    @classmethod
    def parse(cls, text: str) -> MacroNet:
        if not text.strip().isdigit():
            raise SpecError(f"a NAS-Bench-Macro network is {len(LAYERS)} digits of 0, 1, 2; got {text!r}")
        return cls(tuple(int(digit) for digit in text.strip()))

    def counts(self, num_classes: int = 10) -> NetworkCounts:
        """Counts of the benchmark's network; equal to its table for all 6,561 networks."""
        convolutions = [(3, STEM_WIDTH, 3, 1, 1)]
        width = STEM_WIDTH
        for choice, (out, stride) in zip(self.choices, LAYERS, strict=True):
            convolutions += layer_convolutions(choice, width, out, stride)
            width = out
        convolutions.append((width, FINAL_WIDTH, 1, 1, 1))
        params, macs, side = 0, 0, IMAGE_SIZE
        for inputs, outputs, kernel, stride, groups in convolutions:
            side //= stride
            weights = kernel * kernel * (inputs // groups) * outputs
            params += weights + 2 * outputs
            macs += weights * side * side
        classifier = FINAL_WIDTH * num_classes
        return NetworkCounts(params + classifier + num_classes, macs + classifier, len(convolutions))


def layer_convolutions(choice: int, width: int, out: int, stride: int) -> list[tuple[int, int, int, int, int]]:
    """(in, out, kernel, stride, groups) of one layer; an identity that must change its shape is a 1x1 convolution."""
    kind = CHOICES[choice]
    if kind is None:
        return [] if stride == 1 and width == out else [(width, out, 1, stride, 1)]
    hidden = width * kind[0]
    return [(width, hidden, 1, 1, 1), (hidden, hidden, kind[1], stride, hidden), (hidden, out, 1, 1, 1)]
