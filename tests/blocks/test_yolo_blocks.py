"""The stages of YOLOv9 and YOLO11, operation by operation."""

from __future__ import annotations

from typing import Any

import pytest

from nas.blocks.base import Block
from nas.blocks.c3k2 import C2PSA, C3k2, attention_heads
from nas.blocks.gelan import GELAN
from nas.errors import SpecError
from tests.blocks.test_operation import told


def lines(block: Block, channels: int = 16) -> list[str]:
    return [told(op) for op in block.operations(channels, (8, 6), "relu", False)]


def branch(channels: int) -> list[str]:
    """One computed branch of RepNCSPELAN4 with one unit, 12 wide."""
    return [
        f"conv {channels}>6 4x3 silu norm u0", "conv 6>6 4x3 k3 silu norm u0", "conv 6>6 4x3 rep norm u0",
        "conv 6>6 4x3 k3 silu + norm u0", f"conv {channels}>6 4x3 silu norm skip u0", "concat 12>12 4x3",
        "conv 12>12 4x3 silu norm u0", "conv 12>12 4x3 k3 silu norm u0",
    ]  # fmt: skip


START = ["conv 16>20 4x3 k3 s2 silu norm u0", "conv 20>16 4x3 silu norm u0", "slice 16>16 4x3"]
END = ["concat 40>40 4x3", "conv 40>24 4x3 silu norm u0"]


def test_stages_of_yolov9_are_written_out() -> None:
    assert lines(GELAN(24, 20, 16, 12, 0, down="conv")) == [
        *START, "conv 8>12 4x3 k3 silu norm u0", "conv 12>12 4x3 k3 silu norm u0", *END,
    ]  # fmt: skip
    assert lines(GELAN(24, 20, 16, 12, 1)) == ["avgpool 16>16 7x5 k2", *START, *branch(8), *branch(12), *END]
    assert lines(GELAN(24, 20, 16, 12, 0, down="adown"))[:6] == [
        "avgpool 16>16 7x5 k2", "slice 16>16 7x5", "conv 8>10 4x3 k3 s2 silu norm u0", "maxpool 8>8 4x3 k3 s2",
        "conv 8>10 4x3 silu norm skip u0", "concat 20>20 4x3",
    ]  # fmt: skip
    assert len(lines(GELAN(24, 20, 16, 12, 3))) == len(lines(GELAN(24, 20, 16, 12, 1))) + 2 * 2 * 3


def test_stages_of_yolo11_are_written_out() -> None:
    unit = ["conv 8>4 4x3 k3 silu norm u0", "conv 4>8 4x3 k3 silu + norm u0"]
    assert lines(C3k2(24, 20, 8, 2)) == [*START, *unit, *unit, "concat 32>32 4x3", "conv 32>24 4x3 silu norm u0"]
    inner = ["conv 4>4 4x3 k3 silu norm u0", "conv 4>4 4x3 k3 silu + norm u0"]
    assert lines(C3k2(24, 20, 8, 1, c3k=True)) == [
        *START, "conv 8>4 4x3 silu norm u0", *inner, *inner, "conv 8>4 4x3 silu norm skip u0", "concat 8>8 4x3",
        "conv 8>8 4x3 silu norm u0", "concat 24>24 4x3", "conv 24>24 4x3 silu norm u0",
    ]  # fmt: skip


def test_attention_is_two_products_of_matrices_a_head() -> None:
    attention = [
        "conv 128>256 8x6 norm u0", "slice 256>256 8x6", "elementwise 2>2 48x32", "matmul 32>48 48x1 g2",
        "softmax 2>2 48x48", "matmul 48>48 64x1 g2", "conv 128>128 8x6 k3 g128 + norm skip u0",
        "conv 128>128 8x6 + norm u0", "conv 128>256 8x6 silu norm u0", "conv 256>128 8x6 + norm u0",
    ]  # fmt: skip
    ends = (
        ["conv 256>256 8x6 silu norm u0", "slice 256>256 8x6"],
        ["concat 256>256 8x6", "conv 256>256 8x6 silu norm u0"],
    )
    for depth in (1, 2):
        assert lines(C2PSA(256, depth), 256) == [*ends[0], *attention * depth, *ends[1]]
    assert [attention_heads(width) for width in (8, 64, 127, 128, 320)] == [1, 1, 1, 2, 5]
    assert not C2PSA.carries_pyramid and C2PSA.keeps_width and C3k2.carries_pyramid and not C3k2.keeps_width


def test_widths_of_the_input_that_a_block_cannot_take_are_told() -> None:
    C2PSA(256).require_input(256)
    GELAN(24, 20, 16, 12, 0, down="adown").require_input(16)
    GELAN(24, 20, 16, 12, 0).require_input(17)
    with pytest.raises(SpecError, match="C2PSA keeps the width of its input, 128, got out=256"):
        C2PSA(256).require_input(128)
    with pytest.raises(SpecError, match="an adown splits its input in halves, its width 17 must be even"):
        GELAN(24, 20, 16, 12, 0, down="adown").require_input(17)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GELAN(24, 0, 16, 12, 0), "GELAN.entry must be"),
        (lambda: GELAN(24, 20, 15, 12, 0), "GELAN.hidden must be even and GELAN.stride 2"),
        (lambda: GELAN(24, 20, 16, 12, 0, 1), "GELAN.hidden must be even and GELAN.stride 2"),
        (lambda: GELAN(24, 20, 16, 12, -1), "GELAN.depth must be 0"),
        (lambda: GELAN(24, 20, 16, 12, True), "GELAN.depth must be 0"),
        (lambda: GELAN(24, 20, 16, 12, 100_001), "GELAN.depth must be 0"),
        (lambda: GELAN(24, 20, 16, 1, 1), "GELAN.inner must be at least 2"),
        (lambda: GELAN(24, 21, 16, 12, 0, down="adown"), "GELAN.entry must be even with down=adown, got 21"),
        (lambda: GELAN(24, 20, 16, 12, 0, down="pool"), "GELAN.down must be one of conv, aconv, adown, got 'pool'"),
        (lambda: C3k2(24, 20, 1, 1), "C3k2.hidden must be at least 2, got 1"),
        (lambda: C3k2(24, 20, 3, 1, c3k=True), "C3k2.hidden must be at least 4, got 3"),
        (lambda: C3k2(24, 20, 8, 1, 1), "C3k2.stride must be 2"),
        (lambda: C3k2(24, 20, 8, 1, c3k=0), "C3k2.c3k must be true or false"),
        (lambda: C2PSA(255), "C2PSA.stride must be 1 and C2PSA.out even"),
        (lambda: C2PSA(256, 1, 2), "C2PSA.stride must be 1 and C2PSA.out even"),
        (lambda: C2PSA(256, 0), "C2PSA.depth must be"),
        (lambda: C2PSA(386), "C2PSA.out=386: its 3 heads do not divide 193 channels"),
    ],
)
def test_what_no_stage_can_be_is_told(make: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        make()
    least = GELAN(2, 2, 2, 1, 0), GELAN(2, 2, 2, 2, 100_000), C3k2(1, 1, 2, 1), C3k2(1, 1, 4, 1, c3k=True), C2PSA(2)
    assert [block.out for block in least] == [2, 2, 1, 1, 2]
