"""The NAS-Bench-Macro network of eight choices: identities and inverted bottlenecks at 32 pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

_LAYERS = ((64, 2), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2), (256, 1), (256, 1))
_BOTTLENECKS = {1: (3, 3), 2: (6, 5)}


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
        layers: list[nn.Module] = [conv_norm(3, 32, 3)]
        width = 32
        for choice, (out, stride) in zip(choices, _LAYERS, strict=True):
            if choice:
                layers.append(Bottleneck(width, out, stride, *_BOTTLENECKS[choice]))
            elif stride != 1 or width != out:
                layers.append(conv_norm(width, out, 1, stride, relu=False))
            width = out
        self.body = nn.Sequential(*layers, conv_norm(width, 1280, 1))
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.body(images).mean((2, 3)))
