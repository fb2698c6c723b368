"""The runtimes that can time networks, by name; each is imported only when it is asked for."""

from __future__ import annotations

from nas.errors import UserError
from nas.measure.measurement import Runtime

NAMES = ("onnxruntime", "openvino", "cuda", "tensorrt")


def open_runtime(name: str, threads: int = 1, batch: int = 1) -> Runtime:
    """A runtime on this device; raises UserError where it or its device is missing."""
    if name == "onnxruntime":
        from nas.measure.onnxruntime_cpu import OnnxRuntimeCpu

        return OnnxRuntimeCpu(threads, batch)
    if name == "openvino":
        from nas.measure.openvino_cpu import OpenVinoCpu

        return OpenVinoCpu(threads, batch)
    if name == "cuda":
        from nas.measure.torch_cuda import TorchCuda

        return TorchCuda(batch)
    if name == "tensorrt":
        from nas.measure.tensorrt_gpu import TensorRtGpu

        return TensorRtGpu(batch)
    raise UserError(f"runtime must be one of {', '.join(NAMES)}, got {name!r}")
