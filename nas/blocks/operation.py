"""One kernel-sized piece of a network: what counters count, tables price, scorers read and profilers time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

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
