"""The TinyNAS spaces: chains of residual blocks with their moves, and the named ones as data.

`tinynas_*` search the backbone of a whole detector in the form that is deployed (DAMO-YOLO's blocks: Focus or strided
stem, SPP, no shortcut at stride 2). `official_*` repeat the published search problems on the bare backbone.
Sources: the TinyNAS search configurations and DAMO-YOLO (arXiv 2211.15444) section 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

import numpy as np

from nas.spec import Backbone
from search_spaces.base import Mode
from search_spaces.chain import ResidualChains
from search_spaces.genes import GeneCodec
from search_spaces.streams import Words


@dataclass(frozen=True, kw_only=True)
class TinyNASSpace(ResidualChains):
    """Chains of residual blocks with the moves of `genes`, whose randomness is one 64-bit key a network."""

    @cached_property
    def genes(self) -> GeneCodec:
        """The space as integer arrays."""
        return GeneCodec(self)

    def sample(self, rng: Random) -> Backbone:
        return self.samples(_key(rng))[0]

    def mutate(self, spec: Backbone, rng: Random, mode: Mode = "coarse") -> Backbone:
        return self.mutants([spec], _key(rng), mode)[0]

    def crossover(self, a: Backbone, b: Backbone, rng: Random) -> Backbone:
        return self.children([a], [b], _key(rng))[0]

    def samples(self, keys: Words) -> list[Backbone]:
        return [self.genes.spec(row) for row in self.genes.sample(keys)]

    def mutants(self, parents: Sequence[Backbone], keys: Words, mode: Mode = "coarse") -> list[Backbone]:
        genes = self.genes
        return [genes.spec(row) for row in genes.mutate(genes.encode(parents), keys, mode == "minor")]

    def children(self, first: Sequence[Backbone], second: Sequence[Backbone], keys: Words) -> list[Backbone]:
        genes = self.genes
        return [genes.spec(row) for row in genes.crossover(genes.encode(first), genes.encode(second), keys)]


def _key(rng: Random) -> Words:
    return np.array([rng.getrandbits(64)], dtype=np.uint64)


#: Channel ranges of the official small and tiny configurations, blocks 0..4.
_SMALL = ((8, 128), (64, 128), (64, 256), (128, 256), (256, 512))
_TINY = ((8, 96), (64, 96), (64, 192), (128, 192), (256, 384))


def _free(highest: int) -> tuple[tuple[int, int], ...]:
    return ((8, highest),) * 5


_OFFICIAL_START = ((48, 32), (96, 48), (96, 96), (192, 96), (384, 192))
_RESNET_START = ((256, 64), (512, 128), (768, 256), (1024, 256), (2048, 512))
_MOBILE_START = ((24, 48), (48, 96), (64, 128), (96, 192), (192, 384))
_THREE_LAYER_SCALES = (1.5, 1.25, 0.8, 0.6, 0.5)
_MOBILE_RATIOS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
_TENTHS = tuple(round(0.1 * tenth, 1) for tenth in range(5, 21))
_RATIO_TENTHS = tuple(round(0.1 * tenth, 1) for tenth in range(15, 61))

#: What the official problems share: the bare TinyNAS backbone with pooled shortcuts.
_BARE: dict[str, Any] = {"spp": "none", "reparam": False, "shortcut": "pooled"}
_CONV_STEM: dict[str, Any] = {"stem_kind": "conv", "reparam": False}
_K1KXK1: dict[str, Any] = {
    "kind": "k1kxk1",
    "channels": _free(2048),
    "growth": 4.0,
    "kernels": (3, 5),
    "scales": _THREE_LAYER_SCALES,
}
_K1DWK1: dict[str, Any] = {
    "kind": "k1dwk1",
    "channels": _free(1280),
    "ratios": _MOBILE_RATIOS,
    "kernels": (3, 5),
}
_K1DWSEK1: dict[str, Any] = {
    "kind": "k1dwsek1",
    "channels": _free(1280),
    "ratios": _RATIO_TENTHS,
    "kernels": (3, 5, 7),
    "scales": _TENTHS,
    "stem_channels": (16, 32),
    "activation": "silu",
}
#: The official classification problems cap only the first depth; 20 units stand for "no cap" (published nets reach 15).
_UNBOUND = 20
_NO_CAP = 2 + 3 * (3 + 4 * _UNBOUND)
#: The light classification problems on 224 pixels.
_LIGHT_224: dict[str, Any] = {
    **(_K1DWSEK1 | _BARE | _CONV_STEM),
    "strides": (2, 2, 2, 2, 1),
    "depths": (3, *(_UNBOUND,) * 4),
    "max_layers": _NO_CAP,
    "out_blocks": (1, 2, 5),
    "image_size": 224,
}

_ALL = (
    TinyNASSpace(
        name="tinynas_k1kx",
        kind="k1kx",
        channels=_SMALL,
        depths=(2, 3, 3, 3, 3),
        max_layers=25,
        start_stem=16,
        start=((32, 16), (64, 32), (64, 32), (128, 64), (256, 128)),
    ),
    TinyNASSpace(
        name="tinynas_kxkx",
        kind="kxkx",
        channels=_SMALL,
        depths=(2, 4, 4, 4, 4),
        max_layers=35,
        activation="silu",
        start_stem=16,
        start=((32, 16), (64, 32), (64, 32), (128, 64), (256, 128)),
    ),
    TinyNASSpace(
        name="tinynas_k1kxk1",
        **(_K1KXK1 | _CONV_STEM),
        depths=(3, 7, 7, 7, 7),
        max_layers=91,
        start_stem=16,
        start=((64, 16), (128, 32), (192, 48), (256, 64), (512, 128)),
    ),
    TinyNASSpace(
        name="tinynas_k1dwk1",
        **(_K1DWK1 | _CONV_STEM),
        depths=(3, 4, 4, 4, 4),
        max_layers=53,
        start_stem=16,
        start=_MOBILE_START,
    ),
    TinyNASSpace(
        name="tinynas_k1dwsek1",
        **(_K1DWSEK1 | _CONV_STEM),
        depths=(3, 5, 5, 5, 5),
        max_layers=71,
        start_stem=16,
        start=_MOBILE_START,
    ),
    TinyNASSpace(
        name="official_tiny",
        kind="k1kx",
        channels=_TINY,
        depths=(2, 2, 2, 2, 2),
        max_layers=20,
        start=_OFFICIAL_START,
        **_BARE,
    ),
    TinyNASSpace(
        name="official_small",
        kind="k1kx",
        channels=_SMALL,
        depths=(2, 3, 3, 3, 3),
        max_layers=25,
        start=_OFFICIAL_START,
        **_BARE,
    ),
    TinyNASSpace(
        name="official_medium",
        kind="kxkx",
        channels=_SMALL,
        depths=(2, 4, 4, 4, 4),
        max_layers=35,
        start=_OFFICIAL_START,
        **_BARE,
    ),
    TinyNASSpace(
        name="official_r50_detection",
        **(_K1KXK1 | _BARE | _CONV_STEM),
        depths=(3, 7, 7, 7, 7),
        max_layers=91,
        start=_RESNET_START,
        image_size=480,
    ),
    TinyNASSpace(
        name="official_r50",
        **(_K1KXK1 | _BARE | _CONV_STEM),
        depths=(3, *(_UNBOUND,) * 4),
        max_layers=_NO_CAP,
        start=_RESNET_START,
        image_size=224,
    ),
    TinyNASSpace(
        name="official_mbv2",
        **(_K1DWK1 | _BARE | _CONV_STEM),
        depths=(3, 4, 4, 4, 4),
        max_layers=53,
        start_stem=16,
        start=_MOBILE_START,
        closing=1280,
        out_blocks=(1, 3, 5),
        image_size=224,
    ),
    TinyNASSpace(
        name="official_29m_224",
        **_LIGHT_224,
        start=((72, 432), (128, 768), (192, 1152), (288, 1728), (448, 2688)),
        closing=1792,
    ),
    TinyNASSpace(
        name="official_29m_288",
        **(_K1DWSEK1 | _BARE | _CONV_STEM),
        depths=(3, *(_UNBOUND,) * 4),
        max_layers=_NO_CAP,
        start_stem=16,
        start=((32, 192), (48, 288), (72, 432), (104, 624), (160, 960)),
        closing=1792,
        out_blocks=(1, 3, 5),
        image_size=288,
    ),
    TinyNASSpace(
        name="official_50m",
        **_LIGHT_224,
        start=((88, 528), (144, 864), (216, 1296), (328, 1968), (512, 3072)),
        closing=2048,
    ),
    TinyNASSpace(
        name="official_89m",
        **_LIGHT_224,
        start=((144, 864), (216, 1296), (328, 1968), (488, 2928), (728, 4368)),
        closing=2560,
    ),
)

SPACES: dict[str, TinyNASSpace] = {space.name: space for space in _ALL}
