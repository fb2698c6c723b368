"""Weights of classes in the losses of both heads: the term of a positive prior at its own class, and nothing else."""

from __future__ import annotations

import pytest
import torch

from nas.loss import LossOptions
from nas.loss.assignment import pad_targets
from nas.loss.detection import DetectionLoss
from nas.loss.terms import binary_cross_entropy, quality_focal_loss
from nas.models.detector import build_detector


def entropy(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    p = x.sigmoid()
    return -(target * p.log() + (1 - target) * (1 - p).log())


def test_both_losses_weigh_the_term_of_the_label_alone() -> None:
    torch.manual_seed(0)
    logits, weights = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    labels, quality = torch.tensor([0, 2, -1, 1, 2, 3]), torch.rand(6, dtype=torch.float64)
    target = torch.zeros_like(logits)
    scale = torch.ones_like(logits)
    for row, label in enumerate(labels.tolist()):
        if 0 <= label < 3:
            target[row, label], scale[row, label] = quality[row], weights[label]
    bce = entropy(logits, target)
    qfl = bce * (target - logits.sigmoid()).abs() ** 2
    torch.testing.assert_close(binary_cross_entropy(logits, labels, quality, weights), (bce * scale).sum())
    torch.testing.assert_close(quality_focal_loss(logits, labels, quality, weights), (qfl * scale).sum())
    for loss in (binary_cross_entropy, quality_focal_loss):
        even = loss(logits, labels, quality, torch.ones(3, dtype=torch.float64))
        torch.testing.assert_close(even, loss(logits, labels, quality))


@pytest.mark.parametrize("classification", ["qfl", "bce"])
def test_a_detector_weighs_its_class_term_alone(tiny, classification: str) -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        raw = build_detector(tiny.tiny_spec(), 5).eval().predict_raw(torch.rand(2, 3, 64, 64) * 255)
    targets = pad_targets([torch.tensor([[8.0, 8, 40, 40]])] * 2, [torch.tensor([1])] * 2)
    options = LossOptions(classification=classification)
    plain = DetectionLoss(options, 64)(raw, targets)
    for weights, compare in (((1.0,) * 5, "same"), ((1.0, 1, 9, 9, 9), "same"), ((1.0, 3, 1, 1, 1), "more")):
        found = DetectionLoss(options, 64, class_weights=torch.tensor(weights))(raw, targets)
        assert float(found["box"]) == float(plain["box"]) and float(found["dfl"]) == float(plain["dfl"])
        if compare == "same":
            assert float(found["class"]) == pytest.approx(float(plain["class"]), rel=1e-6)
        else:
            assert float(found["class"]) > float(plain["class"]) * 1.001
