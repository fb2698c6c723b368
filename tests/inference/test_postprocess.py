"""Post-processing equals the sequential algorithm written out, for any boxes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.inference import postprocess as module
from nas.inference.postprocess import postprocess


def sequential(scores, boxes, score_threshold, iou_threshold, max_detections, max_candidates, agnostic):
    """One candidate after the other, in Python."""
    pairs = [
        (float(scores[prior, label]), prior, label)
        for prior in range(scores.shape[0])
        for label in range(scores.shape[1])
        if scores[prior, label] > score_threshold
    ]
    pairs = sorted(pairs, key=lambda pair: -pair[0])[:max_candidates]
    kept = []
    for pair in pairs:
        for other in kept:
            if (agnostic or pair[2] == other[2]) and overlap(boxes[pair[1]], boxes[other[1]]) > iou_threshold:
                break
        else:
            kept.append(pair)
    return kept[:max_detections]


def overlap(a, b):
    width = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])).clamp(min=0)
    height = (torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])).clamp(min=0)
    inter = width * height
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    priors=st.integers(0, 40),
    classes=st.integers(1, 4),
    levels=st.sampled_from([3, 1000]),  # few levels: many equal scores
    agnostic=st.booleans(),
    limit=st.sampled_from([5, 1000]),
    candidates=st.sampled_from([20, 1000]),
)
def test_equals_the_sequential_algorithm(seed, priors, classes, levels, agnostic, limit, candidates):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, levels, (priors, classes), generator=generator) / levels
    corner = torch.randint(0, 30, (priors, 2), generator=generator).float()
    boxes = torch.cat([corner, corner + torch.randint(0, 30, (priors, 2), generator=generator)], 1)
    expected = sequential(scores, boxes, 0.2, 0.5, limit, candidates, agnostic)
    turned = scores.T.contiguous().T
    block, module.BLOCK = module.BLOCK, 7
    try:
        for layout in (scores, turned):
            (found,) = postprocess(layout[None], boxes[None], 0.2, 0.5, limit, candidates, agnostic)
            assert found.scores.tolist() == [pair[0] for pair in expected]
            assert found.labels.tolist() == [pair[2] for pair in expected]
            assert found.boxes.tolist() == [boxes[pair[1]].tolist() for pair in expected]
    finally:
        module.BLOCK = block


def test_a_chain_of_overlaps_is_settled_in_order():
    """Each box suppresses only the next, so every second one stays, whatever the block."""
    x = torch.arange(600.0) * 4
    boxes = torch.stack([x, torch.zeros(600), x + 10, torch.ones(600)], 1)
    (found,) = postprocess(torch.linspace(0.9, 0.1, 600)[None, :, None], boxes[None], 0.05, 0.4, 1000)
    assert torch.equal(found.boxes[:, 0], x[::2])


def test_threshold_is_strict_and_nan_is_no_detection():
    scores = torch.tensor([[[0.5, 0.25], [0.75, float("nan")]]])
    boxes = torch.tensor([[[0.0, 0, 10, 10], [100, 0, 110, 10]]])
    (found,) = postprocess(scores, boxes, 0.25)
    assert found.scores.tolist() == [0.75, 0.5] and found.labels.tolist() == [0, 0]


def test_one_prior_may_carry_several_classes():
    (found,) = postprocess(torch.tensor([[[0.9, 0.8]]]), torch.tensor([[[0.0, 0, 9, 9]]]))
    assert found.labels.tolist() == [0, 1]
    (found,) = postprocess(torch.tensor([[[0.9, 0.8]]]), torch.tensor([[[0.0, 0, 9, 9]]]), agnostic=True)
    assert found.labels.tolist() == [0]


def test_end_to_end_rows_are_only_thresholded():
    scores, boxes = torch.tensor([[[0.9], [0.8], [0.1]]]), torch.zeros(1, 3, 4)
    (found,) = postprocess(scores, boxes, 0.2, nms=False)
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])


def test_nothing_found():
    first, second = postprocess(torch.zeros(2, 5, 3), torch.zeros(2, 5, 4))
    assert first.boxes.shape == second.boxes.shape == (0, 4) and first.labels.dtype == torch.long


def test_the_full_size_case():
    """8400 priors, 80 classes, 2000 candidates, against the sequential algorithm on those that matter."""
    torch.manual_seed(0)
    scores = torch.zeros(8400, 80)
    scores[torch.randint(0, 8400, (2000,)), torch.randint(0, 6, (2000,))] = torch.rand(2000) * 0.9 + 0.06
    corner = torch.rand(8400, 2) * 500
    boxes = torch.cat([corner, corner + torch.rand(8400, 2) * 300], 1)
    (found,) = postprocess(scores[None], boxes[None], 0.05, 0.3, 10_000)
    rows, labels = (scores > 0.05).nonzero().T
    order = scores[rows, labels].sort(descending=True, stable=True).indices
    kept = torch.zeros(0, dtype=torch.long)
    for index in order:
        rivals = kept[labels[kept] == labels[index]]
        if not len(rivals) or overlap(boxes[rows[index]], boxes[rows[rivals]].T).max() <= 0.3:
            kept = torch.cat([kept, index[None]])
    assert torch.equal(found.scores, scores[rows[kept], labels[kept]])
    assert torch.equal(found.boxes, boxes[rows[kept]])
