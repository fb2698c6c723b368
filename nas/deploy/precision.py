"""Lower precision of an ONNX graph: 16 bits for its body, and INT8 by calibration; outputs and decoding stay 32-bit."""

from __future__ import annotations

import copy
import difflib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from nas.deploy.onnx_graph import decoding_nodes, layer_of, quietly
from nas.errors import UserError

#: Inputs that ONNX wants in 32 bits whatever the data is: of Resize the region and the scales.
KEPT_INPUTS = {"Resize": frozenset({1, 2})}


def to_half(graph: ModelProto) -> ModelProto:
    """The graph with 16-bit weights and maps up to the last weighted layers, casts at the two borders."""
    result = copy.deepcopy(graph)
    body = result.graph
    decoding = set(decoding_nodes(result))
    weights = {item.name: item for item in body.initializer}
    floats = {name for name, item in weights.items() if item.data_type == TensorProto.FLOAT}
    full = {entry.name for entry in body.input}  # float values in 32 bits
    half: set[str] = set()
    nodes: list[Any] = []
    casts: set[str] = set()

    def cast(name: str, suffix: str, kind: int) -> str:
        target = f"{name}{suffix}"
        if target not in casts:
            casts.add(target)
            nodes.append(helper.make_node("Cast", [name], [target], target, to=kind))
        return target

    kinds = _value_kinds(result)
    for node in body.node:
        low = node.name not in decoding
        for index, name in enumerate(node.input):
            if low and index not in KEPT_INPUTS.get(node.op_type, ()):
                if name in floats:
                    node.input[index] = f"{name}_half"
                    half.add(name)
                elif name in full:
                    node.input[index] = cast(name, "_half", TensorProto.FLOAT16)
            elif not low and kinds.get(name) == TensorProto.FLOAT16:
                node.input[index] = cast(name, "_full", TensorProto.FLOAT)
        if low:
            _halve_attributes(node)
        for name in node.output:
            if kinds.get(name) == TensorProto.FLOAT:
                if low:
                    kinds[name] = TensorProto.FLOAT16
                else:
                    full.add(name)
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [item for item in body.initializer if item.name in used]
    kept += [_halved(weights[name]) for name in sorted(half)]
    del body.node[:], body.initializer[:], body.value_info[:]
    body.node.extend(nodes)
    body.initializer.extend(kept)
    onnx.checker.check_model(result)
    return result


def _value_kinds(graph: ModelProto) -> dict[str, int]:
    """Element type of every value between nodes."""
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    values = [*inferred.value_info, *inferred.output]
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _halved(item: Any) -> Any:
    values = numpy_helper.to_array(item)
    limit = np.finfo(np.float16).max
    return numpy_helper.from_array(np.clip(values, -limit, limit).astype(np.float16), f"{item.name}_half")


def _halve_attributes(node: Any) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        elif attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(attribute.t).astype(np.float16)
            attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))


#: What is quantised: the weighted layers, and what passes 8-bit maps on between them.
QUANTISED = ("Conv", "Gemm", "MatMul", "MaxPool", "Concat", "Resize", "Relu", "Add")


def quantise(
    graph: ModelProto,
    images: Sequence[np.ndarray],
    keep_float: Sequence[str] = (),
    method: str = "minmax",
    for_tensorrt: bool = False,
) -> ModelProto:
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


def float_nodes(graph: ModelProto, keep_float: Sequence[str]) -> list[str]:
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
