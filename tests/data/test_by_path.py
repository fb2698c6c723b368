"""A data set is understood from its path: the layouts that people and Roboflow have, zips, missing splits, and what is none."""

from __future__ import annotations

import json
import shutil
import stat
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from nas.commands.train import TrainCommand
from nas.config import compose_config, offer_data
from nas.data.by_path import extracted, find_data, pictures_of
from nas.data.coco import read_coco
from nas.data.dataset import DetectionData
from nas.data.shapes import CLASSES, draw_shapes
from nas.data.sources import hold_out, load_splits
from nas.errors import UserError

Truth = dict[str, DetectionData]
At = Callable[[str, str], Path]
FOLDERS = {"train": "train", "val": "valid", "test": "test"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_shapes(tmp_path_factory.mktemp("drawn"), counts={"train": 10, "val": 3, "test": 2}, size=96)


@pytest.fixture(scope="module")
def truth(drawn: Path) -> Truth:
    return {split: read_coco(drawn / f"annotations/{split}.json", drawn / f"images/{split}")[0] for split in FOLDERS}


def lines_of(data: DetectionData, number: int) -> str:
    """YOLO's text of a picture."""
    record = data.records[number]
    rows = []
    for label, (x1, y1, x2, y2) in zip(record.labels, record.boxes.astype(float), strict=True):
        rows.append(f"{label} {(x1 + x2) / 2 / record.width:.8f} {(y1 + y2) / 2 / record.height:.8f} "
                    f"{(x2 - x1) / record.width:.8f} {(y2 - y1) / record.height:.8f}")  # fmt: skip
    return "\n".join(rows)


def xml_of(data: DetectionData, number: int) -> str:
    """VOC's text of a picture: pixels counted from 1."""
    record = data.records[number]
    objects = "".join(
        f"<object><name>{data.classes[label]}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for label, (x1, y1, x2, y2) in zip(record.labels, record.boxes.tolist(), strict=True)
    )
    return f"<annotation><filename>{record.path.name}</filename>{objects}</annotation>"


def place(truth: Truth, at: At, text: Callable[[DetectionData, int], str], labels: At) -> None:
    """Every picture at at(split, stem), its annotation at labels(split, stem); names are unlike in all splits."""
    for split, data in truth.items():
        for number, record in enumerate(data.records):
            stem = f"{split}_{record.path.stem}"
            for path in (at(split, stem), labels(split, stem)):
                path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(record.path, at(split, stem))
            labels(split, stem).write_text(text(data, number))


def ultralytics(root: Path, truth: Truth) -> None:
    place(truth, lambda s, n: root / f"images/{s}/{n}.jpg", lines_of, lambda s, n: root / f"labels/{s}/{n}.txt")
    document = {"path": "../somewhere/else", "train": "images/train", "val": "images/val", "test": "images/test",
                "names": dict(enumerate(CLASSES)), "download": "import os; os.remove('/')"}  # fmt: skip
    (root / "data.yaml").write_text(yaml.safe_dump(document))


def ultralytics_lists(root: Path, truth: Truth) -> None:
    ultralytics(root, truth)
    (root / "data.yaml").unlink()
    (root / "images/more").mkdir()
    (root / "labels/more").mkdir()
    for name, folder, end in (("train_0000", "images", "jpg"), ("train_0000", "labels", "txt")):
        (root / folder / "train" / f"{name}.{end}").rename(root / folder / "more" / f"{name}.{end}")
    (root / "val.txt").write_text(
        "".join(f"./images/val/{path.name}\n" for path in sorted((root / "images/val").iterdir()))
    )
    document = {"path": str(root), "train": ["images/more", "images/train"], "val": "val.txt", "test": "images/test",
                "nc": 5, "names": list(CLASSES)}  # fmt: skip
    (root / "mine.yaml").write_text(yaml.safe_dump(document))


def roboflow_yolo(root: Path, truth: Truth) -> None:
    place(
        truth,
        lambda s, n: root / FOLDERS[s] / f"images/{n}.jpg",
        lines_of,
        lambda s, n: root / FOLDERS[s] / f"labels/{n}.txt",
    )
    document = {split: f"../{folder}/images" for split, folder in FOLDERS.items()} | {"nc": 5, "names": list(CLASSES)}
    (root / "data.yaml").write_text(yaml.safe_dump(document | {"roboflow": {"license": "CC BY 4.0"}}))
    (root / "README.roboflow.txt").write_text("exported")


def yolo_without_yaml(root: Path, truth: Truth) -> None:
    place(truth, lambda s, n: root / f"images/{s}/{n}.jpg", lines_of, lambda s, n: root / f"labels/{s}/{n}.txt")
    (root / "labels/classes.txt").write_text("\n".join(CLASSES))


def roboflow_darknet(root: Path, truth: Truth) -> None:
    place(truth, lambda s, n: root / FOLDERS[s] / f"{n}.jpg", lines_of, lambda s, n: root / FOLDERS[s] / f"{n}.txt")
    for folder in FOLDERS.values():
        (root / folder / "_darknet.labels").write_text("\n".join(CLASSES))


def voc_devkit(root: Path, truth: Truth) -> None:
    inner = root / "VOCdevkit/VOC2012"
    place(truth, lambda s, n: inner / f"JPEGImages/{n}.jpg", xml_of, lambda s, n: inner / f"Annotations/{n}.xml")
    for split, data in truth.items():
        path = inner / f"ImageSets/Main/{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{split}_{record.path.stem}\n" for record in data.records))
    (inner / "ImageSets/Main/disc_train.txt").write_text("train_0000 1\n")


def roboflow_voc(root: Path, truth: Truth) -> None:
    place(truth, lambda s, n: root / FOLDERS[s] / f"{n}.jpg", xml_of, lambda s, n: root / FOLDERS[s] / f"{n}.xml")


def coco_folders(root: Path, truth: Truth) -> None:
    for split, data in truth.items():
        (root / f"{split}2017").mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)
        source = data.records[0].path.parents[2]
        for record in data.records:
            shutil.copy(record.path, root / f"{split}2017")
        shutil.copy(source / f"annotations/{split}.json", root / f"annotations/instances_{split}2017.json")
        (root / f"annotations/captions_{split}2017.json").write_text('{"info": 1, "images": [], "annotations": []}')


def roboflow_coco(root: Path, truth: Truth) -> None:
    """Flat folders a split, and a class 0 that is the group of all others."""
    for split, data in truth.items():
        folder = root / FOLDERS[split]
        folder.mkdir(parents=True)
        source = data.records[0].path.parents[2]
        for record in data.records:
            shutil.copy(record.path, folder)
        document = json.loads((source / f"annotations/{split}.json").read_text())
        document["categories"] = [{"id": 0, "name": "shapes", "supercategory": "none"}] + [
            entry | {"supercategory": "shapes"} for entry in document["categories"]
        ]
        (folder / "_annotations.coco.json").write_text(json.dumps(document))


LAYOUTS = {
    "ultralytics": (ultralytics, "YOLO (data.yaml)"),
    "lists": (ultralytics_lists, "YOLO (mine.yaml)"),
    "roboflow_yolo": (roboflow_yolo, "YOLO (data.yaml), a Roboflow export"),
    "yolo_without_yaml": (yolo_without_yaml, "YOLO (classes.txt)"),
    "roboflow_darknet": (roboflow_darknet, "YOLO (_darknet.labels)"),
    "voc_devkit": (voc_devkit, "Pascal VOC"),
    "roboflow_voc": (roboflow_voc, "Pascal VOC"),
    "coco": (coco_folders, "COCO ("),
    "roboflow_coco": (roboflow_coco, "a Roboflow export"),
}


def boxes_of(data: DetectionData) -> list[list[tuple[str, list[float]]]]:
    """What is on each picture, whatever it is called and however its boxes are ordered."""
    found = []
    for record in data.records:
        rows = zip(record.labels.tolist(), record.boxes.tolist(), strict=True)
        found.append(sorted((data.classes[label], [round(value) for value in box]) for label, box in rows))
    return found


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_understood(layout: str, zipped: bool, truth: Truth, tmp_path: Path) -> None:
    make, kind = LAYOUTS[layout]
    root = tmp_path / "my (data) = new"
    make(root, truth)
    given = root
    if zipped:
        given = Path(shutil.make_archive(str(tmp_path / "export"), "zip", tmp_path, root.name))
        shutil.rmtree(root)
    config, line = find_data(given)
    assert kind in line and "5 classes" in line and "train 10 images, val 3 images, test 2 images" in line
    assert line.count("\n") == 0 and config.name == ("export" if zipped else "my_data_new")
    splits, report = load_splits(config)
    assert not report.errors and list(splits) == ["train", "val", "test"]
    for split, data in splits.items():
        assert sorted(data.classes) == sorted(CLASSES)
        assert boxes_of(data) == boxes_of(truth[split]), split


def test_files_stand_for_their_data_set(truth: Truth, tmp_path: Path) -> None:
    ultralytics(tmp_path / "yolo", truth)
    roboflow_coco(tmp_path / "flat", truth)
    coco_folders(tmp_path / "coco", truth)
    for file in ("yolo/data.yaml", "flat/valid/_annotations.coco.json", "coco/annotations/instances_val2017.json"):
        config, line = find_data(tmp_path / file)
        assert [len(data) for data in load_splits(config)[0].values()] == [10, 3, 2], line
    alone = tmp_path / "coco/annotations/mine.json"
    shutil.copy(tmp_path / "coco/annotations/instances_train2017.json", alone)
    config, line = find_data(alone)
    assert "COCO (mine.json)" in line and "20% of train are drawn" in line
    assert {path.name for path in pictures_of(tmp_path / "coco", "val")} == {f"{i:04d}.jpg" for i in range(3)}


def test_a_missing_val_split_is_drawn_and_said(truth: Truth, tmp_path: Path) -> None:
    roboflow_yolo(tmp_path / "set", truth)
    shutil.rmtree(tmp_path / "set/valid")
    shutil.rmtree(tmp_path / "set/test")
    config, line = find_data(tmp_path / "set")
    assert "val: ../valid/images is not there" in line and "no val split: 20% of train are drawn for it" in line
    splits, report = load_splits(config)
    names = {split: [record.path.name for record in data.records] for split, data in splits.items()}
    assert [len(data) for data in splits.values()] == [8, 2] and not set(names["train"]) & set(names["val"])
    assert any("drawn validation split (first: 2 of 10 training images, seed 0)" in text for text in report.summary())
    again = load_splits(config, ("val",))[0]["val"]
    assert [record.path.name for record in again.records] == names["val"]
    other = load_splits(replace(config, val_seed=1), ("val",))[0]["val"]
    assert [record.path.name for record in other.records] != names["val"]


def test_copies_of_one_picture_are_not_parted(truth: Truth) -> None:
    data = truth["train"]
    names = [f"{'ab'[number % 2]}_jpg.rf.{number}.jpg" for number in range(len(data))]
    renamed = tuple(
        replace(record, path=record.path.with_name(name)) for record, name in zip(data.records, names, strict=True)
    )
    data = replace(data, records=renamed)
    held = {record.path.name[0] for record in hold_out(data, "val", 0.2, 0).records}
    assert len(held) == 1 and {record.path.name[0] for record in hold_out(data, "train", 0.2, 0).records}.isdisjoint(
        held
    )
    with pytest.raises(UserError, match="none can be drawn from 1 training images"):
        hold_out(data.subset([0]), "val", 0.2, 0)


def test_difficult_objects_are_crowd_and_labelimg_is_read(tmp_path: Path, truth: Truth) -> None:
    record = truth["train"].records[0]
    shutil.copy(record.path, tmp_path / "a.JPG")
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>20</ymax></bndbox>"
    (tmp_path / "a.xml").write_text(
        "<annotation><folder>x</folder><filename>C:\\photos\\b.jpg</filename>"
        f"<object><name>cat</name>{box.format(10)}</object>"
        f"<object><name>dog</name><difficult>1</difficult>{box.format(30)}</object></annotation>"
    )
    config, line = find_data(tmp_path)
    assert "2 classes (cat, dog)" in line
    (data,) = load_splits(replace(config, val_share=0.0))[0].values()
    assert data.records[0].boxes.tolist() == [[0, 0, 10, 20]] and data.records[0].crowd_boxes.tolist() == [
        [0, 0, 30, 20]
    ]


# ---------------------------------------------------------------------- the command line and Python


def test_paths_are_chosen_on_the_command_line(
    truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    roboflow_voc(tmp_path / "home/my (photos) = 3, new ${x}", truth)
    roboflow_yolo(tmp_path / "bccd", truth)
    roboflow_yolo(tmp_path / "plain", truth)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert offer_data(["data=~/my (photos) = 3, new ${x}", "seed=1"]) == ["data=my_photos_3_new_x", "seed=1"]
    assert "is Pascal VOC: 5 classes" in capsys.readouterr().out
    assert offer_data(["data=bccd"]) == ["data=bccd"] and not capsys.readouterr().out
    assert offer_data(["data=./bccd,bccd,plain"]) == ["data=bccd_2,bccd,plain"]
    roboflow_yolo(tmp_path / "2024", truth)
    assert offer_data(["data=2024"]) == ["data=data_2024"]
    with pytest.raises(UserError, match="data=nowhere/x is no file or folder, nor one of aquarium, bccd"):
        offer_data(["data=nowhere/x"])
    config = compose_config("train", TrainCommand, {"data": "home/my (photos) = 3, new ${x}", "data.mode": "repair"})
    assert config.data.format == "voc" and config.data.mode == "repair"
    assert config.data.root == str(tmp_path / "home/my (photos) = 3, new ${x}")
    assert compose_config("train", TrainCommand, {"data": "bccd"}).data.layout == "bccd"
    assert [len(data) for data in load_splits(config.data)[0].values()] == [10, 3, 2]


def test_a_search_takes_the_number_of_classes(
    truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import runpy

    roboflow_yolo(tmp_path / "photos", truth)
    monkeypatch.chdir(tmp_path)
    words = [
        "+budget=latency_3ms",
        "data=photos",
        "searcher=random",
        "evaluations=64",
        "progress=false",
        "hydra.run.dir=found",
    ]
    monkeypatch.setattr(sys, "argv", ["nas.search", *words])
    runpy.run_module("nas.search", run_name="__main__")
    assert "neck.num_classes=5" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "found/config.yaml").read_text())["neck"]["num_classes"] == 5


def test_pictures_of_a_data_set_are_predicted_and_calibrated_on(truth: Truth, tmp_path: Path) -> None:
    from nas.command_line import understood
    from nas.inference.pictures import open_pictures

    roboflow_yolo(tmp_path / "set", truth)
    names = [picture.name for picture in open_pictures(tmp_path / "set/data.yaml")]
    assert len(names) == 10 and names[0] == "train_0000.jpg"
    assert understood("export", ["data=some.zip", "format=onnx"]) == ["images=some.zip", "format=onnx"]
    (tmp_path / "a (1)").mkdir()
    assert understood("predict", [f"source={tmp_path}/a (1)"]) == [f"source='{tmp_path}/a (1)'"]


# ---------------------------------------------------------------------- what is none


def zip_of(path: Path, entries: dict[str, bytes], link: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        if link:
            info = zipfile.ZipInfo("link.jpg")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, link)
    return path


def test_hostile_zips_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    cases = {
        "outside.zip": (zip_of(tmp_path / "outside.zip", {"../evil.txt": b"x"}), "points outside the folder"),
        "absolute.zip": (zip_of(tmp_path / "absolute.zip", {"/tmp/evil.txt": b"x"}), "points outside the folder"),
        "link.zip": (zip_of(tmp_path / "link.zip", {}, "/etc/passwd"), "points outside the folder"),
        "none.zip": (tmp_path / "none.zip", "cannot be unpacked"),
        "empty.zip": (zip_of(tmp_path / "empty.zip", {}), "is no data set that is known"),
    }  # fmt: skip
    (tmp_path / "none.zip").write_bytes(b"PK\x03\x04 not at all")
    for name, (path, text) in cases.items():
        with pytest.raises(UserError, match=text):
            find_data(path)
        assert not (tmp_path.parent / "evil.txt").exists(), name
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_bomb_is_refused_before_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zip_of(tmp_path / "bomb.zip", {"a.txt": bytes(1 << 22)})
    with zipfile.ZipFile(bomb) as archive:
        (entry,) = archive.infolist()
    entry.file_size = 1 << 40
    monkeypatch.setattr(zipfile.ZipFile, "infolist", lambda self: [entry])
    with pytest.raises(UserError, match="would grow .* times; refused"):
        find_data(bomb)


def test_a_zip_is_extracted_once(truth: Truth, tmp_path: Path) -> None:
    roboflow_yolo(tmp_path / "set", truth)
    archive = Path(shutil.make_archive(str(tmp_path / "export"), "zip", tmp_path / "set"))
    first = extracted(archive)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert extracted(archive) == first and {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("new.txt", "x")
    assert extracted(archive) != first


BOMB = '<!DOCTYPE a [<!ENTITY b "&c;&c;">]><annotation>&b;</annotation>'
HOSTILE = {
    "empty": ({}, "is no data set that is known"),
    "csv": ({"train/_annotations.csv": "filename,width"}, "CSV exports are not read"),
    "names": ({"data.yaml": "names: 5\ntrain: a\n"}, "names"),
    "twice": ({"data.yaml": "names: [a, a]\ntrain: a\n"}, "two classes are called 'a'"),
    "nc": ({"data.yaml": "names: [a]\nnc: 3\ntrain: a\n"}, "nc is 3, but there are 1 names"),
    "train": ({"data.yaml": "names: [a]\ntrain: {a: 1}\n"}, "train must be a folder, a text file, or a list"),
    "gone": ({"data.yaml": "names: [a]\ntrain: images/train\n"}, "train: images/train is not there"),
    "binary": ({"data.yaml": "names: [a\n"}, "is not valid YAML"),
    "two": ({"a.yaml": "names: [a]\n", "b.yaml": "names: [a]\n"}, "holds several data files: a.yaml, b.yaml"),
    "entities": ({"a.xml": BOMB, "a.jpg": "x"}, "refused, an annotation is short and declares no document type"),
    "not_voc": ({"a.xml": "<svg/>", "a.jpg": "x"}, "is no Pascal VOC file: it holds <svg>"),
    "broken": ({"a.xml": "<annotation>", "a.jpg": "x"}, "is not valid XML"),
    "no_object": ({"a.xml": "<annotation/>", "a.jpg": "x"}, "name no object"),
    "no_picture": ({"a.xml": "<annotation/>"}, "its picture a.jpg is in none of"),
    "lost": ({"a.json": '{"images": [{"id": 1, "file_name": "x.jpg"}], "categories": [{"id": 1, "name": "a"}]}'},
             "its images (the first is x.jpg) are not beside it"),
    "no_images": ({"a.json": '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}'}, "lists no picture"),
    "many": ({"a.json": '{"images": []}', "b.json": '{"images": []}'}, "several COCO files could be the train split"),
    "ids": ({"a.json": '{"images": [], "annotations": [], "categories": [{"id": [1], "name": "a"}]}'}, "id must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_data_set_is_one_line(name: str, tmp_path: Path) -> None:
    files, text = HOSTILE[name]
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
    with pytest.raises(UserError) as raised:
        find_data(tmp_path)
    assert text in str(raised.value) and "\n" not in str(raised.value)


def test_other_files_are_no_data(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    for given, text in (
        (tmp_path / "x.txt", "give a folder, a data.yaml"),
        (tmp_path / "none", "is no file or folder, nor one of aquarium"),
    ):
        with pytest.raises(UserError, match=text):
            find_data(given)
