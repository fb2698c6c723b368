"""Parametric latency of one inference kernel on a GPU with tensor cores (calibrated for the NVIDIA T4).

A kernel takes the soft maximum of its arithmetic and its memory traffic, plus a launch gap:

    t = (t_compute^4 + t_memory^4)^(1/4) + gap

- arithmetic: the output is cut into tiles of pixels x channels; whole waves of tiles run on the multiprocessors, each
  tile at the rate of one multiprocessor times the efficiency of its shape; the best of a few tile shapes and splits of
  the inner sum is taken, as an engine's tactic search does. Channels are padded to 8 (NHWC8).
- memory: weights come from DRAM once; activations partly stay in the L2 cache where their producer left them.
- a SiLU epilogue, concatenation, depthwise convolution and other light kernels have their own price per byte.

At most twelve numbers, none of which belongs to a model or a family. Only numpy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from nas.cost.price import Bound, Price
from nas.cost.table_file import number
from nas.errors import UserError
from nas.lowering.operation import Operation

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

#: (pixels, channels) of the tiles that tensor-core kernels are built with.
TILES = ((64, 32), (64, 64), (128, 64), (64, 128), (128, 128), (256, 64))
#: Ways to cut the inner sum over several multiprocessors.
SPLITS = (1, 2, 4)
#: Kinds that only rearrange or place values.
COPIES = frozenset({"concat"})
BOUNDS: tuple[Bound, ...] = ("compute", "memory", "launch")


@dataclass(frozen=True, slots=True)
class Parameters:
    """What is calibrated. Rates in TFLOP/s, bandwidth in GB/s, gaps in microseconds, caches in MB."""

    rate: float
    tile_half: float
    bandwidth: float
    cache_factor: float
    gap_gemm: float
    gap_other: float
    tile_gap: float
    silu: float
    concat: float
    depthwise: float

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> Parameters:
        names = [field.name for field in fields(cls)]
        for name in names:
            number(data.get(name), f"{where}: parameter {name}")
        unknown = sorted(set(data) - set(names))
        if unknown:
            raise UserError(f"{where}: unknown parameter {unknown[0]}; known: {', '.join(names)}")
        return cls(**{name: float(data[name]) for name in names})

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Device:
    """Datasheet facts that are not calibrated: multiprocessors, L2 cache in MB, bytes of one value."""

    multiprocessors: int = 40
    cache_mb: float = 4.0
    value_bytes: int = 2


def _padded(values: FloatArray, multiple: int) -> FloatArray:
    return np.ceil(values / multiple) * multiple


class Features:
    """What the model reads of a list of operations, as arrays: computed once, priced under many parameters."""

    def __init__(self, operations: Sequence[Operation], device: Device, batch: int = 1) -> None:
        def column(function: Any) -> FloatArray:
            return np.array([float(function(operation)) for operation in operations])

        self.kinds = [operation.kind for operation in operations]
        gemm = np.array([o.kind in ("conv", "linear", "matmul") for o in operations], dtype=bool)
        self.depthwise = np.array(
            [o.kind == "conv" and o.groups > 1 and o.groups >= o.in_channels // 2 for o in operations]
        )
        self.gemm = gemm & ~self.depthwise
        self.concat = np.array([o.kind in COPIES for o in operations], dtype=bool)
        groups = column(lambda o: o.groups)
        self.groups = groups
        self.pixels = column(lambda o: o.height * o.width) * batch
        self.columns = _padded(
            column(lambda o: o.out_channels) / np.where(column(lambda o: o.kind == "matmul"), 1, groups), 8
        )
        inner = _padded(
            np.maximum(column(lambda o: o.in_channels) / np.where(column(lambda o: o.kind == "matmul"), 1, groups), 4),
            8,
        )
        self.inner = inner * column(lambda o: o.kernel * o.kernel)
        size = device.value_bytes
        self.weight_bytes = column(lambda o: o.weights) * size
        self.read_bytes = column(lambda o: o.reads) * size * batch
        self.write_bytes = column(lambda o: o.writes) * size * batch
        self.residual_bytes = self.write_bytes * column(lambda o: o.fused_add)
        self.silu = column(lambda o: o.activation not in ("none", "relu", "sigmoid"))


def evaluate(features: Features, p: Parameters, device: Device) -> tuple[FloatArray, FloatArray]:
    """Milliseconds of each operation, and its parts (compute, memory, launch) in the rows of the second array."""
    f = features
    per_processor = p.rate * 1e12 / device.multiprocessors
    best = np.full(len(f.kinds), np.inf)
    for rows, columns in TILES:
        side = rows * columns / (rows + columns)
        efficiency = side / (side + p.tile_half)
        tiles = np.ceil(f.pixels / rows) * np.ceil(f.columns / columns) * f.groups
        for split in SPLITS:
            waves = np.ceil(tiles * split / device.multiprocessors)
            work = 2.0 * rows * columns * np.ceil(f.inner / split / 32) * 32
            seconds = waves * (work / (per_processor * efficiency) + p.tile_gap * 1e-6)
            seconds = seconds + (split - 1) * p.tile_gap * 1e-6
            best = np.minimum(best, seconds)
    compute = np.where(f.gemm, best, 0.0)

    cache = device.cache_mb * 1e6

    def traffic(size: FloatArray) -> FloatArray:
        """Bytes that cost DRAM time: the first part of a tensor is still in the cache."""
        return size - (1 - p.cache_factor) * cache / 2 * (1 - np.exp(-2 * size / cache))

    moved = traffic(f.read_bytes) + traffic(f.residual_bytes) + traffic(f.write_bytes)
    moved = moved + p.silu * f.silu * 2 * traffic(f.write_bytes)
    moved = np.where(f.concat, p.concat * moved, moved)
    moved = np.where(f.depthwise, p.depthwise * moved, moved)
    memory = (f.weight_bytes + moved) / (p.bandwidth * 1e9)
    launch = np.where(f.gemm | f.depthwise, p.gap_gemm, p.gap_other) * 1e-6
    launch = np.where(f.concat, p.concat * launch, launch)
    busy = (compute**4 + memory**4) ** 0.25
    return (busy + launch) * 1e3, np.stack([compute, memory, launch]) * 1e3


class KernelModel:
    """The model of one device as a pricer."""

    def __init__(self, parameters: Parameters, device: Device, batch: int = 1) -> None:
        self.parameters, self.device, self.batch = parameters, device, batch

    @classmethod
    def from_body(cls, body: Mapping[str, Any], batch: int, where: str) -> KernelModel:
        """From the body of a table file. Raises UserError for anything missing, unknown or not a number."""
        for key in ("parameters", "hardware"):
            if not isinstance(body.get(key), dict):
                raise UserError(f"{where}: the table lacks {key!r}")
        facts = body["hardware"]
        names = [field.name for field in fields(Device)]
        if sorted(facts) != sorted(names):
            raise UserError(f"{where}: hardware must have exactly {', '.join(names)}")
        for name in names:
            number(facts[name], f"{where}: hardware {name}", minimum=1e-9)
        return cls(Parameters.from_dict(body["parameters"], where), Device(**facts), batch)

    def price_many(self, operations: Sequence[Operation]) -> list[Price]:
        """Modelled prices; the bound is the largest part."""
        if not operations:
            return []
        ms, parts = evaluate(Features(operations, self.device, self.batch), self.parameters, self.device)
        largest = parts.argmax(axis=0)
        return [
            Price(value, "model", BOUNDS[bound]) for value, bound in zip(ms.tolist(), largest.tolist(), strict=True)
        ]
