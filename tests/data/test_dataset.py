"""Records, COCO and YOLO readers, sources: ids from the file, classes from the data, errors in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nas.data.actions import convert_splits
from nas.data.coco import read_coco, write_coco
from nas.data.dataset import relabel
from nas.data.sources import DataConfig, Split, load_splits
from nas.data.yolo_text import read_yolo, yolo_classes
from nas.errors import UserError

CATEGORIES = ((900, "zebra"), (1, "ant"), (5, "bee"))


def box(category: int, *bbox: float, image: int = 10, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(bbox), "area": bbox[2] * bbox[3]} | more


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., DataConfig]:
    """Writes a COCO set of noise images: make(annotations, images=2, categories=...) -> configuration."""

    def build(
        entries: list[dict[str, Any]], images: int = 2, categories: Any = CATEGORIES, split: str = "train"
    ) -> DataConfig:
        folder = tmp_path / "pictures"
        folder.mkdir(exist_ok=True)
        listed = []
        for number in range(images):
            name = f"{split}{number}.jpg"
            noise = np.random.default_rng([number, len(split)]).integers(0, 255, (40, 60, 3), np.uint8)
            cv2.imwrite(str(folder / name), noise)
            listed.append({"id": 10 + number, "file_name": name, "width": 60, "height": 40})
        document = {
            "images": listed,
            "annotations": [{"id": i} | entry for i, entry in enumerate(entries)],
            "categories": [{"id": i, "name": name} for i, name in categories],
        }
        (tmp_path / f"{split}.json").write_text(json.dumps(document))
        return DataConfig(name="tiny", root=str(tmp_path), train=Split("pictures", "train.json"))

    return build


def test_category_ids_1_5_900_become_labels_0_1_2_and_come_back(make: Any, tmp_path: Path) -> None:
    config = make([box(900, 1, 2, 3, 4), box(5, 5, 6, 7, 8), box(1, 0, 0, 9, 9, image=11)])
    data = load_splits(config)[0]["train"]
    assert data.classes == ("ant", "bee", "zebra") and data.category_ids == (1, 5, 900)
    assert data.records[0].labels.tolist() == [2, 1]
    assert data.records[0].boxes.tolist() == [[1, 2, 4, 6], [5, 6, 12, 14]]
    write_coco(data, tmp_path / "again.json", tmp_path / "pictures")
    again, _ = read_coco(tmp_path / "again.json", tmp_path / "pictures")
    assert again.category_ids == data.category_ids and again.records[0].image_id == 10
    np.testing.assert_array_equal(again.records[0].boxes, data.records[0].boxes)


@pytest.mark.parametrize("count", [1, 701])
def test_one_class_and_701_classes(make: Any, count: int) -> None:
    data = load_splits(make([box(count, 1, 1, 5, 5)], categories=[(i + 1, f"c{i}") for i in range(count)]))[0]["train"]
    assert data.num_classes == count and data.histogram()[count - 1] == 1


def test_images_without_boxes_stay(make: Any) -> None:
    splits, report = load_splits(make([]))
    assert len(splits["train"]) == 2 and splits["train"].num_boxes == 0
    assert report.counts["train"]["images without boxes"] == 2


def test_crowd_stands_apart(make: Any) -> None:
    data = load_splits(make([box(1, 0, 0, 30, 30, iscrowd=1), box(1, 1, 1, 5, 5)]))[0]["train"]
    record = data.records[0]
    assert len(record.labels) == 1 and record.crowd_boxes.tolist() == [[0, 0, 30, 30]]


def test_polygons_belong_to_their_boxes_and_masks_have_none(make: Any) -> None:
    outline = [1, 1, 9, 1, 5, 9]
    entries = [
        box(1, 1, 1, 8, 8, segmentation=[outline]),
        box(5, 0, 0, 4, 4, segmentation={"counts": "x", "size": [1, 1]}),
    ]
    record = load_splits(make(entries))[0]["train"].records[0]
    assert [len(p) for p in record.polygons] == [1, 0]
    assert record.polygons[0][0].tolist() == [[1, 1], [9, 1], [5, 9]]
    assert record.select(np.array([False, True])).polygons == ((),)


def test_validation_classes_follow_the_training_names_not_the_ids(make: Any) -> None:
    make([box(7, 1, 1, 5, 5)], categories=[(7, "zebra"), (8, "ant"), (2, "bee")], split="val")
    config = make([box(900, 1, 2, 3, 4)])
    config.val = Split("pictures", "val.json")
    splits, _ = load_splits(config)
    assert splits["val"].classes == splits["train"].classes
    assert splits["val"].records[0].labels.tolist() == [2] and splits["val"].category_ids == (8, 2, 7)


def test_subset_of_the_classes_in_the_given_order(make: Any) -> None:
    config = make([box(900, 1, 2, 3, 4), box(5, 5, 6, 7, 8), box(1, 0, 0, 9, 9, iscrowd=1)])
    config.classes = ["zebra", "ant"]
    data = load_splits(config)[0]["train"]
    assert data.records[0].labels.tolist() == [0] and data.records[0].crowd_labels.tolist() == [1]
    assert relabel(data, ["ant"]).records[0].labels.tolist() == []


def test_boxes_are_clipped_for_training_only(make: Any) -> None:
    record = load_splits(make([box(1, -5, 10, 20, 50), box(1, 59, 39, 1, 1)]))[0]["train"].records[0]
    assert record.boxes[0].tolist() == [-5, 10, 15, 60]
    assert record.trainable().boxes.tolist() == [[0, 10, 15, 40], [59, 39, 60, 40]]


def _without(path: str) -> Callable[[DataConfig], None]:
    return lambda config: (Path(config.root or "") / path).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: setattr(c, "num_classes", 4), "num_classes=4, but tiny has 3"),
        (lambda c: setattr(c, "classes", ["cow"]), "no class 'cow'"),
        (lambda c: setattr(c, "root", "/nowhere"), "no such folder"),
        (lambda c: setattr(c, "mode", "lax"), "data.mode must be one of strict, repair, got 'lax'"),
        (lambda c: setattr(c, "format", "csv"), "data.format must be one of coco, yolo, voc, shapes"),
        (lambda c: setattr(c.train, "images", "photos"), "no image folder"),
        (_without("train.json"), "no annotation file"),
        (_without("pictures/train0.jpg"), "1 x missing image"),
        (lambda c: (Path(c.root) / "train.json").write_text("{"), "not valid JSON at line 1"),
        (lambda c: (Path(c.root) / "train.json").write_text("[]"), "no COCO detection file"),
        (lambda c: setattr(c, "train", Split()), "none of the splits"),
    ],
)
def test_one_clear_line(make: Any, spoil: Any, message: str) -> None:
    config = make([box(1, 1, 1, 5, 5)])
    spoil(config)
    with pytest.raises(UserError, match=message) as error:
        load_splits(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("categories", "message"),
    [([(1, "a"), (1, "b")], "same id"), ([(1, "a"), (2, "a")], "called 'a'"), ([], "no classes")],
)
def test_ambiguous_categories(make: Any, categories: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_splits(make([], categories=categories))


def test_yolo_round_trip(make: Any, tmp_path: Path) -> None:
    splits, _ = load_splits(make([box(900, 1, 2, 3, 4), box(5, 5.5, 6.25, 7, 8)]))
    convert_splits(splits, "yolo", tmp_path / "yolo")
    classes = yolo_classes(tmp_path / "yolo")
    data, problems = read_yolo([tmp_path / "yolo/images/train"], classes, tmp_path / "yolo/labels/train")
    assert not problems and data.classes == ("ant", "bee", "zebra")
    np.testing.assert_allclose(data.records[0].boxes, splits["train"].records[0].boxes, atol=1e-5)
    assert len(data.records[1].labels) == 0
    config = DataConfig(name="y", format="yolo", root=str(tmp_path / "yolo"), train=Split("images/train"))
    assert load_splits(config)[0]["train"].num_boxes == 2


def test_chosen_classes_select_yolo_names_and_do_not_rename_them(make: Any, tmp_path: Path) -> None:
    splits, _ = load_splits(make([box(900, 1, 2, 3, 4), box(5, 5.5, 6.25, 7, 8)]))
    convert_splits(splits, "yolo", tmp_path / "yolo")
    config = DataConfig(name="y", format="yolo", root=str(tmp_path / "yolo"), train=Split("images/train"))
    names = [config.classes, ["zebra", "bee", "ant"], ["bee"]]
    found = []
    for classes in names:
        config.classes = classes
        data = load_splits(config)[0]["train"]
        found.append([data.classes[label] for label in data.records[0].labels])
    assert sorted(found[0]) == sorted(found[1]) and set(found[2]) == {"bee"} < set(found[0])
    (tmp_path / "yolo/data.yaml").unlink()
    assert yolo_classes(tmp_path / "yolo", ["x", "y", "z"]) == ["x", "y", "z"]


def test_yolo_polygons_and_bad_lines(make: Any, tmp_path: Path) -> None:
    make([])
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "train0.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n7 .5 .5 .1 .1\nx\n0 1 2\n\n")
    data, problems = read_yolo([tmp_path / "pictures"], ["a"], labels)
    assert data.records[0].boxes.tolist() == [[6, 4, 30, 20]] and len(data.records[0].polygons[0]) == 1
    assert sorted(p.kind for p in problems) == [
        "annotation of an unknown category",
        "annotation without a box",
        "label line that is not numbers",
    ]


def test_shared_bccd(shared: Path) -> None:
    config = DataConfig(name="bccd", root=str(shared / "data/bccd"), check="labels")
    for split in ("train", "val", "test"):
        setattr(config, split, Split("images", f"annotations/{split}.json"))
    splits, _ = load_splits(config)
    assert [(len(d), d.num_boxes) for d in splits.values()] == [(205, 2800), (87, 1135), (72, 944)]
    assert splits["test"].histogram().tolist() == [804, 72, 68]
