"""YOLOv8 (n, s, m, l, x): C2f backbone and PAN neck, DFL head."""

from __future__ import annotations

from nas.models.baselines.conv import SPPF, Conv
from nas.models.baselines.csp import C2f
from nas.models.baselines.dfl_head import DFLHead, plain_class_width
from nas.models.baselines.graph import Graph, Scale

SIZES = {
    "n": Scale(0.33, 0.25, 1024),
    "s": Scale(0.33, 0.50, 1024),
    "m": Scale(0.67, 0.75, 768),
    "l": Scale(1.00, 1.00, 512),
    "x": Scale(1.00, 1.25, 512),
}
BACKBONE_ROWS = (4, 6, 9)


def yolov8_graph(size: str, num_classes: int) -> Graph:
    """The 23 rows of YOLOv8; bottlenecks have shortcuts in the backbone only."""
    scale = SIZES[size]
    graph = Graph()

    def conv(width: int) -> int:
        return graph.add(Conv, scale.channels(width), 3, 2)

    def c2f(width: int, units: int = 3, shortcut: bool = False) -> int:
        return graph.add(C2f, scale.channels(width), scale.repeats(units), shortcut)

    conv(64)
    conv(128)
    c2f(128, 3, shortcut=True)
    conv(256)
    c3 = c2f(256, 6, shortcut=True)
    conv(512)
    c4 = c2f(512, 6, shortcut=True)
    conv(1024)
    c2f(1024, 3, shortcut=True)
    c5 = graph.add(SPPF, scale.channels(1024), 5)

    graph.upsample()
    graph.concat(-1, c4)
    n4 = c2f(512)
    graph.upsample()
    graph.concat(-1, c3)
    p3 = c2f(256)
    conv(256)
    graph.concat(-1, n4)
    p4 = c2f(512)
    conv(512)
    graph.concat(-1, c5)
    p5 = c2f(1024)

    widths = [graph.width(row) for row in (p3, p4, p5)]
    graph.head(DFLHead(widths, num_classes, plain_class_width(widths[0], num_classes)), (p3, p4, p5))
    return graph
