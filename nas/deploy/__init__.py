"""Exported files: their formats and endings, and how a file becomes a network again. Nothing heavy until one is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import UserError

if TYPE_CHECKING:
    from nas.deploy.runtime import Runtime

#: The ending of each format that `python -m nas.export` writes.
FORMATS = {"onnx": ".onnx", "onnx_nms": ".onnx", "openvino": ".xml", "tensorrt": ".engine"}
EXPORTED = tuple(dict.fromkeys(FORMATS.values()))


def load_runtime(path: str | Path, device: str | None = None, threads: int | None = None) -> Runtime:
    """The network of an exported .onnx, .xml or .engine file, with its classes and input size.

    device: cpu, or for .onnx cuda and cuda:1; None is the CPU, and the GPU for .engine. Raises UserError for a missing,
    foreign or damaged file, a device on which it does not run, and where the runtime is not installed.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    suffix = Path(path).suffix.lower()
    if suffix not in EXPORTED:
        raise UserError(f"{path}: an exported file ends in {', '.join(EXPORTED)}")
    from nas.deploy.runtime import OnnxRuntime, device_parts

    if suffix == ".onnx":
        return OnnxRuntime(path, device or "cpu", threads)
    if suffix == ".xml":
        if device_parts(device or "cpu")[0] != "cpu":
            raise UserError(
                f"device={device}: an OpenVINO file runs on the CPU here; use device=cpu, or export format=onnx"
            )
        from nas.deploy.openvino import OpenVinoRuntime

        return OpenVinoRuntime(path, threads)
    if device_parts(device or "cuda") != ("cuda", 0):
        raise UserError(f"device={device}: an .engine file runs on the first GPU; leave device out")
    from nas.deploy.tensorrt import TensorRtRuntime

    return TensorRtRuntime(path)
