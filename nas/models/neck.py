"""RepGFPN (DAMO-YOLO section 2.2), built from the same graph of fusion nodes that the cost models read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.lowering.repgfpn import FusionNode, branch_widths, fusion_concat, hidden_width, neck_graph
from nas.models.backbone import InvertedUnit
from nas.models.layers import ConvBNAct, DepthwiseDown, RepConv
from nas.spec import NeckSpec


class ReverseBlock(nn.Module):
    """x + conv1(conv2(x)), two 3x3 convolutions of which the first has the parallel 1x1 branch (official names)."""

    def __init__(self, width: int, hidden: int, activation: str, reparam: bool) -> None:
        super().__init__()
        first = RepConv if reparam else ConvBNAct
        self.conv2 = first(width, hidden, 3, activation=activation)
        self.conv1 = ConvBNAct(hidden, width, 3, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv1(self.conv2(x))


class LightBlock(nn.Module):
    """The nano neck's block: one inverted residual unit with a depthwise 5x5."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.conv = InvertedUnit(width, width, hidden, 5, 1, activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class FusionStage(nn.Module):
    """CSP fusion of concatenated maps; with "elan" every block's output is kept, otherwise the last one alone."""

    def __init__(self, neck: NeckSpec, node: FusionNode) -> None:
        super().__init__()
        kept, width = branch_widths(node.out_channels)
        hidden = hidden_width(neck, width, node.level)
        act = neck.activation
        self.conv1 = ConvBNAct(node.in_channels, kept, 1, activation=act)
        self.conv2 = ConvBNAct(node.in_channels, width, 1, activation=act)
        self.convs = nn.ModuleList(
            LightBlock(width, hidden, act) if neck.depthwise else ReverseBlock(width, hidden, act, neck.fusion != "csp")
            for _ in range(neck.depth)
        )
        self.conv3 = ConvBNAct(fusion_concat(neck, node.out_channels), node.out_channels, 1, activation=act)
        self.keep_all = neck.fusion == "elan"

    def forward(self, x: Tensor) -> Tensor:
        kept, y = self.conv1(x), self.conv2(x)
        outputs = []
        for block in self.convs:
            y = block(y)
            outputs.append(y)
        chosen = outputs if self.keep_all and outputs else [y]
        return self.conv3(torch.cat([kept, *chosen], dim=1))


class RepGFPN(nn.Module):
    """Maps C3, C4, C5 -> N3, N4, N5 at strides 8, 16, 32.

    The sub-modules carry the official names (`merge_3`, `bu_conv13` ...), which the graph's nodes know.
    """

    def __init__(self, spec: NeckSpec, channels: Sequence[int]) -> None:
        super().__init__()
        c3, c4, c5 = channels
        self.graph = neck_graph(spec, (c3, c4, c5))
        for node in self.graph:
            for source in node.sources:
                if source.move == "down":
                    self.add_module(source.module, _down(spec, source.channels))
            self.add_module(node.module, _fusion(spec, node))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        known = dict(zip(("C3", "C4", "C5"), maps, strict=True))
        for node in self.graph:
            inputs = []
            for source in node.sources:
                x = known[source.origin]
                if source.move == "down":
                    x = self.get_submodule(source.module)(x)
                elif source.move == "up":
                    x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
                inputs.append(x)
            merged = torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0]
            known[node.name] = self.get_submodule(node.module)(merged)
        return [known[name] for name in ("N3", "N4", "N5")]


def _down(spec: NeckSpec, channels: int) -> nn.Module:
    if spec.depthwise:
        return DepthwiseDown(channels, spec.activation)
    return ConvBNAct(channels, channels, 3, 2, spec.activation)


def _fusion(spec: NeckSpec, node: FusionNode) -> nn.Module:
    if spec.fusion == "conv":
        return ConvBNAct(node.in_channels, node.out_channels, 3, activation=spec.activation)
    return FusionStage(spec, node)
