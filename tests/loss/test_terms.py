"""Losses and their gradients against the official values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas.errors import UserError
from nas.loss import LossOptions, task_aligned
from nas.loss.assignment import pad_targets
from nas.loss.detection import DetectionLoss
from nas.loss.terms import distribution_focal_loss, overlap, pairwise_iou, quality_focal_loss
from nas.models.base import RawPrediction


def load(folder, name):
    data = np.load(folder / "damo_losses" / name)
    return lambda key: torch.from_numpy(np.asarray(data[key]))


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found.detach().double(), expected.double(), rtol=tolerance, atol=tolerance)


def test_quality_focal_loss_and_gradient(golden):
    read = load(golden, "losses.npz")
    p = read("qfl_pred").double().requires_grad_()
    loss = quality_focal_loss(torch.logit(p), read("qfl_label"), read("qfl_score").double()) / read("qfl_avg_factor")
    loss.backward()
    close(loss, read("qfl"))
    close(p.grad, read("qfl_grad"))


def test_distribution_focal_loss_and_gradient(golden):
    read = load(golden, "losses.npz")
    logits = read("dfl_logits").requires_grad_()
    each = distribution_focal_loss(logits, read("dfl_target"))
    close(each, read("dfl_none"))
    (0.25 * (each * read("dfl_weight")).sum() / read("dfl_avg_factor")).backward()
    close(logits.grad, read("dfl_grad"))


def test_giou_and_gradient(golden):
    read = load(golden, "losses.npz")
    boxes = read("giou_pred").requires_grad_()
    each = 1 - overlap(boxes, read("giou_target"), "giou")
    close(each, read("giou_none"))
    loss = 2 * (each * read("giou_weight")).sum() / read("giou_avg_factor")
    loss.backward()
    close(loss, read("giou"))
    close(boxes.grad, read("giou_grad"))
    close(pairwise_iou(read("giou_pred"), read("giou_target")), read("iou_pairwise"))


def whole(read, bins: int = 17):
    """The golden batch as a raw prediction whose leaves take gradients."""
    p = read("cls").double().requires_grad_()
    sides = read("reg_logits").clone().requires_grad_()
    points, strides = read("priors")[:, :2], read("priors")[:, 2]
    distance = (sides.softmax(-1) * torch.arange(bins)).sum(-1) * strides[:, None]
    boxes = torch.cat([points - distance[..., :2], points + distance[..., 2:]], -1)
    targets = pad_targets([read(f"gt{i}_boxes") for i in range(3)], [read(f"gt{i}_labels") for i in range(3)])
    return p, sides, RawPrediction(torch.logit(p), sides, boxes, points, strides, []), targets


def test_whole_loss_and_gradients(golden):
    read = load(golden, "head_loss_regmax16.npz")
    p, sides, raw, targets = whole(read)
    losses = DetectionLoss()(raw, targets)
    for name, key in (("class", "loss_cls"), ("box", "loss_bbox"), ("dfl", "loss_dfl")):
        close(losses[name], read(key))
    torch.stack(list(losses.values())).sum().backward()
    close(p.grad, read("cls_grad"))
    close(sides.grad, read("reg_grad"))


def test_empty_batch_has_a_gradient_for_every_output(golden):
    _, sides, raw, targets = whole(load(golden, "head_loss_regmax16.npz"))
    empty = pad_targets([torch.zeros(0, 4)] * 3, [torch.zeros(0, dtype=torch.long)] * 3)
    losses = DetectionLoss()(raw, empty)
    torch.stack([value.double() for value in losses.values()]).sum().backward()
    assert losses["box"] == 0 and losses["dfl"] == 0 and losses["class"] > 0
    assert sides.grad is not None and sides.grad.abs().sum() == 0


def test_task_aligned_loss_by_hand():
    points, strides = torch.tensor([[8.0, 8.0], [24.0, 8.0]]), torch.tensor([16.0, 16.0])
    boxes = torch.tensor([[[0.0, 0, 16, 16], [16, 0, 32, 16]]])
    logits = torch.zeros(1, 2, 1)
    raw = RawPrediction(logits, torch.zeros(1, 2, 4, 16), boxes, points, strides, [])
    targets = pad_targets([boxes[0, :1]], [torch.tensor([0])])
    losses = DetectionLoss(task_aligned(scale_by_batch=False))(raw, targets)
    log2 = float(np.log(2))
    assert losses["class"].item() == pytest.approx(0.5 * 2 * log2, rel=1e-5)
    assert losses["box"].item() == pytest.approx(0.0, abs=1e-5)
    assert losses["dfl"].item() == pytest.approx(1.5 * float(np.log(16)), rel=1e-5)


def test_ciou_of_shifted_boxes():
    one, two = torch.tensor([0.0, 0, 10, 10]), torch.tensor([5.0, 0, 15, 10])
    assert overlap(one, two, "ciou", 1e-9).item() == pytest.approx(1 / 3 - 25 / 325, rel=1e-5)


def test_wrong_names_are_told():
    with pytest.raises(UserError, match="align_ota, .*got 'hungarian'"):
        DetectionLoss(LossOptions(assigner="hungarian"))
    with pytest.raises(UserError, match="loss.overlap"):
        DetectionLoss(LossOptions(overlap="diou"))
