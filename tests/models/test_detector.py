"""Any valid spec builds the network that its operations describe, and fusing changes nothing but speed."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from nas.errors import UserError
from nas.lowering import operations
from nas.models.base import RawPrediction
from nas.models.detector import build_detector
from nas.spec import (
    C2PSA,
    CSP,
    GELAN,
    Backbone,
    C3k2,
    DetectorSpec,
    HeadSpec,
    InvertedResidual,
    NeckSpec,
    Plain,
    Residual,
    Stem,
)


def random_spec(seed: int) -> DetectorSpec:
    """A small detector of mixed block kinds."""
    pick = random.Random(seed)

    def width() -> int:
        return pick.choice([16, 24, 32, 40])

    def block(stride: int):
        kinds = ["k1kx", "kxkx", "k1kxk1", "k1dwk1", "k1dwsek1", "inverted", "csp", "plain"]
        kind = pick.choice(kinds + (["gelan", "c3k2"] if stride == 2 else ["c2psa"]))
        depth, kernel = pick.randint(1, 3), pick.choice([3, 5])
        if kind == "inverted":
            return InvertedResidual(width(), width() * 2, depth, stride, kernel, pick.random() < 0.5)
        if kind == "gelan":
            return GELAN(width(), width(), 32, 16, pick.randint(0, 2), down=pick.choice(["conv", "aconv", "adown"]))
        if kind == "c3k2":
            return C3k2(width(), width(), 16, depth, c3k=pick.random() < 0.5)
        if kind == "c2psa":
            return C2PSA(blocks[-1].out, 1)
        if kind == "csp" and stride == 2:
            return CSP(width(), width(), depth)
        if kind in ("plain", "csp"):
            return Plain(width(), kernel, stride)
        return Residual(kind, width(), width(), depth, stride, kernel, pick.choice(["pooled", "stride1"]))

    blocks: list = [Plain(128, 3, 2)]
    for stride in (2, 2, 1, 2):
        blocks.append(block(stride))
    backbone = Backbone(
        pick.choice([Stem("focus", 16), Stem("conv", 16)]),
        tuple(blocks),
        (1, 3, 4),
        pick.choice(["none", "spp", "sppf", "sppelan"]),
        pick.choice(["relu", "silu"]),
        pick.random() < 0.5,
    )
    neck = NeckSpec(
        (pick.choice([16, 24]), 32, pick.choice([33, 40])),
        pick.randint(0, 3),
        tuple(pick.choice([0.5, 0.75, 1.0]) for _ in range(3)),
        pick.choice(["relu", "silu"]),
        pick.random() < 0.3,
        pick.choice(["conv", "csp", "csp_rep", "elan"]),
        pick.random() < 0.5,
        pick.random() < 0.5,
    )
    head = HeadSpec(pick.choice([1, 3, 80]), pick.choice([7, 16]), pick.choice([1, 3]), pick.choice([0, 0, 1, 2]))
    return DetectorSpec(backbone, neck, head, 64)


def randomise(model: nn.Module) -> None:
    """Statistics and gains as after some training, so that merging and folding have something to get wrong."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.1)
            nn.init.normal_(module.bias, 0.0, 0.1)
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 2.0)


def convolutions(model: nn.Module, images: torch.Tensor) -> list[tuple[int, ...]]:
    """Shapes of the convolutions in the order in which they run."""
    found: list[tuple[int, ...]] = []

    def record(module, inputs, output):
        if isinstance(module, nn.Linear):
            found.append((module.in_features, module.out_features, 1, 1, 1, 1, 1))
        else:
            size = tuple(output.shape[2:])
            found.append(
                (module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0], module.groups, *size)
            )

    handles = [m.register_forward_hook(record) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    model(images)
    for handle in handles:
        handle.remove()
    return found


def described(spec: DetectorSpec, form: str) -> list[tuple[int, ...]]:
    return [
        (op.in_channels, op.out_channels, op.kernel, op.stride, op.groups, op.height, op.width)
        for op in operations(spec, form)
        if op.kind in ("conv", "linear")
    ]


@torch.no_grad()
@pytest.mark.parametrize("seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(12, 40))])
def test_convolutions_run_as_the_operations_say(seed):
    spec = random_spec(seed)
    with torch.device("meta"):
        model = build_detector(spec).eval()
        images = torch.empty(1, 3, 64, 64)
    assert convolutions(model, images) == described(spec, "train")
    with torch.device("meta"):
        assert convolutions(model.fuse(), images) == described(spec, "folded")


@torch.no_grad()
@pytest.mark.parametrize("seed", range(10))
def test_fusing_keeps_boxes_and_scores(seed):
    torch.manual_seed(seed)
    model = build_detector(random_spec(seed)).eval()
    randomise(model)
    images = torch.rand(2, 3, 64, 64) * 255
    # In float64 first: what is left is rounding, so the algebra is exact.
    exact = [x.clone() for x in model.double()(images.double())]
    plain = model.float()(images)
    fused = model.fuse()(images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert (fused[0] - plain[0]).abs().max() < 1e-4
    assert (fused[1] - plain[1]).abs().max() < 1e-2
    assert (fused[1] - exact[1]).abs().max() < 1e-2


def test_raw_prediction_and_forward_agree(spec_of):
    spec = random_spec(3)
    model = build_detector(spec, num_classes=5)
    images = torch.rand(2, 3, 96, 64) * 255
    model.train()
    raw = model(images)
    assert isinstance(raw, RawPrediction)
    count = 12 * 8 + 6 * 4 + 3 * 2
    bins = spec.head.reg_max + 1
    assert raw.class_logits.shape == (2, count, 5) and raw.box_logits.shape == (2, count, 4, bins)
    assert raw.points.shape == (count, 2) and raw.strides.shape == (count,)
    assert raw.points[:3].tolist() == [[0, 0], [8, 0], [16, 0]]
    raw.boxes.sum().backward()
    assert model.backbone.block_list[0].conv is not None
    model.eval()
    with torch.no_grad():
        scores, boxes = model(images)
        raw = model.predict_raw(images)
        assert torch.allclose(scores, raw.class_logits.sigmoid(), atol=1e-6)
        assert torch.allclose(boxes, raw.boxes, atol=1e-4)
        reach = (raw.box_logits.softmax(-1) * torch.arange(bins)).sum(-1) * raw.strides[:, None]
        corners = torch.cat([raw.points - reach[..., :2], raw.points + reach[..., 2:]], -1)
        assert torch.allclose(boxes, corners, atol=1e-3)


def test_start_probability_is_one_percent(spec_of):
    with torch.no_grad():
        model = build_detector(spec_of("Ns"), num_classes=3).eval()
        for layer in model.head.gfl_cls:
            assert torch.allclose(layer.bias.sigmoid(), torch.full((3,), 0.01), atol=1e-6)


def test_class_names_follow_their_number(spec_of):
    with torch.device("meta"):
        assert build_detector(spec_of("Ns")).classes[:2] == ("person", "bicycle")
        assert build_detector(spec_of("Ns"), classes=("a", "b")).num_classes == 2
        assert build_detector(spec_of("Ns"), num_classes=2).classes == ("class 0", "class 1")
        with pytest.raises(UserError, match="2 class names were given for 3 classes"):
            build_detector(spec_of("Ns"), num_classes=3, classes=("a", "b"))
