"""OpenVINO IR from an ONNX graph, and such files as networks on the CPU."""

from __future__ import annotations

import importlib
import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from nas.deploy.runtime import KEY, Metadata, Runtime, read_metadata
from nas.errors import UserError

if TYPE_CHECKING:
    from onnx import ModelProto
    from openvino import Model


def import_openvino() -> ModuleType:
    """The openvino package, or UserError saying how to get it."""
    try:
        return importlib.import_module("openvino")
    except ImportError:
        raise UserError("OpenVINO is not installed: pip install 'maenas[openvino]'") from None


def export_openvino(graph: ModelProto, path: str | Path, metadata: Metadata) -> Path:
    """Write `path` (.xml) and its .bin from an ONNX graph; "fp16" stores the weights in half precision.

    Both files replace older ones only when complete. Raises UserError where OpenVINO is missing or refuses the graph.
    """
    openvino = import_openvino()
    path = Path(path)
    model = convert(graph)
    model.set_rt_info(metadata.to_json(), [KEY])
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
            target = Path(folder) / path.name
            openvino.save_model(model, str(target), compress_to_fp16=metadata.precision == "fp16")
            os.replace(target.with_suffix(".bin"), path.with_suffix(".bin"))
            os.replace(target, path)
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None
    return path


def convert(graph: ModelProto) -> Model:
    """OpenVINO's model of an ONNX graph, not yet compiled; raises UserError where OpenVINO is missing or refuses it."""
    openvino = import_openvino()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows keeps what the model maps
            source = Path(folder) / "model.onnx"
            source.write_bytes(graph.SerializeToString())
            model: Model = openvino.convert_model(str(source))
            return model
    except RuntimeError as error:
        raise UserError(f"OpenVINO cannot convert the network: {str(error).splitlines()[-1]}") from None


class OpenVinoRuntime(Runtime):
    """An OpenVINO IR (.xml with its .bin) on the CPU."""

    packages = ("openvino",)

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        openvino = import_openvino()
        try:
            model = openvino.Core().read_model(str(path))
        except RuntimeError as error:
            raise UserError(f"{path} cannot be loaded by OpenVINO ({str(error).splitlines()[-1]})") from None
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        first = model.inputs[0].partial_shape[0]
        super().__init__(read_metadata(text, path), first.get_length() if first.is_static else None)
        # Unasked, processors with bfloat16 compute in it, whose eight bits place a box only to a few pixels.
        settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        self.compiled = openvino.Core().compile_model(model, "CPU", settings)
        self.outputs = ["scores", "boxes", *(["labels"] if self.metadata.nms else [])]

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        found = self.compiled([images])
        return tuple(found[name] for name in self.outputs)
