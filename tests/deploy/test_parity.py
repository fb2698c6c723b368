"""Rounding that a network multiplies is no disagreement of its file; a wrong file stays refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.deploy.export import ExportSettings, _agreement
from nas.deploy.parity import rounding


class Sevenths(nn.Module):
    """One score and one box; the score is `factor` * 48 / 7, which float32 rounds."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        whole = images.sum(dim=(1, 2, 3)) * self.factor / 7
        return whole.detach()[:, None, None], torch.tensor([0.0, 0.0, 8.0, 8.0], dtype=images.dtype).expand(
            len(images), 1, 4
        )


PICTURES = [np.ones((1, 3, 4, 4), np.float32)] * 2


@pytest.mark.parametrize("factor", [1.0, 1000.0])
def test_rounding_is_the_distance_of_float32_from_float64(factor: float) -> None:
    score, box = rounding(Sevenths(factor), PICTURES)
    assert 1e-8 * factor < score < 1e-6 * factor and box == 0.0


@pytest.mark.parametrize(("off", "problem"), [(0.0, ""), (5e-4, ""), (0.01, "scores differ by")])
def test_a_file_may_be_as_far_off_as_torch_itself(off: float, problem: str) -> None:
    network: Any = Sevenths(1000.0)  # 6857.14..., whose neighbours in float32 are 4.9e-4 apart

    def exported(images: Tensor) -> tuple[Tensor, Tensor]:
        scores, boxes = network(images)
        return scores + off, boxes

    exported.metadata = SimpleNamespace(nms=False)  # type: ignore[attr-defined]
    found = _agreement(network, exported, PICTURES, ExportSettings(), end_to_end=False)  # type: ignore[arg-type]
    assert found.problem.startswith(problem) and bool(found.problem) == bool(problem)
