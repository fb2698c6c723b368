"""The torch builders of the two benchmarks agree with the counts of their search spaces."""

from __future__ import annotations

import random

import torch
from torch import nn

from nas.models.nasbench import CellNetwork, MacroNetwork
from search_spaces.tabular import CHOICES, EDGE_OPERATIONS, EDGES, LAYERS, Cell, MacroNet


def measured_macs(model: nn.Module) -> int:
    """MACs of every convolution and linear layer at one 32-pixel image, by the shapes that really occur."""
    total = 0

    def add(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        total += layer.weight[0].numel() * output[0].numel()  # type: ignore[operator, index, union-attr]

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(add)  # type: ignore[arg-type]
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    return total


def test_networks_have_the_counted_parameters_and_macs() -> None:
    rng = random.Random(0)
    for _ in range(4):
        cell = Cell(tuple(rng.choice(EDGE_OPERATIONS) for _ in EDGES))  # type: ignore[arg-type]
        model = CellNetwork(cell.edges)
        counts = cell.counts()
        assert sum(p.numel() for p in model.parameters()) == counts.params
        assert measured_macs(model) == counts.macs
        net = MacroNet(tuple(rng.randrange(len(CHOICES)) for _ in LAYERS))
        macro = MacroNetwork(net.choices)
        expected = net.counts()
        assert sum(p.numel() for p in macro.parameters()) == expected.params
        assert measured_macs(macro) == expected.macs


def test_a_dead_cell_ignores_its_image() -> None:
    model = CellNetwork(("none",) * 6).eval()
    with torch.no_grad():
        first, second = model(torch.randn(2, 3, 32, 32))
    assert torch.equal(first, second)
