"""A detector as an ONNX graph."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from onnx import helper
from torch import nn

from nas.deploy.metadata import KEY, Metadata
from nas.errors import UserError
from nas.options import check_value

DEFAULT_OPSET = 18
#: The first opset in which quantisation has scales of 16 bits.
HALF_SCALES_OPSET = 19
#: The exporter writes opset 18 or later; what it converts down to 17 is no valid graph where a tensor is split unevenly.
Opset = Annotated[int, Ge(DEFAULT_OPSET), Le(23)]
#: Operators with learned weights: what comes after the last of them is decoding.
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
VIEWS = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Identity"})


def export_onnx(model: nn.Module, image_size: int, opset: int = DEFAULT_OPSET, batch: int | None = None) -> Any:
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


def set_metadata(graph: Any, metadata: Metadata) -> None:
    """Put what the file says of itself into its properties."""
    helper.set_model_props(graph, {KEY: metadata.to_json()})


def decoding_nodes(graph: Any) -> list[str]:
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


def layer_of(node: Any) -> str:
    """The torch name of a node's layer ("neck.merge_3.conv1.conv"), known by its weight; empty if it has none."""
    for name in node.input[1:2]:
        if name.endswith(".weight"):
            return name.removesuffix(".weight")
    return ""


def write(graph: Any, path: str | Path) -> Path:
    """Write a graph as one file, atomically; raises UserError if the disk refuses."""
    from nas.files import write_atomic

    return write_atomic(path, graph.SerializeToString())
