"""What a trained detector can be deployed as: formats and precisions, and in one line why one of them cannot be had here."""

from __future__ import annotations

import os
import shutil

import torch
from torch import nn

from nas.deploy.runtime import device_parts
from nas.errors import UserError
from nas.options import Resize

#: Types that torch computes in, by precision.
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def require_variant(format: str, precision: str, device: str | None = None) -> None:
    """Raise UserError, in one line, if this machine cannot run a format in a precision; device None: each one's own."""
    kind = device_parts(device or "cpu")[0]
    if format.startswith("torch"):
        if precision == "int8":
            raise UserError(
                "torch computes in no INT8 here: quantised detectors are exported (onnx, openvino, tensorrt)"
            )
        if kind == "cpu" and precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            raise UserError("this processor has no instructions for bfloat16")
        if kind == "cpu" and precision == "fp16" and not torch.ops.mkldnn._is_mkldnn_fp16_supported():
            raise UserError("this processor has no instructions for float16; torch fp16 is for device=cuda")
        if format == "torch_compile" and kind == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
            raise UserError("torch.compile needs a C++ compiler on the CPU: install g++")
        return
    if precision == "bf16":
        raise UserError(f"{format} files are written in fp32, fp16 or int8; bf16 is for torch alone")
    if format == "openvino":
        from nas.deploy.openvino import import_openvino

        import_openvino()
    elif format == "tensorrt":
        from nas.deploy.tensorrt import import_tensorrt

        import_tensorrt()


class TorchVariant(nn.Module):
    """A fused detector in torch, in a lower precision by autocast (decoding stays in float32), or compiled.

    Compiled on a GPU its launches are recorded as CUDA graphs. Images may lie on any device.
    """

    def __init__(
        self, network: nn.Module, device: str | None = None, precision: str = "fp32", compiled: bool = False
    ) -> None:
        super().__init__()
        self.kind, _ = device_parts(device or "cpu")
        self.network = network.to(device or "cpu")
        self.lowered: torch.dtype | None = _TYPES.get(precision)
        self.classes: tuple[str, ...] = tuple(getattr(network, "classes", ()))
        self.image_size = int(getattr(network, "image_size", 0))
        self.end_to_end = bool(getattr(network, "end_to_end", False))
        self.resize: Resize = getattr(network, "resize", "stretch")
        mode = "reduce-overhead" if self.kind == "cuda" else "default"
        self._run = torch.compile(self.network.forward, mode=mode) if compiled else self.network.forward

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images = images.to(next(self.network.parameters()).device)
        with torch.autocast(self.kind, self.lowered, enabled=self.lowered is not None):
            scores, boxes = self._run(images)[:2]
        return scores.float(), boxes.float()
