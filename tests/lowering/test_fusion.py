"""Graphs of a few layers, written by hand: which kernels they become, what each reads and writes, and the memory they need."""

from __future__ import annotations

from typing import Any

import pytest

from nas.blocks.operation import Operation
from nas.lowering.fusion import Node, fuse_graph, peak_values

MAP = (1, 8, 20, 20)


def node(kind: str, *inputs: int, shape: tuple[int, ...] = MAP, reads: Any = None, **more: Any) -> Node:
    """A layer that reads maps as large as the one that it writes, unless `reads` has their shapes."""
    return Node(kind, inputs, tuple(reads) if reads else (shape,) * len(inputs), shape, **more)


def conv(*inputs: int, **more: Any) -> Node:
    return node("conv", *inputs, kernel=3, **more)


def kinds(nodes: list[Node], outputs: tuple[int, ...] = ()) -> list[str]:
    return [op.kind for op in fuse_graph(nodes, outputs)]


CONV = Operation("conv", 8, 8, 20, 20, 20, 20, 3)


def one(*nodes: Node) -> Operation:
    """The only kernel of a graph."""
    (operation,) = fuse_graph(nodes)
    return operation


def test_a_convolution_takes_norm_scale_activation_and_sum() -> None:
    whole = one(conv(-1), node("batchnorm", 0), node("mul", 1, constant=1), node("silu", 2), node("add", 3, -1))
    assert (whole.norm, whole.scalars, whole.activation, whole.fused_add) == (True, 1, "silu", True)
    assert (whole.in_channels, whole.kernel, whole.weights) == (8, 3, 576)
    first = one(conv(-1), node("add", 0, -1), node("relu", 1))
    assert first.fused_add and first.activation == "relu"
    assert one(conv(-1), node("add", 0, constant=8)).scalars == 8
    assert one(conv(-1), node("mul", 0, constant=1), node("mul", 1, constant=8)).scalars == 9
    assert one(conv(-1), node("reshape", 0), node("sigmoid", 1)).activation == "sigmoid"


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ([node("relu", 0), node("add", 1, -1)], ["conv", "add"]),  # after a ReLU the sum is a kernel of its own
        ([node("silu", 0), node("silu", 1)], ["conv", "silu"]),
        ([node("add", 0, -1), node("add", 1, -1)], ["conv", "add"]),
        ([node("tanh", 0)], ["conv", "tanh"]),
        ([node("silu", 0), node("batchnorm", 1)], ["conv", "batchnorm"]),
        ([node("batchnorm", 0), node("batchnorm", 1)], ["conv", "batchnorm"]),
        ([node("silu", 0), node("mul", 1, constant=8)], ["conv", "mul"]),
        ([node("mul", 0, constant=5)], ["conv", "mul"]),  # neither one number nor one a channel
        ([node("add", 0, -1, reads=(MAP, (1, 8, 1, 1)))], ["conv", "add"]),
        ([node("silu", 0), node("concat", 0, 1, shape=(1, 16, 20, 20), reads=(MAP, MAP))], ["conv", "silu", "concat"]),
    ],
)
def test_what_a_convolution_does_not_take(rest: list[Node], expected: list[str]) -> None:
    assert kinds([conv(-1), *rest]) == expected


def test_what_leads_to_no_output_is_dropped() -> None:
    nodes = [conv(-1), node("silu", 0), conv(0), node("tanh", 2)]
    assert kinds(nodes) == ["conv", "silu", "conv", "tanh"] and kinds(nodes, (1,)) == ["conv"]
    assert fuse_graph(nodes, (1,))[0].activation == "silu"  # it is the only reader that is left
    assert kinds(nodes, (1, 2)) == ["conv", "silu", "conv"]


def test_the_preparation_of_the_image_costs_nothing() -> None:
    assert kinds([node("div", -1, constant=1), conv(0)]) == ["conv"]
    assert kinds([node("sub", -1), node("mul", -1), conv(0)]) == ["conv"]
    assert kinds([node("exp", -1), conv(0)]) == ["exp", "conv"]


def test_products_of_matrices_and_linear_layers() -> None:
    product = Node("matmul", (-1, -1), ((1, 4, 100, 32), (1, 4, 32, 50)), (1, 4, 100, 50))
    assert one(product) == Operation("matmul", 32, 50, 100, 1, 100, 1, groups=4)
    assert (one(product).macs, one(product).reads, one(product).writes) == (640_000, 4 * 32 * 150, 20_000)
    linear = Node("linear", (-1,), ((1, 100, 32),), (1, 100, 64), bias=True)
    assert one(linear) == Operation("linear", 32, 64, 100, 1, 100, 1, bias=True)
    assert one(linear, Node("gelu", (0,), ((1, 100, 64),), (1, 100, 64))).activation == "gelu"


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 8, 20, 20), (8, 20, 20)),
        ((1, 8, 20, 80), (8, 20, 80)),
        ((1, 8, 20, 81), (160, 81, 1)),  # longer than four times its width: no map
        ((1, 4000, 7, 9), (4000, 7, 9)),
        ((1, 4033, 7, 9), (63, 4033, 1)),  # more than 64 channels a cell
        ((1, 9999, 1, 1), (9999, 1, 1)),  # squares stay maps
        ((2, 8, 20, 20), (320, 20, 1)),
        ((1, 300, 8), (8, 300, 1)),
        ((300, 8), (8, 300, 1)),
        ((1, 12), (12, 1, 1)),
        ((12,), (12, 1, 1)),
    ],
)
def test_what_is_no_map_has_its_longest_side_as_cells(shape: tuple[int, ...], layout: tuple[int, int, int]) -> None:
    found = one(Node("tanh", (-1,), (shape,), shape))
    assert (found.out_channels, found.height, found.width) == layout and found.reads == found.writes


def test_layers_that_move_read_what_they_write_and_sums_all_that_they_add() -> None:
    half = (1, 4, 20, 20)
    assert one(Node("split", (-1,), (MAP,), half)) == Operation("slice", 4, 4, 20, 20, 20, 20)
    assert one(Node("expand", (-1,), ((1, 8, 1, 1),), MAP)).kind == "slice"
    assert one(Node("gather", (-1,), (MAP,), half)) == Operation("gather", 4, 4, 20, 20, 20, 20)
    joined = Node("concat", (-1, -1), (MAP, half), (1, 12, 20, 20))
    assert one(joined) == Operation("concat", 12, 12, 20, 20, 20, 20)
    assert one(Node("add", (-1, -1), (MAP, MAP), MAP)).in_channels == 16
    assert one(Node("mul", (-1, -1), (MAP, (1, 8, 1, 1)), MAP)).in_channels == 8  # a gate is next to nothing
    pooled = Node("maxpool", (-1,), (MAP,), (1, 8, 10, 10), kernel=2, stride=2)
    assert one(pooled) == Operation("maxpool", 8, 8, 10, 10, 20, 20, 2, 2)


def test_pointwise_layers_that_hang_together_are_one_kernel() -> None:
    chain = [node("exp", -1), node("mul", 0, -1), node("tanh", 1)]
    assert one(*chain) == Operation("elementwise", 8, 8, 20, 20, 20, 20)
    assert kinds([node("exp", -1), conv(-1), node("mul", 0, 1)]) == ["exp", "conv", "mul"]  # one half comes later
    ends = [node("exp", -1), node("mul", 0, -1), conv(0), conv(1)]
    both, *_ = fuse_graph(ends)
    assert (both.kind, both.in_channels, both.out_channels) == ("elementwise", 8, 16)  # two results are written
    for small in ((1, 8, 1, 1), (1, 2, 20, 20)):  # up to a quarter of the largest is next to nothing
        assert one(node("exp", -1), node("mul", 0, -1, reads=(MAP, small))).in_channels == 8
    assert one(node("exp", -1), node("mul", 0, -1, reads=(MAP, (1, 3, 20, 20)))).in_channels == 11
    joined = [node("exp", -1), node("log", 0), node("concat", 0, 1, shape=(1, 16, 20, 20), reads=(MAP, MAP))]
    assert one(*joined) == Operation("elementwise", 8, 16, 20, 20, 20, 20)
    other = [node("exp", -1), conv(-1), node("concat", 0, 1, shape=(1, 16, 20, 20), reads=(MAP, MAP))]
    assert kinds(other) == ["exp", "conv", "concat"]


def test_moves_are_free_where_pointwise_kernels_read_them() -> None:
    half = (1, 4, 20, 20)
    cut = [conv(-1), Node("slice", (0,), (MAP,), half), Node("tanh", (1,), (half,), half)]
    assert kinds(cut) == ["conv", "tanh"]
    assert kinds([*cut[:2], conv(1, shape=half)]) == ["conv", "slice", "conv"]
    assert kinds(cut[:2]) == ["conv", "slice"]
    turned = Node("transpose", (0,), (MAP,), MAP)
    assert kinds([conv(-1), turned]) == ["conv"] and kinds([conv(-1), turned, node("exp", 1)]) == ["conv", "exp"]
    assert kinds([conv(-1), turned, conv(1)]) == ["conv", "transpose", "conv"]
    product = node("matmul", 1, -1)
    assert kinds([conv(-1), turned, product]) == ["conv", "matmul"]
    after = [node("matmul", -1, -1), turned, conv(1)]
    assert kinds(after) == ["matmul", "conv"]


def test_four_slices_of_one_image_are_one_space_to_depth() -> None:
    image, quarter, stacked = (1, 3, 64, 64), (1, 3, 32, 32), (1, 12, 32, 32)
    focus = Operation("slice", 3, 12, 32, 32, 64, 64, 2, 2)
    slices = [Node("slice", (-1,), (image,), quarter) for _ in range(4)]
    assert one(*slices, Node("concat", (0, 1, 2, 3), (quarter,) * 4, stacked)) == focus
    source = Node("identity", (-1,), (image,), image)
    cut = [Node("slice", (0,), (image,), quarter) for _ in range(4)]
    assert one(source, *cut, Node("concat", (1, 2, 3, 4), (quarter,) * 4, stacked)) == focus
    two = [source, *cut[:3], slices[0], Node("concat", (1, 2, 3, 4), (quarter,) * 4, stacked)]
    assert kinds(two) == ["slice"] * 4 + ["concat"]
    bare = [source, *cut[:3], Node("concat", (1, 2, 3, -1), (quarter,) * 4, stacked)]
    assert kinds(bare) == ["slice"] * 3 + ["concat"]
    fewer = [source, *cut[:3], Node("concat", (1, 2, 3), (quarter,) * 3, (1, 9, 32, 32))]
    assert kinds(fewer) == ["slice"] * 3 + ["concat"]


def test_the_expectation_of_a_softmax_is_one_kernel() -> None:
    bins, cells = (1, 16, 4, 400), (1, 1, 4, 400)
    softmax = Node("softmax", (-1,), (bins,), bins)
    sums = Node("conv", (0,), (bins,), cells)
    first, second = fuse_graph([softmax, sums])
    assert (first.kind, second) == ("softmax", Operation("integral", 16 * 4, 4, 400, 1, 400, 1, scalars=16))
    weighed = [softmax, Node("mul", (0,), (bins,), bins), Node("reduce", (1,), (bins,), cells)]
    assert [op.kind for op in fuse_graph(weighed)] == ["softmax", "integral"]
    assert fuse_graph(weighed)[1].scalars == 0 and fuse_graph(weighed)[1].in_channels == 64
    moved = [softmax, Node("transpose", (0,), (bins,), bins), Node("conv", (1,), (bins,), cells)]
    assert [op.kind for op in fuse_graph(moved)] == ["softmax", "transpose", "integral"]
    assert kinds([node("exp", -1, shape=bins), Node("conv", (0,), (bins,), cells)]) == ["exp", "conv"]
    assert kinds([softmax, Node("conv", (0,), (bins,), (1, 2, 4, 400))]) == ["softmax", "conv"]
    assert kinds([softmax, Node("mul", (0,), (bins,), bins)]) == ["softmax", "mul"]


def test_memory_is_what_is_alive_together() -> None:
    size = 8 * 20 * 20
    assert peak_values([conv(-1)], [0]) == 2 * size
    assert peak_values([conv(-1), node("silu", 0), node("batchnorm", 1)], [2]) == 2 * size  # in place
    beside = [conv(-1), node("silu", 0), node("concat", 0, 1, shape=(1, 16, 20, 20), reads=(MAP, MAP))]
    assert peak_values(beside, [2]) == 3 * size  # the activation is no map of its own
    assert (
        peak_values([node("reshape", -1), conv(0), conv(1), conv(0)], [2, 3]) == 3 * size
    )  # nor is a view of the image
    assert peak_values([conv(-1), conv(0), conv(1)], [2]) == 2 * size  # the image and what is read are given back
    kept = [conv(-1), conv(0), node("concat", 0, 1, shape=(1, 16, 20, 20), reads=(MAP, MAP))]
    assert peak_values(kept, [2]) == 4 * size
    assert peak_values(kept, [0, 2]) == 4 * size
    assert peak_values([conv(-1), conv(0), conv(1)], [0, 2]) == 3 * size  # an output stays
    residual = [conv(-1), conv(0), node("add", 1, 0)]
    assert peak_values(residual, [2]) == 2 * size  # written over a term that nothing else reads
    again = [conv(-1), conv(0), node("add", 0, 1), conv(1), conv(0), node("add", 3, 4), node("add", 5, 2)]
    assert peak_values(again, [6]) == 4 * size
    assert peak_values([conv(-1), conv(-1), conv(0)], [1, 2]) == 3 * size  # the image is read twice
    wide = Node("conv", (0,), (MAP,), (1, 80, 20, 20))
    assert peak_values([conv(-1), wide, Node("split", (1,), (wide.out_shape,), MAP), conv(2)], [3]) == 11 * size
