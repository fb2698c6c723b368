"""Boxes follow their pixels through every map; the policy's numbers; the recipe's ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.augment import pipeline as augment
from nas.augment.affine import (
    clip_segments,
    corner_hull,
    inverse,
    map_points,
    paste,
    random_affine,
    rectangle_hull,
    scaling,
    translation,
)
from nas.augment.mosaic import Tile, mosaic_tiles, moved_boxes
from nas.augment.pipeline import Augmentation, Augmenter, jitter_colour
from nas.augment.sada import POLICY, apply_sada
from nas.data.dataset import DetectionData, Record
from nas.data.images import ImageSource, decode
from nas.data.sampler import Draw
from nas.errors import UserError

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))
SIZE = 160


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    """Four PNGs of different sizes, each black with one rectangle of its own colour (class = colour)."""
    folder = tmp_path_factory.mktemp("coloured")
    records = []
    for label, (width, height) in enumerate(((200, 150), (120, 180), (160, 160), (90, 70))):
        image = np.zeros((height, width, 3), np.uint8)
        x1, y1, x2, y2 = width // 4, height // 5, width * 3 // 4, height * 7 // 10
        image[y1:y2, x1:x2] = COLOURS[label]
        path = folder / f"{label}.png"
        cv2.imwrite(str(path), image[..., ::-1])
        box = np.array([[x1, y1, x2, y2]], np.float32)
        records.append(Record(path, label, width, height, box, np.array([label]), np.ones(1)))
    return DetectionData("coloured", "train", ("r", "g", "b", "y"), (0, 1, 2, 3), tuple(records))


@pytest.fixture
def all_different(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mosaic shows each of the four images once."""

    def tiles(rng: np.random.Generator, indices: tuple[int, ...], *rest: Any) -> list[Tile]:
        return mosaic_tiles(rng, tuple((indices[0] + i) % 4 for i in range(4)), *rest)

    monkeypatch.setattr(augment, "mosaic_tiles", tiles)


def draw(record: int, epoch: int = 0, opening: float = 0.0, progress: float = 1.0) -> Draw:
    return Draw(record, epoch, record, 0, SIZE, progress, opening)


def augmenter(data: DetectionData, recipe: Augmentation, cache: str = "none") -> Augmenter:
    return Augmenter(data, ImageSource(data.records, SIZE, cache), recipe, seed=3)


def pixels_of(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray | None:
    """Box of the pixels close to a colour."""
    ys, xs = np.nonzero((np.abs(image.astype(int) - colour) < 90).all(-1))
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) if len(xs) > 30 else None


@pytest.mark.usefixtures("all_different")
@pytest.mark.parametrize("cache", ["none", "ram"])
@pytest.mark.parametrize(
    "recipe",
    [
        Augmentation(rotation=0, shear=0, mixup=0, sada=False, scale=(0.7, 1.3), flip=0.5),
        Augmentation(mosaic=0, rotation=0, shear=0, mixup=0, sada=False, scale=(0.5, 1.0), flip=0.5),
        Augmentation.plain(flip=0.5),
        Augmentation.plain(flip=0.5, flip_vertical=0.5),
    ],
    ids=["mosaic", "affine", "plain", "vertical"],
)
def test_a_box_follows_its_pixels(coloured: DetectionData, recipe: Augmentation, cache: str) -> None:
    make = augmenter(coloured, recipe, cache)
    checked = 0
    for epoch in range(8):
        for index in range(4):
            image, boxes, labels = make(draw(index, epoch))
            for label in set(labels.tolist()):
                seen = pixels_of(image, COLOURS[label])
                assert (labels == label).sum() == 1
                if seen is not None:
                    np.testing.assert_allclose(boxes[labels == label][0], seen, atol=3)
                    checked += 1
    assert checked > 15


@pytest.mark.usefixtures("all_different")
def test_rotated_boxes_contain_their_pixels(coloured: DetectionData) -> None:
    make = augmenter(coloured, Augmentation(mixup=0, sada=False, rotation=20, shear=5, scale=(0.8, 1.2)))
    for epoch in range(10):
        image, boxes, labels = make(draw(epoch % 4, epoch))
        for label in range(4):
            seen = pixels_of(image, COLOURS[label])
            own = boxes[labels == label]
            if seen is not None and len(own) == 1 and (seen[2:] - seen[:2]).prod() > 400:
                assert (own[0, :2] <= seen[:2] + 2).all() and (own[0, 2:] >= seen[2:] - 2).all()


def test_mixup_appends_the_other_images_boxes_at_half_strength(coloured: DetectionData) -> None:
    base = dict(mosaic=0.0, rotation=0.0, shear=0.0, translation=0.0, scale=(1.0, 1.0), flip=0.0, sada=False)
    make = augmenter(coloured, Augmentation(mixup=1.0, **base))  # type: ignore[arg-type]
    for epoch in range(8):
        image, boxes, labels = make(draw(0, epoch))
        assert 1 <= len(labels) <= 2 and labels[0] == 0
        if len(labels) == 2 and labels[1] != 0:
            x1, y1, x2, y2 = boxes[1].round().astype(int)
            centre = image[(y1 + y2) // 2, (x1 + x2) // 2].astype(int)
            expected = np.array(COLOURS[labels[1]]) // 2
            assert (np.abs(centre - expected) <= 130).all()
            assert (centre[expected > 0] >= expected[expected > 0] - 3).all()


def test_closing_epochs_may_keep_the_affine_map(coloured: DetectionData) -> None:
    """Then they lose mosaic and mixup alone: what a recipe without these two draws in its other epochs."""
    recipe = Augmentation(closing_affine=True, sada=False, mixup=1.0)
    without = Augmentation(mosaic=0.0, mixup=0.0, sada=False)
    rows = [
        [augmenter(coloured, recipe)(draw(i, opening=1.0)) for i in range(4)],
        [augmenter(coloured, Augmentation(sada=False, mixup=1.0))(draw(i, opening=1.0)) for i in range(4)],
    ]
    for kept, still in zip(*rows, strict=True):
        assert kept.image.shape == still.image.shape and not np.array_equal(kept.image, still.image)
        assert len(kept.labels) <= 1  # of one image alone
    moved = [augmenter(coloured, without)(draw(i)).image for i in range(4)]
    assert all(len(np.unique(image.reshape(-1, 3), axis=0)) > 1 for image in moved)
    plain = Augmentation.plain()
    plain.closing_affine = True
    assert np.array_equal(
        augmenter(coloured, plain)(draw(1, opening=1.0)).image, augmenter(coloured, Augmentation.plain())(draw(1)).image
    )


def test_a_field_that_is_new_counts_only_where_it_is_used() -> None:
    assert "closing_affine" not in Augmentation().decisive()
    assert Augmentation(closing_affine=True).decisive() == Augmentation().decisive() | {"closing_affine": True}


def test_closing_epochs_are_a_stretch_and_a_flip(coloured: DetectionData) -> None:
    make = augmenter(coloured, Augmentation(sada=False, flip=0.0))
    sample = make(draw(1, opening=1.0))
    record = coloured.records[1]
    expected = cv2.resize(decode(record), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(sample.image, expected)
    np.testing.assert_allclose(sample.boxes, record.boxes * ([SIZE / 120, SIZE / 180] * 2), rtol=1e-6)


def test_the_same_draw_is_the_same_sample_and_another_epoch_is_not(coloured: DetectionData) -> None:
    recipe = Augmentation(mixup=1.0, hue=0.1, saturation=0.5, value=0.5)
    one, two = augmenter(coloured, recipe), augmenter(coloured, recipe)
    two(draw(3, 5))  # what was drawn before does not matter
    for a, b in zip(one(draw(2, 1)), two(draw(2, 1)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one(draw(2, 1)).image, one(draw(2, 2)).image)


def test_the_composed_mosaic_equals_the_one_of_the_big_canvas(coloured: DetectionData) -> None:
    """Building the canvas of two sizes a side and warping it gives the same picture within interpolation."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        tiles = mosaic_tiles(rng, (0, 1, 2, 3), coloured.records, SIZE)
        matrix, _ = random_affine(rng, 2 * SIZE, SIZE, 10, (0.6, 1.2), 2, 0.2)
        big = np.full((2 * SIZE, 2 * SIZE, 4), 114, np.uint8)
        direct = np.full((SIZE, SIZE, 4), 114, np.uint8)
        for tile in tiles:
            record = coloured.records[tile.index]
            source = decode(record)
            window = rectangle_hull(inverse(tile.to_canvas), tile.visible)
            left, top = (round(v) for v in tile.to_canvas[:2, 2])
            stretched = cv2.cvtColor(cv2.resize(source, (SIZE, SIZE)), cv2.COLOR_RGB2RGBA)
            x1, y1, x2, y2 = (round(v) for v in tile.visible)
            big[y1:y2, x1:x2] = stretched[y1 - top : y2 - top, x1 - left : x2 - left]
            paste(direct, source, matrix @ tile.to_canvas, window)
        half = translation(0.5, 0.5)
        warped = cv2.warpAffine(big, (inverse(half) @ matrix @ half)[:2], (SIZE, SIZE), borderValue=(114,) * 4)
        difference = np.abs(warped[..., :3].astype(int) - direct[..., :3])
        assert np.median(difference) == 0 and (difference > 60).mean() < 0.03


def test_a_polygon_gives_a_tighter_box_than_its_corners() -> None:
    diamond = np.array([[50, 10], [90, 50], [50, 90], [10, 50]], np.float32)
    box = np.array([[10, 10, 90, 90]], np.float32)
    plain = Record(Path("x"), 0, 100, 100, box, np.zeros(1, np.int64), np.ones(1))
    outlined = Record(Path("x"), 0, 100, 100, box, np.zeros(1, np.int64), np.ones(1), ((diamond,),))
    tile = mosaic_tiles(np.random.default_rng(0), (0, 0, 0, 0), (plain,), 100)[0]
    tile = type(tile)(0, scaling(1, 1), (0.0, 0.0, 100.0, 100.0))
    turn = (
        translation(50, 50)
        @ np.array([[0.5**0.5, 0.5**0.5, 0], [-(0.5**0.5), 0.5**0.5, 0], [0, 0, 1]])
        @ translation(-50, -50)
    )
    loose, _ = moved_boxes(plain, tile, turn, 1.0, 100)
    tight, keep = moved_boxes(outlined, tile, turn, 1.0, 100)
    side = 40 * 2**0.5 / 2
    np.testing.assert_allclose(tight[0], [50 - side, 50 - side, 50 + side, 50 + side], atol=1e-4)
    assert keep[0] and (loose[0] == [0, 0, 100, 100]).all()
    shifted, _ = moved_boxes(outlined, tile, translation(-50, 0), 1.0, 100)
    np.testing.assert_allclose(shifted[0], [0, 10, 40, 90], atol=1e-4)  # the cut goes through the widest place


def test_filters_of_the_affine_step() -> None:
    boxes = np.array([[0, 0, 1.5, 50], [0, 0, 90, 4.4], [90, 10, 200, 30], [10, 10, 60, 60]], np.float32)
    record = Record(Path("x"), 0, 640, 640, boxes, np.zeros(4, np.int64), np.ones(4))
    tile = mosaic_tiles(np.random.default_rng(0), (0, 0, 0, 0), (record,), 640)[0]
    tile = type(tile)(0, scaling(1, 1), (0.0, 0.0, 640.0, 640.0))
    assert moved_boxes(record, tile, translation(0, 0), 1.0, 640)[1].tolist() == [False, False, True, True]
    assert moved_boxes(record, tile, translation(-195, 0), 1.0, 640)[1].tolist() == [False] * 4  # under a tenth is left


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.floats(0.3, 2), st.floats(-40, 40))
def test_hulls_agree(seed: int, scale: float, angle: float) -> None:
    rng = np.random.default_rng(seed)
    matrix, factor = random_affine(rng, 100, 80, abs(angle), (scale, scale), 5, 0.2)
    assert factor == pytest.approx(scale)
    box = np.sort(rng.uniform(0, 100, (2, 2)), 0).ravel()
    np.testing.assert_allclose(rectangle_hull(matrix, tuple(box)), corner_hull(matrix, box[None])[0], atol=1e-9)
    np.testing.assert_allclose(inverse(matrix) @ matrix, np.eye(3), atol=1e-9)


@settings(max_examples=60)
@given(st.integers(0, 2**31))
def test_clipped_segments_are_what_dense_sampling_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    segments = rng.uniform(-50, 150, (6, 2, 2))
    segments[0, 1] = segments[0, 0]  # a point
    segments[1, 1, 0] = segments[1, 0, 0]  # upright
    ends, owner = clip_segments(segments, np.arange(6), (0.0, 0.0, 100.0, 80.0))
    for number in range(6):
        steps = np.linspace(0, 1, 2001)[:, None]
        dense = segments[number, 0] + steps * (segments[number, 1] - segments[number, 0])
        inside = dense[((dense >= 0) & (dense <= [100, 80])).all(1)]
        found = ends[owner == number]
        if len(inside) and len(found):
            np.testing.assert_allclose(found[0].min(0), inside.min(0), atol=0.3)
            np.testing.assert_allclose(found[0].max(0), inside.max(0), atol=0.3)
        elif len(inside):
            raise AssertionError("a visible segment was dropped")


def test_points_and_translation() -> None:
    assert map_points(translation(3, -1) @ scaling(2, 4), np.array([[1.0, 1.0]])).tolist() == [[5.0, 3.0]]


def test_sada_magnitudes_are_the_decoded_levels() -> None:
    factor = {level: 0.1 + 1.8 * level / 10 for level in (2, 4, 8)}
    assert [p.amount for p in POLICY] == pytest.approx([factor[2], factor[4], factor[2], 0.4296875 * 0.2, factor[8]])
    assert [p.magnitude for p in POLICY] == [120 * 0.4, 30 * 0.2, 15 * 0.6, 0, 120 * 0.8]
    assert [p.colour_probability for p in POLICY] == [0.4, 0.2, 0.4, 0.2, 0.0]
    assert [p.geometry_probability for p in POLICY] == [0.4, 0.4, 0.2, 0.5, 0.2]


def test_sada_leaves_the_input_alone_and_grows_with_strength() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (128, 128, 3), np.uint8)
    boxes = np.array([[10, 10, 40, 50], [60, 60, 120, 110], [5, 80, 25, 100]], np.float32)
    labels = np.array([0, 1, 2])
    before = image.copy()
    counts = {0.0: 0, 0.5: 0, 1.0: 0}
    appended = 0
    for strength in counts:
        for seed in range(300):
            new, found, names = apply_sada(image, boxes, labels, np.random.default_rng(seed), strength)
            counts[strength] += not np.array_equal(new, image)
            assert len(found) == len(names) and (found[: len(boxes)] == boxes).all()
            appended += len(found) > len(boxes)
            assert ((found >= 0) & (found <= 128)).all()
    np.testing.assert_array_equal(image, before)
    assert counts[0.0] == 0 and 0 < counts[0.5] < counts[1.0] and appended > 0
    assert apply_sada(image, boxes[:0], labels[:0], np.random.default_rng(0), 1.0)[0] is image


def test_sada_in_closing_epochs_is_the_official_quirk_and_optional(coloured: DetectionData) -> None:
    for stays in (True, False):
        make = augmenter(coloured, Augmentation(flip=0.0, sada_in_closing=stays))
        plain = augmenter(coloured, Augmentation(flip=0.0, sada=False))
        changed = 0
        for epoch in range(120):
            at = draw(epoch % 4, epoch, opening=1.0)
            changed += not np.array_equal(make(at).image, plain(at).image)
        assert (changed > 0) == stays


def test_colour_jitter_is_an_identity_at_zero_and_keeps_grey_grey() -> None:
    image = np.full((8, 8, 3), 90, np.uint8)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(jitter_colour(image, rng, 0, 0, 0), image)
    out = jitter_colour(image, rng, 0.1, 0.5, 0.5)
    assert (out == out[0, 0, 0]).all() and out[0, 0, 0] != 90


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"scale": (0.0, 1.0)}, {"mixup_scale": (2.0, 1.0)}, {"mosaic": -1}])
def test_wrong_recipes_are_named(wrong: dict) -> None:
    with pytest.raises(UserError, match=f"augmentation.{next(iter(wrong))} must be"):
        Augmentation(**wrong).checked()


def test_the_defaults_are_the_official_recipe_of_the_larger_models() -> None:
    recipe = Augmentation().checked()
    assert (recipe.mosaic, recipe.rotation, recipe.shear, recipe.scale, recipe.translation) == (
        1,
        10,
        2,
        (0.1, 2.0),
        0.2,
    )
    assert (recipe.mixup, recipe.mixup_scale, recipe.flip, recipe.closing_epochs) == (0.15, (0.5, 1.5), 0.5, 16)
    assert recipe.sada and recipe.sada_in_closing and not (recipe.hue or recipe.saturation or recipe.value)


def test_sizes_of_multi_scale_batches() -> None:
    assert Augmentation(multi_scale=0.25).sizes(320) == (256, 288, 320, 352, 384)
    assert Augmentation().sizes(416) == (416,)
