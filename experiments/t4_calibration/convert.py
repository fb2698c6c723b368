"""Exported ONNX operation lists -> the compact lists of fused kernels in `op_lists/`, which the calibration reads.

python -m experiments.t4_calibration.convert FOLDER_OF_GZIPPED_LISTS
"""

from __future__ import annotations

import gzip
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from experiments.command import run
from nas.blocks.operation import Operation
from nas.lowering.fusion import Node, fuse_graph

HERE = Path(__file__).parent / "op_lists"
COLUMNS = [field.name for field in fields(Operation)][:12]
KINDS = {"depthwise_conv": "conv", "grouped_conv": "conv", "silu_mul": "silu"}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one exported list."""
    return list(json.loads(gzip.decompress(path.read_bytes()))["rows"])


def to_nodes(rows: list[dict[str, Any]]) -> list[Node]:
    """The layers of one exported list; a SiLU's sigmoid disappears into its product."""
    nodes = []
    for row in rows:
        kind, shape = row["kind"], row["out_shape"]
        inputs, shapes = tuple(row["src"]), tuple(tuple(s) for s in row["in_shapes"])
        if kind == "silu_sigmoid":
            kind = "reshape"
        elif kind == "silu_mul":
            inputs, shapes = inputs[:1], shapes[:1]
        out = shapes[0] if kind == "split" else tuple(shape[0] if isinstance(shape[0], list) else shape)
        kernel, stride = (max(row[key] or [1]) for key in ("kernel", "stride"))
        nodes.append(Node(KINDS.get(kind, kind), inputs, shapes, out, kernel, stride, row["groups"] or 1, bias=True))
    return _without_dead_views(nodes)


def anchor_based(rows: list[dict[str, Any]]) -> tuple[Operation, ...]:
    """YOLOv5 as first published: the same backbone and neck, then one 1x1 convolution to 3 x 85 channels per level."""
    nodes = to_nodes(rows)
    head = [index for index, row in enumerate(rows) if "/model.24/" in row["name"]]
    maps = {tuple(rows[index]["in_shapes"][0][1:]) for index in head if rows[index]["name"].endswith(".0/conv/Conv")}
    for index in head:
        nodes[index] = Node("reshape", (), (), nodes[index].out_shape)
    body = fuse_graph(nodes)
    result = list(body)
    for channels, height, width in sorted(maps, key=lambda shape: -shape[1]):
        result.append(Operation("conv", channels, 255, height, width, height, width, activation="sigmoid", bias=True))
        result.append(Operation("elementwise", 255, 255, height, width, height, width))
    result.append(Operation("concat", 255, 255, 8400, 1, 8400, 1))
    return tuple(result)


def _without_dead_views(nodes: list[Node]) -> list[Node]:
    """Views that nobody reads are unlinked, so that they do not count as readers."""
    used = {source for node in nodes for source in node.inputs}
    return [
        Node("reshape", (), (), node.out_shape) if node.kind == "reshape" and index not in used else node
        for index, node in enumerate(nodes)
    ]


def pack(operations: tuple[Operation, ...]) -> list[list[Any]]:
    return [[getattr(operation, name) for name in COLUMNS] for operation in operations]


def main(folder: str) -> None:
    HERE.mkdir(exist_ok=True)
    for path in sorted(Path(folder).glob("*.json.gz")):
        rows, name = read_rows(path), path.name.removesuffix(".json.gz")
        _write(name, fuse_graph(to_nodes(rows)))
        if name.startswith("yolov5"):
            _write(name.removesuffix("u") + "_anchor", anchor_based(rows))


def _write(name: str, operations: tuple[Operation, ...]) -> None:
    body = ",\n".join(json.dumps(row, separators=(",", ":")) for row in pack(operations))
    (HERE / f"{name}.json").write_text(f'{{"columns":{json.dumps(COLUMNS)},"rows":[\n{body}\n]}}\n')


if __name__ == "__main__":
    run(lambda words: main(*words))
