"""Latency tables of this device; its runtimes by name, each imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.errors import UserError

if TYPE_CHECKING:
    from nas.measure.measurement import Runtime

RUNTIMES = ("onnxruntime", "openvino", "cuda", "tensorrt")


def open_runtime(name: str, threads: int = 1, batch: int = 1) -> Runtime:
    """A runtime on this device; raises UserError where it or its device is missing."""
    if name == "onnxruntime":
        from nas.measure.cpu import OnnxRuntimeCpu

        return OnnxRuntimeCpu(threads, batch)
    if name == "openvino":
        from nas.measure.cpu import OpenVinoCpu

        return OpenVinoCpu(threads, batch)
    if name == "cuda":
        from nas.measure.gpu import TorchCuda

        return TorchCuda(batch)
    if name == "tensorrt":
        from nas.measure.gpu import TensorRtGpu

        return TensorRtGpu(batch)
    raise UserError(f"runtime must be one of {', '.join(RUNTIMES)}, got {name!r}")
