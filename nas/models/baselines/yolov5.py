"""YOLOv5 (n, s, m, l, x) in its anchor-free `u` form: C3 backbone and PAN neck, DFL head."""

from __future__ import annotations

from nas.models.baselines.conv import SPPF, Conv
from nas.models.baselines.csp import C3
from nas.models.baselines.dfl_head import DFLHead, plain_class_width
from nas.models.baselines.graph import Graph, Scale

SIZES = {
    "n": Scale(0.33, 0.25, 1024),
    "s": Scale(0.33, 0.50, 1024),
    "m": Scale(0.67, 0.75, 1024),
    "l": Scale(1.00, 1.00, 1024),
    "x": Scale(1.33, 1.25, 1024),
}
BACKBONE_ROWS = (4, 6, 9)


def yolov5_graph(size: str, num_classes: int) -> Graph:
    """The 25 rows of YOLOv5u; bottlenecks have shortcuts in the backbone only."""
    scale = SIZES[size]
    graph = Graph()

    def conv(width: int, kernel: int = 3, stride: int = 2, source: int = -1) -> int:
        return graph.add(Conv, scale.channels(width), kernel, stride, source=source)

    def c3(width: int, units: int = 3, shortcut: bool = False) -> int:
        return graph.add(C3, scale.channels(width), scale.repeats(units), shortcut)

    graph.add(Conv, scale.channels(64), 6, 2, 2)
    conv(128)
    c3(128, 3, shortcut=True)
    conv(256)
    b3 = c3(256, 6, shortcut=True)
    conv(512)
    b4 = c3(512, 9, shortcut=True)
    conv(1024)
    c3(1024, 3, shortcut=True)
    graph.add(SPPF, scale.channels(1024), 5)

    n5 = conv(512, 1, 1)
    graph.upsample()
    graph.concat(-1, b4)
    c3(512)
    n4 = conv(256, 1, 1)
    graph.upsample()
    graph.concat(-1, b3)
    p3 = c3(256)
    conv(256)
    graph.concat(-1, n4)
    p4 = c3(512)
    conv(512)
    graph.concat(-1, n5)
    p5 = c3(1024)

    widths = [graph.width(row) for row in (p3, p4, p5)]
    graph.head(DFLHead(widths, num_classes, plain_class_width(widths[0], num_classes)), (p3, p4, p5))
    return graph
