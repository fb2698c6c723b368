"""What is written so that a GPU never waits for the host, held to the plain forms on the CPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nas.errors import UserError
from nas.inference.postprocess import postprocess
from nas.loss import LossOptions, assignment, task_aligned, terms
from nas.loss.assignment import TAL, pad_targets
from nas.loss.detection import DetectionLoss
from nas.models.base import RawPrediction
from nas.training import averaging, guards
from nas.training.guards import LossGuard


@pytest.fixture
def masked(monkeypatch):
    """Call it, and masks are no longer counted: the forms of a GPU."""

    def switch():
        for module in (assignment, terms):
            monkeypatch.setattr(module, "counting_waits", lambda device: True)

    return switch


def prediction(bins: int) -> RawPrediction:
    """Two pictures of 64 pixels, 84 priors, 3 classes, in float64; leaves take gradients."""
    torch.manual_seed(1)
    grids = []
    for stride in (8, 16, 32):
        axis = (torch.arange(64 // stride, dtype=torch.float64) + 0.5) * stride
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        grids.append(torch.stack([x.flatten(), y.flatten(), torch.full_like(x, stride).flatten()], 1))
    points, strides = torch.cat(grids)[:, :2], torch.cat(grids)[:, 2]
    logits = torch.randn(2, len(points), 3, dtype=torch.float64).requires_grad_()
    sides = torch.randn(2, len(points), 4, bins, dtype=torch.float64).requires_grad_()
    reach = (
        torch.nn.functional.softplus(sides[..., 0]) if bins == 1 else (sides.softmax(-1) * torch.arange(bins)).sum(-1)
    )
    reach = reach * strides[:, None]
    boxes = torch.cat([points - reach[..., :2], points + reach[..., 2:]], -1)
    return RawPrediction(logits, sides, boxes, points, strides, [])


def objects(count: int):
    boxes = [torch.tensor([[3.0, 5, 40, 50], [20, 20, 60, 62], [8, 9, 17, 19]])[:count], torch.zeros(0, 4)]
    labels = [torch.tensor([0, 2, 1])[:count], torch.zeros(0, dtype=torch.long)]
    return pad_targets([item.double() for item in boxes], labels)


@pytest.mark.parametrize("count", [3, 0])
@pytest.mark.parametrize("bins", [8, 1])
@pytest.mark.parametrize("options", [LossOptions(), task_aligned(), LossOptions(assigner="atss", overlap="iou")])
def test_masked_losses_are_the_indexed_ones(masked, options, bins, count):
    def computed():
        raw = prediction(bins)
        losses = DetectionLoss(options, 64)(raw, objects(count))
        torch.stack(list(losses.values())).sum().backward()
        return losses, raw.class_logits.grad, raw.box_logits.grad

    indexed = computed()
    masked()
    for found, expected in zip(computed()[1:], indexed[1:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for name, value in computed()[0].items():
        torch.testing.assert_close(value, indexed[0][name], rtol=1e-10, atol=1e-12)
    assert count == 0 or all(value > 0 for value in indexed[0].values())


def test_masked_task_alignment_is_the_indexed_one(masked):
    raw, targets = prediction(8), objects(3)
    given = raw.class_logits.detach().sigmoid(), raw.boxes.detach(), raw.points, raw.strides, targets
    indexed = TAL()(*given)
    masked()
    found = TAL()(*given)
    assert indexed.positive.any() and torch.equal(found.matched, indexed.matched)
    torch.testing.assert_close(found.quality, indexed.quality, rtol=1e-10, atol=0)


def test_losses_on_a_gpu_are_read_one_step_late(monkeypatch):
    read = []

    def copied(values):
        def arrive():
            read.append(float(values[0, 0]))
            return values

        return SimpleNamespace(late=True, read=arrive)

    monkeypatch.setattr(guards, "HostCopy", copied)
    written = []
    guard = LossGuard(lambda step, rate, losses: written.append((step, losses)))
    for step in (1, 2, 3):
        guard.add(step, 0.1, {"class": torch.tensor(float(step))}, ["a.jpg"])
        assert read == [float(earlier) for earlier in range(1, step)], "never its own step"
    guard.flush()
    guard.flush()
    assert written == [(step, {"class": float(step)}) for step in (1, 2, 3)]
    guard.add(4, 0.1, {"class": torch.tensor(float("nan"))}, ["b.jpg"])
    with pytest.raises(UserError, match=r"loss class is not finite at step 4, images b.jpg; .* intact"):
        guard.add(5, 0.1, {"class": torch.tensor(5.0)}, ["c.jpg"])
    guard.add(6, 0.1, {"class": torch.tensor(float("inf"))}, ["d.jpg"])
    with pytest.raises(UserError, match=r"at step 6, images d.jpg"):
        guard.flush()
    assert len(written) == 3


def test_a_copy_from_the_cpu_is_there_at_once():
    copy = guards.HostCopy(torch.tensor([1.0, 2.0]))
    assert not copy.late and copy.read().tolist() == [1.0, 2.0]


def test_candidates_leave_the_device_before_nms(monkeypatch):
    """Of a GPU's tensors nothing but candidates may be touched: here every transfer is counted."""
    moved = []
    original = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: (moved.append(tuple(tensor.shape)), original(tensor))[1])
    monkeypatch.setattr("nas.inference.postprocess.greedy_nms", lambda boxes, *_: torch.arange(len(boxes)))
    scores = torch.tensor([[[0.9, 0.0], [0.2, 0.8], [0.0, 0.01]]])
    found = postprocess(scores, torch.rand(1, 3, 4), 0.1)[0]
    assert moved == [(3, 4), (3,), (3,)] and found.labels.tolist() == [0, 1, 0]


def test_the_other_processes_hold_no_validation_pictures(tiny, tmp_path):
    _, val = tiny.shapes(tmp_path)
    for first in (True, False):
        fabric = SimpleNamespace(is_global_zero=first)
        assert (averaging.Validator(val, 64, 4, fabric).loader is not None) == first
