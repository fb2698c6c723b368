"""Rare classes: how often images are repeated, the order of the epochs that comes of it, and the weights of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nas.data.dataset import DetectionData, Record
from nas.data.rare import class_weights, image_shares, repeat_factors
from nas.data.sampler import Draw, EpochSampler, Order, companions


@pytest.fixture(scope="module")
def data() -> DetectionData:
    """A hundred images: class 0 in all but the last, 1 in one (twice), 2 in four, 3 in none."""
    extra = {7: [1, 1], 10: [2], 11: [2], 12: [2, 2], 13: [2]}
    records = []
    for i in range(100):
        labels = np.array(([0] if i < 99 else []) + extra.get(i, []), np.int64)
        boxes = np.tile(np.array([[0, 0, 9, 9]], np.float32), (len(labels), 1))
        records.append(Record(Path(f"{i}.png"), i, 32, 32, boxes, labels, np.full(len(labels), 81.0)))
    return DetectionData("made", "train", ("a", "b", "c", "d"), (1, 2, 3, 4), tuple(records))


def test_factors_are_those_of_the_paper(data: DetectionData) -> None:
    assert image_shares(data).tolist() == [0.99, 0.01, 0.04, 0.0]
    factors = repeat_factors(data, 0.16)
    assert factors[7] == pytest.approx(4.0) and factors[10:14] == pytest.approx([2.0] * 4)
    assert np.delete(factors, [7, 10, 11, 12, 13]).tolist() == [1.0] * 95  # common, or without objects
    assert repeat_factors(data, 0.001).tolist() == [1.0] * 100
    assert repeat_factors(data, 0.0225)[7] == pytest.approx(1.5)


def test_an_epoch_has_every_image_as_often_as_its_factor_says(data: DetectionData) -> None:
    factors = repeat_factors(data, 0.0225)  # 1.5 for one image
    order = Order(100, 5, factors)
    assert order.draws == 101
    counts = np.array([np.bincount(order.of(epoch), minlength=100) for epoch in range(40)])
    assert counts.sum(1).tolist() == [101] * 40 and counts.min() == 1 and counts.max() == 2
    whole = Order(100, 5, repeat_factors(data, 0.16))
    assert whole.draws == 107 and np.bincount(whole.of(0), minlength=100)[[7, 10, 11, 0]].tolist() == [4, 2, 2, 1]
    assert not np.array_equal(whole.of(0), whole.of(1))
    assert np.array_equal(whole.of(3), Order(100, 5, repeat_factors(data, 0.16)).of(3))
    seen = np.array([np.bincount(Order(4, s, np.array([1.0, 1.25, 1.5, 1.25])).of(0)) for s in range(400)]).mean(0)
    assert seen == pytest.approx([1.0, 1.25, 1.5, 1.25], abs=0.08)


def test_a_repeated_image_is_told_apart_and_every_other_draw_is_as_before(data: DetectionData) -> None:
    sampler = EpochSampler(100, 10, seed=2, factors=repeat_factors(data, 0.16))
    draws = [draw for batch in sampler for draw in batch]
    assert len(sampler) == 11 and len(draws) == 110
    assert len({(draw.record, draw.again) for draw in draws}) == 110
    assert sorted(draw.again for draw in draws if draw.record == 7)[:4] == [0, 1, 2, 3]
    plain = [draw for batch in EpochSampler(8, 3, seed=2) for draw in batch]
    assert [draw.again for draw in plain] == [draw.position // 8 for draw in plain] == [0] * 8 + [1]


def test_processes_and_interruptions_change_nothing(data: DetectionData) -> None:
    factors = repeat_factors(data, 0.16)

    def sampler(batch: int, rank: int = 0, world: int = 1) -> EpochSampler:
        return EpochSampler(100, batch, seed=3, rank=rank, world_size=world, total_epochs=3, factors=factors)

    whole = list(sampler(8))
    halves = [list(sampler(4, rank, 2)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*halves, strict=True)] == whole
    later = sampler(8)
    later.load_state_dict(sampler(8).state_dict() | {"position": 5})
    assert list(later) == whole[5:]


def test_partners_of_a_mosaic_are_repeated_too() -> None:
    factors = np.where(np.arange(512) < 8, 16.0, 1.0)
    order = Order(512, 1, factors)
    first = order.of(0)
    pools = [companions(order, Draw(int(first[p]), 0, p, 0, 64, 0, 0), 64) for p in range(0, order.draws, 16)]
    assert {len(pool) for pool in pools} <= set(range(48, 65)) and np.bincount(np.concatenate(pools))[:8].sum() > 100
    assert len(companions(order, Draw(0, 0, 0, 0, 64, 0, 0), 0)) == order.draws == 512 + 8 * 15


def test_class_weights_have_the_mean_one_over_all_boxes() -> None:
    boxes = np.array([900, 90, 10, 0])
    for power in (0.5, 1.0):
        weights = class_weights(boxes, power)
        assert weights[1] / weights[0] == pytest.approx(10**power) and weights[2] / weights[0] == pytest.approx(
            90**power
        )
        assert (weights[:3] * boxes[:3]).sum() + weights[3] == pytest.approx(1001)
    assert class_weights(boxes, 0.0).tolist() == [1.0] * 4
