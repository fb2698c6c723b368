"""What blocks are made of, operation by operation, and what one operation counts, reads and writes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from nas.blocks.base import MOST, Block, second_unit
from nas.blocks.csp import CSP
from nas.blocks.inverted import InvertedResidual
from nas.blocks.operation import (
    Operation,
    convolution,
    divisible,
    halved,
    in_form,
    main_convolutions,
    pointwise,
    pooling,
    pyramid_operations,
    upsampling,
)
from nas.blocks.residual import Plain, Residual, squeeze_width
from nas.errors import SpecError


def told(op: Operation) -> str:
    """An operation in words: kind, channels, output map; then what is not the default."""
    words = [f"{op.kind} {op.in_channels}>{op.out_channels} {op.height}x{op.width}"]
    words += (
        [f"k{op.kernel}"] * (op.kernel != 1)
        + [f"s{op.stride}"] * (op.stride != 1)
        + [f"g{op.groups}"] * (op.groups != 1)
    )
    words += [op.activation] * (op.activation != "none") + ["+"] * op.fused_add + [op.branch] * bool(op.branch)
    words += (
        ["norm"] * op.norm + ["bias"] * op.bias + [op.role] * (op.role != "main") + [f"u{op.unit}"] * (op.unit >= 0)
    )
    return " ".join(words)


def lines(block: Block, channels: int = 16, reparam: bool = False) -> list[str]:
    return [told(op) for op in block.operations(channels, (9, 6), "silu", reparam)]


def test_an_operation_counts_what_it_holds_reads_and_writes() -> None:
    conv = Operation("conv", 12, 20, 10, 6, 20, 12, 3, 2, 4, norm=True, bias=True, scalars=1)
    assert (conv.weights, conv.params, conv.macs) == (9 * 3 * 20, 540 + 60 + 1, 540 * 60)
    assert (conv.fan_in, conv.reads, conv.writes) == (27, 12 * 240, 20 * 60)
    product = Operation("matmul", 8, 5, 7, 1, 7, 1, groups=3)
    assert (product.macs, product.reads, product.writes) == (3 * 7 * 8 * 5, 3 * 8 * (7 + 5), 3 * 7 * 5)
    assert product.weights == product.params == 0
    pool = pooling("maxpool", 8, (9, 6), 3, 2)
    assert (pool.macs, pool.reads, pool.writes, pool.height, pool.width) == (0, 8 * 54, 8 * 15, 5, 3)
    with pytest.raises(FrozenInstanceError):
        pool.kernel = 5  # type: ignore[misc]
    assert conv == Operation(
        "conv", 12, 20, 10, 6, 20, 12, 3, 2, 4, norm=True, bias=True, scalars=1, role="neck", unit=2
    )


def test_small_makers_of_operations() -> None:
    dense, branch = convolution(8, 16, (9, 6), 3, 2, activation="relu", fused_add=True, rep=True, role="neck", unit=1)
    assert told(dense) == "conv 8>16 5x3 k3 s2 relu + norm neck u1"
    assert told(branch) == "conv 8>16 5x3 s2 rep norm neck u1" and (branch.in_height, branch.in_width) == (9, 6)
    assert told(*convolution(8, 8, (4, 4), 5, groups=8, norm=False, bias=True)) == "conv 8>8 4x4 k5 g8 bias"
    assert told(pooling("avgpool", 8, (9, 6), 2)) == "avgpool 8>8 9x6 k2"
    up = upsampling(8, (9, 6))
    assert (told(up), up.in_height, up.in_width) == ("upsample 8>8 18x12 neck", 9, 6)
    assert halved((9, 6), 2) == (5, 3) and halved((9, 6), 1) == (9, 6)
    assert [told(op) for op in pyramid_operations(16, 8, (9, 6), (5, 9))] == [
        "conv 16>8 9x6 silu norm spp", "maxpool 8>8 9x6 k5 spp", "maxpool 8>8 9x6 k9 spp", "concat 24>24 9x6 spp",
        "conv 24>16 9x6 silu norm spp",
    ]  # fmt: skip
    assert [divisible(value) for value in (0, 3, 11.9, 12, 17, 20, 77, 100.8)] == [8, 8, 16, 16, 16, 24, 80, 104]


def test_forms_merge_branches_and_fold_norms() -> None:
    made = [*convolution(8, 16, (9, 6), 3, rep=True), *convolution(16, 4, (9, 6)), pointwise("add", 4, 4, (9, 6))]
    assert in_form(made, "train") == tuple(made)
    assert [told(op) for op in in_form(made, "merged")] == [
        "conv 8>16 9x6 k3 bias",
        "conv 16>4 9x6 norm",
        "add 4>4 9x6",
    ]
    assert [told(op) for op in in_form(made, "folded")] == [
        "conv 8>16 9x6 k3 bias",
        "conv 16>4 9x6 bias",
        "add 4>4 9x6",
    ]
    with pytest.raises(SpecError, match="unknown form 'fused'; known: train, merged, folded"):
        in_form(made, "fused")  # type: ignore[arg-type]


def test_the_main_path_is_what_depth_reading_scores_see() -> None:
    operations = Residual("k1dwsek1", 16, 24, 1, 1).operations(16, (9, 6), "silu", False)
    stem = convolution(3, 16, (9, 6), role="stem")
    assert [op.in_channels for op in main_convolutions([*stem, *operations])] == [3, 16, 24, 24]
    branches = Residual("k1kx", 16, 8, 1, 1).operations(16, (9, 6), "silu", True)
    assert [op.kernel for op in main_convolutions(branches)] == [1, 3] and len(branches) == 3


CASES: list[tuple[Block, list[str]]] = [
    (Plain(24, 3, 2), ["conv 16>24 5x3 k3 s2 silu norm u0"]),
    (
        Residual("k1kx", 24, 8, 2, 2),  # DAMO-YOLO adds at stride 1 alone
        ["conv 16>8 9x6 silu norm u0", "conv 8>24 5x3 k3 s2 silu norm u0",
         "conv 24>8 5x3 silu norm u1", "conv 8>24 5x3 k3 silu + norm u1"],
    ),
    (
        Residual("k1kx", 24, 8, 1, 2, 5, "pooled"),  # TinyNAS pools and projects its shortcut
        ["conv 16>8 9x6 silu norm u0", "conv 8>24 5x3 k5 s2 silu + norm u0", "avgpool 16>16 5x3 k2 s2 skip",
         "conv 16>24 5x3 norm skip u0"],
    ),
    (Residual("kxkx", 16, 8, 1, 1), ["conv 16>8 9x6 k3 silu norm u0", "conv 8>16 9x6 k3 silu + norm u0"]),
    (
        Residual("k1kxk1", 16, 8, 1, 1, shortcut="pooled"),  # projects in its first unit even at equal widths
        ["conv 16>8 9x6 silu norm u0", "conv 8>8 9x6 k3 silu norm u0", "conv 8>16 9x6 silu + norm u0",
         "conv 16>16 9x6 norm skip u0"],
    ),
    (
        Residual("k1dwk1", 24, 8, 1, 1, shortcut="pooled"),  # depthwise kinds add at equal widths alone
        ["conv 16>8 9x6 silu norm u0", "conv 8>8 9x6 k3 g8 silu norm u0", "conv 8>24 9x6 silu norm u0"],
    ),
    (
        Residual("k1dwsek1", 16, 64, 1, 2, shortcut="pooled"),
        ["conv 16>64 9x6 silu norm u0", "conv 64>64 5x3 k3 s2 g64 silu norm u0", "globalpool 64>64 1x1 se",
         "conv 64>16 1x1 silu norm se", "conv 16>64 1x1 sigmoid norm se", "mul 64>64 5x3 se",
         "conv 64>16 5x3 silu + norm u0", "avgpool 16>16 5x3 k2 s2 skip"],
    ),
    (
        CSP(32, 8, 1),
        ["conv 16>32 5x3 k3 s2 relu norm", "conv 32>16 5x3 relu norm skip", "conv 32>16 5x3 relu norm",
         "conv 16>8 5x3 k3 silu norm u0", "conv 8>16 5x3 k3 silu + norm u0", "concat 32>32 5x3", "conv 32>32 5x3 relu norm"],
    ),
    (
        InvertedResidual(16, 40, 2, 2),
        ["conv 16>40 9x6 silu norm u0", "conv 40>40 5x3 k5 s2 g40 silu norm u0", "conv 40>16 5x3 norm u0",
         "conv 16>40 5x3 silu norm u1", "conv 40>40 5x3 k5 g40 silu norm u1", "conv 40>16 5x3 + norm u1"],
    ),
    (
        InvertedResidual(24, 40, 1, 1, 3, squeeze_excite=True),
        ["conv 16>40 9x6 silu norm u0", "conv 40>40 9x6 k3 g40 norm u0", "globalpool 40>40 1x1 se",
         "linear 40>10 1x1 relu se", "linear 10>40 1x1 hard_sigmoid se", "elementwise 40>40 9x6 se", "conv 40>24 9x6 norm u0"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("block", "expected"), CASES, ids=lambda value: type(value).__name__)
def test_residual_blocks_are_written_out(block: Block, expected: list[str]) -> None:
    assert lines(block) == expected


def test_a_branch_stands_beside_the_last_square_convolution_of_a_unit() -> None:
    assert lines(Residual("k1kx", 16, 8, 1, 1), reparam=True)[1:] == [
        "conv 8>16 9x6 k3 silu + norm u0", "conv 8>16 9x6 rep norm u0",
    ]  # fmt: skip
    assert lines(Residual("k1kxk1", 16, 8, 1, 1), reparam=True)[1:3] == [
        "conv 8>8 9x6 k3 silu norm u0", "conv 8>8 9x6 rep norm u0",
    ]  # fmt: skip
    assert not any("rep" in line for line in lines(Residual("k1dwk1", 16, 8, 1, 1), reparam=True))


def test_where_a_pyramid_stands() -> None:
    for block, index in ((Residual("k1kx", 24, 8, 2, 2), 2), (Residual("k1kx", 24, 8, 1, 2), 2), (CSP(32, 8, 1), 1),
                         (InvertedResidual(16, 40, 2, 2), 3), (Plain(24), 1)):  # fmt: skip
        operations = block.operations(16, (9, 6), "silu", False)
        assert block.spp_index(operations) == index
    assert second_unit([]) == 0
    assert [squeeze_width(channels) for channels in (8, 32, 64, 92, 96, 100)] == [8, 8, 16, 16, 24, 24]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Plain(0), "Plain.out must be a positive integer of at most 100,000, got 0"),
        (lambda: Plain(MOST + 1), "Plain.out must be"),
        (lambda: Plain(8.0), "Plain.out must be"),
        (lambda: Plain(True), "Plain.out must be"),
        (lambda: Plain(8, stride=3), "Plain.stride must be 1 or 2, got 3"),
        (lambda: Plain(8, stride=0), "Plain.stride must be a positive integer"),
        (lambda: Plain(8, 4), "Plain.kernel must be an odd positive integer, got 4"),
        (lambda: Plain(8, -1), "Plain.kernel must be an odd"),
        (lambda: Plain(8, 3.0), "Plain.kernel must be an odd"),
        (lambda: Residual("k3", 8, 8, 1, 1), "Residual.kind must be one of k1kx, kxkx, k1kxk1, k1dwk1, k1dwsek1, got 'k3'"),
        (lambda: Residual("k1kx", 8, 0, 1, 1), "Residual.bottleneck must be"),
        (lambda: Residual("k1kx", 8, 8, 0, 1), "Residual.depth must be"),
        (lambda: Residual("k1kx", 8, 8, 1, 1, shortcut="none"), "Residual.shortcut must be one of pooled, stride1"),
        (lambda: CSP(33, 8, 1), "CSP.out must be even, got 33"),
        (lambda: CSP(32, 8, 1, 1), "CSP.stride must be 2"),
        (lambda: CSP(32, 8, 1, kind="k1dwk1"), "CSP.kind must be one of k1kx, kxkx"),
        (lambda: InvertedResidual(8, 0, 1, 1), "InvertedResidual.hidden must be"),
        (lambda: InvertedResidual(8, 8, 1, 1, squeeze_excite=1), "squeeze_excite must be true or false, got 1"),
    ],
)  # fmt: skip
def test_what_no_block_can_be_is_told(make: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        make()
    assert Plain(MOST).out == MOST and Plain(1, 1, 1).depth == 1
