"""RepGFPN as a graph of fusion nodes, and its operations; the torch neck is built from the same graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from nas.blocks.inverted import inverted_unit
from nas.blocks.operation import Operation, convolution, divisible, halved, pointwise, upsampling
from nas.errors import SpecError
from nas.lowering.fusion import LATE_SUM
from nas.spec import NeckSpec


@dataclass(frozen=True, slots=True)
class Source:
    """One input of a fusion node: an earlier map, moved to the node's resolution."""

    origin: str
    channels: int
    move: Literal["same", "up", "down"] = "same"
    module: str = ""


@dataclass(frozen=True, slots=True)
class FusionNode:
    """A fusion stage: `name` is its map, `module` its place in the official entry names, `level` 0, 1, 2 = stride 8, 16, 32."""

    name: str
    module: str
    level: int
    out_channels: int
    sources: tuple[Source, ...]

    @property
    def in_channels(self) -> int:
        return sum(source.channels for source in self.sources)


@lru_cache(maxsize=4096)
def neck_graph(neck: NeckSpec, channels: tuple[int, int, int]) -> tuple[FusionNode, ...]:
    """Nodes in execution order; N3, N4, N5 are the outputs (DAMO-YOLO report figure 3, Efficient RepGFPN).

    The base edges are the top-down path (C5, P4, P3) and the bottom-up path (N3, N4, N5). Queen fusion adds the
    neighbouring level of the earlier column, below with `extra_down`, above with `extra_up`. P5 is C5 where nothing else
    leads to it, and P3 is N3 where nothing else leads from it. Read so, with C5 twice in P4 if it is also P5, all FLOPs of
    report table 3 come out within 0.5 %.
    """
    c3, c4, c5 = channels
    o3, o4, o5 = neck.out
    below, above = neck.extra_down, neck.extra_up
    top = "P5" if below else "C5"

    def when(wanted: bool, source: Source) -> tuple[Source, ...]:
        return (source,) if wanted else ()

    def up(origin: str, width: int) -> Source:
        return Source(origin, width, "up")

    def down(origin: str, width: int, module: str) -> Source:
        return Source(origin, width, "down", module)

    p5 = FusionNode("P5", "merge_3", 2, c5, (Source("C5", c5), down("C4", c4, "bu_conv13")))
    p4 = FusionNode("P4", "merge_4", 1, c4, (
        Source("C4", c4), *when(below, down("C3", c3, "bu_conv24")), up(top, c5), *when(above, up("C5", c5)),
    ))  # fmt: skip
    p3 = FusionNode("P3", "merge_8", 0, c3, (Source("C3", c3), up("P4", c4), up("C4", c4)))
    n3 = FusionNode("N3", "merge_5", 0, o3, (Source("P3" if above else "C3", c3), up("P4", c4)))
    n4 = FusionNode("N4", "merge_7", 1, o4, (
        Source("P4", c4), down("N3", o3, "bu_conv57"), *when(below and above, down("P3", c3, "bu_conv37")),
        *when(above, up(top, c5)),
    ))  # fmt: skip
    n5 = FusionNode("N5", "merge_6", 2, o5, (
        Source(top, c5), *when(below, down("P4", c4, "bu_conv46")), down("N4", o4, "bu_conv76"),
    ))  # fmt: skip
    return (*([p5] if below else []), p4, *([p3] if above else []), n3, n4, n5)


def branch_widths(out: int) -> tuple[int, int]:
    """Channels of the kept branch and of the computed branch of a fusion stage."""
    return out // 2, out - out // 2


def hidden_width(neck: NeckSpec, width: int, level: int) -> int:
    """Channels inside a block of a fusion stage whose computed branch has `width` channels."""
    hidden = divisible(3 * width) if neck.depthwise else int(width * neck.hidden_ratio[level])
    if hidden < 1:
        raise SpecError(f"hidden ratio {neck.hidden_ratio[level]:g} leaves nothing of the neck's {width} channels")
    return hidden


def fusion_concat(neck: NeckSpec, out: int) -> int:
    """Channels that the closing 1x1 of a fusion stage reads."""
    kept, width = branch_widths(out)
    return kept + width * (neck.depth if neck.fusion == "elan" and neck.depth else 1)


def neck_operations(
    neck: NeckSpec, channels: tuple[int, int, int], sizes: tuple[tuple[int, int], ...]
) -> list[Operation]:
    """Operations of the whole neck on maps C3, C4, C5 of `sizes`."""
    result: list[Operation] = []
    for node in neck_graph(neck, channels):
        for source in node.sources:
            result += moving_operations(neck, source, node.level, sizes)
        result += joining_operations(neck, node, sizes)
    return result


def moving_operations(
    neck: NeckSpec, source: Source, level: int, sizes: tuple[tuple[int, int], ...]
) -> list[Operation]:
    """Operations that bring a source to the resolution of a node at `level`."""
    if source.move == "down":
        return _down(neck, source.channels, sizes[level - 1])
    return [upsampling(source.channels, sizes[level + 1])] if source.move == "up" else []


def joining_operations(neck: NeckSpec, node: FusionNode, sizes: tuple[tuple[int, int], ...]) -> list[Operation]:
    """Operations of a node once its sources have its resolution; they depend on the sum of their widths alone."""
    size = sizes[node.level]
    joined = [pointwise("concat", node.in_channels, node.in_channels, size, role="neck")] * (len(node.sources) > 1)
    return [*joined, *fusion_operations(neck, node, size)]


def _down(neck: NeckSpec, channels: int, size: tuple[int, int]) -> list[Operation]:
    act = neck.activation
    if not neck.depthwise:
        return [*convolution(channels, channels, size, 3, 2, activation=act, role="neck")]
    return [
        *convolution(channels, channels, size, 3, 2, channels, act, role="neck"),
        *convolution(channels, channels, halved(size, 2), activation=act, role="neck"),
    ]


def fusion_operations(neck: NeckSpec, node: FusionNode, size: tuple[int, int]) -> list[Operation]:
    """One fusion stage (report table 4): a single 3x3 convolution, or CSP, or CSP whose every block output is kept."""
    act, cin, out = neck.activation, node.in_channels, node.out_channels
    if neck.fusion == "conv":
        return [*convolution(cin, out, size, 3, activation=act, role="neck")]
    kept, width = branch_widths(out)
    hidden = hidden_width(neck, width, node.level)
    result = [
        *convolution(cin, kept, size, activation=act, role="neck"),
        *convolution(cin, width, size, activation=act, role="neck"),
    ]
    for _ in range(neck.depth):
        if neck.depthwise:
            result += inverted_unit(width, hidden, width, size, 5, 1, act, role="neck")
        else:
            rep = neck.fusion != "csp"
            result += convolution(width, hidden, size, 3, activation=act, rep=rep, role="neck")
            late = act in LATE_SUM
            result += convolution(hidden, width, size, 3, activation=act, fused_add=late, role="neck")
            if not late:
                result.append(pointwise("add", 2 * width, width, size, role="neck"))
    total = fusion_concat(neck, out)
    result.append(pointwise("concat", total, total, size, role="neck"))
    return [*result, *convolution(total, out, size, activation=act, role="neck")]
