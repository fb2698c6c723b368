"""The networks of NAS-Bench-201 (a cell of six edge operations) and NAS-Bench-Macro (eight choices), at 32 pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search_spaces.tabular import CHOICES, EDGES, FINAL_WIDTH, LAYERS, STEM_WIDTH


class Zero(nn.Module):
    """The operation `none`: zeros of the input's shape."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class ReluConvNorm(nn.Sequential):
    """ReLU, convolution without bias, BN."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
        )


def edge_operation(name: str, channels: int) -> nn.Module:
    """The module of one edge; every operation keeps width and size. Raises KeyError for an unknown name."""
    return {
        "none": lambda: Zero(),
        "skip_connect": lambda: nn.Identity(),
        "nor_conv_1x1": lambda: ReluConvNorm(channels, channels, 1),
        "nor_conv_3x3": lambda: ReluConvNorm(channels, channels, 3),
        "avg_pool_3x3": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    }[name]()


class CellModule(nn.Module):
    """Four nodes, each the sum of its incoming edges."""

    def __init__(self, edges: Sequence[str], channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(edge_operation(name, channels) for name in edges)

    def forward(self, x: Tensor) -> Tensor:
        nodes: list[Tensor] = [x]
        for (source, target), edge in zip(EDGES, self.edges, strict=True):
            value = edge(nodes[source])
            if target == len(nodes):
                nodes.append(value)
            else:
                nodes[target] = nodes[target] + value
        return nodes[3]


class Reduction(nn.Module):
    """The residual block between stages: two 3x3 convolutions beside an averaged, projected shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ReluConvNorm(inputs, outputs, 3, 2), ReluConvNorm(outputs, outputs, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class CellNetwork(nn.Module):
    """Stem, three stages of `depth` cells at widths 16, 32, 64, reductions between them, pooled linear classifier.

    Input (B, 3, 32, 32), output logits (B, num_classes). Source: Dong and Yang, ICLR 2020, section 2.1.
    """

    def __init__(self, edges: Sequence[str], num_classes: int = 10, width: int = 16, depth: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        body: list[nn.Module] = []
        for stage in range(3):
            if stage:
                body.append(Reduction(width * 2 ** (stage - 1), width * 2**stage))
            body += [CellModule(edges, width * 2**stage) for _ in range(depth)]
        self.body = nn.Sequential(*body)
        self.tail = nn.Sequential(nn.BatchNorm2d(width * 4), nn.ReLU())
        self.classifier = nn.Linear(width * 4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.tail(self.body(self.stem(images))).mean((2, 3)))


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True) -> nn.Module:
    """Convolution without bias, BN and, if asked, ReLU."""
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


class Bottleneck(nn.Module):
    """1x1 expansion, depthwise k x k, linear 1x1; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, kernel: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.body = nn.Sequential(
            conv_norm(inputs, hidden, 1),
            conv_norm(hidden, hidden, kernel, stride, hidden),
            conv_norm(hidden, outputs, 1, relu=False),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)


class MacroNetwork(nn.Module):
    """Stem, eight chosen layers, 1x1 to 1280, pooled linear classifier: (B, 3, 32, 32) to logits (B, num_classes).

    The paper does not print the activation; ReLU is used. Source: Su et al., CVPR 2021, appendix (NAS-Bench-Macro).
    """

    def __init__(self, choices: Sequence[int], num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(3, STEM_WIDTH, 3)]
        width = STEM_WIDTH
        for choice, (out, stride) in zip(choices, LAYERS, strict=True):
            if (bottleneck := CHOICES[choice]) is not None:
                layers.append(Bottleneck(width, out, stride, *bottleneck))
            elif stride != 1 or width != out:
                layers.append(conv_norm(width, out, 1, stride, relu=False))
            width = out
        self.body = nn.Sequential(*layers, conv_norm(width, FINAL_WIDTH, 1))
        self.classifier = nn.Linear(FINAL_WIDTH, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.body(images).mean((2, 3)))
