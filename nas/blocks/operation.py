"""One kernel-sized piece of a network: what counters count, tables price, scorers read; and those that every block is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, get_args

from nas.errors import SpecError

Role = Literal["stem", "main", "skip", "se", "spp", "neck", "head"]

#: Convolution-like kinds, those with weights and multiply-accumulates.
CONVOLUTIONS = frozenset({"conv", "linear"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation at batch 1 with everything that an inference engine fuses into it.

    kind: conv (also depthwise and grouped, by `groups`), linear, matmul, maxpool, avgpool, globalpool, upsample, concat,
        slice (also space-to-depth), add, mul, sigmoid, softmax, layernorm, elementwise (a fused chain), gather, topk,
        gridsample, reduce, transpose ...
    in_channels, out_channels: channels read (the sum over concatenated or added inputs) and written.
    height, width: of the OUTPUT map in cells; in_height, in_width: of the input map. A matmul of g stacked (M, K) x (K, N)
        products has groups = g, height = M, width = 1, in_channels = K, out_channels = N.
    activation: the epilogue ("none", "relu", "silu", "sigmoid", "gelu" ...); fused_add: a residual sum in the epilogue.
    norm: a BatchNorm follows in the unfolded forms; bias: a bias of its own (every convolution has one when folded).
    branch: "" in the deployed network; "rep" marks the parallel 1x1 of a re-parameterised convolution, which exists in
        the training form alone.
    scalars: learnable numbers that export absorbs (the head's per-level scale).
    role: which part of the network it serves; unit: index inside its block. Neither takes part in comparison: equal kernels
        cost the same wherever they stand.
    """

    kind: str
    in_channels: int
    out_channels: int
    height: int
    width: int
    in_height: int
    in_width: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    activation: str = "none"
    fused_add: bool = False
    norm: bool = False
    bias: bool = False
    branch: str = ""
    scalars: int = 0
    role: Role = field(default="main", compare=False)
    unit: int = field(default=-1, compare=False)

    @property
    def weights(self) -> int:
        """Convolution or linear weights, without bias and BN."""
        if self.kind not in CONVOLUTIONS:
            return 0
        return self.kernel * self.kernel * (self.in_channels // self.groups) * self.out_channels

    @property
    def params(self) -> int:
        """Learnable numbers: weights, bias, two per BatchNorm channel, absorbed scalars."""
        return self.weights + self.out_channels * (2 * self.norm + self.bias) + self.scalars

    @property
    def macs(self) -> int:
        """Multiply-accumulates at batch 1."""
        if self.kind == "matmul":
            return self.groups * self.height * self.in_channels * self.out_channels
        return self.weights * self.height * self.width

    @property
    def fan_in(self) -> int:
        """Inputs that one output value sums: the n of the MAE score's ln n."""
        return self.kernel * self.kernel * (self.in_channels // self.groups)

    @property
    def reads(self) -> int:
        """Activation elements read, without weights and without the residual of a fused sum."""
        if self.kind == "matmul":
            return self.groups * self.in_channels * (self.height + self.out_channels)
        return self.in_channels * self.in_height * self.in_width

    @property
    def writes(self) -> int:
        """Activation elements written."""
        if self.kind == "matmul":
            return self.groups * self.height * self.out_channels
        return self.out_channels * self.height * self.width


def main_convolutions(operations: Iterable[Operation]) -> list[Operation]:
    """Stem and main-path convolutions of the deployed form: no projection, squeeze-excite, pyramid or parallel branch."""
    return [op for op in operations if op.kind in CONVOLUTIONS and op.role in ("stem", "main") and not op.branch]


Form = Literal["train", "merged", "folded"]
FORMS: tuple[str, ...] = get_args(Form)

SILU = "silu"


def divisible(value: float) -> int:
    """Channels rounded to a multiple of 8, at least 8 and at least 90 % of the value (damo-yolo `make_divisible`)."""
    rounded = max(8, 8 * int((value + 4) // 8))
    return rounded + 8 if rounded < 0.9 * value else rounded


@lru_cache(maxsize=1 << 16)  # the blocks of a space have most of their convolutions in common
def convolution(
    in_channels: int,
    out_channels: int,
    size: tuple[int, int],
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: str = "none",
    *,
    norm: bool = True,
    bias: bool = False,
    fused_add: bool = False,
    rep: bool = False,
    role: Role = "main",
    unit: int = -1,
) -> tuple[Operation, ...]:
    """A "same"-padded convolution on a map of `size` (height, width); with `rep`, its parallel 1x1 branch too."""
    height, width = size
    dense = Operation(
        kind="conv",
        in_channels=in_channels,
        out_channels=out_channels,
        height=-(-height // stride),
        width=-(-width // stride),
        in_height=height,
        in_width=width,
        kernel=kernel,
        stride=stride,
        groups=groups,
        activation=activation,
        fused_add=fused_add,
        norm=norm,
        bias=bias,
        role=role,
        unit=unit,
    )
    if not rep:
        return (dense,)
    return (dense, replace(dense, kernel=1, activation="none", fused_add=False, branch="rep"))


def pooling(
    kind: str, channels: int, size: tuple[int, int], kernel: int, stride: int = 1, role: Role = "main"
) -> Operation:
    """Max or average pooling that keeps (stride 1) or halves (stride 2) the map."""
    height, width = size
    return Operation(
        kind, channels, channels, -(-height // stride), -(-width // stride), height, width, kernel, stride, role=role
    )


@lru_cache(maxsize=1 << 16)
def pointwise(kind: str, in_channels: int, out_channels: int, size: tuple[int, int], role: Role = "main") -> Operation:
    """An operation that keeps the map's size: add, concat, softmax, mul ..."""
    height, width = size
    return Operation(kind, in_channels, out_channels, height, width, height, width, role=role)


def split(channels: int, size: tuple[int, int]) -> Operation:
    """The copy that cuts a map in halves."""
    return pointwise("slice", channels, channels, size)


def upsampling(channels: int, size: tuple[int, int], role: Role = "neck") -> Operation:
    """Nearest-neighbour doubling of a map of `size`."""
    height, width = size
    return Operation("upsample", channels, channels, 2 * height, 2 * width, height, width, role=role)


def halved(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """The map after a "same"-padded stride."""
    return -(-size[0] // stride), -(-size[1] // stride)


def pyramid_operations(channels: int, hidden: int, size: tuple[int, int], kernels: Sequence[int]) -> list[Operation]:
    """1x1 to `hidden`, a max-pool for each kernel, 1x1 on all maps; always SiLU, as the official models.

    The pools stand side by side (SPP) or in a chain (SPPF, SPPELAN).
    """
    maps = (1 + len(kernels)) * hidden
    return [
        *convolution(channels, hidden, size, activation=SILU, role="spp"),
        *(pooling("maxpool", hidden, size, kernel, role="spp") for kernel in kernels),
        pointwise("concat", maps, maps, size, role="spp"),
        *convolution(maps, channels, size, activation=SILU, role="spp"),
    ]


def in_form(operations: Iterable[Operation], form: Form) -> tuple[Operation, ...]:
    """Training-form operations as `train`, `merged` (branches summed into one biased convolution) or `folded` (BN too).

    Raises SpecError for another form.
    """
    if form not in FORMS:
        raise SpecError(f"unknown form {form!r}; known: {', '.join(FORMS)}")
    if form == "train":
        return tuple(operations)
    result: list[Operation] = []
    for operation in operations:
        if operation.branch:
            result[-1] = _biased(result[-1], result[-1].role, result[-1].unit)
            continue
        if form == "folded" and operation.norm:
            operation = _biased(operation, operation.role, operation.unit)
        result.append(operation)
    return tuple(result)


@lru_cache(maxsize=1 << 16)
def _biased(operation: Operation, role: Role, unit: int) -> Operation:
    """The operation with its BatchNorm folded; role and unit are its own, of which comparison knows nothing."""
    return replace(operation, norm=False, bias=True)
