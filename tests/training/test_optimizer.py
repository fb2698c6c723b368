"""Learning rate, EMA momentum and distillation weight against official values; parameter groups."""

from __future__ import annotations

import json

import pytest
from torch import nn

from nas.errors import UserError
from nas.loss.distill import distill_weight
from nas.training.averaging import ema_momentum
from nas.training.optimizer import Schedule, fraction_done, make_optimizer, set_rates
from nas.training.options import OptimizerOptions, ScheduleOptions


@pytest.fixture
def official(golden):
    return json.loads((golden / "damo_losses" / "schedules.json").read_text())


def test_schedules_equal_official(official):
    epoch = official["iters_per_epoch"]
    schedule = Schedule(official["base_lr_per_img"] * official["batch"], 300 * epoch, 5 * epoch, 16 * epoch)
    for i, position in enumerate(official["iters"]):
        assert schedule.learning_rate(position) == pytest.approx(official["lr"][i], rel=1e-9, abs=1e-15)
        assert ema_momentum(position) == pytest.approx(official["ema_momentum"][i], rel=1e-9)
        assert distill_weight(position, 300 * epoch) == pytest.approx(official["distill_weight"][i], rel=1e-9)


def test_yolo_schedule():
    schedule = Schedule(
        0.01, 1000, 100, options=ScheduleOptions(end_ratio=0.01, warmup_power=1, shape="linear", warmup_bias=10.0)
    )
    assert schedule.learning_rate(50) == pytest.approx(0.005)
    assert schedule.learning_rate(0, bias=True) == pytest.approx(0.1)
    assert schedule.learning_rate(1000) == pytest.approx(0.0001)
    assert Schedule(0.01, 1000, 100, momentum=0.937, options=ScheduleOptions(warmup_momentum=0.8)).momentum_at(
        50
    ) == pytest.approx(0.8685)


def test_the_nearer_end_decides_the_progress():
    assert fraction_done(50, 100, 0.0, None) == 0.5
    assert fraction_done(10, 100, 90.0, 2.0) == 0.75
    assert fraction_done(99, 100, 1e9, 1.0) == 1.0


def test_groups_rates_and_frozen_parameters():
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
    optimizer = make_optimizer([model], OptimizerOptions())
    decay = {group["name"]: (group["weight_decay"], len(group["params"])) for group in optimizer.param_groups}
    assert decay == {"weights": (5e-4, 2), "norms": (0.0, 1), "biases": (0.0, 2)}
    assert OptimizerOptions().peak_rate(256) == pytest.approx(0.04)
    set_rates(optimizer, Schedule(0.1, 10), 0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1] * 3
    with pytest.raises(UserError, match="every parameter is frozen"):
        make_optimizer([model.requires_grad_(False)], OptimizerOptions())
