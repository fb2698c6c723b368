"""OpenVINO IR from an ONNX graph."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from nas.deploy.runtime import KEY, Metadata, import_openvino
from nas.errors import UserError


def export_openvino(graph: Any, path: str | Path, metadata: Metadata) -> Path:
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


def convert(graph: Any) -> Any:
    """OpenVINO's model of an ONNX graph, not yet compiled; raises UserError where OpenVINO is missing or refuses it."""
    openvino = import_openvino()
    try:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "model.onnx"
            source.write_bytes(graph.SerializeToString())
            return openvino.convert_model(str(source))
    except RuntimeError as error:
        raise UserError(f"OpenVINO cannot convert the network: {str(error).splitlines()[-1]}") from None
