"""A small detector that finds things, and pictures for it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from nas.models.detector import DetectionModel, build_detector
from nas.models.passport import generated_pictures
from nas.spec import Backbone, DetectorSpec, HeadSpec, NeckSpec, Residual, Stem

SIDE = 64


@pytest.fixture(scope="module")
def model() -> DetectionModel:
    """A small detector whose head is loud enough to find things in noise."""
    torch.manual_seed(0)
    blocks = tuple(Residual("k1kx", 16, 8, 1, 2) for _ in range(4))
    backbone = Backbone(Stem("focus", 8), blocks, (1, 2, 3), "spp", "relu", reparam=True)
    spec = DetectorSpec(backbone, NeckSpec((16, 16, 16), 1, (0.5, 0.5, 0.5)), HeadSpec(3, 7, 1), SIDE)
    model = build_detector(spec, classes=("cell", "plate", "dust")).eval()
    with torch.no_grad():
        maps = model.features(torch.from_numpy(np.concatenate(generated_pictures(8, SIDE))))["neck"]
        for level, x in enumerate(maps):
            for layer, spread, middle in (
                (model.head.gfl_cls[level], 2.0, -1.5),
                (model.head.gfl_reg[level], 2.0, 0.0),
            ):
                layer.bias.zero_()
                out = layer(x)
                layer.weight.mul_(spread / out.std())
                layer.bias.fill_(middle - float(out.mean()) * spread / float(out.std()))
    return model


@pytest.fixture(scope="module")
def fused(model):
    return copy.deepcopy(model).fuse()


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return generated_pictures(8, SIDE)
