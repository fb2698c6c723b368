"""The MAE score through a neck: the sampled quantity behind the formula, recorded scores, and its shape."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nas.errors import UserError
from nas.lowering import backbone_operations
from nas.lowering.repgfpn import branch_widths, hidden_width, neck_graph
from nas.scorers.entropy import log_gain, mae
from nas.scorers.neck_entropy import NeckEntropy, mae_neck, neck_log_variances
from nas.spec import Backbone, DetectorSpec, NeckSpec
from search_spaces import load_published
from search_spaces.tinynas import SPACES


@pytest.mark.parametrize(
    "options", [{}, {"fusion": "csp"}, {"fusion": "conv"}, {"depthwise": True}, {"extra_up": True}]
)
def test_neck_formula_is_what_sampling_measures(options: dict[str, Any]) -> None:
    neck = NeckSpec((40, 48, 56), 2, (0.75, 0.75, 0.75), **options)
    spec = SPACES["tinynas_k1kx"].initial()
    channels = spec.out_channels
    start = _backbone_logs(spec)
    expected = neck_log_variances(neck, np.array([channels]), np.array([neck.out]), 2 * np.array([start]))[0]
    torch.manual_seed(1)
    maps = {
        name: math.exp(log - start[0]) * torch.randn(1, width, side, side, dtype=torch.float64)
        for name, width, side, log in zip(("C3", "C4", "C5"), channels, (64, 32, 16), start, strict=True)
    }
    for node in neck_graph(neck, channels):  # type: ignore[arg-type]
        pieces = []
        for source in node.sources:
            piece = maps[source.origin]
            if source.move == "up":
                piece = F.interpolate(piece, scale_factor=2)
            elif source.move == "down":
                piece = _random_conv(piece, source.channels, 3)[:, :, ::2, ::2]
            pieces.append(piece)
        maps[node.name] = _fusion(torch.cat(pieces, 1), neck, node.out_channels, node.level)
    measured = [2 * (float(maps[name].std().log()) + start[0]) for name in ("N3", "N4", "N5")]
    assert measured == pytest.approx(expected, rel=0.02)


def _backbone_logs(spec: Backbone) -> list[float]:
    logs = list(accumulate(map(log_gain, backbone_operations(spec, 640))))
    return [logs[i + 1] for i in spec.out_blocks]


def _random_conv(signal: Tensor, out: int, kernel: int, groups: int = 1) -> Tensor:
    pad = kernel // 2
    padded = F.pad(signal, (pad,) * 4, mode="circular") if pad else signal
    weight = torch.randn(out, signal.shape[1] // groups, kernel, kernel, dtype=torch.float64)
    return F.conv2d(padded, weight, groups=groups)


def _fusion(signal: Tensor, neck: NeckSpec, out: int, level: int) -> Tensor:
    if neck.fusion == "conv":
        return _random_conv(signal, out, 3)
    kept, width = branch_widths(out)
    hidden = hidden_width(neck, width, level)
    parts, x = [_random_conv(signal, kept, 1)], _random_conv(signal, width, 1)
    outputs = []
    for _ in range(neck.depth):
        if neck.depthwise:
            x = _random_conv(_random_conv(_random_conv(x, hidden, 1), hidden, 5, hidden), width, 1)
        else:
            x = _random_conv(_random_conv(x, hidden, 3), width, 3)
        outputs.append(x)
    parts += outputs if neck.fusion == "elan" else outputs[-1:]
    return _random_conv(torch.cat(parts, 1), out, 1)


def test_neck_score_sees_what_the_backbone_score_does_not() -> None:
    spec = load_published("damo-yolo-s")
    assert isinstance(spec, DetectorSpec)
    deeper = replace(spec, neck=replace(spec.neck, depth=spec.neck.depth + 1))
    assert mae(deeper) == mae(spec) and mae_neck(deeper) > mae_neck(spec)
    with pytest.raises(UserError, match="whole detector"):
        mae_neck(spec.backbone)
    with pytest.raises(UserError, match="three level weights"):
        mae_neck(spec, (1.0, 1.0))


@pytest.mark.parametrize(
    ("name", "score"),
    [("damo-yolo-t", 3313.5096927196537), ("damo-yolo-s", 3846.2565237736426), ("damo-yolo-m", 5538.669807023841)],
)
def test_neck_scores_of_published_detectors(name: str, score: float) -> None:
    """Recorded when the formula went through the neck node by node, one network at a time."""
    assert mae_neck(load_published(name)) == pytest.approx(score, rel=1e-13)


@given(st.lists(st.floats(0.0, 40.0), min_size=9, max_size=9), st.floats(0, 1), st.integers(0, 3))
def test_neck_score_is_convex_and_rising_in_the_gains(gains: list[float], share: float, kind: int) -> None:
    neck = (NeckSpec((64, 64, 64)), NeckSpec((64, 64, 64), fusion="conv"), NeckSpec((64, 64, 64), 1, depthwise=True),
            NeckSpec((64, 64, 64), extra_up=True, extra_down=False))[kind]  # fmt: skip
    formula = NeckEntropy().behind(neck, None)
    first, second, more = np.array(gains).reshape(3, 3)
    rows = np.stack([first, second, share * first + (1 - share) * second, first + more])
    one, two, between, higher = formula.combine(rows, np.full((4, 3), [32.0, 64.0, 96.0]), np.zeros(3), rows, {})
    assert between <= share * one + (1 - share) * two + 1e-9 * max(one, two)
    assert higher >= one - 1e-9 * one
    assert formula.through_neck and not NeckEntropy((1.0, -1.0, 1.0)).through_neck
