"""The report and the repair, on sets that are broken in known ways."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from nas.data.dataset import DetectionData, Record
from nas.data.images import decode
from nas.data.report import inspect_data, repair_data, require_sound
from nas.data.sources import DataConfig, Split, load_splits
from nas.errors import UserError


def picture(path: Path, seed: int) -> Path:
    smooth = cv2.resize(np.random.default_rng(seed).integers(0, 255, (4, 6, 3), np.uint8), (60, 40))
    cv2.imwrite(str(path), smooth)
    return path


def split(folder: Path, name: str, boxes: list[list[list[float]]], seed: int) -> DetectionData:
    records = []
    for number, rows in enumerate(boxes):
        path = picture(folder / f"{name}{number}.jpg", seed + number)
        corners = np.array(rows, np.float32).reshape(-1, 4)
        labels = np.zeros(len(corners), np.int64)
        records.append(Record(path, number, 60, 40, corners, labels, np.ones(len(corners))))
    return DetectionData("tiny", name, ("a", "b"), (1, 2), tuple(records))


def test_every_finding_is_counted_and_repaired(tmp_path: Path) -> None:
    bad = [[1, 1, 1, 9], [70, 1, 90, 9], [float("nan"), 0, 1, 1], [-9, 1, 20, 9], [2, 2, 8, 8], [2, 2, 8, 8]]
    train = split(tmp_path, "train", [bad, [[1, 1, 5, 5]], [], [[1, 1, 5, 5]]], 0)
    val = split(tmp_path, "val", [[[1, 1, 5, 5]]], 100)
    shutil.copyfile(train.records[1].path, val.records[0].path)  # a leak
    train.records[2].path.unlink()
    whole = train.records[3].path.read_bytes()
    train.records[3].path.write_bytes(whole[: len(whole) // 2])  # truncated
    splits = {"train": train, "val": val}
    report = inspect_data(splits)
    kinds = {p.kind: p.warning for p in report.problems}
    assert kinds == {
        "box of no width or height": False,
        "box outside its image": False,
        "box that is not finite": False,
        "box that reaches over the border of its image": True,
        "second copy of a box": True,
        "class without a box": True,
        "missing image": False,
        "unreadable image": False,
        "image of the training split that stands in another split too": True,
    }
    assert len(report.errors) == 5
    with pytest.raises(UserError, match="1 x box of no width or height, 1 x box outside") as error:
        require_sound(report)
    assert "\n" not in str(error.value)
    repaired = repair_data(splits, report)
    assert [r.image_id for r in repaired["train"].records] == [0] and len(repaired["val"]) == 1
    assert repaired["train"].records[0].boxes.tolist() == [[0, 1, 20, 9], [2, 2, 8, 8]]
    assert not inspect_data(repaired).errors
    assert any("2 classes" in line for line in report.summary())


def test_an_image_of_another_size(tmp_path: Path) -> None:
    data = split(tmp_path, "train", [[[1, 1, 5, 5]]], 0)
    turned = replace(data, records=(replace(data.records[0], width=40, height=60),))
    assert [p.kind for p in inspect_data({"train": turned}).errors] == ["image of another size than annotated"]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 60)).save(tmp_path / "side.jpg", exif=exif)
    for width, height in ((60, 40), (40, 60)):  # upright, and the camera's orientation
        side = replace(
            data, records=(replace(data.records[0], path=tmp_path / "side.jpg", width=width, height=height),)
        )
        assert not inspect_data({"train": side}).errors
        assert decode(side.records[0]).shape == (height, width, 3)
    other = replace(data, records=(replace(data.records[0], width=64),))
    assert [p.kind for p in inspect_data({"train": other}).errors] == ["image of another size than annotated"]


def test_raw_bccd_has_its_known_problems(shared: Path) -> None:
    config = DataConfig(name="bccd", root=str(shared / "data/bccd"), check="labels")
    config.train = Split("images", "annotations_raw/train.json")
    config.val = Split("images", "annotations_raw/val.json")
    with pytest.raises(UserError, match="2 x box of no width or height; first: train BloodImage_00343.jpg"):
        load_splits(config)
    config.mode = "repair"
    splits, report = load_splits(config)
    assert (splits["train"].num_boxes, splits["val"].num_boxes) == (2804, 1137)
    assert len(report.errors) == 2
