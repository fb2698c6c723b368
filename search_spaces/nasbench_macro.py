"""NAS-Bench-Macro (Su et al., CVPR 2021): eight layers, each an identity or one of two inverted bottlenecks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from random import Random

from nas.errors import SpecError
from search_spaces.base import Mode, SearchSpace, draw

#: (expansion, kernel) of the choices 0, 1, 2; None is the identity.
CHOICES: tuple[tuple[int, int] | None, ...] = (None, (3, 3), (6, 5))
#: (output width, stride) of the eight layers behind the 32-wide stem.
LAYERS = ((64, 2), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2), (256, 1), (256, 1))
STEM_WIDTH = 32
FINAL_WIDTH = 1280
IMAGE_SIZE = 32


@dataclass(frozen=True, slots=True)
class MacroNet:
    """Eight choices; `text` is the benchmark's key, for example `22212220`."""

    choices: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.choices) != len(LAYERS) or any(choice not in range(len(CHOICES)) for choice in self.choices):
            raise SpecError(f"a NAS-Bench-Macro network is {len(LAYERS)} digits of 0, 1, 2; got {self.choices!r}")

    @classmethod
    def parse(cls, text: str) -> MacroNet:
        if not text.strip().isdigit():
            raise SpecError(f"a NAS-Bench-Macro network is {len(LAYERS)} digits of 0, 1, 2; got {text!r}")
        return cls(tuple(int(digit) for digit in text.strip()))

    @property
    def text(self) -> str:
        return "".join(str(choice) for choice in self.choices)


@dataclass(frozen=True, slots=True)
class MacroCounts:
    """Parameters (BN counted as two a channel), MACs of convolutions and classifier, and convolution layers."""

    params: int
    macs: int
    layers: int


def layer_convolutions(choice: int, width: int, out: int, stride: int) -> list[tuple[int, int, int, int, int]]:
    """(in, out, kernel, stride, groups) of one layer; an identity that must change its shape is a 1x1 convolution."""
    kind = CHOICES[choice]
    if kind is None:
        return [] if stride == 1 and width == out else [(width, out, 1, stride, 1)]
    hidden = width * kind[0]
    return [(width, hidden, 1, 1, 1), (hidden, hidden, kind[1], stride, hidden), (hidden, out, 1, 1, 1)]


def network_counts(net: MacroNet, num_classes: int = 10) -> MacroCounts:
    """Counts of the benchmark's 32-pixel network; equal to its table for all 6,561 networks."""
    convolutions = [(3, STEM_WIDTH, 3, 1, 1)]
    width = STEM_WIDTH
    for choice, (out, stride) in zip(net.choices, LAYERS, strict=True):
        convolutions += layer_convolutions(choice, width, out, stride)
        width = out
    convolutions.append((width, FINAL_WIDTH, 1, 1, 1))
    params = macs = 0
    side = IMAGE_SIZE
    for inputs, outputs, kernel, stride, groups in convolutions:
        side //= stride
        weights = kernel * kernel * (inputs // groups) * outputs
        params += weights + 2 * outputs
        macs += weights * side * side
    classifier = FINAL_WIDTH * num_classes
    return MacroCounts(params + classifier + num_classes, macs + classifier, len(convolutions))


@dataclass(frozen=True, kw_only=True)
class NasBenchMacro(SearchSpace[MacroNet]):
    """The space of 3^8 networks."""

    name: str = "nasbench_macro"

    def __iter__(self) -> Iterator[MacroNet]:
        """All networks in the order of their keys, which is the order of the published table."""
        for choices in product(range(len(CHOICES)), repeat=len(LAYERS)):
            yield MacroNet(choices)

    def size(self) -> int:
        return len(CHOICES) ** len(LAYERS)

    def violations(self, spec: object) -> list[str]:
        """Empty for every network."""
        return [] if isinstance(spec, MacroNet) else [f"a {type(spec).__name__} is no NAS-Bench-Macro network"]

    def initial(self) -> MacroNet:
        """The network of identities."""
        return MacroNet((0,) * len(LAYERS))

    def sample(self, rng: Random) -> MacroNet:
        """A network drawn uniformly."""
        return MacroNet(tuple(draw(range(len(CHOICES)), rng) for _ in LAYERS))

    def mutate(self, spec: MacroNet, rng: Random, mode: Mode = "coarse") -> MacroNet:
        """The network with one layer changed to another choice, in either mode."""
        layer = int(rng.random() * len(LAYERS))
        choices = list(spec.choices)
        choices[layer] = draw([choice for choice in range(len(CHOICES)) if choice != choices[layer]], rng)
        return MacroNet(tuple(choices))

    def crossover(self, a: MacroNet, b: MacroNet, rng: Random) -> MacroNet:
        """Each layer from one parent or the other."""
        return MacroNet(tuple(draw(pair, rng) for pair in zip(a.choices, b.choices, strict=True)))
