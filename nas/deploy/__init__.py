"""Exported files: their formats and endings, what an export is told, and how a file becomes a network again.

Nothing heavy is imported until a file is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from nas.errors import UserError
from nas.options import Count, ImageSize, Name, OneOf, Seed, Share, check_object

if TYPE_CHECKING:
    from nas.deploy.runtime import Runtime

#: The ending of each format that `python -m nas.export` writes.
FORMATS = {"onnx": ".onnx", "onnx_nms": ".onnx", "openvino": ".xml", "tensorrt": ".engine"}
EXPORTED = tuple(dict.fromkeys(FORMATS.values()))
PRECISIONS = ("fp32", "fp16", "int8")
#: What a detector can be deployed as, in the order of a table: torch runs a checkpoint, the others an exported file.
DEPLOYABLE = ("torch", "torch_compile", "onnx", "openvino", "tensorrt")
DEPLOYABLE_PRECISIONS = ("fp32", "bf16", "fp16", "int8")
DEFAULT_OPSET = 18
#: The first opset in which quantisation has scales of 16 bits.
HALF_SCALES_OPSET = 19
#: The exporter writes opset 18 or later; what it converts down to 17 is no valid graph where a tensor is split unevenly.
Opset = Annotated[int, Ge(DEFAULT_OPSET), Le(23)]


@dataclass(frozen=True)
class ExportSettings:
    """What to write and how to check it.

    images: folder, glob or file of pictures for the check and for INT8 calibration, drawn by `seed`; without it pictures
    are made up (not for INT8). keep_float: layers that INT8 leaves alone ("head", "neck.merge_3"). The three NMS fields
    are built into `onnx_nms`. batch: null keeps the batch size free, a number fixes it (for TensorRT it is the largest).
    """

    format: Annotated[str, OneOf(*FORMATS)] = "onnx"
    precision: Annotated[str, OneOf(*PRECISIONS)] = "fp32"
    image_size: ImageSize | None = None
    opset: Opset = DEFAULT_OPSET
    batch: Count | None = None
    images: Name | None = None
    check_images: Count = 8
    calibration_images: Count = 128
    calibration: Annotated[str, OneOf("minmax", "entropy", "percentile")] = "minmax"
    keep_float: tuple[Name, ...] = ()
    seed: Seed = 0
    score_threshold: Share = 0.05
    iou_threshold: Share = 0.7
    max_detections: Count = 300

    def __post_init__(self) -> None:
        check_object(self)
        if self.precision == "int8" and self.images is None:
            raise UserError("INT8 needs calibration pictures: give a folder with images=...")
        if self.keep_float and self.precision != "int8":
            raise UserError("keep_float counts for precision=int8 alone")


@dataclass(frozen=True, kw_only=True)
class ExportCommand(ExportSettings):
    """What `python -m nas.export` is told.

    model: a checkpoint, or a name or spec (random weights); output: the file, by default beside the report."""

    model: Name
    output: Path | None = None


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
