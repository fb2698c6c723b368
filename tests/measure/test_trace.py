"""Traced modules are what their specs lower to, and any torch module can be traced."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.files import load_spec
from nas.lowering import Operation, operations
from nas.lowering.fusion import Node, fuse_graph
from nas.measure.trace import trace_operations
from nas.models.build import build_model
from nas.models.detector import build_detector
from nas.spec import CSP, Backbone, DetectorSpec, HeadSpec, InvertedResidual, NeckSpec, Residual, Stem
from search_spaces.published import load_published, published_names


class Sequence(nn.Module):
    """A module around a plain function."""

    def __init__(self, function, **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> object:
        return self.function(self, x)


def kernel_fields(operation: Operation) -> tuple:
    return replace(operation, role="main", unit=-1), operation.bias, operation.scalars


def assert_equal(spec: DetectorSpec) -> None:
    lowered = operations(spec, "folded")
    traced = trace_operations(build_detector(spec), spec.image_size)
    assert [kernel_fields(op) for op in traced] == [kernel_fields(op) for op in lowered]


@pytest.mark.parametrize("size", ["t", "s", "m", "l", "ns", "nm", "nl"])
def test_published_detectors_trace_to_their_lowering(size: str) -> None:
    spec = load_published(f"damo-yolo-{size}")
    assert isinstance(spec, DetectorSpec)
    assert_equal(replace(spec, image_size=320))


@pytest.mark.parametrize("name", [name for name in published_names() if not name.startswith("damo-yolo")])
def test_published_backbones_trace_to_their_lowering(name: str) -> None:
    spec = load_published(name)
    assert isinstance(spec, Backbone)
    traced = trace_operations(build_model(spec), 128)
    assert [kernel_fields(op) for op in traced] == [kernel_fields(op) for op in operations(spec, "folded", 128)]


def random_detector(seed: int) -> DetectorSpec:
    """A random detector over every residual family, stem, shortcut and neck style."""
    choose = random.Random(seed)
    width = lambda low, high: 8 * choose.randint(low // 8, high // 8)  # noqa: E731
    kind = choose.choice(["k1kx", "kxkx", "k1kxk1", "k1dwk1", "k1dwsek1", "csp", "inverted"])
    shortcut = choose.choice(["pooled", "stride1"])
    blocks: list = []
    for stride in (2, 2, 2, 1, 2):
        out, depth, kernel = width(32, 128), choose.randint(1, 3), choose.choice([3, 5])
        if kind == "csp" and stride == 2:
            blocks.append(CSP(2 * (out // 2), width(16, 64), depth, 2, 3))
        elif kind == "inverted":
            blocks.append(InvertedResidual(out, width(32, 160), depth, stride, kernel, choose.random() < 0.3))
        else:
            residual = "kxkx" if kind == "csp" else kind
            blocks.append(Residual(residual, out, width(16, 96), depth, stride, kernel, shortcut))
    backbone = Backbone(
        Stem(choose.choice(["conv", "focus"]), width(16, 48)),
        tuple(blocks),
        (1, 3, 4),
        spp=choose.choice(["none", "spp"]),
        activation=choose.choice(["relu", "silu"]),
        reparam=choose.random() < 0.5,
    )
    depthwise = choose.random() < 0.3
    neck = NeckSpec(
        out=(width(32, 96), width(32, 96), width(32, 96)),
        depth=choose.randint(0, 3),
        activation=choose.choice(["relu", "silu"]),
        depthwise=depthwise,
        fusion="elan" if depthwise else choose.choice(["conv", "csp", "csp_rep", "elan"]),
        extra_down=choose.random() < 0.7,
        extra_up=choose.random() < 0.3,
    )
    head = HeadSpec(num_classes=choose.randint(1, 90), stacked=choose.randint(0, 1))
    return DetectorSpec(backbone, neck, head, 32 * choose.randint(4, 8))


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 24))])
def test_random_detectors_trace_to_their_lowering(seed: int) -> None:
    assert_equal(random_detector(seed))


@pytest.mark.benchmark
@pytest.mark.parametrize("seed", range(24, 224))
def test_two_hundred_more_random_detectors_trace_to_their_lowering(seed: int) -> None:
    assert_equal(random_detector(seed))


@pytest.mark.parametrize("name", ["yolo11n", "yolov7", "yolov9t", "yolov5n"])
def test_hand_drawn_detectors_cost_what_their_exported_lists_cost(name: str) -> None:
    from experiments.t4_calibration.__main__ import read_operations

    exported = {"yolov5n": "yolov5nu", "yolov9t": "yolov9_t_published"}.get(name, name)
    table = LatencyTable.load("t4_tensorrt_fp16")
    traced = table.total(trace_operations(build_model(name), 640)).ms
    assert traced == pytest.approx(table.total(read_operations(exported)).ms, rel=0.02)


def test_the_module_is_left_alone() -> None:
    model = build_detector(load_published("damo-yolo-ns"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    trace_operations(model, 128)
    assert model.training and all(part.training for part in model.modules())
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_branches_count_apart_when_a_module_is_counted_as_it_stands() -> None:
    model = build_detector(load_published("damo-yolo-t"))
    standing = trace_operations(model, 160, fuse=False)
    assert sum(op.params for op in standing) == sum(p.numel() for p in model.parameters())
    merged = model.merge()
    standing = trace_operations(merged, 160, fuse=False)
    assert sum(op.params for op in standing) == sum(p.numel() for p in merged.parameters())


def test_loops_views_and_mixed_devices_trace() -> None:
    def body(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = functional.silu(module.conv(x)) + x
        grid = torch.arange(x.shape[-1]) * 2.0
        return (x * grid).flatten(1)

    traced = trace_operations(Sequence(body, conv=nn.Conv2d(3, 3, 3, padding=1)), 16)
    assert [op.kind for op in traced] == ["conv", "conv", "conv", "mul"]
    assert all(op.activation == "silu" and op.fused_add for op in traced[:3])


def test_attention_matrix_products_and_transposed_convolutions() -> None:
    def body(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = module.up(x)
        rows = x.flatten(2).transpose(1, 2)
        heads = module.qkv(rows).reshape(1, -1, 3, 2, 8).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*heads)
        return rows + mixed.transpose(1, 2).flatten(2)

    traced = trace_operations(Sequence(body, up=nn.ConvTranspose2d(3, 16, 2, 2), qkv=nn.Linear(16, 48)), 8)
    kinds = [op.kind for op in traced]
    assert kinds.count("matmul") == 2 and kinds.count("softmax") == 1 and kinds.count("linear") == 1
    assert (traced[0].kind, traced[0].macs, traced[0].weights) == ("conv", 8 * 8 * 3 * 16 * 4, 3 * 16 * 4)
    product = next(op for op in traced if op.kind == "matmul")
    assert product.macs == 2 * 256 * 256 * 8


def test_errors_name_what_stands_against_tracing() -> None:
    with pytest.raises(UserError, match="_fft_r2c"):
        trace_operations(Sequence(lambda m, x: torch.fft.rfft(x)), 8)
    with pytest.raises(UserError, match="cannot trace Sequence at 8x8: DataDependentOutput"):
        trace_operations(Sequence(lambda m, x: x * x.sum().item()), 8)
    with pytest.raises(UserError, match="must be square"):
        trace_operations(nn.Conv2d(3, 4, (1, 3)), 8)
    with pytest.raises(UserError, match="nothing that depends on the image"):
        trace_operations(Sequence(lambda m, x: torch.zeros(3)), 8)
    traced = trace_operations(Sequence(lambda m, x: torch.fft.rfft(x).abs()), 8, allow_unknown=True)
    assert traced


def test_fusion_rules() -> None:
    image, wide = (1, 8, 4, 4), (1, 16, 4, 4)
    conv = Node("conv", (-1,), (image,), image, 3)
    relu_then_sum = [conv, Node("relu", (0,), (image,), image), Node("add", (1, -1), (image, image), image)]
    assert [(op.kind, op.activation, op.fused_add) for op in fuse_graph(relu_then_sum)] == [
        ("conv", "relu", False),
        ("add", "none", False),
    ]
    sum_then_relu = [conv, Node("add", (0, -1), (image, image), image), Node("relu", (1,), (image,), image)]
    assert [(op.kind, op.activation, op.fused_add) for op in fuse_graph(sum_then_relu)] == [("conv", "relu", True)]
    twice_read = [conv, Node("relu", (0,), (image,), image), Node("concat", (0, 1), (image, image), wide)]
    assert [op.kind for op in fuse_graph(twice_read)] == ["conv", "relu", "concat"]
    dead = [conv, Node("exp", (0,), (image,), image)]
    assert [op.kind for op in fuse_graph(dead, outputs=[0])] == ["conv"]
    chain = [Node(kind, (i - 1,), (image,), image) for i, kind in enumerate(["exp", "log", "tanh"])]
    assert [op.kind for op in fuse_graph(chain)] == ["elementwise"]


def test_saved_spec_files_trace(tmp_path) -> None:
    from nas.files import save_spec

    spec = random_detector(99)
    path = tmp_path / "spec.yaml"
    save_spec(path, spec)
    loaded = load_spec(path)
    assert isinstance(loaded, DetectorSpec)
    assert_equal(loaded)
