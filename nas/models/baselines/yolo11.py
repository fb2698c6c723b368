"""YOLO11 (n, s, m, l, x): C3k2 backbone with C2PSA, PAN neck, DFL head with depthwise class branch."""

from __future__ import annotations

from nas.models.baselines.attention import C2PSA
from nas.models.baselines.conv import SPPF, Conv
from nas.models.baselines.csp import C3k2
from nas.models.baselines.dfl_head import DFLHead, plain_class_width
from nas.models.baselines.graph import Graph, Scale

SIZES = {
    "n": Scale(0.50, 0.25, 1024),
    "s": Scale(0.50, 0.50, 1024),
    "m": Scale(0.50, 1.00, 512),
    "l": Scale(1.00, 1.00, 512),
    "x": Scale(1.00, 1.50, 512),
}
BACKBONE_ROWS = (4, 6, 10)


def yolo11_graph(size: str, num_classes: int) -> Graph:
    """The 24 rows of YOLO11; from size m on, every C3k2 is made of C3k units."""
    scale, large = SIZES[size], size in "mlx"
    graph = Graph()

    def conv(width: int) -> int:
        return graph.add(Conv, scale.channels(width), 3, 2)

    def c3k2(width: int, c3k: bool = False, ratio: float = 0.5) -> int:
        out = scale.channels(width)
        return graph.add(C3k2, out, scale.repeats(2), c3k or large, hidden=int(out * ratio))

    conv(64)
    conv(128)
    c3k2(256, ratio=0.25)
    conv(256)
    c3 = c3k2(512, ratio=0.25)
    conv(512)
    c4 = c3k2(512, c3k=True)
    conv(1024)
    c3k2(1024, c3k=True)
    graph.add(SPPF, scale.channels(1024), 5)
    c5 = graph.add(C2PSA, scale.channels(1024), scale.repeats(2))

    graph.upsample()
    graph.concat(-1, c4)
    n4 = c3k2(512)
    graph.upsample()
    graph.concat(-1, c3)
    p3 = c3k2(256)
    conv(256)
    graph.concat(-1, n4)
    p4 = c3k2(512)
    conv(512)
    graph.concat(-1, c5)
    p5 = c3k2(1024, c3k=True)

    widths = [graph.width(row) for row in (p3, p4, p5)]
    head = DFLHead(widths, num_classes, plain_class_width(widths[0], num_classes), depthwise=True)
    graph.head(head, (p3, p4, p5))
    return graph
