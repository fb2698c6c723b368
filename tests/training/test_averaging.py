"""The averaged weights and the BatchNorm statistics that are measured for them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nas.data.loader import build_loader
from nas.models.detector import build_detector
from nas.training.averaging import Ema, NormStatistics, ema_momentum


def test_ema_copies_first_then_follows():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    ema = Ema(copy.deepcopy(model), decay=0.5, ramp=1.0)
    with torch.no_grad():
        model[0].weight.fill_(3.0)
    model[1].num_batches_tracked.fill_(7)
    ema.update(model)
    assert ema.model[0].weight.item() == 3.0 and ema.model[1].num_batches_tracked.item() == 7
    with torch.no_grad():
        model[0].weight.fill_(4.0)
    ema.update(model)
    keep = ema_momentum(1, 0.5, 1.0)
    assert ema.model[0].weight.item() == pytest.approx(3 * keep + 4 * (1 - keep))


def test_the_average_copies_counters_and_follows_other_precisions():
    source = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1)).double()
    average = Ema(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1)), 0.5, 1.0)
    source[1].num_batches_tracked.fill_(7)
    average.update(source)
    assert average.model[1].num_batches_tracked == 7
    torch.testing.assert_close(average.model[0].weight.double(), source[0].weight.detach(), rtol=1e-6, atol=1e-7)


def test_measured_norm_statistics_are_those_of_the_images(tiny, root):
    train, _ = tiny.shapes(root)
    torch.manual_seed(0)
    model = build_detector(tiny.tiny_spec(), 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measured = NormStatistics(train, 64, 4, 8)(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    images = torch.cat(
        [batch.images for batch in build_loader(train.subset([0, 3, 7, 10, 13, 16, 20, 23]), 4, 64, train=False)]
    )
    first = model.backbone.block_list[0].conv.conv if hasattr(model.backbone, "block_list") else None
    assert first is not None
    x = images.float()
    focus = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
    mean = first(focus).mean((0, 2, 3))
    norm = measured.backbone.block_list[0].conv.bn
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-3)
    assert norm.momentum == model.backbone.block_list[0].conv.bn.momentum
