"""OpenVINO IR from an ONNX graph."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from nas.deploy.metadata import KEY, Metadata
from nas.deploy.runtime import import_openvino
from nas.errors import UserError


def export_openvino(graph: Any, path: str | Path, metadata: Metadata) -> Path:
    """Write `path` (.xml) and its .bin from an ONNX graph; "fp16" stores the weights in half precision.

    Both files replace older ones only when complete. Raises UserError where OpenVINO is missing or refuses the graph.
    """
    openvino = import_openvino()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
            source, target = Path(folder) / "model.onnx", Path(folder) / path.name
            source.write_bytes(graph.SerializeToString())
            model = openvino.convert_model(str(source))
            model.set_rt_info(metadata.to_json(), [KEY])
            openvino.save_model(model, str(target), compress_to_fp16=metadata.precision == "fp16")
            os.replace(target.with_suffix(".bin"), path.with_suffix(".bin"))
            os.replace(target, path)
    except RuntimeError as error:
        raise UserError(f"OpenVINO cannot convert the network: {str(error).splitlines()[-1]}") from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return path
