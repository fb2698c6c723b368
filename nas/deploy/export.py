"""The whole export: fuse, write, compare with torch on pictures, and only then put the file in its place."""

from __future__ import annotations

import copy
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, nn

from nas.deploy import FORMATS, HALF_SCALES_OPSET, ExportSettings, load_runtime
from nas.deploy.onnx_graph import export_onnx, set_metadata, write
from nas.deploy.parity import ROUNDINGS, TOLERANCES, Agreement, Tolerance, rounding, verify
from nas.deploy.passport import give_passport
from nas.deploy.runtime import Metadata, Runtime
from nas.errors import UserError
from nas.inference.execution import milliseconds
from nas.inference.pictures import Source, open_pictures
from nas.inference.predictor import network_inputs
from nas.models.base import DetectorModule
from nas.models.passport import generated_pictures
from nas.options import Resize, in_squares

#: Inputs of a batch when an export is checked.
CHECK_BATCH = 4


@dataclass(frozen=True)
class ExportReport:
    """The finished file and how it compares: megabytes, median milliseconds of one image, differences to torch."""

    path: Path
    format: str
    precision: str
    megabytes: float
    milliseconds: float
    torch_milliseconds: float
    agreement: Agreement
    pictures: str = field(default="generated")

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self) | {"path": str(self.path)}


def export_model(
    model: nn.Module,
    path: str | Path,
    settings: ExportSettings,
    progress: Callable[[str], None] | None = None,
    source: Source | None = None,
) -> ExportReport:
    """Write `model` (left as it is) for a runtime and prove it: the file appears only if it agrees with torch.

    The ending of `path` is that of the format. source: the pictures, if `settings.images` only names them. Raises
    UserError for settings that do not go together, a runtime that is not installed, or a file whose scores, boxes or labels
    differ from torch's.
    """
    detector = cast(DetectorModule, model)
    end_to_end = bool(getattr(model, "end_to_end", False))
    say = progress or (lambda text: None)
    path = Path(path).with_suffix(FORMATS[settings.format])
    if end_to_end and settings.format == "onnx_nms":
        raise UserError("this detector is end-to-end and needs no NMS: export it as format=onnx")
    if settings.format == "tensorrt":
        from nas.deploy.tensorrt import import_tensorrt

        import_tensorrt()
    side = settings.image_size or detector.image_size
    pictures = read_inputs(settings, side, source, detector.resize)
    say("fusing and tracing")
    fused = copy.deepcopy(detector).cpu().float().fuse().eval()
    graph = deployed_graph(fused, side, settings, pictures, say)
    nms = settings.format == "onnx_nms"
    metadata = Metadata(tuple(detector.classes), side, end_to_end, nms, settings.precision, detector.resize)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        made = Path(folder) / path.name
        say("writing")
        _write(graph, made, metadata, settings)
        runtime = load_runtime(made)
        say("comparing with torch")
        agreement = _agreement(fused, runtime, pictures[: settings.check_images], settings, end_to_end)
        if agreement.problem:
            raise UserError(f"the export is refused: on {agreement.images} pictures {agreement.problem}")
        give_passport(made, runtime, detector, agreement)
        report = ExportReport(
            path,
            settings.format,
            settings.precision,
            sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6,
            _median_milliseconds(runtime, pictures[0]),
            _median_milliseconds(fused, pictures[0]),
            agreement,
            settings.images or "generated",
        )
        del runtime  # Windows moves no file that is open
        for file in sorted(Path(folder).iterdir()):
            file.replace(path.parent / file.name)
    return report


def deployed_graph(
    fused: nn.Module,
    side: int,
    settings: ExportSettings,
    pictures: Sequence[np.ndarray] = (),
    say: Callable[[str], None] = lambda text: None,
) -> ModelProto:
    """The graph that a runtime is given for a fused detector: what is deployed, and what latency tables time.

    TensorRT takes its types from the graph, so that its 16-bit and 8-bit graphs are halved up to the decoding; its batch
    stays free. OpenVINO halves for itself. pictures: for the calibration of INT8. Raises UserError as its parts do.
    """
    tensorrt, int8 = settings.format == "tensorrt", settings.precision == "int8"
    opset = max(settings.opset, HALF_SCALES_OPSET) if tensorrt and int8 else settings.opset
    graph = export_onnx(fused, side, opset, None if tensorrt else settings.batch)
    if int8:
        from nas.deploy.precision import quantise

        say("calibrating")
        calibration = pictures[: settings.calibration_images]
        graph = quantise(graph, calibration, settings.keep_float, settings.calibration, tensorrt)
    if tensorrt and settings.precision != "fp32" or settings.precision == "fp16" and settings.format != "openvino":
        from nas.deploy.precision import to_half

        graph = to_half(graph)
    return graph


def _write(graph: ModelProto, path: Path, metadata: Metadata, settings: ExportSettings) -> None:
    if settings.format == "openvino":
        from nas.deploy.openvino import export_openvino

        export_openvino(graph, path, metadata)
    elif settings.format == "tensorrt":
        from nas.deploy.tensorrt import export_tensorrt

        export_tensorrt(graph, path, metadata, settings.batch or 1)
    else:
        if metadata.nms:
            from nas.deploy.onnx_graph import append_nms

            graph = append_nms(graph, settings.score_threshold, settings.iou_threshold, settings.max_detections)
        set_metadata(graph, metadata)
        write(graph, path)


def _agreement(
    fused: nn.Module, runtime: Runtime, pictures: Sequence[np.ndarray], settings: ExportSettings, end_to_end: bool
) -> Agreement:
    size = settings.batch or CHECK_BATCH
    pictures = [pictures[index % len(pictures)] for index in range(-(-len(pictures) // size) * size)]
    batches = [np.concatenate(pictures[index : index + size]) for index in range(0, len(pictures), size)]

    def compared(tolerance: Tolerance) -> Agreement:
        return verify(
            fused,
            runtime,
            batches,
            tolerance,
            iou_threshold=settings.iou_threshold,
            end_to_end=end_to_end,
            exported_rows=runtime.metadata.nms,
            max_detections=settings.max_detections,
            lowest=settings.score_threshold if runtime.metadata.nms else 0.0,
        )

    usual = TOLERANCES[settings.precision]
    agreement = compared(usual)
    if not agreement.problem or usual.score is None or usual.box is None:
        return agreement
    # A network of hardly any training multiplies every rounding: two ways to compute it differ by what each is off.
    score, box = rounding(fused, batches)
    return compared(replace(usual, score=max(usual.score, ROUNDINGS * score), box=max(usual.box, ROUNDINGS * box)))


def _median_milliseconds(network: Callable[[Tensor], object], image: np.ndarray) -> float:
    return statistics.median(milliseconds(network, torch.from_numpy(image), 15, 3))


def read_inputs(
    settings: ExportSettings, side: int, source: Source | None = None, resize: Resize = "stretch"
) -> list[np.ndarray]:
    """Inputs (1, 3, S, S) of the pictures given (a sample of them by the seed), or of made-up ones."""
    count = max(settings.check_images, settings.calibration_images if settings.precision == "int8" else 0)
    if settings.images is None:
        return generated_pictures(settings.check_images, side)
    inputs: list[np.ndarray] = []
    for picture in islice(open_pictures(source or settings.images, settings.seed), 4 * count):
        if picture.pixels is not None and len(inputs) < count:
            inputs.append(network_inputs([picture.pixels], side, in_squares(resize))[0])
    if not inputs:
        raise UserError(f"{settings.images}: none of the files is a readable picture")
    return inputs
