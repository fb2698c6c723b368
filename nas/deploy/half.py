"""Half precision for the body of an ONNX graph; its inputs, outputs and decoding stay 32-bit."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas.deploy.onnx_graph import decoding_nodes

#: Inputs that ONNX wants in 32 bits whatever the data is: of Resize the region and the scales.
KEPT_INPUTS = {"Resize": frozenset({1, 2})}


def to_half(graph: Any) -> Any:
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


def _value_kinds(graph: Any) -> dict[str, int]:
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
