"""Operations of the pooling pyramids: DAMO-YOLO's SPP, YOLO11's SPPF and YOLOv9's SPPELAN."""

from __future__ import annotations

from nas.blocks.operation import Operation
from nas.blocks.primitives import convolution, pointwise, pooling

KERNELS = (5, 9, 13)


def spp_operations(channels: int, size: tuple[int, int]) -> list[Operation]:
    """1x1 to half, three parallel max-pools beside it, 1x1 back; always SiLU, as the official models."""
    half = channels // 2
    return [
        *convolution(channels, half, size, activation="silu", role="spp"),
        *(pooling("maxpool", half, size, kernel, role="spp") for kernel in KERNELS),
        pointwise("concat", 4 * half, 4 * half, size, role="spp"),
        *convolution(4 * half, channels, size, activation="silu", role="spp"),
    ]


def chained_operations(channels: int, hidden: int, out: int, size: tuple[int, int]) -> list[Operation]:
    """SPPF and SPPELAN: 1x1 to `hidden`, three chained 5x5 max-pools, 1x1 on the four maps; SiLU."""
    return [
        *convolution(channels, hidden, size, activation="silu", role="spp"),
        *(pooling("maxpool", hidden, size, 5, role="spp") for _ in range(3)),
        pointwise("concat", 4 * hidden, 4 * hidden, size, role="spp"),
        *convolution(4 * hidden, out, size, activation="silu", role="spp"),
    ]
