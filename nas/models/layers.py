"""Convolutions with BatchNorm, re-parameterised convolutions, pooling pyramids, and what merges and folds them.

Child names follow the official DAMO-YOLO modules, so that official weights load by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

#: BatchNorm settings of the whole family (PyTorch convention: new = 0.97 old + 0.03 batch).
EPSILON = 1e-3
MOMENTUM = 0.03


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """BatchNorm with the family's epsilon and momentum."""
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


def activation_layer(name: str) -> nn.Module:
    """The layer of "relu", "silu", or "none" (identity)."""
    return {"relu": nn.ReLU(inplace=True), "silu": nn.SiLU(), "none": nn.Identity()}[name]


class StridedPointConv(nn.Conv2d):
    """A strided 1x1 convolution that, while training, takes its samples before it multiplies.

    The same numbers; torch 2.13 on the CPU corrupts memory in the backward pass of the strided kernel when tensors are
    channels-last.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        step = cast(int, self.stride[0])
        return functional.conv2d(input[:, :, ::step, ::step], self.weight, self.bias, groups=self.groups)


def convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A "same"-padded convolution without bias, to be followed by BatchNorm."""
    kind = StridedPointConv if kernel == 1 and stride > 1 else nn.Conv2d
    return kind(in_channels, out_channels, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)


class ConvBNAct(nn.Module):
    """Convolution, BatchNorm, activation: (B, in, H, W) -> (B, out, H / stride, W / stride)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        activation: str = "relu",
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = convolution(in_channels, out_channels, kernel, stride, groups)
        self.bn = batch_norm(out_channels)
        self.act = activation_layer(activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class ConvNorm(nn.Module):
    """Convolution and BatchNorm of a backbone unit (official names `conv1`, `bn1`)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, out_channels, kernel, stride, groups)
        self.bn1 = batch_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn1(self.conv1(x))


class ConvNormAct(nn.Module):
    """ConvNorm and an activation: strided stems and the wrapper convolutions of CSP stages."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, activation: str) -> None:
        super().__init__()
        self.conv = ConvNorm(in_channels, out_channels, kernel, stride)
        self.act = activation_layer(activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class Branches(nn.Module):
    """Parallel convolutions with BatchNorm and their activation, trained as a sum and deployed as one convolution.

    A family names its `branches`, the largest kernel first, and the `merged` convolution as the official files do.
    """

    branches: ClassVar[tuple[str, ...]] = ("rbr_dense", "rbr_1x1")
    merged: ClassVar[str] = "rbr_reparam"
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, self.merged):
            return self.act(getattr(self, self.merged)(x))
        first, *others = [getattr(self, name)(x) for name in self.branches if getattr(self, name) is not None]
        for other in others:
            first = first + other
        return self.act(first)

    @torch.no_grad()
    def merge(self) -> None:
        """Replace the branches by the equal biased convolution, in place; a second call does nothing."""
        if hasattr(self, self.merged):
            return
        whole, *others = [self.branch(name) for name in self.branches if getattr(self, name) is not None]
        for other in others:
            add_branch(whole, other)
        setattr(self, self.merged, whole)
        for name in self.branches:
            delattr(self, name)

    def branch(self, name: str) -> nn.Conv2d:
        """The biased convolution that equals one branch."""
        unit = getattr(self, name)
        return folded(unit.conv, unit.bn)


class RepConv(Branches):
    """A k x k convolution beside a parallel 1x1, never an identity."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        activation: str = "none",
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.rbr_dense = ConvBNAct(in_channels, out_channels, kernel, stride, "none", groups)
        self.rbr_1x1 = ConvBNAct(in_channels, out_channels, 1, stride, "none", groups)
        self.act = activation_layer(activation)


class Focus(nn.Module):
    """Space to depth by 2, then a stride-1 convolution: (B, 3, H, W) -> (B, out, H / 2, W / 2).

    The four phases are concatenated column by column: top-left, bottom-left, top-right, bottom-right.
    """

    def __init__(self, out_channels: int, kernel: int, activation: str) -> None:
        super().__init__()
        self.conv = ConvBNAct(12, out_channels, kernel, 1, activation)

    def forward(self, x: Tensor) -> Tensor:
        phases = (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2])
        return self.conv(torch.cat(phases, dim=1))


class SPP(nn.Module):
    """Pooling pyramid c -> c: 1x1 to c/2, max pooling by 5, 9, 13 beside the input, 1x1 back; always SiLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.conv1 = ConvBNAct(channels, hidden, 1, activation="silu")
        self.conv2 = ConvBNAct(4 * hidden, channels, 1, activation="silu")
        self.pools = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(pool(x) for pool in self.pools)], dim=1))


class DepthwiseDown(nn.Module):
    """Depthwise 3x3 of stride 2 and a 1x1, each with BatchNorm and activation: the nano neck's down-sampler."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.depthwise = convolution(channels, channels, 3, 2, groups=channels)
        self.dwnorm = batch_norm(channels)
        self.pointwise = convolution(channels, channels, 1)
        self.pwnorm = batch_norm(channels)
        self.act = activation_layer(activation)
        for layer in (self.depthwise, self.pointwise):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.dwnorm(self.depthwise(x)))
        return self.act(self.pwnorm(self.pointwise(x)))


class Unit(nn.Module):
    """One unit of a block of ours, with its shortcut: the primary blocks that some scores probe."""


class UnitList(nn.Module):
    """The units of one block in order (official name `block_list`), the pooling pyramid behind the first where given."""

    def __init__(self, units: Iterable[nn.Module], spp: nn.Module | None = None) -> None:
        super().__init__()
        self.block_list = nn.ModuleList(units)
        if spp is not None:
            self.block_list.insert(1, spp)

    def forward(self, x: Tensor) -> Tensor:
        for unit in self.block_list:
            x = unit(x)
        return x


@torch.no_grad()
def folded(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """The biased convolution that equals `norm(conv(x))` in eval mode: W g, b - m g with g = gamma / sqrt(v + eps).

    `norm` is a BatchNorm, trainable or frozen.
    """
    result = nn.utils.skip_init(
        nn.Conv2d,
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    gamma, beta, mean, variance = (
        cast(Tensor, getattr(norm, name)) for name in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gamma * (variance + getattr(norm, "eps", 1e-5)).rsqrt()
    bias = beta - mean * gain
    result.weight.copy_(conv.weight * gain.reshape(-1, 1, 1, 1))
    cast(Tensor, result.bias).copy_(bias if conv.bias is None else bias + conv.bias * gain)
    return result


@torch.no_grad()
def add_branch(whole: nn.Conv2d, branch: nn.Conv2d) -> None:
    """Add a parallel biased convolution of the same or a smaller odd kernel to a biased one, in place."""
    side = (whole.kernel_size[0] - branch.kernel_size[0]) // 2
    whole.weight += functional.pad(branch.weight, (side, side, side, side))
    whole.bias += branch.bias  # type: ignore[operator]


def merge_branches(model: nn.Module) -> None:
    """Merge every re-parameterised convolution of a model, in place."""
    for module in list(model.modules()):
        if isinstance(module, Branches):
            module.merge()


def fold_batch_norms(model: nn.Module) -> None:
    """Fold every BatchNorm into its convolution, in place.

    A BatchNorm belongs to the convolution registered directly before it in the same module; it becomes an identity.
    """
    for module in model.modules():
        previous: tuple[str, nn.Module] | None = None
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d) and previous and isinstance(previous[1], nn.Conv2d):
                setattr(module, previous[0], folded(previous[1], child))
                setattr(module, name, nn.Identity())
            previous = (name, child)
