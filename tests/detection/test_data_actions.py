"""Fetching from a file URL, converting VOC, drawing shapes."""

from __future__ import annotations

import hashlib
import http.client
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from nas.config.data import DataCommand, DataConfig, Download, Split
from nas.detection.bccd import convert_bccd
from nas.detection.data_actions import convert_splits, run_data_action
from nas.detection.fetch import fetch_data, unpack
from nas.detection.shapes import CLASSES, draw_picture, draw_shapes
from nas.detection.sources import load_splits
from nas.errors import UserError


def voc(name: str, objects: list[tuple[str, list[int]]]) -> str:
    sides = ("xmin", "ymin", "xmax", "ymax")
    items = "".join(
        f"<object><name>{label}</name><bndbox>"
        + "".join(f"<{s}>{v}</{s}>" for s, v in zip(sides, box, strict=True))
        + "</bndbox></object>"
        for label, box in objects
    )
    return f"<annotation><filename>{name}</filename><size><width>640</width><height>480</height></size>{items}</annotation>"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A zip like BCCD's, of three images; one is known to need a correction."""
    path = tmp_path / "source" / "bccd.zip"
    path.parent.mkdir()
    _, jpeg = cv2.imencode(".jpg", np.zeros((480, 640, 3), np.uint8))
    with zipfile.ZipFile(path, "w") as contents:
        for split, name in (("train", "BloodImage_00133"), ("val", "BloodImage_00338"), ("test", "BloodImage_00002")):
            objects = {
                "BloodImage_00133": [("Platelets", [135, 1, 302, 117])],
                "BloodImage_00338": [("RBC", [504, 337, 504, 337]), ("RBC", [1, 1, 100, 50])],
                "BloodImage_00002": [],
            }[name]
            base = "BCCD_Dataset-x/BCCD"
            contents.writestr(f"{base}/ImageSets/Main/{split}.txt", name + "\n")
            contents.writestr(f"{base}/Annotations/{name}.xml", voc(name, objects))
            contents.writestr(f"{base}/JPEGImages/{name}.jpg", jpeg.tobytes())
    return path


def test_fetch_checks_unpacks_and_converts(archive: Path, tmp_path: Path) -> None:
    checksum = "sha256:" + hashlib.sha256(archive.read_bytes()).hexdigest()
    config = DataConfig(name="bccd", layout="bccd", download=[Download(archive.as_uri(), checksum)])
    output = fetch_data(config, tmp_path / "bccd")
    train = json.loads((output / "annotations/train.json").read_text())
    raw = json.loads((output / "annotations_raw/train.json").read_text())
    assert train["annotations"][0]["bbox"] == [134, 0, 168, 117]  # 1-based and inclusive
    assert (train["annotations"][0]["category_id"], raw["annotations"][0]["category_id"]) == (2, 3)
    val = json.loads((output / "annotations/val.json").read_text())
    assert [a["bbox"] for a in val["annotations"]] == [[0, 0, 100, 50]]
    assert len(json.loads((output / "annotations_raw/val.json").read_text())["annotations"]) == 2
    seen: list[int] = []
    fetch_data(config, output, progress=lambda name, done, total: seen.append(done))
    assert not seen  # already there


@pytest.mark.parametrize(
    ("url", "checksum", "message"),
    [
        ("{}", "md5:0", "checksum is md5:"),
        ("{}x", None, "cannot fetch"),
        ("ftp://a/b.zip", None, "http, https or file"),
        ("{}", "crc:1", "md5:HEX or sha256:HEX"),
    ],
)
def test_fetch_refuses(archive: Path, tmp_path: Path, url: str, checksum: str | None, message: str) -> None:
    config = DataConfig(download=[Download(url.format(archive.as_uri()), checksum)])
    with pytest.raises(UserError, match=message):
        fetch_data(config, tmp_path / "out")
    assert not list((tmp_path / "out").glob("BCCD*"))


def test_a_broken_transfer_is_told_and_leaves_nothing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise http.client.IncompleteRead(b"half")

    monkeypatch.setattr("urllib.request.urlopen", broken)
    with pytest.raises(UserError, match="cannot fetch http://a/b.zip: IncompleteRead"):
        fetch_data(DataConfig(download=[Download("http://a/b.zip")]), tmp_path / "out")
    assert not list((tmp_path / "out").glob("b.zip*"))


def test_images_that_share_a_label_file_are_refused(tmp_path: Path) -> None:
    root = draw_shapes(tmp_path / "shapes", counts={"val": 2}, size=64)
    config = DataConfig(name="shapes", root=str(root), val=Split("images/val", "annotations/val.json"))
    splits, _ = load_splits(config, ("val",))
    first, second = splits["val"].records[:2]
    second = replace(second, path=first.path.with_suffix(".png"))
    same = {"val": replace(splits["val"], records=(first, second))}
    with pytest.raises(UserError, match=f"two images are called {first.path.stem}; rename one"):
        convert_splits(same, "yolo", tmp_path / "yolo")


def test_no_entry_leaves_the_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as contents:
        contents.writestr("../outside.txt", "x")
    with pytest.raises(UserError, match="outside the folder"):
        unpack(tmp_path / "evil.zip", tmp_path / "in")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(tmp_path / "bad.zip", tmp_path / "in")


def test_bccd_converted_equals_the_shared_files(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/bccd"
    base = tmp_path / "BCCD"
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (base / folder).mkdir(parents=True)
    names = {1: "RBC", 2: "WBC", 3: "Platelets"}
    for split in ("train", "val", "test"):
        document = json.loads((source / f"annotations_raw/{split}.json").read_text())
        (base / f"ImageSets/Main/{split}.txt").write_text("\n".join(i["file_name"][:-4] for i in document["images"]))
        for image in document["images"]:
            objects = []
            for entry in document["annotations"]:
                if entry["image_id"] == image["id"]:
                    x, y, w, h = (int(v) for v in entry["bbox"])
                    box = [x + 1, y + 1, x + w, y + h] if w else [x + 1, y + 1, x + 1, y + 1]
                    objects.append((names[entry["category_id"]], box))
            (base / f"Annotations/{image['file_name'][:-4]}.xml").write_text(voc(image["file_name"], objects))
            (base / f"JPEGImages/{image['file_name']}").write_bytes(b"")
    convert_bccd(tmp_path)

    def rows(path: Path) -> list[tuple[str, int, tuple[float, ...]]]:
        document = json.loads(path.read_text())
        files = {i["id"]: i["file_name"] for i in document["images"]}
        found = [(files[a["image_id"]], a["category_id"], tuple(a["bbox"])) for a in document["annotations"]]
        return sorted(found)

    for split in ("train", "val", "test"):
        assert rows(tmp_path / f"annotations/{split}.json") == rows(source / f"annotations/{split}.json")


def test_shapes_are_drawn_once_and_the_same(tmp_path: Path) -> None:
    counts = {"train": 3, "val": 1}
    for name in ("a", "b"):
        draw_shapes(tmp_path / name, counts=counts, size=64)
    a, b = (sorted((tmp_path / n).rglob("*.*")) for n in ("a", "b"))
    assert len(a) == 6 and [p.read_bytes() for p in a] == [p.read_bytes() for p in b]
    before = a[0].stat().st_mtime_ns
    draw_shapes(tmp_path / "a", counts=counts, size=64)
    assert a[0].stat().st_mtime_ns == before


def test_shape_boxes_are_tight() -> None:
    labels = set()
    for seed in range(20):
        image, boxes, found, areas = draw_picture(np.random.default_rng(seed), 96)
        labels |= set(found.tolist())
        assert image.shape[0] <= 96 and len(boxes) == len(found) == len(areas)
        assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all()
        assert (boxes <= [image.shape[1], image.shape[0]] * 2).all()
        assert (areas <= (boxes[:, 2:] - boxes[:, :2]).prod(1)).all()
    assert labels == set(range(len(CLASSES)))


def test_check_and_convert(tmp_path: Path) -> None:
    root = draw_shapes(tmp_path / "shapes", counts={"train": 3, "val": 2}, size=64)
    config = DataConfig(
        name="shapes",
        root=str(root),
        train=Split("images/train", "annotations/train.json"),
        val=Split("images/val", "annotations/val.json"),
    )
    lines = run_data_action(DataCommand(config), None)
    assert lines[0] == "shapes: 5 classes" and "3 images" in lines[1]
    run_data_action(DataCommand(config, action="convert", to="yolo"), tmp_path / "yolo")
    yolo = DataConfig(name="shapes", format="yolo", root=str(tmp_path / "yolo"), train=Split("images/train"))
    run_data_action(DataCommand(yolo, action="convert", to="coco"), tmp_path / "coco")
    old = json.loads((root / "annotations/train.json").read_text())
    new = json.loads((tmp_path / "coco/annotations/train.json").read_text())
    assert len(old["annotations"]) == len(new["annotations"])
    for a, b in zip(old["annotations"], new["annotations"], strict=True):
        assert a["bbox"] == pytest.approx(b["bbox"], abs=2e-3)
    with pytest.raises(UserError, match="not empty"):
        run_data_action(DataCommand(config, action="convert"), tmp_path / "yolo")
    with pytest.raises(UserError, match="check, convert or fetch"):
        run_data_action(DataCommand(config, action="eat"), None)
