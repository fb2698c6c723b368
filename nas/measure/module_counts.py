"""Parameters and multiply-accumulates of a torch module exactly as torch runs it, without computing anything, and the
parameters of an ONNX file."""

from __future__ import annotations

import copy
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nas.cost.count import Counts
from nas.errors import UserError
from nas.lowering import Form
from nas.spec import image_side


def count_module(module: nn.Module, form: Form = "folded", image_size: int | None = None) -> Counts:
    """Parameters, MACs and activations on one RGB image of `image_size` pixels (default: the module's own, else 640).

    MACs are those of convolutions, linear layers and matrix products; activations the sum of convolution outputs.
    form: "folded" counts a copy after its own `fuse()`, "merged" after its own `merge()`, "train" the module as it
    stands, with the branches that only training runs. The module is not changed. Raises UserError if it cannot run
    without values, or has no such form.
    """
    side = image_side(module, image_size)
    subject: Any = copy.deepcopy(module).to("meta").eval()
    if form == "merged":
        if not callable(getattr(subject, "merge", None)):
            raise UserError(
                f"the merged form of {type(module).__name__} is unknown, it has no merge(): ask for train or folded"
            )
        subject.merge()
    elif form == "folded" and callable(getattr(subject, "fuse", None)):
        subject.fuse()
    run = subject.predict_raw if form == "train" and getattr(subject, "auxiliary", None) else subject
    outputs = 0

    def add(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal outputs
        outputs += output[:1].numel()

    for layer in subject.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(add)
    try:
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            run(torch.zeros(1, 3, side, side))
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"cannot count {type(module).__name__} at {side} pixels: {reason}") from None
    params = sum(parameter.numel() for parameter in subject.parameters())
    return Counts(params, counter.get_total_flops() // 2, outputs)


def onnx_parameters(path: str) -> int:
    """Numbers in the floating-point constants of an ONNX file."""
    import onnx

    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return sum(prod(item.dims) for item in onnx.load(path).graph.initializer if item.data_type in floating)
