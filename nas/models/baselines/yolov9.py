"""YOLOv9 (t, s, m, c, e): GELAN backbone and neck, the repository's grouped head or the `u` head, PGI for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from nas.models.baselines.blocks import ELAN1, RepNCSPELAN4
from nas.models.baselines.conv import SPPELAN, AConv, ADown, Conv
from nas.models.baselines.dfl_head import DFLHead, DualDFLHead, plain_class_width, repository_class_width
from nas.models.baselines.graph import Graph

Cell = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Size:
    """Widths of one size: stem, cells (c2, c3, c4) of the stages at strides 4..32, and down-samplers.

    The cells of P4 and P5 repeat those of the stages at strides 16 and 32, P3's and the pooling pyramid have the widths
    of the first and the last down-sampler; `units` are those of every RepNCSP.
    """

    stem: int
    stages: Sequence[Cell]
    backbone_down: tuple[int, int, int]
    neck_down: tuple[int, int]
    units: int
    elan1: bool = False
    adown: bool = False

    @property
    def down(self) -> Callable[..., nn.Module]:
        return ADown if self.adown else AConv


def _plain(*widths: int) -> tuple[Cell, ...]:
    return tuple((width, width, width // 2) for width in widths)


_C_STAGES: tuple[Cell, ...] = ((256, 128, 64), (512, 256, 128), *_plain(512, 512))
SIZES = {
    "t": Size(16, _plain(32, 64, 96, 128), (64, 96, 128), (48, 64), units=3, elan1=True),
    "s": Size(32, _plain(64, 128, 192, 256), (128, 192, 256), (96, 128), units=3, elan1=True),
    "m": Size(32, _plain(128, 240, 360, 480), (240, 360, 480), (184, 240), units=1),
    "c": Size(64, _C_STAGES, (256, 512, 512), (256, 512), units=1, adown=True),
}
#: The two columns of size e: cells and down-samplers after the stem; the neck reads the second.
E_CELLS: tuple[Cell, ...] = ((256, 128, 64), (512, 256, 128), (1024, 512, 256), (1024, 512, 256))
E_DOWN = (256, 512, 1024)
E_LINKS = (64, 128, 256, 512, 1024)


class _Drawing(Graph):
    """Graph with the shorthand of this family."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size

    def cell(self, widths: Cell) -> int:
        return self.add(RepNCSPELAN4, *widths, self.size.units)

    def down(self, width: int) -> int:
        return self.add(self.size.down, width)

    def stem(self, width: int, source: int = -1) -> int:
        """Two strided 3x3."""
        self.add(Conv, width, 3, 2, source=source)
        return self.add(Conv, 2 * width, 3, 2)

    def column(self, source: int = -1) -> list[int]:
        """Stem and stages of t, s, m, c; returns the rows of C3, C4, C5."""
        size = self.size
        self.stem(size.stem, source)
        self.add(ELAN1, *size.stages[0]) if size.elan1 else self.cell(size.stages[0])
        rows = []
        for width, widths in zip(size.backbone_down, size.stages[1:], strict=True):
            self.down(width)
            rows.append(self.cell(widths))
        return rows

    def top_down(self, backbone: list[int], cell4: Cell) -> list[int]:
        """SPPELAN and the way up to P3; returns the rows of P3, N4, N5."""
        c3, c4, c5 = backbone
        width, _, last = self.size.backbone_down
        n5 = self.add(SPPELAN, last, last // 2, source=c5)
        self.upsample()
        self.concat(-1, c4)
        n4 = self.cell(cell4)
        self.upsample()
        self.concat(-1, c3)
        return [self.cell(*_plain(width)), n4, n5]

    def bottom_up(self, p3: int, n4: int, n5: int, cell4: Cell, cell5: Cell) -> list[int]:
        """The way down from P3; returns the rows of P3, P4, P5."""
        self.down(self.size.neck_down[0])
        self.concat(-1, n4)
        p4 = self.cell(cell4)
        self.down(self.size.neck_down[1])
        self.concat(-1, n5)
        return [p3, p4, self.cell(cell5)]


def yolov9_graph(
    size: str, num_classes: int, ultralytics: bool = False, wide: bool = False, pgi: bool = False
) -> tuple[Graph, tuple[int, ...]]:
    """Rows of YOLOv9, and those of C3, C4, C5.

    `ultralytics` takes that package's ungrouped head; `wide` gives T the class width of the repository's current file
    instead of the published one; `pgi` adds the auxiliary branch of training (baselines notes, the YOLOv9 paper 3.1).
    """
    if size == "e":
        graph, backbone, main, auxiliary = _draw_e(pgi)
    else:
        graph, backbone, main, auxiliary = _draw(size, pgi)
    class_width = plain_class_width if ultralytics or (size == "t" and not wide) else repository_class_width
    groups = 1 if ultralytics else 4
    rows = auxiliary + main
    widths = [graph.width(row) for row in rows]
    if pgi:
        both = (class_width(widths[0], num_classes), class_width(widths[3], num_classes))
        graph.head(DualDFLHead(widths, num_classes, both, groups), rows)
    else:
        graph.head(DFLHead(widths, num_classes, class_width(widths[0], num_classes), groups), rows)
    return graph, tuple(backbone)


def _draw(name: str, pgi: bool) -> tuple[Graph, list[int], list[int], list[int]]:
    """Sizes t, s, m, c: the graph and its rows of the backbone, of the head and of the auxiliary head."""
    size = SIZES[name]
    graph = _Drawing(size)
    second_column = pgi and not size.elan1
    if second_column:
        graph.insert(nn.Identity())  # holds the image for the second column
    backbone = graph.column()
    cell4, cell5 = size.stages[2], size.stages[3]
    p3, n4, n5 = graph.top_down(backbone, cell4)
    main = graph.bottom_up(p3, n4, n5, cell4, cell5)
    auxiliary: list[int] = []
    if second_column:
        auxiliary = _linked_column(graph, backbone)
    elif pgi:
        auxiliary = graph.top_down(backbone, cell4)
    return graph, backbone, main, auxiliary


def _linked_column(graph: _Drawing, backbone: list[int]) -> list[int]:
    """PGI of m and c: a second backbone on the image, joined by the first one's C3, C4, C5."""
    size = graph.size
    widths = size.backbone_down
    links = [graph.link(row, *widths[: level + 1]) for level, row in enumerate(backbone)]
    graph.stem(size.stem, 0)
    graph.cell(size.stages[0])
    rows = []
    for level, width in enumerate(widths):
        graph.down(width)
        graph.join(links[level:], level)
        rows.append(graph.cell(size.stages[level + 1]))
    return rows


def _draw_e(pgi: bool) -> tuple[Graph, list[int], list[int], list[int]]:
    """Size e: two linked columns; PGI adds a neck on the first one."""
    graph = _Drawing(replace(SIZES["c"], units=2))
    graph.insert(nn.Identity())  # holds the image for the second column
    stem = graph.stem(64)
    first = [graph.cell(E_CELLS[0])]
    for width, widths in zip(E_DOWN, E_CELLS[1:], strict=True):
        graph.down(width)
        first.append(graph.cell(widths))
    readers = [stem - 1, *first]
    links = [graph.link(row, *E_LINKS[: level + 1]) for level, row in enumerate(readers)]

    graph.add(Conv, 64, 3, 2, source=0)
    graph.join(links, 0)
    graph.add(Conv, 128, 3, 2)
    graph.join(links[1:], 1)
    second = [graph.cell(E_CELLS[0])]
    for level, (width, widths) in enumerate(zip(E_DOWN, E_CELLS[1:], strict=True)):
        graph.down(width)
        graph.join(links[level + 2 :], level + 2)
        second.append(graph.cell(widths))

    cell4 = (512, 512, 256)
    auxiliary = graph.top_down(first[1:], cell4) if pgi else []
    p3, n4, n5 = graph.top_down(second[1:], cell4)
    main = graph.bottom_up(p3, n4, n5, cell4, (512, 1024, 512))
    return graph, second[1:], main, auxiliary
