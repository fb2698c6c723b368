"""INT8 post-training quantisation of an ONNX graph, with calibration pictures and layers that stay float."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from nas.deploy.onnx_graph import decoding_nodes, layer_of, quietly
from nas.errors import UserError

#: What is quantised: the weighted layers, and what passes 8-bit maps on between them.
QUANTISED = ("Conv", "Gemm", "MatMul", "MaxPool", "Concat", "Resize", "Relu", "Add")


def quantise(
    graph: Any,
    images: Sequence[np.ndarray],
    keep_float: Sequence[str] = (),
    method: str = "minmax",
    for_tensorrt: bool = False,
) -> Any:
    """The graph with 8-bit weights (per channel) and activations, as QDQ nodes that every runtime reads.

    images: calibration inputs (1, 3, S, S), float 0..255. keep_float: layers, or beginnings of their names ("head",
    "neck.merge_3"), that stay float; decoding always does. method: `minmax`, `entropy` or `percentile`. for_tensorrt:
    symmetric activations and biases left in float, as TensorRT dequantises 8-bit values around zero alone; CPU runtimes
    want 32-bit biases beside 8-bit weights. Raises UserError for an unknown layer or method, or without pictures.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    if method not in methods:
        raise UserError(f"calibration method {method!r} is unknown; known: {', '.join(methods)}")
    if not images:
        raise UserError("INT8 needs calibration pictures: give a folder with images=...")
    kept = [*decoding_nodes(graph), *float_nodes(graph, keep_float)]
    with quietly(), tempfile.TemporaryDirectory() as folder:
        source, prepared, target = (Path(folder) / f"{name}.onnx" for name in ("float", "prepared", "int8"))
        source.write_bytes(graph.SerializeToString())
        quant_pre_process(str(source), str(prepared), skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _Pictures(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            activation_type=QuantType.QInt8 if for_tensorrt else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept,
            calibrate_method=methods[method],
            extra_options={
                "ActivationSymmetric": for_tensorrt,
                "WeightSymmetric": True,
                "QuantizeBias": not for_tensorrt,
            },
        )
        return onnx.load(str(target))


def float_nodes(graph: Any, keep_float: Sequence[str]) -> list[str]:
    """Names of the nodes whose layers are, or lie below, the named ones; raises UserError for a name without layers."""
    layers = {node.name: layer_of(node) for node in graph.graph.node}
    found: list[str] = []
    for wanted in keep_float:
        nodes = [name for name, layer in layers.items() if layer == wanted or layer.startswith(f"{wanted}.")]
        if not nodes:
            near = difflib.get_close_matches(wanted, [layer for layer in layers.values() if layer], 3, 0.3)
            raise UserError(f"no layer is called {wanted!r}; near: {', '.join(near) or 'none'}")
        found += nodes
    return found


class _Pictures:
    """Calibration inputs, as the quantiser reads them."""

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self.images = images
        self._next: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._next, None)
        return None if image is None else {"images": image}

    def rewind(self) -> None:
        self._next = iter(self.images)
