"""What searchers search: scores and costs of a backbone inside its detector, as sums of remembered vectors of its parts.

The stem, every block (with its input width and map size) and everything behind the backbone (a function of C3, C4, C5)
are lowered and priced once; a candidate costs a handful of look-ups. Sums equal `nas.count` and `nas.latency`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import accumulate
from math import log

import numpy as np
import numpy.typing as npt

from nas.blocks.operation import CONVOLUTIONS, halved, in_form, main_convolutions
from nas.cost.budget import TIMES, Limited
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.frame import Frame
from nas.lowering import Operation, block_operations
from nas.lowering.network import (
    decoding_operations,
    head_level_operations,
    neck_and_head_operations,
    pyramid_block,
    stem_operations,
)
from nas.lowering.repgfpn import FusionNode, Source, joining_operations, moving_operations, neck_graph
from nas.scorers.formula import Formula, counted_depths
from nas.spec import Block, DetectorSpec, HeadSpec, NeckSpec, Spec, Stem, backbone_of

Array = npt.NDArray[np.float64]
Size = tuple[int, int]

#: Columns of a part's vector: additive costs, the sum of ln fan-in that rho needs, and the scorer's amount; behind them what
#: else is limited, such as the parameters of the neck or the milliseconds of another device.
LATENCY, PARAMS, MACS, ACTIVATIONS, LAYERS, LOG_FAN, AMOUNT = range(7)
_WIDTH = 7
#: Steps (nas.searchers.exact.effort) that it costs to lower and price one node of a neck.
LOWERING = 3_000
#: Milliseconds until boxes: those of the network, and what follows it.
E2E = "e2e_ms"
#: Names of the metrics that every objective gives, in the order of their columns.
METRICS = ("latency_ms", "params_m", "flops_g", "activations_m", "layers", "rho")
_ADDITIVE: dict[str, tuple[int, float]] = {
    "latency_ms": (LATENCY, 1.0),
    "params_m": (PARAMS, 1e6),
    "flops_g": (MACS, 1e9 / 2),
    "activations_m": (ACTIVATIONS, 1e6),
    "layers": (LAYERS, 1.0),
}


class Objective:
    """What a search maximises and what it pays, for backbones of one frame.

    formula: the score; None scores nothing (0). table: None prices no latency (0). frame: neck and head around the
    backbone, or None for the bare backbone at `image_size` pixels. Latency is in ms per image. limited: what a budget
    limits, of which `metrics` has, behind METRICS, the parts, the other tables and the milliseconds until boxes
    (`nas.cost.budget.Limited`); vectors have `width` columns.
    """

    def __init__(
        self,
        formula: Formula | None,
        table: LatencyTable | None = None,
        frame: Frame | None = None,
        image_size: int = 640,
        limited: Sequence[str] = (),
    ) -> None:
        if formula is not None:
            neck, out = (None, None) if frame is None else (frame.neck((2, 2, 2)), frame.out)
            formula = formula.behind(neck, out)
        self.formula, self.table, self.frame = formula, table, frame
        self.image_size = frame.image_size if frame is not None else image_size
        self._more = [cost for cost in map(Limited.of, limited) if cost.part or cost.hardware or cost.metric == E2E]
        self.metrics = (*METRICS, *map(str, self._more))
        self.width = _WIDTH + len(self._more)
        columns = enumerate(self._more, _WIDTH)
        self._sums = _ADDITIVE | {str(cost): (column, _ADDITIVE[_summed(cost)][1]) for column, cost in columns}
        self.tables = {cost.hardware: LatencyTable.load(cost.hardware) for cost in self._more if cost.hardware}
        sides = accumulate(range(5), lambda size, _: halved(size, 2), initial=(self.image_size, self.image_size))
        self._strides = {size: f"stride{2**place}" for place, size in enumerate(sides)}
        self._operation_cost: dict[Operation, tuple[float, ...]] = {}
        self._block_cost = lru_cache(maxsize=1 << 16)(self._block_vector)
        self._stem_cost = lru_cache(maxsize=1 << 10)(self._stem_vector)
        self._closing_cost = lru_cache(maxsize=1 << 16)(self._closing_vector)

    def additive(self, metric: str) -> tuple[int, float]:
        """Column and divisor of a metric that is a sum over parts; raises UserError for one that is not."""
        if metric not in self._sums:
            raise UserError(f"{metric} is not a sum over blocks; known sums: {', '.join(self._sums)}")
        return self._sums[metric]

    # ------------------------------------------------------------------ parts

    def stem(self, stem: Stem, activation: str) -> Array:
        """Vector of a stem."""
        return self._stem_cost(stem, activation)

    def block(self, block: Block, channels: int, size: Size, activation: str, reparam: bool, spp: str) -> Array:
        """Vector of a block on an input of `channels` and `size`."""
        return self._block_cost(block, channels, size, activation, reparam, spp)

    def blocks(
        self, blocks: Sequence[tuple[Block, int]], size: Size, activation: str, reparam: bool, spp: str
    ) -> Array:
        """(n, width) vectors of many (block, input width) pairs at one position; new operations are priced together."""
        lowered = [
            block_operations.__wrapped__(block, channels, *size, activation, reparam, spp) for block, channels in blocks
        ]
        return self.vectors(lowered, [halved(size, block.stride) for block, _ in blocks])

    def vectors(self, groups: Sequence[Sequence[Operation]], sizes: Sequence[Size]) -> Array:
        """(n, width) vectors of the operations of blocks whose output maps have these sizes, priced together."""
        self._price(op for group in groups for op in group)
        parts = (self._strides.get(size, "") for size in sizes)
        return np.stack([self._vector(group, True, part) for group, part in zip(groups, parts, strict=True)])

    def closing_vectors(self, groups: Sequence[Sequence[Operation]]) -> Array:
        """(n, width) vectors of operations of neck and head, priced together."""
        merged = [in_form(group, "merged") for group in groups]
        self._price(op for group in merged for op in group)
        return np.stack([self._vector(group, False) for group in merged])

    def closing(self, channels: tuple[int, ...], sizes: tuple[Size, ...]) -> Array:
        """Vector of the frame's neck and head (zeros for a bare backbone), and the table's offset of a network."""
        if self.frame is None:
            return self._closing_cost(None, None, (), ())
        return self._closing_cost(self.frame.neck(channels), self.frame.head, channels, sizes)

    def closings(
        self, channels: npt.NDArray[np.int64], sizes: tuple[Size, ...], spend: Callable[[int, str], None]
    ) -> Array:
        """(n, width) vectors of neck and head for widths C3, C4, C5 (n, 3), equal to `closing` but for the order of sums.

        Every move of a map, every node of the neck and every level of the head is priced once for each width, or pair of
        widths, that it reads and gives. spend: told the steps of each before it is priced.
        """
        total = np.tile(self._closing_cost(None, None, (), ()), (len(channels), 1))
        frame = self.frame
        if frame is None or not len(channels):
            return total
        outs = channels if frame.out is None else np.tile(frame.out, (len(channels), 1))
        # The graph on stand-ins for the six widths tells which of them every node reads.
        neck, head = replace(frame.neck(tuple(channels[0].tolist())), out=(4, 5, 6)), frame.head
        widths = dict(enumerate((*channels.T, *outs.T), 1))

        def add(columns: Sequence[npt.NDArray[np.int64]], lower: Callable[..., Sequence[Operation]]) -> None:
            keys, places = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
            spend(LOWERING * len(keys), f"necks and heads of {len(channels):,} pyramids")
            total[:] += self.closing_vectors([lower(*key) for key in keys.tolist()])[places.reshape(-1)]

        for node in neck_graph(neck, (1, 2, 3)):
            for source in node.sources:
                if source.move != "same":
                    add([widths[source.channels]], partial(_moved, neck, source, node.level, sizes))
            joined = sum(widths[source.channels] for source in node.sources)
            add([np.asarray(joined), widths[node.out_channels]], partial(joined_operations, neck, node, sizes))
        for level, size in enumerate(sizes):
            add([outs[:, level]], partial(_on_level, head, size, neck.activation))
        return total + self._vector(in_form(decoding_operations(head, sizes), "merged"), False)

    # ------------------------------------------------------------------ whole candidates

    def evaluate(self, spec: Spec) -> dict[str, float]:
        """Score and `metrics` of one backbone in its frame, or of a detector with the neck and head that it brings."""
        backbone = backbone_of(spec)
        size: Size = (self.image_size, self.image_size)
        parts = [self.stem(backbone.stem, backbone.activation)]
        channels, size = backbone.stem.out, halved(size, backbone.stem.stride)
        sizes, widths, pyramid = [size], [channels], pyramid_block(backbone)
        for index, block in enumerate(backbone.blocks):
            spp = backbone.spp if index == pyramid else "none"
            parts.append(self.block(block, channels, size, backbone.activation, backbone.reparam, spp))
            channels, size = block.out, halved(size, block.stride)
            sizes.append(size)
            widths.append(channels)
        maps = tuple(sizes[index + 1] for index in backbone.out_blocks)
        closing = self.closing(backbone.out_channels, maps) if spec is backbone else self._behind(spec, maps)
        score, metrics = self.combine(
            np.array(parts)[None],
            np.array([widths]),
            np.array([counted_depths(backbone)]),
            (0, *backbone.levels),
            [min(size) for size in sizes],
            closing[None],
            self.formula.behind(spec.neck, spec.neck.out) if self.formula and isinstance(spec, DetectorSpec) else None,
        )
        return {"score": float(score[0])} | dict(zip(self.metrics, metrics[0].tolist(), strict=True))

    def combine(
        self,
        parts: Array,
        widths: npt.NDArray[np.int64],
        depths: npt.NDArray[np.int64],
        levels: Sequence[int],
        sides: Sequence[int],
        closing: Array,
        formula: Formula | None = None,
    ) -> tuple[Array, Array]:
        """Scores (n,) and `metrics` (n, ...) from vectors of stem and blocks (n, parts, width).

        widths: output widths (n, parts); depths: as `counted_depths` (n, blocks); levels, sides: level and map side of each
        part; closing: vectors of what is behind (n, width); formula: of detectors with a neck of their own.
        """
        formula = formula or self.formula
        total = parts.sum(axis=1) + closing
        ends = [i for i in range(len(levels)) if i + 1 == len(levels) or levels[i + 1] > levels[i]]
        running = parts[:, :, [LAYERS, LOG_FAN]].cumsum(axis=1)[:, ends]
        rho = (running[:, :, 0] * np.exp(-running[:, :, 1] / running[:, :, 0])).max(axis=1)
        sums = [total[:, column] / unit for column, unit in self._sums.values()]
        metrics = np.stack([*sums[: len(_ADDITIVE)], rho, *sums[len(_ADDITIVE) :]], axis=1)
        if formula is None:
            return np.zeros(len(parts)), metrics
        side = np.array([sides[i] for i in ends], dtype=np.float64)
        channels = widths[:, ends].astype(np.float64)
        named = dict(zip(self.metrics, metrics.T, strict=True))
        gains = formula.gains(parts[:, :, AMOUNT]).cumsum(axis=1)[:, ends]
        return formula.combine(gains, channels, side, depths.astype(np.float64), named), metrics

    # ------------------------------------------------------------------ inside

    def _stem_vector(self, stem: Stem, activation: str) -> Array:
        group = stem_operations(stem, (self.image_size, self.image_size), activation)
        return self._vector(group, True, "stem")

    def _block_vector(self, block: Block, channels: int, size: Size, activation: str, reparam: bool, spp: str) -> Array:
        group = block_operations.__wrapped__(block, channels, *size, activation, reparam, spp)
        return self._vector(group, True, self._strides.get(halved(size, block.stride), ""))

    def _behind(self, spec: Spec, sizes: tuple[Size, ...]) -> Array:
        assert isinstance(spec, DetectorSpec)
        return self._closing_cost(spec.neck, spec.head, spec.backbone.out_channels, sizes)

    def _closing_vector(
        self, neck: NeckSpec | None, head: HeadSpec | None, channels: tuple[int, ...], sizes: tuple[Size, ...]
    ) -> Array:
        result = np.zeros(self.width)
        if neck is not None and head is not None:
            widths = (channels[0], channels[1], channels[2])
            result = self._vector(neck_and_head_operations.__wrapped__(neck, head, widths, sizes), False)
        if self.table is not None:
            result[LATENCY] += self.table.offset_ms
        for column, cost in enumerate(self._more, _WIDTH):
            table = self.tables[cost.hardware] if cost.hardware else self.table
            if table is not None and not cost.part and cost.metric in TIMES:
                result[column] += table.offset_ms
                if cost.metric == E2E:
                    result[column] += self._after(table, head)
        return result

    def _after(self, table: LatencyTable, head: HeadSpec | None) -> float:
        """What follows the network of this head, or of the frame's; UserError for a bare backbone."""
        head = head or (None if self.frame is None else self.frame.head)
        if head is None:
            raise UserError(f"{E2E} is of whole detectors: search with scope=detector, or limit latency_ms")
        return table.after_ms(head.num_classes, head.one_to_one, self.image_size)

    def _vector(self, operations: Sequence[Operation], backbone: bool, part: str = "") -> Array:
        """Vector of the operations of a part of the backbone, or of neck and head, whose operations say which they are."""
        known = self._operation_cost
        if not all(op in known for op in operations):
            self._price(operations)
        result = np.zeros(self.width)
        latency = params = macs = activations = 0.0
        for op in operations:
            cost = known[op]
            latency += cost[0]
            params += cost[1]
            macs += cost[2]
            activations += cost[3]
        result[:4] = latency, params, macs, activations
        if backbone:
            main = main_convolutions(operations)
            result[LAYERS] = len(main)
            result[LOG_FAN] = sum(log(op.fan_in) for op in main)
            if self.formula is not None:
                result[AMOUNT] = self.formula.amount(operations, self.image_size)
        for column, limited in enumerate(self._more, _WIDTH):
            chosen = [op for op in operations if limited.part in ("", part or op.role)]
            if limited.metric == "layers":
                result[column] = len(main_convolutions(chosen)) if backbone else 0
                continue
            place = (
                4 + list(self.tables).index(limited.hardware) if limited.hardware else _ADDITIVE[_summed(limited)][0]
            )
            result[column] = sum(known[op][place] for op in chosen)
        return result

    def _price(self, operations: object) -> None:
        """Remember the costs of operations that are new, priced together."""
        known = self._operation_cost
        new = [op for op in dict.fromkeys(operations) if op not in known]  # type: ignore[call-overload]
        if not new:
            return
        own, *others = (_milliseconds(table, new) for table in (self.table, *self.tables.values()))
        for op, ms, *elsewhere in zip(new, own, *others, strict=True):
            known[op] = (ms, op.params, op.macs, op.writes if op.kind in CONVOLUTIONS else 0, *elsewhere)


def _summed(cost: Limited) -> str:
    """The metric whose sum over parts a cost is."""
    return "latency_ms" if cost.metric == E2E else cost.metric


def _moved(neck: NeckSpec, source: Source, level: int, sizes: tuple[Size, ...], width: int) -> list[Operation]:
    return moving_operations(neck, replace(source, channels=width), level, sizes)


def joined_operations(
    neck: NeckSpec, node: FusionNode, sizes: tuple[Size, ...], joined: int, out: int
) -> list[Operation]:
    """Operations of a node of the neck that reads `joined` channels at its resolution."""
    first, *others = node.sources
    sources = (replace(first, channels=joined), *(replace(source, channels=0) for source in others))
    return joining_operations(neck, replace(node, sources=sources, out_channels=out), sizes)


def _on_level(head: HeadSpec, size: Size, activation: str, width: int) -> list[Operation]:
    return head_level_operations(head, width, size, activation)


def _milliseconds(table: LatencyTable | None, operations: Sequence[Operation]) -> list[float]:
    """What each operation takes by a table; raises UserError for one that it cannot price."""
    if table is None:
        return [0.0] * len(operations)
    milliseconds = [price.ms for price in table.price_many(in_form(operations, "folded"))]
    for op, ms in zip(operations, milliseconds, strict=True):
        if not ms < float("inf"):
            raise UserError(
                f"{table.name} cannot price a {op.kind} of kernel {op.kernel}, stride {op.stride}, groups {op.groups}"
            )
    return milliseconds
