"""A detector drawn row by row, as the published tables print, and the module that runs its rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor, nn

from nas.models.base import DetectorModule, RawPrediction
from nas.models.baselines.conv import CBFuse, CBLinear, Concat
from nas.models.baselines.dfl_head import DualDFLHead
from nas.models.layers import fold_batch_norms, merge_branches


@dataclass(frozen=True, slots=True)
class Scale:
    """Depth and width multipliers of a family's size, and the cap on the width before scaling."""

    depth: float
    width: float
    cap: int

    def channels(self, width: int) -> int:
        """Scaled width, rounded up to a multiple of 8."""
        return math.ceil(min(width, self.cap) * self.width / 8) * 8

    def repeats(self, count: int) -> int:
        """Scaled number of units; a single unit stays single."""
        return max(round(count * self.depth), 1) if count > 1 else count


class Graph:
    """Rows of a network under construction; every method appends one row and returns its index."""

    def __init__(self, in_channels: int = 3) -> None:
        self.in_channels = in_channels
        self.modules: list[nn.Module] = []
        self.sources: list[tuple[int, ...]] = []
        self.widths: list[int] = []

    def _append(self, module: nn.Module, sources: Sequence[int], width: int) -> int:
        index = len(self.modules)
        self.modules.append(module)
        self.sources.append(tuple(source if source >= 0 else index + source for source in sources))
        self.widths.append(width)
        return index

    def width(self, source: int) -> int:
        """Channels of a row, or of the image before the first row."""
        index = source if source >= 0 else len(self.modules) + source
        return self.widths[index] if index >= 0 else self.in_channels

    def add(
        self, block: Callable[..., nn.Module], out: int, *arguments: object, source: int = -1, **options: object
    ) -> int:
        """Append block(in, out, *arguments, **options)."""
        return self._append(block(self.width(source), out, *arguments, **options), [source], out)

    def insert(self, layer: nn.Module) -> int:
        """Append a layer that keeps the number of channels."""
        return self._append(layer, [-1], self.width(-1))

    def upsample(self) -> int:
        """Append a nearest-neighbour upsampling by 2."""
        return self.insert(nn.Upsample(scale_factor=2.0, mode="nearest"))

    def concat(self, *sources: int) -> int:
        """Append a channel concatenation."""
        return self._append(Concat(), sources, sum(self.width(source) for source in sources))

    def link(self, source: int, *widths: int) -> int:
        """Append a CBLinear that offers `widths` to a second column."""
        return self._append(CBLinear(self.width(source), widths), [source], sum(widths))

    def join(self, sources: Sequence[int], pick: int) -> int:
        """Append a CBFuse that adds the `pick`-th piece of each linked row to the previous row."""
        return self._append(CBFuse([pick] * len(sources)), [*sources, -1], self.width(-1))

    def head(self, module: nn.Module, sources: Sequence[int]) -> int:
        """Append the detection head, fed by three rows or, with an auxiliary branch first, by six."""
        return self._append(module, sources, 0)


Rows = list[tuple[int, ...]]


def needed_rows(sources: Sequence[tuple[int, ...]], wanted: Sequence[int]) -> list[int]:
    """The rows that must run to compute the `wanted` ones, in order."""
    needed, queue = set(), list(wanted)
    while queue:
        index = queue.pop()
        if index >= 0 and index not in needed:
            needed.add(index)
            queue.extend(sources[index])
    return sorted(needed)


def run_rows(modules: nn.Sequential, sources: Rows, image: Tensor, wanted: Sequence[int]) -> list[Tensor]:
    """Outputs of the `wanted` rows; others are dropped as soon as no later row reads them."""
    rows = needed_rows(sources, wanted)
    last_use = {source: row for row in rows for source in sources[row]}
    outputs: dict[int, Any] = {-1: image}
    for row in rows:
        inputs = [outputs[source] for source in sources[row]]
        several = isinstance(modules[row], Concat | CBFuse)
        outputs[row] = modules[row](inputs if several else inputs[0])
        for source in sources[row]:
            if last_use[source] == row and source not in wanted:
                outputs.pop(source, None)
    return [outputs[row] for row in wanted]


def prune(modules: nn.Sequential, sources: Rows) -> tuple[nn.Sequential, Rows, dict[int, int]]:
    """The rows that the last row needs, their sources, and new indices by old ones.

    An identity with a single reader is left out as well.
    """
    needed = needed_rows(sources, [len(modules) - 1])
    renumbered: dict[int, int] = {-1: -1}
    kept: list[nn.Module] = []
    rows: Rows = []
    for index in needed:
        inputs = tuple(renumbered[source] for source in sources[index])
        readers = [reader for reader in needed if index in sources[reader]]
        if isinstance(modules[index], nn.Identity) and len(readers) == 1:
            renumbered[index] = inputs[0]
            continue
        renumbered[index] = len(kept)
        kept.append(modules[index])
        rows.append(inputs)
    return nn.Sequential(*kept), rows, renumbered


class Head(Protocol):
    """The last row of a detector, fed by its three maps, or by six with an auxiliary branch first."""

    auxiliary: str

    def predict(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]: ...

    def raw(self, maps: Sequence[Tensor]) -> RawPrediction: ...

    def fuse(self) -> None: ...


class BaselineDetector(DetectorModule):
    """Rows `model.0 ... model.n` as published, the last of them the head.

    `backbone` are the rows of the maps C3, C4, C5. The rows of an end-to-end detector are at most 300 ranked detections.
    """

    def __init__(
        self,
        name: str,
        graph: Graph,
        backbone: Sequence[int],
        image_size: int,
        classes: Sequence[str],
        end_to_end: bool = False,
    ) -> None:
        super().__init__(classes, image_size)
        self.name = name
        self.model = nn.Sequential(*graph.modules)
        self.sources = list(graph.sources)
        self.backbone = tuple(backbone)
        self.end_to_end = end_to_end

    @property
    def head(self) -> Head:
        return cast(Head, self.model[-1])

    @property
    def auxiliary(self) -> str:
        return self.head.auxiliary

    def _rows(self, images: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        return run_rows(self.model, self.sources, images / 255.0, wanted)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.head.predict(self._rows(images, self.sources[-1][-3:]))

    def predict_raw(self, images: Tensor) -> RawPrediction:
        return self.head.raw(self._rows(images, self.sources[-1]))

    def predict_both(self, images: Tensor) -> tuple[tuple[Tensor, Tensor], RawPrediction]:
        maps = self._rows(images, self.sources[-1])
        return self.head.predict(maps[-3:]), self.head.raw(maps)

    def features(self, images: Tensor) -> dict[str, list[Tensor]]:
        maps = self._rows(images, [*self.backbone, *self.sources[-1][-3:]])
        return {"backbone": maps[:3], "neck": maps[3:]}

    @torch.no_grad()
    def fuse(self) -> Self:
        self.eval()
        self.drop_auxiliary()
        self.head.fuse()
        merge_branches(self)
        fold_batch_norms(self)
        return self

    def drop_auxiliary(self) -> None:
        """Remove PGI's rows and head branch, in place; the rest takes the names of the published inference form."""
        if isinstance(self.head, DualDFLHead):
            self.sources[-1] = self.sources[-1][3:]
            self.model[-1] = self.head.deployed()
            self.model, self.sources, renumbered = prune(self.model, self.sources)
            self.backbone = tuple(renumbered[row] for row in self.backbone)
