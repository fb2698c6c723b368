"""The lowered GELAN, C3k2 and C2PSA blocks count exactly what the torch modules hold and compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nas.lowering import Operation, block_operations
from nas.lowering import operations as lowered
from nas.measure.trace import trace_operations
from nas.models.backbone import BackboneModule
from nas.models.layers import fold_batch_norms, merge_branches
from nas.spec import C2PSA, GELAN, Backbone, C3k2
from search_spaces import load_published

CASES = [
    (GELAN(64, 48, 64, 32, 3), 16),
    (GELAN(48, 64, 32, 24, 0, down="conv"), 24),
    (GELAN(64, 64, 64, 32, 1, down="adown"), 32),
    (C3k2(64, 32, 16, 2), 16),
    (C3k2(96, 64, 32, 1, c3k=True), 16),
    (C2PSA(256, 2), 256),
]


def fused(module: nn.Module) -> None:
    merge_branches(module)
    fold_batch_norms(module)


def parameters(operation: Operation) -> int:
    return operation.weights + operation.out_channels * (2 * operation.norm + operation.bias)


@pytest.mark.parametrize(("block", "channels"), CASES)
def test_counts_equal_the_module(block, channels) -> None:
    with torch.device("meta"):
        module = block.build(channels, "silu", False).eval()
        for form in ("train", "folded"):
            if form == "folded":
                fused(module)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                out = module(torch.zeros(1, channels, 40, 24))
            operations = block_operations(block, channels, 40, 24, form=form)
            assert sum(operation.macs for operation in operations) == counter.get_total_flops() // 2
            assert sum(map(parameters, operations)) == sum(p.numel() for p in module.parameters())
            assert (out.shape[1], *out.shape[2:]) == (block.out, operations[-1].height, operations[-1].width)


@pytest.mark.parametrize("name", ["yolov9-t-backbone", "yolov9-c-backbone", "yolo11-n-backbone", "yolo11-m-backbone"])
def test_lowering_equals_the_traced_module(name: str) -> None:
    """Every kernel of the published backbones, in the same number and shape."""

    def described(operations: Iterable[Operation]) -> Counter[tuple[object, ...]]:
        return Counter(
            (o.kind, o.in_channels, o.out_channels, o.height, o.width, o.kernel, o.stride, o.groups, o.activation)
            + (o.fused_add,)
            for o in operations
        )

    spec = load_published(name)
    assert isinstance(spec, Backbone)
    module = BackboneModule(spec).eval()
    fused(module)
    assert described(trace_operations(module, 256)) == described(lowered(spec, "folded", 256))


def test_fusing_keeps_the_function() -> None:
    torch.manual_seed(0)
    for block, channels in CASES:
        module = block.build(channels, "silu", False)
        module(torch.randn(2, channels, 32, 32))
        module.eval()
        x = torch.randn(1, channels, 32, 32)
        with torch.no_grad():
            before = module(x)
            fused(module)
            torch.testing.assert_close(module(x), before, rtol=1e-4, atol=1e-5)


def test_longest_path_of_a_gelan_stage() -> None:
    """Down-sampler, 1x1, twice (1x1, three units of two, 1x1, 3x3), 1x1: what depth-reading scores sum over."""
    operations = block_operations(GELAN(64, 64, 64, 32, 3), 32, 80, 80)
    path = [operation for operation in operations if operation.kind == "conv" and operation.role == "main"]
    assert len(path) == 1 + 1 + 2 * (1 + 6 + 1 + 1) + 1
    assert [operation.kernel for operation in path[:4]] == [3, 1, 1, 3]
