"""The order is a function of (seed, epoch): same batches with any workers and processes, resumable at any batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from nas.augment.pipeline import Augmentation
from nas.data.coco import read_coco
from nas.data.dataset import DetectionData, Record
from nas.data.images import decode
from nas.data.loader import Batch, Loader, build_loader
from nas.data.sampler import Draw, EpochSampler, Order, companions
from nas.data.shapes import draw_shapes
from nas.errors import UserError

RECIPE = Augmentation(mixup=0.5, closing_epochs=0, mosaic_pool=16, hue=0.1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    root = draw_shapes(tmp_path_factory.mktemp("shapes"), counts={"train": 22}, size=96)
    return read_coco(root / "annotations/train.json", root / "images/train")[0]


def same(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.images, b.images)
        and all(torch.equal(x, y) for x, y in zip(a.boxes + a.labels, b.boxes + b.labels, strict=True))
        and a[3:] == b[3:]
    )


def load(data: DetectionData, workers: int = 0, **more: object) -> Loader:
    options = {"batch_size": 4, "image_size": 64, "seed": 7, "augmentation": RECIPE} | more
    return build_loader(data, workers=workers, **options)  # type: ignore[arg-type]


def test_batch(data: DetectionData) -> None:
    batch = next(iter(load(data)))
    assert batch.images.shape == (4, 3, 64, 64) and batch.images.dtype == torch.uint8
    assert len(batch.boxes) == len(batch.labels) == len(batch.indices) == 4
    assert all(
        b.dtype == torch.float32 and n.dtype == torch.int64 for b, n in zip(batch.boxes, batch.labels, strict=True)
    )
    record = data.records[batch.indices[1]]
    assert batch.fits[1][:2] == (record.width, record.height)


def test_the_number_of_workers_changes_nothing(data: DetectionData) -> None:
    loaders = [load(data, workers) for workers in (0, 1, 2)]
    for _ in range(2):
        epochs = [list(loader) for loader in loaders]
        assert [len(e) for e in epochs] == [6, 6, 6]
        for batches in zip(*epochs, strict=True):
            assert same(batches[0], batches[1]) and same(batches[0], batches[2])


def test_workers_that_begin_the_next_epoch_change_nothing(data: DetectionData, monkeypatch) -> None:
    plain, ahead = load(data, 0, total_epochs=4), load(data, 2, total_epochs=4, endless=True)
    started, start = [], torch.utils.data.DataLoader.__iter__

    def starting(batches):
        started.append(batches is ahead._batches)
        return start(batches)

    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", starting)
    for epoch in range(5):  # the last one is beyond the end
        if epoch == 2:  # a new plan: what the workers have prepared is out of date
            plain.sampler.closing_epochs = ahead.sampler.closing_epochs = 2
        if epoch == 3:  # begun, left and taken up again
            assert same(next(iter(ahead)), next(iter(plain)))
        one, two = list(plain), list(ahead)
        assert len(one) == len(two) == (5 if epoch == 3 else 6)
        assert all(same(a, b) for a, b in zip(one, two, strict=True))
        assert ahead.state_dict() == plain.state_dict()
    assert sum(started) == 3  # at the beginning, with the new plan, beyond the end
    ahead.close()


def test_training_takes_nothing_from_the_global_random_state(data: DetectionData) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(load(data, workers=1))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_at_every_batch(data: DetectionData, workers: int) -> None:
    whole = load(data, 0)
    straight = [batch for _ in range(2) for batch in whole]
    for stop in (1, 4, 6, 9):
        first, taken = load(data, workers), 0
        state: dict = {}
        while taken < stop:
            for _ in first:
                taken += 1
                state = first.state_dict()
                if taken == stop:
                    break
        first.close()
        second = load(data, 0)
        second.load_state_dict(state)
        rest = [batch for _ in range(2) for batch in second if batch.epoch < 2][: len(straight) - stop]
        assert all(same(a, b) for a, b in zip(straight[stop:], rest, strict=True)), stop


def test_resuming_with_other_data_is_refused(data: DetectionData) -> None:
    state = load(data).state_dict()
    with pytest.raises(UserError, match="number of images was 22 and is 21"):
        load(data.subset(range(21))).load_state_dict(state)
    with pytest.raises(UserError, match="global batch size"):
        load(data, batch_size=8).load_state_dict(state)


def test_two_processes_make_the_batches_of_one(data: DetectionData) -> None:
    one = list(load(data, batch_size=4))
    ranks = [list(load(data, batch_size=2, rank=r, world_size=2)) for r in (0, 1)]
    for whole, first, second in zip(one, *ranks, strict=True):
        assert torch.equal(whole.images, torch.cat([first.images, second.images]))
        assert whole.indices == first.indices + second.indices


def test_every_image_once_an_epoch_and_wrapped_to_full_batches() -> None:
    sampler = EpochSampler(10, 4, seed=1)
    seen = [draw.record for batch in sampler for draw in batch]
    assert len(seen) == 12 and sorted(seen[:10]) == list(range(10)) and seen[10:] == seen[:2]
    short = [draw.record for batch in EpochSampler(10, 4, train=False) for draw in batch]
    assert short == list(range(10))
    tiny = [draw.record for batch in EpochSampler(2, 8) for draw in batch]
    assert len(tiny) == 8 and set(tiny) == {0, 1}


def test_a_repeated_image_is_augmented_anew(data: DetectionData) -> None:
    batch = next(iter(load(data.subset([0]), batch_size=2)))
    assert batch.indices == [0, 0] and not torch.equal(batch.images[0], batch.images[1])


def test_progress_and_closing() -> None:
    sampler = EpochSampler(8, 4, total_epochs=4, closing_epochs=1)
    rows = []
    for sampler.epoch in range(4):
        rows += [(draw[0].progress, draw[0].closing) for draw in sampler]
    assert [p for p, _ in rows] == [i / 8 for i in range(8)]
    assert [c for _, c in rows] == [False] * 6 + [True] * 2
    assert not next(iter(EpochSampler(8, 4)))[0].closing


def test_multi_scale_is_one_size_a_batch(data: DetectionData) -> None:
    recipe = replace(RECIPE, multi_scale=0.5)
    shapes = {tuple(batch.images.shape[2:]) for _ in range(3) for batch in load(data, augmentation=recipe)}
    assert shapes <= {(32, 32), (64, 64), (96, 96)} and len(shapes) > 1


def test_companions_are_whole_lanes() -> None:
    """The images of a lane are companions of each other and of nobody else; all images belong to one."""
    lanes: dict[tuple[int, ...], set[int]] = {}
    order = Order(512, 3)
    for position, index in enumerate(order.of(0)):
        pool = companions(order, Draw(int(index), 0, position, 0, 64, 0, 0), 64)
        assert index in pool and len(pool) == 64
        lanes.setdefault(tuple(pool), set()).add(int(index))
    assert len(lanes) == 8 and all(set(pool) == members for pool, members in lanes.items())
    assert len(companions(order, Draw(0, 0, 0, 0, 64, 0, 0), 0)) == 512


def test_ram_cache_gives_the_same_evaluation_batches(data: DetectionData) -> None:
    for plain, cached in zip(load(data, train=False), load(data, train=False, cache="ram"), strict=True):
        assert same(plain, cached)


def test_evaluation_is_a_plain_stretch(data: DetectionData) -> None:
    batch = next(iter(load(data, train=False)))
    expected = cv2.resize(decode(data.records[2]), (64, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(batch.images[2].permute(1, 2, 0).numpy(), expected)


def test_an_all_empty_batch_and_a_one_pixel_box(data: DetectionData) -> None:
    record = data.records[0]
    empty = Record(record.path, 1, record.width, record.height)
    batch = next(iter(load(replace(data, records=(empty,) * 4))))
    assert [len(b) for b in batch.boxes] == [0] * 4 and batch.boxes[0].shape == (0, 4)
    dot = np.array([[5, 5, 6, 6], [-50, -50, -20, -20]], np.float32)
    one = Record(record.path, 1, record.width, record.height, dot, np.zeros(2, np.int64), np.ones(2))
    batch = next(iter(load(replace(data, records=(one,) * 4), augmentation=Augmentation.plain())))
    assert [len(b) for b in batch.boxes] == [1] * 4


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("damage", "message"), [("truncate", "truncated"), ("remove", "No such file"), ("resize", "annotated")]
)
def test_a_broken_image_is_named(data: DetectionData, tmp_path: Path, workers: int, damage: str, message: str) -> None:
    record = data.records[0]
    path = tmp_path / "broken.jpg"
    content = record.path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage == "truncate" else content)
    width = record.width + 8 if damage == "resize" else record.width
    if damage == "remove":
        path.unlink()
    broken = replace(data, records=(*data.records[1:4], replace(record, path=path, width=width)))
    with pytest.raises(UserError, match=f"broken.jpg.*{message}") as error:
        list(load(broken, workers))
    assert "\n" not in str(error.value)


def test_reduced_decoding_and_orientation(tmp_path: Path) -> None:
    image = cv2.resize(np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8), (402, 301))
    cv2.imwrite(str(tmp_path / "a.jpg"), image)
    record = Record(tmp_path / "a.jpg", 1, 402, 301)
    for reduction, shape in ((1, (301, 402)), (2, (151, 201)), (4, (76, 101)), (8, (38, 51))):
        assert decode(record, reduction).shape == (*shape, 3)
    small = decode(record, 4).astype(int)
    full = cv2.resize(decode(record), (101, 76), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(small - full).mean() < 4  # same colours in the same order


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size 0"),
        ({"cache": "disk"}, "none, ram or auto"),
    ],
)
def test_wrong_options(data: DetectionData, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(data, **options)
    with pytest.raises(UserError, match="no images"):
        load(data.subset([]))


def test_a_state_of_the_last_batch_goes_on_with_the_next_epoch() -> None:
    sampler, resumed = (
        EpochSampler(8, 4, seed=1, total_epochs=3, endless=True),
        EpochSampler(8, 4, seed=1, total_epochs=3),
    )
    sampler.epoch, sampler.position = 1, 2
    resumed.load_state_dict(sampler.state_dict())
    assert (resumed.epoch, resumed.position) == (2, 0)
    assert [draw.epoch for batch in resumed for draw in batch] == [2] * 8
