"""YOLOv5 (anchor-free `u` form), YOLOv8, YOLO11 and YOLO26, sizes n, s, m, l, x: one PAN drawing, four kinds of block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from nas.models.baselines.blocks import C2PSA, C3, C2f, C3k2
from nas.models.baselines.conv import SPPF, Conv
from nas.models.baselines.dfl_head import DFLHead, EndToEndHead, plain_class_width
from nas.models.baselines.graph import Graph, Scale

SIZES = {
    "yolov5": {
        "n": Scale(0.33, 0.25, 1024),
        "s": Scale(0.33, 0.50, 1024),
        "m": Scale(0.67, 0.75, 1024),
        "l": Scale(1.00, 1.00, 1024),
        "x": Scale(1.33, 1.25, 1024),
    },
    "yolov8": {
        "n": Scale(0.33, 0.25, 1024),
        "s": Scale(0.33, 0.50, 1024),
        "m": Scale(0.67, 0.75, 768),
        "l": Scale(1.00, 1.00, 512),
        "x": Scale(1.00, 1.25, 512),
    },
    "yolo11": {
        "n": Scale(0.50, 0.25, 1024),
        "s": Scale(0.50, 0.50, 1024),
        "m": Scale(0.50, 1.00, 512),
        "l": Scale(1.00, 1.00, 512),
        "x": Scale(1.00, 1.50, 512),
    },
}
SIZES["yolo26"] = SIZES["yolo11"]


class _Drawing(Graph):
    """Graph with the shorthand of these families."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.scale = scale

    def conv(self, width: int, kernel: int = 3, stride: int = 2) -> int:
        return self.add(Conv, self.scale.channels(width), kernel, stride)

    def pyramid(self, residual: bool = False) -> int:
        return self.add(SPPF, self.scale.channels(1024), 5, residual=residual)

    def backbone(self, blocks: Sequence[Callable[[], int]]) -> list[int]:
        """A strided 3x3 and a block at strides 4, 8, 16, 32; returns the rows of the blocks."""
        rows = []
        for width, block in zip((128, 256, 512, 1024), blocks, strict=True):
            self.conv(width)
            rows.append(block())
        return rows

    def neck(self, c3: int, c4: int, c5: int, blocks: Sequence[Callable[[], int]], laterals: bool = False) -> list[int]:
        """Up to P3 and down to P5, with the blocks of N4, P3, P4, P5; `laterals`: a 1x1 before each way up."""
        n4, p3, p4, p5 = blocks
        top = self.conv(512, 1, 1) if laterals else c5
        self.upsample()
        self.concat(-1, c4)
        middle = n4()
        if laterals:
            middle = self.conv(256, 1, 1)
        self.upsample()
        self.concat(-1, c3)
        rows = [p3()]
        self.conv(256)
        self.concat(-1, middle)
        rows.append(p4())
        self.conv(512)
        self.concat(-1, top)
        return [*rows, p5()]

    def finish(self, rows: Sequence[int], num_classes: int, depthwise: bool = False, end_to_end: bool = False) -> None:
        """The detection head on the rows of P3, P4, P5."""
        widths = [self.width(row) for row in rows]
        class_width = plain_class_width(widths[0], num_classes)
        if end_to_end:
            self.head(EndToEndHead(widths, num_classes, class_width), rows)
        else:
            self.head(DFLHead(widths, num_classes, class_width, depthwise=depthwise), rows)


def yolo_graph(family: str, size: str, num_classes: int, width: float | None = None) -> tuple[Graph, tuple[int, ...]]:
    """Rows of a family's size, with another width multiplier if one is given, and those of C3, C4, C5."""
    scale = SIZES[family][size]
    graph = _Drawing(scale if width is None else replace(scale, width=width))
    draw = _old_rows if family in ("yolov5", "yolov8") else _new_rows
    return graph, draw(graph, family, size in "mlx", num_classes)


def _old_rows(graph: _Drawing, family: str, large: bool, num_classes: int) -> tuple[int, ...]:
    """The 25 rows of YOLOv5u (C3) or the 23 of YOLOv8 (C2f); bottlenecks have shortcuts in the backbone only."""
    five, scale = family == "yolov5", graph.scale
    kind = C3 if five else C2f

    def block(width: int, units: int = 3, shortcut: bool = False) -> Callable[[], int]:
        return lambda: graph.add(kind, scale.channels(width), scale.repeats(units), shortcut)

    graph.conv(64, 6) if five else graph.conv(64)
    units = (3, 6, 9, 3) if five else (3, 6, 6, 3)
    stages = [block(128 * 2**stage, count, shortcut=True) for stage, count in enumerate(units)]
    _, c3, c4, _ = graph.backbone(stages)
    c5 = graph.pyramid()
    rows = graph.neck(c3, c4, c5, [block(512), block(256), block(512), block(1024)], laterals=five)
    graph.finish(rows, num_classes)
    return c3, c4, c5


def _new_rows(graph: _Drawing, family: str, large: bool, num_classes: int) -> tuple[int, ...]:
    """The 24 rows of YOLO11 or YOLO26: C3k2 and C2PSA.

    YOLO11: from size m on, every C3k2 is made of C3k units; a DFL head with depthwise class branch.
    YOLO26: so is the neck's at every size, P5's is one attention unit; a residual SPPF, an end-to-end head without DFL.
    """
    latest, scale = family == "yolo26", graph.scale

    def block(width: int, c3k: bool, ratio: float = 0.5) -> Callable[[], int]:
        out = scale.channels(width)
        return lambda: graph.add(C3k2, out, scale.repeats(2), c3k or large, hidden=int(out * ratio))

    graph.conv(64)
    stages = [block(256, False, 0.25), block(512, False, 0.25), block(512, True), block(1024, True)]
    _, c3, c4, _ = graph.backbone(stages)
    graph.pyramid(residual=latest)
    c5 = graph.add(C2PSA, scale.channels(1024), scale.repeats(2))
    p5 = block(1024, True)
    if latest:
        p5 = lambda: graph.add(C3k2, scale.channels(1024), 1, attention=True)  # noqa: E731
    rows = graph.neck(c3, c4, c5, [block(512, latest), block(256, latest), block(512, latest), p5])
    graph.finish(rows, num_classes, depthwise=True, end_to_end=latest)
    return c3, c4, c5
