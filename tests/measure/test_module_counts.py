"""Counts of torch modules equal hand-made ones and the reference figures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import nas
from nas.cost.count import count_spec
from nas.errors import UserError
from nas.measure.trace import count_module
from nas.models.baselines import build_baseline
from nas.models.build import build_model
from search_spaces import load_published


def test_a_module_by_hand() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))
    counts = count_module(module, image_size=8)
    assert counts.params == 3 * 8 * 9 + 8 + 8 * 16 * 5 + 5
    assert counts.macs == 3 * 8 * 9 * 16 + 8 * 16 * 5
    assert counts.activations == 8 * 16


def test_baselines_equal_the_reference() -> None:
    with torch.device("meta"):
        module = build_baseline("yolo26n")
    assert (count_module(module).params, count_module(module).macs) == (2_408_932, 2_740_153_600)
    assert (count_module(module, "train").params, count_module(module, "train").macs) == (2_572_280, 3_040_627_200)
    assert sum(p.numel() for p in module.parameters()) == 2_572_280, "the module is not changed"


def test_names_of_baselines_are_counted_exactly() -> None:
    assert (nas.count("yolo11n").params, nas.count("yolo11n").macs) == (2_616_248, 3_271_251_200)
    assert nas.count("yolov9t", "train").params == 2_036_560


def test_specs_and_modules_agree() -> None:
    spec = load_published("yolov9-t-backbone")
    counts = count_module(build_model(spec), "train", 320)
    assert counts.macs == count_spec(spec, "train", 320).macs
    assert counts.params == count_spec(spec, "train", 320).params


def test_what_cannot_run_is_named() -> None:
    with pytest.raises(UserError, match="cannot count Linear"):
        count_module(nn.Linear(7, 3), image_size=8)
