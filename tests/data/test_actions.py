"""Fetching from a file URL, converting, drawing shapes."""

from __future__ import annotations

import hashlib
import http.client
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas.data.actions import DataCommand, convert_splits, run_data_action
from nas.data.fetch import fetch_data, unpack
from nas.data.shapes import CLASSES, draw_picture, draw_shapes
from nas.data.sources import DataConfig, Download, Split, load_splits
from nas.errors import UserError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A small zip."""
    path = tmp_path / "source" / "data.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as contents:
        contents.writestr("data-x/images/a.txt", "a")
    return path


def test_fetch_checks_unpacks_and_does_not_load_again(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checksum = "sha256:" + hashlib.sha256(archive.read_bytes()).hexdigest()
    config = DataConfig(name="mine", download=[Download(archive.as_uri(), checksum)])
    output = tmp_path / "mine"
    fetch_data(config, output)
    assert (output / "data-x/images/a.txt").read_text() == "a"
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("it is already there"))
    fetch_data(config, output)


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
    assert not list((tmp_path / "out").glob("data*"))


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
