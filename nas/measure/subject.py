"""Networks to be timed: built from a spec, fused, and with weights that keep activations near one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from nas.deploy.pipeline import ExportSettings, deployed_graph
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


def subject_graph(spec: DetectorSpec, format: str = "onnx", precision: str = "fp32", batch: int | None = None) -> Any:
    """The ONNX graph of the subject, as `python -m nas.export` hands it to a runtime; `batch` fixes its batch."""
    settings = ExportSettings(format=format, precision=precision, batch=batch)
    return deployed_graph(build_subject(spec), spec.image_size, settings)
