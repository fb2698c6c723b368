"""NAS-Bench-201 (Dong and Yang, ICLR 2020): cells of four nodes whose six edges carry one of five operations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import log
from random import Random

from nas.errors import SpecError
from search_spaces.base import Mode, SearchSpace, draw

#: Operations of an edge, in the benchmark's order.
EDGE_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
#: (source node, target node) of the six edges, in the order of the cell string.
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
#: Width and output side (32-pixel images) of the three stages of five cells.
STAGES = ((16, 32), (32, 16), (64, 8))
CELLS_PER_STAGE = 5
_KERNEL = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}


@dataclass(frozen=True, slots=True)
class Cell:
    """Operations of the six edges, ordered as `EDGES`; `text` is the benchmark's string."""

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
    def text(self) -> str:
        nodes: dict[int, str] = {}
        for (source, target), name in zip(EDGES, self.edges, strict=True):
            nodes[target] = nodes.get(target, "|") + f"{name}~{source}|"
        return "+".join(nodes[target] for target in sorted(nodes))

    @property
    def connected(self) -> bool:
        """Whether the input reaches the output through operations other than `none`."""
        reached = {0}
        for (source, target), name in zip(EDGES, self.edges, strict=True):
            if source in reached and name != "none":
                reached.add(target)
        return 3 in reached

    @property
    def depth(self) -> int:
        """Convolutions on the longest path through the cell (0 where nothing connects)."""
        return round(longest_path(self, {name: 1.0 for name in _KERNEL}))


def longest_path(cell: Cell, gains: Mapping[str, float]) -> float:
    """The greatest sum of gains (0 for an operation that is not listed) along a path through the cell."""
    longest = {0: 0.0}
    for (source, target), name in zip(EDGES, cell.edges, strict=True):
        if source in longest and name != "none":
            longest[target] = max(longest.get(target, 0.0), longest[source] + gains.get(name, 0.0))
    return longest.get(3, 0.0)


def path_gain(cell: Cell, channels: int) -> float:
    """Half the sum of ln fan-in along the path of greatest gain: MAE's entropy of one cell of this width."""
    return longest_path(cell, {name: 0.5 * log(kernel * kernel * channels) for name, kernel in _KERNEL.items()})


@dataclass(frozen=True, slots=True)
class CellCounts:
    """Parameters (BN counted as two a channel), MACs of convolutions and classifier, and convolution layers."""

    params: int
    macs: int
    layers: int


def network_counts(cell: Cell, num_classes: int = 10) -> CellCounts:
    """Counts of the benchmark's 32-pixel network: stem, three stages of five cells, residual reductions, classifier.

    Operations on edges that lead nowhere count too, as in the published table.
    """
    kernels = [_KERNEL[name] for name in cell.edges if name in _KERNEL]
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
    return CellCounts(params + 2 * width + (width + 1) * num_classes, macs + width * num_classes, layers)


@dataclass(frozen=True, kw_only=True)
class NasBench201(SearchSpace[Cell]):
    """The space of 5^6 cells; every cell is valid, also the 341 that connect nothing."""

    name: str = "nasbench201"

    def __iter__(self) -> Iterator[Cell]:
        """All cells, the last edge fastest (the benchmark's own index is a shuffled order, stored in its tables)."""
        for edges in product(EDGE_OPERATIONS, repeat=len(EDGES)):
            yield Cell(edges)  # type: ignore[arg-type]

    def size(self) -> int:
        return len(EDGE_OPERATIONS) ** len(EDGES)

    def violations(self, spec: object) -> list[str]:
        """Empty for every cell."""
        return [] if isinstance(spec, Cell) else [f"a {type(spec).__name__} is no NAS-Bench-201 cell"]

    def initial(self) -> Cell:
        """The cell of six skip connections."""
        return Cell(("skip_connect",) * 6)

    def sample(self, rng: Random) -> Cell:
        """A cell drawn uniformly."""
        return Cell(tuple(draw(EDGE_OPERATIONS, rng) for _ in EDGES))  # type: ignore[arg-type]

    def mutate(self, spec: Cell, rng: Random, mode: Mode = "coarse") -> Cell:
        """The cell with one edge changed to another operation, in either mode."""
        edge = int(rng.random() * len(EDGES))
        edges = list(spec.edges)
        edges[edge] = draw([name for name in EDGE_OPERATIONS if name != edges[edge]], rng)
        return Cell(tuple(edges))  # type: ignore[arg-type]

    def crossover(self, a: Cell, b: Cell, rng: Random) -> Cell:
        """Each edge from one parent or the other."""
        return Cell(tuple(draw(pair, rng) for pair in zip(a.edges, b.edges, strict=True)))  # type: ignore[arg-type]
