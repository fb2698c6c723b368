"""The baselines that any score must beat: sizes, and chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nas.cost.count import count_spec
from nas.options import Pixels, Seed
from nas.scorers.formula import Array, Formula, Linear
from nas.spec import Spec, digest


@dataclass(frozen=True)
class Count(Formula):
    """A metric of the network, times a factor."""

    sums_units: ClassVar[bool] = True

    metric: str
    factor: float = 1.0

    def combine(
        self, gains: Array, channels: Array, sides: Array, depths: Array, metrics: Mapping[str, Array]
    ) -> Array:
        return metrics[self.metric] * self.factor

    def linear(self) -> Linear:
        return Linear(metric=self.metric, factor=self.factor)

    def score(self, spec: Spec, image_size: int | None = None) -> float:
        return float(count_spec(spec, image_size=image_size).metrics()[self.metric] * self.factor)


PARAMS, MACS, LAYERS = Count("params_m"), Count("flops_g", 0.5), Count("layers")


def params(spec: Spec) -> float:
    """Millions of parameters, branches merged."""
    return PARAMS.score(spec)


def macs(spec: Spec, image_size: Pixels | None = None) -> float:
    """Billions of multiply-accumulates (a backbone at 640 pixels unless told)."""
    return MACS.score(spec, image_size)


def layers(spec: Spec) -> float:
    """Convolution layers of the backbone by the TinyNAS count."""
    return LAYERS.score(spec)


def chance(spec: Spec, seed: Seed = 0) -> float:
    """A number in [0, 1) that depends on nothing but the digest and the seed."""
    # SplitMix64, so that seeds give independent numbers
    state = (int(digest(spec), 16) + seed * 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return (state ^ (state >> 31)) / 2**64
