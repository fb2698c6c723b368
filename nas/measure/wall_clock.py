"""How long a network takes here, and how large an exported file is: facts that need neither spec nor tracing."""

from __future__ import annotations

import statistics
from math import prod
from typing import Any


def onnx_parameters(path: str) -> int:
    """Numbers in the floating-point constants of an ONNX file."""
    import onnx

    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return sum(prod(item.dims) for item in onnx.load(path).graph.initializer if item.data_type in floating)


def measured_milliseconds(model: Any, side: int, repeats: int, threads: int) -> float:
    """Median time of one random image through the deployed form, after two warm-up runs."""
    import torch

    from nas.inference.running import milliseconds

    if callable(getattr(model, "fuse", None)):
        model.fuse()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        times = milliseconds(model, torch.rand(1, 3, side, side) * 255, repeats, 2)
    finally:
        torch.set_num_threads(before)
    return statistics.median(times)
