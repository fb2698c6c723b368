"""A detector as an ONNX graph, with NMS behind it where asked."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper
from torch import nn

from nas.deploy import DEFAULT_OPSET, Opset
from nas.deploy.runtime import KEY, Metadata
from nas.errors import UserError
from nas.options import check_value

#: Operators with learned weights: what comes after the last of them is decoding.
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
VIEWS = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Identity"})


def export_onnx(model: nn.Module, image_size: int, opset: int = DEFAULT_OPSET, batch: int | None = None) -> ModelProto:
    """The ONNX graph of a fused detector: `images` (B, 3, S, S) -> `scores` (B, N, C), `boxes` (B, N, 4).

    B is symbolic unless `batch` fixes it. Raises UserError for an opset below 18 or one that this torch cannot write.
    """
    check_value("opset", opset, Opset)
    images = torch.zeros(batch or 2, 3, image_size, image_size)
    dynamic = None if batch else {"images": {0: torch.export.Dim("batch", min=1)}}
    model = copy.deepcopy(model).cpu().float().eval()
    with quietly(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (images,),
            input_names=["images"],
            output_names=["scores", "boxes"],
            dynamic_shapes=dynamic,
            opset_version=opset,
            dynamo=True,
        )
    assert program is not None
    graph = program.model_proto
    found = next(entry.version for entry in graph.opset_import if entry.domain == "")
    if found != opset:
        raise UserError(f"this torch writes opset {found}, not {opset}: set opset={found}")
    for node in graph.graph.node:  # source lines and paths of the exporting machine
        del node.metadata_props[:]
        node.doc_string = ""
    return graph


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the progress messages of exporters and quantisers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def set_metadata(graph: ModelProto, metadata: Metadata) -> None:
    """Put what the file says of itself into its properties."""
    helper.set_model_props(graph, {KEY: metadata.to_json()})


def decoding_nodes(graph: ModelProto) -> list[str]:
    """Names of the nodes behind the last layers with weights: box coordinates do not bear low precision."""
    matrices = {item.name for item in graph.graph.initializer if len(item.dims) > 1}
    # Weights of a quantised graph come through a node of their own.
    matrices |= {n.output[0] for n in graph.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in matrices}
    producers = {name: node for node in graph.graph.node for name in node.output}

    def after_softmax(name: str) -> bool:
        node = producers.get(name)
        if node is None or node.op_type not in VIEWS:
            return node is not None and node.op_type == "Softmax"
        return after_softmax(node.input[0])

    needed: set[str] = set()
    names = []
    for node in reversed(graph.graph.node):
        # What multiplies a softmax by constants is the expected value of a distribution: decoding too.
        weighted = node.op_type in WEIGHTED and matrices.intersection(node.input) and not after_softmax(node.input[0])
        if weighted or needed.intersection(node.output):
            needed.update(node.input)
        else:
            names.append(node.name)
    return names


def layer_of(node: NodeProto) -> str:
    """The torch name of a node's layer ("neck.merge_3.conv1.conv"), known by its weight; empty if it has none."""
    for name in node.input[1:2]:
        if name.endswith(".weight"):
            return str(name.removesuffix(".weight"))
    return ""


def write(graph: ModelProto, path: str | Path) -> Path:
    """Write a graph as one file, atomically; raises UserError if the disk refuses."""
    from nas.files import write_atomic

    return write_atomic(path, graph.SerializeToString())


def append_nms(graph: ModelProto, score_threshold: float, iou_threshold: float, max_detections: int) -> ModelProto:
    """The graph with class-aware NMS behind it, of standard operators.

    Outputs `scores` (B, K), `boxes` (B, K, 4), `labels` (B, K) int64, best first, K = `max_detections`; missing rows
    have score 0 and label -1. The selection is that of `postprocess` (whose `max_candidates` does not apply here).
    """
    inner = copy.deepcopy(graph)
    _rename(inner, {"scores": "all_scores", "boxes": "all_boxes"})
    body = inner.graph
    batch = body.input[0].type.tensor_type.shape.dim[0]

    def constant(name: str, value: Any, kind: int, shape: tuple[int, ...] = ()) -> str:
        body.initializer.append(helper.make_tensor(f"nms_{name}", kind, shape, value if shape else [value]))
        return f"nms_{name}"

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        body.node.append(helper.make_node(kind, inputs, [output], f"nms_{output}", **attributes))
        return output

    def integers(name: str, *values: int) -> str:
        return constant(name, values, TensorProto.INT64, (len(values),))

    zero, one, two = integers("zero", 0), integers("one", 1), integers("two", 2)
    limit = integers("limit", max_detections)
    by_class = add("Transpose", ["all_scores"], "by_class", perm=[0, 2, 1])
    threshold = constant("iou", iou_threshold, TensorProto.FLOAT)
    lowest = constant("score", score_threshold, TensorProto.FLOAT)
    chosen = add(
        "NonMaxSuppression", ["all_boxes", by_class, limit, threshold, lowest], "chosen"
    )  # image, class, prior
    # Best first, then image by image: the key of the second sort has no equals, whose order runtimes may change.
    values = add("GatherND", [by_class, chosen], "values")
    total = add("Shape", [values], "total")
    body.node.append(helper.make_node("TopK", [values, total], ["sorted_values", "order"], "nms_rank", axis=0))
    ones = add("Expand", [one, total], "ones")
    number = add("CumSum", [ones, constant("axis", 0, TensorProto.INT64)], "number", exclusive=1)
    image = add("Squeeze", [add("Slice", [chosen, zero, one, one], "image_column"), one], "image_of")
    ranked = add("Mul", [add("Gather", [image, "order"], "ranked_image"), total], "image_key")
    key = add("Add", [ranked, number], "key")
    body.node.append(helper.make_node("TopK", [key, total], ["sorted_key", "grouping"], "nms_group", axis=0, largest=0))
    rows = add("Gather", [chosen, add("Gather", ["order", "grouping"], "final")], "rows", axis=0)
    value = add("Gather", ["sorted_values", "grouping"], "value")
    image = add("Gather", ["ranked_image", "grouping"], "image")
    # The place of each row inside its image: its number less the number of rows of the images before.
    images = add("Slice", [add("Shape", ["all_boxes"], "box_shape"), zero, one], "image_count")
    counts = add("ConstantOfShape", [images], "no_counts", value=helper.make_tensor("z", TensorProto.INT64, [1], [0]))
    counts = add("ScatterElements", [counts, image, ones], "counts", reduction="add")
    before = add("CumSum", [counts, "nms_axis"], "before", exclusive=1)
    place = add("Sub", [number, add("Gather", [before, image], "offset")], "place")
    inside = add("Less", [place, limit], "inside")
    keep = [add("Compress", [name, inside], f"{name}_kept", axis=0) for name in (rows, value, image, place)]
    target = add("Concat", [add("Unsqueeze", [keep[2], one], "u"), add("Unsqueeze", [keep[3], one], "v")], "at", axis=1)
    shape = add("Concat", [images, limit], "out_shape", axis=0)
    label = add("Squeeze", [add("Slice", [keep[0], one, two, one], "label_column"), one], "label")
    prior = add("Slice", [keep[0], two, integers("three", 3), one], "prior_column")
    where = add("Concat", [add("Unsqueeze", [keep[2], one], "w"), prior], "where", axis=1)
    corners = add("GatherND", ["all_boxes", where], "corners")
    empty = add("ConstantOfShape", [shape], "no_scores", value=helper.make_tensor("z", TensorProto.FLOAT, [1], [0.0]))
    add("ScatterND", [empty, target, keep[1]], "scores")
    add("ScatterND", [add("Expand", [integers("minus", -1), shape], "no_labels"), target, label], "labels")
    wide = add("Concat", [shape, integers("four", 4)], "box_out_shape", axis=0)
    empty = add("ConstantOfShape", [wide], "no_boxes", value=helper.make_tensor("z", TensorProto.FLOAT, [1], [0.0]))
    add("ScatterND", [empty, target, corners], "boxes")
    size = batch.dim_param or batch.dim_value
    del body.output[:]
    body.output.extend(
        helper.make_tensor_value_info(name, kind, [size, max_detections, *extra])
        for name, kind, extra in (
            ("scores", TensorProto.FLOAT, []),
            ("boxes", TensorProto.FLOAT, [4]),
            ("labels", TensorProto.INT64, []),
        )
    )
    onnx.checker.check_model(inner)
    return inner


def _rename(graph: ModelProto, names: dict[str, str]) -> None:
    for node in graph.graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = names.get(name, name)
