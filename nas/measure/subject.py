"""Networks to be timed: built from a spec, fused, and with weights that keep activations near one."""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import torch
from torch import nn

from nas.models.detector import build_detector
from nas.spec import DetectorSpec


def build_subject(spec: DetectorSpec) -> nn.Module:
    """A fused detector in eval mode.

    Fresh weights without training let activations shrink layer by layer into denormal numbers, which processors compute
    a hundred times slower; here every convolution keeps the variance of its input.
    """
    model = build_detector(spec).fuse()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, math.sqrt(1.5 / fan_in), generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-0.1, 0.1, generator=generator)
    return model.eval()


def export_subject(model: nn.Module, image_size: int, batch: int) -> bytes:
    """The network as an ONNX file with a fixed batch."""
    buffer: Any = io.BytesIO()
    images = torch.zeros(batch, 3, image_size, image_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options: dict[str, Any] = {"input_names": ["images"], "opset_version": 17, "dynamo": False}
        torch.onnx.export(model, (images,), buffer, **options)
    return bytes(buffer.getvalue())
