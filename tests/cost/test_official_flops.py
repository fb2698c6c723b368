"""The official counts: layers, parameters and the FLOP figure are equal to the last digit.

The official FLOP figure: one multiply-accumulate counts 1, BN 2 and an activation 1 per element, the pooling of a strided
shortcut one per input pixel and channel, a projected shortcut 1 per element. Squeeze-excite is free. Map sides are halved
as real numbers, and the activation between two convolutions of a unit counts on the map that the convolution before it
WRITES. An image of side r behind Focus counts as r / 2 with 12 channels, since space-to-depth itself is free.
"""

from __future__ import annotations

import json
from pathlib import Path

from nas.blocks.residual import has_shortcut, needs_projection
from nas.cost.count import count_spec
from nas.spec import Backbone, Plain, Residual
from search_spaces.official import from_official


def test_golden_structures_are_counted_exactly(golden: Path) -> None:
    records = json.loads((golden / "tinynas" / "structures.json").read_text())
    assert len(records) > 200
    for record in records:
        spec = from_official(record["structure"])
        double = 2 if spec.stem.kind == "focus" else 1
        counts = count_spec(spec, image_size=double * record["image_size"])
        assert (counts.layers, counts.params) == (record["layers"], record["params"]), record["id"]
        for side, flops in record["flops"].items():
            assert official_flops(spec, double * int(side)) == flops, record["id"]


def official_flops(backbone: Backbone, image_size: int) -> float:
    """The official `flops` of a TinyNAS backbone on a square image; whole unless a map side is odd."""
    stem = backbone.stem
    if stem.kind == "focus":
        side = image_size / 2
        total = _convolution(side, 12, stem.out, stem.kernel) + side**2 * stem.out
    else:
        total = _convolution(image_size, 3, stem.out, stem.kernel, stem.stride)
        side = image_size / stem.stride
        total += side**2 * stem.out
    channels = stem.out
    for block in backbone.blocks:
        if isinstance(block, Plain):
            total += _convolution(side, channels, block.out, block.kernel, block.stride)
            total += (side / block.stride) ** 2 * block.out
        else:
            assert isinstance(block, Residual)
            for unit in range(block.depth):
                stride = block.stride if unit == 0 else 1
                entry = side if unit == 0 else side / block.stride
                total += _unit(block, channels if unit == 0 else block.out, entry, stride, unit)
        side /= block.stride
        channels = block.out
    return total


def _convolution(side: float, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> float:
    """A convolution and its BN on an input map of `side`."""
    return side**2 / stride**2 * cout * (cin * kernel**2 / groups + 2)


def _unit(block: Residual, cin: int, side: float, stride: int, unit: int) -> float:
    out, mid, after = block.out, block.bottleneck, side / stride
    first_kernel = block.kernel if block.kind == "kxkx" else 1
    total = _convolution(side, cin, mid, first_kernel) + side**2 * mid
    if block.kind in ("k1kx", "kxkx"):
        total += _convolution(side, mid, out, block.kernel, stride)
    else:
        groups = 1 if block.kind == "k1kxk1" else mid
        total += _convolution(side, mid, mid, block.kernel, stride, groups) + after**2 * mid
        total += _convolution(after, mid, out, 1)
    total += after**2 * out
    if has_shortcut(block, cin, stride):
        if stride == 2:
            total += cin * side**2
        if needs_projection(block, cin, unit):
            total += _convolution(after, cin, out, 1) + out * after**2
    return total
