"""Parametric latency of inference kernels on a GPU with tensor cores (calibrated for the NVIDIA T4).

A kernel takes the soft maximum of its arithmetic and its memory traffic, plus a launch gap:

    t = (t_compute^4 + t_memory^4)^(1/4) + gap

- arithmetic: the output is cut into tiles of pixels x channels; whole waves of tiles run on the multiprocessors, each
  tile at the rate of one multiprocessor times the efficiency of its shape; the best of a few tile shapes and splits of
  the inner sum is taken, as an engine's tactic search does. Channels are padded to 8 (NHWC8). Kernels larger than 1x1
  gather their input, which costs rate.
- memory: weights come from DRAM once; activations partly stay in the L2 cache where their producer left them.
- a SiLU epilogue, concatenation (producers write in place, mostly) and depthwise convolution have a price per byte.

Every part grows with channels, resolution and depth, so the sum does. None of the eleven numbers belongs to a model or
a family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge

from nas.blocks.operation import Operation
from nas.cost.table_file import Bound, Price
from nas.options import Count, NotNegative, Positive, Share, read_object

FloatArray = npt.NDArray[np.float64]

#: (pixels, channels) of the tiles that tensor-core kernels are built with.
TILES = ((64, 32), (64, 64), (128, 64), (64, 128), (128, 128), (256, 64))
#: Ways to cut the inner sum over several multiprocessors, and the step of that sum.
SPLITS = (1, 2, 4)
STEP = 32
GEMMS = frozenset({"conv", "linear", "matmul"})
#: Epilogues that come for free; every other one is priced like a SiLU.
FREE_EPILOGUES = frozenset({"none", "relu", "sigmoid"})
BOUNDS: tuple[Bound, ...] = ("compute", "memory", "launch")


@dataclass(frozen=True, slots=True)
class Parameters:
    """What is calibrated for a device and its runtime.

    rate: TFLOP/s of a 1x1 convolution in tiles of endless size; tile_half: half the harmonic side (rows x columns /
        (rows + columns)) at which a tile reaches half the rate; window: how much slower kernels larger than 1x1 run.
    bandwidth: GB/s; cache_factor: price of a byte that still lies in the L2 cache.
    gap: microseconds per kernel; tile_gap: microseconds per wave of tiles; network: milliseconds per inference (format
        conversion of images and results, enqueueing, synchronisation).
    silu, concat, depthwise: share or multiple of the bytes that such a kernel touches.
    """

    rate: Annotated[float, Ge(1e-6)]
    tile_half: NotNegative
    window: Annotated[float, Ge(1e-3)]
    bandwidth: Annotated[float, Ge(1e-6)]
    cache_factor: Share
    gap: NotNegative
    tile_gap: NotNegative
    silu: NotNegative
    concat: NotNegative
    depthwise: NotNegative
    network: NotNegative

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Hardware:
    """Datasheet facts that are not calibrated: multiprocessors, L2 cache in MB, bytes of one value."""

    multiprocessors: Count
    cache_mb: Positive
    value_bytes: Count


def _padded(values: FloatArray, multiple: int) -> FloatArray:
    return np.ceil(values / multiple) * multiple


class Features:
    """What the model reads of a list of operations, as arrays: computed once, priced under many parameters."""

    def __init__(self, operations: Sequence[Operation], hardware: Hardware, batch: int = 1) -> None:
        def column(function: Callable[[Operation], float]) -> FloatArray:
            return np.array([function(operation) for operation in operations], dtype=float)

        size = hardware.value_bytes
        self.depthwise = column(lambda o: o.kind == "conv" and o.groups > 1 and 2 * o.groups >= o.in_channels) > 0
        self.gemm = (column(lambda o: o.kind in GEMMS) > 0) & ~self.depthwise
        self.concat = column(lambda o: o.kind == "concat") > 0
        self.groups = column(lambda o: o.groups)
        per_group = column(lambda o: 1 if o.kind == "matmul" else o.groups)
        kernel = column(lambda o: o.kernel)
        self.windowed = kernel > 1
        self.pixels = column(lambda o: o.height * o.width) * batch
        self.columns = _padded(column(lambda o: o.out_channels) / per_group, 8)
        self.inner = _padded(column(lambda o: o.in_channels) / per_group, 8) * kernel**2
        self.weight_bytes = column(lambda o: o.weights) * size
        self.read_bytes = column(lambda o: o.reads) * size * batch
        self.write_bytes = column(lambda o: o.writes) * size * batch
        self.residual_bytes = self.write_bytes * column(lambda o: o.fused_add)
        self.silu_bytes = 2 * self.write_bytes * column(lambda o: o.activation not in FREE_EPILOGUES)


def evaluate(f: Features, p: Parameters, hardware: Hardware) -> tuple[FloatArray, FloatArray]:
    """Milliseconds of each operation, and its parts (compute, memory, launch) in the rows of the second array."""
    rate = p.rate * 1e12 / hardware.multiprocessors / np.where(f.windowed, p.window, 1.0)
    best = np.full(len(f.gemm), np.inf)
    for rows, columns in TILES:
        side = rows * columns / (rows + columns)
        seconds_per_step = 2.0 * rows * columns * STEP / (rate * side / (side + p.tile_half))
        tiles = np.ceil(f.pixels / rows) * np.ceil(f.columns / columns) * f.groups
        for split in SPLITS:
            waves = np.ceil(tiles * split / hardware.multiprocessors)
            steps = np.ceil(f.inner / split / STEP)
            seconds = waves * (steps * seconds_per_step + p.tile_gap * 1e-6) + (split - 1) * p.tile_gap * 1e-6
            best = np.minimum(best, seconds)
    compute = np.where(f.gemm, best, 0.0)

    half_cache = hardware.cache_mb * 1e6 / 2

    def traffic(size: FloatArray) -> FloatArray:
        """Bytes at DRAM's price: the first part of a tensor is still in the cache."""
        return size - (1 - p.cache_factor) * half_cache * (1 - np.exp(-size / half_cache))

    moved = traffic(f.read_bytes) + traffic(f.residual_bytes) + traffic(f.write_bytes) + p.silu * traffic(f.silu_bytes)
    moved = moved * np.where(f.concat, p.concat, 1.0) * np.where(f.depthwise, p.depthwise, 1.0)
    memory = (f.weight_bytes + moved) / (p.bandwidth * 1e9)
    launch = p.gap * 1e-6 * np.where(f.concat, p.concat, 1.0)
    busy = (compute**4 + memory**4) ** 0.25
    return (busy + launch) * 1e3, np.stack([compute, memory, launch]) * 1e3


class KernelModel:
    """The model of one device as a pricer; `offset_ms` is what a network costs beside its kernels."""

    def __init__(self, parameters: Parameters, hardware: Hardware, batch: int = 1) -> None:
        self.parameters, self.hardware, self.batch = parameters, hardware, batch

    @classmethod
    def from_body(cls, body: Mapping[str, object], batch: int, where: str) -> KernelModel:
        """From the body of a table file. Raises UserError for anything missing, unknown or not a number."""
        parameters = read_object(Parameters, body.get("parameters"), f"{where}: parameters")
        return cls(parameters, read_object(Hardware, body.get("hardware"), f"{where}: hardware"), batch)

    @property
    def offset_ms(self) -> float:
        return self.parameters.network

    def at_least(self, operations: Sequence[Operation]) -> float:
        """The sum itself: a larger operation is never cheaper here."""
        return sum(price.ms for price in self.price_many(operations))

    def price_many(self, operations: Sequence[Operation]) -> list[Price]:
        """Modelled prices; the bound is the largest part."""
        if not operations:
            return []
        ms, parts = evaluate(Features(operations, self.hardware, self.batch), self.parameters, self.hardware)
        bounds = [BOUNDS[index] for index in parts.argmax(axis=0).tolist()]
        return [Price(value, "model", bound) for value, bound in zip(ms.tolist(), bounds, strict=True)]
