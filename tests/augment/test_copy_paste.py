"""Copy-paste: boxes lie where the pixels were put, hidden ones go, rare and small objects are chosen first."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from nas.augment.copy_paste import Donors, paste_objects, visible_hull
from nas.augment.pipeline import Augmentation, Augmenter
from nas.data.dataset import DetectionData, Record
from nas.data.images import ImageSource
from nas.data.sampler import Draw

SIZE = 160
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def record(
    boxes: list[list[float]], labels: list[int], side: int = 100, crowd: list[list[float]] | None = None
) -> Record:
    crowds = np.array(crowd or [], np.float32).reshape(-1, 4)
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    areas = (corners[:, 2:] - corners[:, :2]).prod(1).astype(np.float64)
    kinds = np.zeros(len(crowds), np.int64)
    return Record(
        Path("x.png"),
        0,
        side,
        side,
        corners,
        np.array(labels, np.int64),
        areas,
        (),
        crowds,
        kinds,
        np.ones(len(crowds)),
    )


def share(image: np.ndarray, box: np.ndarray, colour: tuple[int, int, int]) -> float:
    """Of the pixels of a box, how many have a colour."""
    x1, y1, x2, y2 = box.round().astype(int)
    return float((image[y1:y2, x1:x2] == colour).all(-1).mean())


def test_pasted_boxes_hold_their_pixels_and_hidden_ones_are_dropped() -> None:
    """A red object with a blue one inside it, pasted on two green ones: by colour, nothing else is labelled or shows."""
    donor = record([[20, 30, 60, 80], [30, 40, 50, 70], [55, 30, 95, 80]], [1, 2, 1])
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[30:80, 20:60], pixels[40:70, 30:50] = RED, BLUE
    dropped = shrunk = 0
    for seed in range(60):
        canvas = np.zeros((SIZE, SIZE, 3), np.uint8)
        boxes, labels = np.array([[10, 20, 90, 100], [100, 110, 150, 150]], np.float32), np.array([0, 0])
        for x1, y1, x2, y2 in boxes.astype(int):
            canvas[y1:y2, x1:x2] = GREEN
        image, found, kinds = paste_objects(
            canvas, boxes, labels, donor, pixels, np.array([0]), (1.6, 1.6), np.random.default_rng(seed)
        )
        assert found.dtype == np.float32 and kinds.tolist()[-2:] == [1, 2]
        assert (found[:, :2] >= 0).all() and (found <= SIZE).all()
        red, blue = found[-2:]
        assert share(image, red, RED) + share(image, red, BLUE) > 0.85  # at borders they mix
        assert share(image, blue, BLUE) > 0.75 and (blue[2:] - blue[:2]).prod() == pytest.approx(
            (red[2:] - red[:2]).prod() * 600 / 2000
        )
        assert (blue[:2] > red[:2]).all() and (blue[2:] < red[2:]).all()
        kept = found[:-2]
        for before in boxes:
            visible = share(image, before, GREEN)
            mine = [
                box
                for box in kept
                if (box >= before[[0, 1, 0, 1]] - 1e-3).all() and (box <= before[[2, 3, 2, 3]]).all()
            ]
            assert bool(mine) == (visible >= 0.5), seed
            dropped += not mine
            if mine and not np.array_equal(mine[0], before):
                shrunk += 1
                assert share(image, mine[0], GREEN) > 0.999
    assert dropped > 5 and shrunk > 2


def test_the_hull_shrinks_only_where_a_side_is_cut_off() -> None:
    boxes = np.array([[10.0, 10, 50, 50]])
    for place, expected in (
        ([0, 0, 20, 60], [20, 10, 50, 50]),
        ([40, 5, 60, 55], [10, 10, 40, 50]),
        ([0, 0, 60, 30], [10, 30, 50, 50]),
        ([5, 45, 55, 90], [10, 10, 50, 45]),
        ([20, 0, 30, 60], [10, 10, 50, 50]),  # cuts it in two
        ([0, 20, 20, 60], [10, 10, 50, 50]),  # a corner
        ([60, 0, 90, 90], [10, 10, 50, 50]),  # beside it
    ):
        assert visible_hull(boxes, np.array(place, float)).tolist() == [expected]
    whole = visible_hull(boxes, np.array([0.0, 0, 60, 60]))
    assert (whole[:, 2:] <= whole[:, :2]).any()


def test_rare_and_small_objects_are_chosen_first_and_none_of_a_crowd() -> None:
    common = [record([[0, 0, 40, 40]], [0]) for _ in range(9)]
    rare, small = record([[0, 0, 40, 40]], [1]), record([[0, 0, 4, 4], [0, 0, 40, 40]], [0, 0])
    crowded = record([[0, 0, 40, 40]], [2], crowd=[[30, 30, 90, 90]])
    donors = Donors([*common, rare, small, crowded, record([], [])], 3)
    assert donors.heaviest[9] == pytest.approx(11 * donors.heaviest[0])
    assert donors.heaviest[10] == pytest.approx(10 * donors.heaviest[0])
    assert donors.heaviest[11] == donors.heaviest[12] == 0
    rng = np.random.default_rng(0)
    drawn = np.bincount([donors.image(rng, np.arange(13)) or 0 for _ in range(600)], minlength=13)
    assert drawn[9] > 150 and drawn[10] > 130 and drawn[11] == drawn[12] == 0
    assert donors.image(rng, np.array([11, 12])) is None
    counts = {len(donors.objects(rng, 10)) for _ in range(40)}
    assert counts == {1, 2}  # never more than there are
    first = [donors.objects(rng, 10)[0] for _ in range(200)]
    assert first.count(0) > 150


def test_objects_that_are_too_small_or_too_large_are_left_out() -> None:
    donor, pixels = record([[0, 0, 1, 1], [0, 0, 100, 100]], [0, 1]), np.zeros((100, 100, 3), np.uint8)
    canvas, none = np.full((SIZE, SIZE, 3), 7, np.uint8), np.zeros((0, 4), np.float32)
    for scale in (0.5, 3.0):
        chosen = np.array([0] if scale == 0.5 else [1])
        image, boxes, labels = paste_objects(
            canvas.copy(), none, np.zeros(0, np.int64), donor, pixels, chosen, (scale, scale), np.random.default_rng(1)
        )
        assert (image == 7).all() and len(boxes) == len(labels) == 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    folder = tmp_path_factory.mktemp("pasted")
    records = []
    for i in range(6):
        pixels = np.full((90, 120, 3), 20 * i, np.uint8)
        pixels[20:60, 30:80] = (200, 40 * i, 90)
        cv2.imwrite(str(folder / f"{i}.png"), pixels[..., ::-1])
        box, label = np.array([[30, 20, 80, 60]], np.float32), np.array([i % 2])
        records.append(Record(folder / f"{i}.png", i, 120, 90, box, label, np.array([2000.0])))
    return DetectionData("pasted", "train", ("a", "b"), (1, 2), tuple(records))


@pytest.mark.parametrize("cache", ["none", "ram"])
@pytest.mark.parametrize("recipe", [Augmentation.plain(), Augmentation(mosaic_pool=4)], ids=["plain", "mosaic"])
def test_the_pipeline_pastes_by_the_draw_alone_and_not_in_closing_epochs(
    data: DetectionData, recipe: Augmentation, cache: str
) -> None:
    def made(share: float, number: int, closing: bool = False) -> tuple:
        recipe.copy_paste = share
        make = Augmenter(data, ImageSource(data.records, SIZE, cache), recipe, seed=4)
        return make(Draw(number, 1, number, 0, SIZE, 0.5, float(closing)))

    more = 0
    for number in range(6):
        plain, pasted, again = made(0.0, number), made(1.0, number), made(1.0, number)
        assert all(np.array_equal(one, two) for one, two in zip(pasted, again, strict=True))
        assert pasted[0].shape == plain[0].shape == (SIZE, SIZE, 3) and pasted[1].dtype == np.float32
        assert len(pasted[1]) == len(pasted[2]) and pasted[2].dtype == np.int64
        more += len(pasted[1]) > len(plain[1])
        late = made(0.0, number, True), made(1.0, number, True)
        assert all(np.array_equal(one, two) for one, two in zip(*late, strict=True))
    assert more >= 3


def test_without_it_a_recipe_is_what_it_was() -> None:
    assert "copy_paste" not in Augmentation().decisive()
    assert Augmentation(copy_paste=0.3).decisive() == Augmentation().decisive() | {"copy_paste": 0.3}
