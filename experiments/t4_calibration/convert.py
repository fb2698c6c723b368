"""Exported ONNX operation lists -> the compact lists of fused kernels in `op_lists/`, which the calibration reads.

python -m experiments.t4_calibration.convert FOLDER_OF_GZIPPED_LISTS
"""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from nas.lowering.fusion import Node, fuse_graph
from nas.lowering.operation import Operation

HERE = Path(__file__).parent / "op_lists"
COLUMNS = [field.name for field in fields(Operation)][:12]
KINDS = {"depthwise_conv": "conv", "grouped_conv": "conv", "silu_mul": "silu"}


def read_nodes(path: Path) -> list[Node]:
    """The layers of one exported list; a SiLU's sigmoid disappears into its product."""
    rows: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["rows"]
    nodes = []
    for row in rows:
        kind, shape = row["kind"], row["out_shape"]
        inputs, shapes = tuple(row["src"]), tuple(tuple(s) for s in row["in_shapes"])
        if kind == "silu_sigmoid":
            kind = "reshape"
        elif kind == "silu_mul":
            inputs, shapes = inputs[:1], shapes[:1]
        out = tuple(shape[0] if isinstance(shape[0], list) else shape)
        nodes.append(
            Node(
                KINDS.get(kind, kind),
                inputs,
                shapes,
                out,
                *(max(row[key] or [1]) for key in ("kernel", "stride")),
                groups=row["groups"] or 1,
                bias=True,
            )  # fmt: skip
        )
    return _without_dead_views(nodes)


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
        rows = pack(fuse_graph(read_nodes(path)))
        body = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        (HERE / path.name.removesuffix(".gz")).write_text(f'{{"columns":{json.dumps(COLUMNS)},"rows":[\n{body}\n]}}\n')


if __name__ == "__main__":
    main(sys.argv[1])
