"""The baselines that any score must beat: sizes, and chance."""

from __future__ import annotations

from nas.cost.count import count_spec
from nas.options import Pixels, Seed
from nas.spec import Spec, digest


def params(spec: Spec) -> float:
    """Millions of parameters, branches merged."""
    return count_spec(spec).params / 1e6


def macs(spec: Spec, image_size: Pixels | None = None) -> float:
    """Billions of multiply-accumulates (a backbone at 640 pixels unless told)."""
    return count_spec(spec, image_size=image_size).macs / 1e9


def layers(spec: Spec) -> float:
    """Convolution layers of the backbone by the TinyNAS count."""
    return float(count_spec(spec).layers)


def chance(spec: Spec, seed: Seed = 0) -> float:
    """A number in [0, 1) that depends on nothing but the digest and the seed."""
    # SplitMix64, so that seeds give independent numbers
    state = (int(digest(spec), 16) + seed * 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return (state ^ (state >> 31)) / 2**64
