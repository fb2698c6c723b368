"""Assigners against the official outputs, each other and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas.loss.assignment import OTA, TAL, make_assigner, pad_targets

ASSIGNERS = {name: make_assigner(name) for name in ("align_ota", "sim_ota", "atss", "tal")} | {
    "report": make_assigner("align_ota_report"),
    "tal_one": TAL(topk=7, keep=1),
}


def grid(side: int = 160) -> tuple[torch.Tensor, torch.Tensor]:
    points, strides = [], []
    for stride in (8, 16, 32):
        axis = torch.arange(side // stride) * stride + stride / 2
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        points.append(torch.stack([columns, rows], -1).reshape(-1, 2))
        strides.append(torch.full((len(points[-1]),), float(stride)))
    return torch.cat(points), torch.cat(strides)


def check_golden(folder, name: str, largest_cost: float = float("inf")) -> None:
    data = np.load(folder / f"assigner_{name}.npz")
    tensors = {key: torch.from_numpy(data[key]) for key in data}
    targets = pad_targets([tensors["gt_boxes"]], [tensors["gt_labels"]])
    priors = tensors["priors"]
    scores, boxes = tensors["scores"][None], tensors["decoded"][None]
    found = OTA()(scores, boxes, priors[:, :2], priors[:, 2], targets)
    cheap = torch.ones(len(priors), dtype=torch.bool)
    cheap[tensors["valid_mask"]] = tensors["cost"].amin(-1) < largest_cost
    expected = tensors["gt_inds"] - 1
    assert torch.equal(found.matched[0][cheap], expected[cheap])
    both = cheap & (expected >= 0)
    torch.testing.assert_close(found.quality[0][both], tensors["max_overlaps"][both], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["b_one_gt", "c_crowded"])
def test_align_ota_equals_official_exactly(golden, name):
    check_golden(golden / "damo_losses", name)


def test_align_ota_with_ties_equals_official_where_unique(golden):
    check_golden(golden / "damo_losses", "f_tiny_tie_prone", 1e7)


@pytest.mark.parametrize("name", ["a_sparse", "d_large", "g_medium"])
def test_align_ota_equals_more_official_cases(shared, name):
    folder = shared / "golden" / "damo"
    if not (folder / f"assigner_{name}.npz").is_file():
        pytest.skip(f"assigner_{name}.npz is absent")
    check_golden(folder, name)


@pytest.mark.parametrize("name", ASSIGNERS)
def test_padding_and_empty_images_change_nothing(name):
    generator = torch.Generator().manual_seed(3)
    points, strides = grid()
    half = strides[:, None] * (1 + torch.rand(len(points), 2, generator=generator))
    boxes = torch.cat([points - half, points + half], 1)[None].repeat(3, 1, 1)
    scores = torch.rand(3, len(points), 5, generator=generator)
    own = [torch.tensor([[10.0, 20, 60, 90], [50, 40, 120, 100], [3, 3, 4, 4]]), torch.zeros(0, 4)]
    own.append(torch.tensor([[90.0, 90, 130, 120]]))
    labels = [torch.tensor([1, 2, 3]), torch.zeros(0, dtype=torch.long), torch.tensor([4])]
    together = ASSIGNERS[name](scores, boxes, points, strides, pad_targets(own, labels))
    assert not together.positive[1].any() and together.quality[1].sum() == 0
    for i in range(3):
        targets = pad_targets(own[i : i + 1], labels[i : i + 1])
        alone = ASSIGNERS[name](scores[i : i + 1], boxes[i : i + 1], points, strides, targets)
        assert torch.equal(alone.matched[0], together.matched[i])
        torch.testing.assert_close(alone.quality[0], together.quality[i])
    assert 0 <= together.quality.min() and together.quality.max() <= 1
    assert set(together.matched[0].unique().tolist()) - {-1} <= {0, 1, 2}
    assert (together.matched[0] == 0).any()


def test_one_to_one_keeps_one_prior_per_object():
    points, strides = grid()
    boxes = torch.cat([points - 20, points + 20], 1)[None]
    truth = torch.tensor([[20.0, 20, 70, 70], [80, 80, 130, 120]])
    found = TAL(topk=7, keep=1)(
        torch.full((1, len(points), 2), 0.3), boxes, points, strides, pad_targets([truth], [torch.tensor([0, 1])])
    )
    assert [(found.matched == i).sum().item() for i in range(2)] == [1, 1]


def test_boxes_outside_the_image_and_single_pixels_are_harmless():
    points, strides = grid()
    boxes = torch.cat([points - 9, points + 9], 1)[None]
    truth = torch.tensor([[-500.0, -500, -400, -400], [80, 80, 81, 81]])
    targets = pad_targets([truth], [torch.tensor([0, 0])])
    for name, assigner in ASSIGNERS.items():
        found = assigner(torch.full((1, len(points), 1), 0.5), boxes, points, strides, targets)
        assert torch.isfinite(found.quality).all() and found.quality[found.matched == 0].sum() == 0
        if name.startswith(("tal", "atss")):
            assert not (found.matched == 0).any()


@pytest.mark.parametrize(("floor", "label"), [(1e-9, 0.0003), (0.0, 0.02667)])
def test_the_floor_of_tal_silences_badly_predicted_small_objects(floor, label):
    """An object of 20 pixels under first boxes of 15 strides: the published 1e-9 leaves hardly a label."""
    points, strides = grid()
    side = 7.5 * strides[:, None]
    boxes = torch.cat([points - side, points + side], -1)[None]
    scores = torch.full((1, len(points), 1), 0.001)
    small = pad_targets([torch.tensor([[70.0, 70.0, 90.0, 90.0]])], [torch.tensor([0])])
    found = TAL(floor=floor)(scores, boxes, points, strides, small)
    assert found.positive.sum() >= 4
    assert found.quality.max().item() == pytest.approx(label, abs=5e-5)
    assert TAL(floor=floor)(scores * 0, boxes, points, strides, small).quality.max() == 0
