"""Annotation files with anything in the place of anything: read, or refused in one line, but never a traceback."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nas.data.coco import read_coco, write_coco
from nas.data.dataset import Problem
from nas.data.sources import DataConfig, Split, load_splits
from nas.data.yolo_text import yolo_classes
from nas.errors import UserError
from nas.inference.run import ResultIds
from nas.inference.scoring import Found, score_detections

OUTLINE = [1, 1, 9, 1, 5, 9]
COCO: dict[str, Any] = {
    "images": [
        {"id": 10, "file_name": "a.png", "width": 60, "height": 40},
        {"id": "b", "file_name": "b.png", "width": 60, "height": 40},
    ],
    "annotations": [
        {"id": 1, "image_id": 10, "category_id": 1, "bbox": [1, 1, 8, 8], "area": 64, "segmentation": [OUTLINE]},
        {"id": 2, "image_id": 10, "category_id": 5, "bbox": [0, 0, 30.5, 30], "area": 9, "iscrowd": 1},
        {"id": 3, "image_id": "b", "category_id": 5, "bbox": [4, 4, 5, 5]},
    ],
    "categories": [{"id": 1, "name": "ant"}, {"id": 5, "name": "bee"}],
}
NAMES: dict[str, Any] = {"path": ".", "train": "images", "names": {0: "ant", 1: "bee"}, "nc": 2}
#: What may stand anywhere.
ODD: tuple[Any, ...] = (
    *(None, True, "", "x", "0", "1e5", "nan", "\0", "\ud800", [], {}, [None], [[1, 2]], {"id": 1}),
    *(-1, 0, 1.5, 2**40, 10**400, 1e300, -1e300, math.nan, math.inf, [math.nan] * 6, [10**400] * 4),
)


def places(node: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every node below."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*way, key)
        yield from places(value, (*way, key))


def changed(node: Any, way: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """A copy in which `change` was done to the container and key at the end of the way, if they are still there."""
    whole = inner = copy.deepcopy(node)
    try:
        for key in way[:-1]:
            inner = inner[key]
        change(inner, way[-1])
    except (KeyError, IndexError, TypeError):
        pass
    return whole


@st.composite
def mutated(draw: st.DrawFn, valid: Any) -> Any:
    """A valid structure in which one to three nodes were replaced, taken away, or copied."""
    document = valid
    for _ in range(draw(st.integers(1, 3))):
        way = draw(st.sampled_from(list(places(valid))))
        odd = draw(st.sampled_from(ODD))
        action = draw(st.sampled_from(["replace", "replace", "remove", "copy"]))

        def change(inner: Any, key: Any, action: str = action, odd: Any = odd) -> None:
            if action == "replace":
                inner[key] = copy.deepcopy(odd)
            elif action == "remove":
                del inner[key]
            elif isinstance(inner, list):
                inner.append(copy.deepcopy(inner[key]))

        document = changed(document, way, change)
    return document


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    for name, shade in (("a", 40), ("b", 90)):
        Image.fromarray(np.full((40, 60, 3), shade, np.uint8)).save(root / f"{name}.png")
    return root


def put_through(root: Path, document: Any) -> None:
    """What reads COCO files, to the end: the strict check, the repair, writing, scoring, ids of results."""
    text = json.dumps(document)
    (root / "train.json").write_text(text)
    config = DataConfig(name="odd", root=str(root), train=Split(".", "train.json"), mode="repair")
    for mode in ("repair", "strict"):
        config.mode = mode
        try:
            data = load_splits(config)[0]["train"]
        except UserError as error:
            assert "\n" not in str(error) and str(error).isprintable()
            continue
        for record in data.records:
            for values in (
                record.boxes,
                record.areas,
                record.crowd_boxes,
                record.crowd_areas,
                *sum(record.polygons, ()),
            ):
                assert np.isfinite(values).all()
            record.trainable()
        write_coco(data, root / "again.json", root)
        found = [Found(r.boxes.astype(float), np.ones(len(r.labels)), r.labels) for r in data.records]
        score_detections(data, found)
    try:
        ResultIds(("ant", "bee"), root / "train.json")
    except UserError as error:
        assert "\n" not in str(error)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=mutated(COCO))
def test_coco_with_anything_anywhere(folder: Path, document: Any) -> None:
    put_through(folder, document)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
def test_coco_with_one_odd_value_anywhere(folder: Path, odd: Any) -> None:
    for way in places(COCO):
        put_through(folder, changed(COCO, way, lambda inner, key: inner.__setitem__(key, copy.deepcopy(odd))))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=st.one_of(mutated(NAMES), mutated(NAMES | {"names": ["ant", "bee"]}), st.sampled_from(ODD)))
def test_data_yaml_with_anything_anywhere(folder: Path, document: Any) -> None:
    (folder / "data.yaml").write_text(yaml.safe_dump(document))
    try:
        names = yolo_classes(folder)
    except UserError as error:
        assert "\n" not in str(error) and "data.yaml" in str(error)
    else:
        assert names and all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names)


NUMBERS = st.sampled_from(
    ["0", "1", "0.5", "0.25", "-3", "nan", "inf", "-inf", "1e400", "1e300", "x", "0x1", "1_0", "²"]
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.lists(NUMBERS, max_size=9).map(" ".join), max_size=4))
def test_yolo_lines_of_anything(folder: Path, lines: list[str]) -> None:
    root = folder / "yolo"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text("names: [ant, bee]")
    if not (root / "images/a.png").exists():
        (root / "images/a.png").write_bytes((folder / "a.png").read_bytes())
    (root / "labels/a.txt").write_text("\n".join(lines), encoding="utf-8")
    config = DataConfig(name="odd", format="yolo", root=str(root), train=Split("images"))
    for mode in ("strict", "repair"):
        config.mode = mode
        try:
            record = load_splits(config)[0]["train"].records[0]
        except UserError as error:
            assert mode == "strict" and "\n" not in str(error)
            continue
        assert np.isfinite(record.boxes).all() and all(
            np.isfinite(p).all() for outline in record.polygons for p in outline
        )


@pytest.mark.parametrize(
    ("way", "odd", "message"),
    [
        (("annotations",), None, "`annotations` is not a list"),
        (("annotations", 1), 7, r"train.json annotations\[1\] must be a map, got 7"),
        (("annotations", 2, "area"), "big", r"annotations\[2\].area must be a valid number, got 'big'"),
        (("annotations", 0, "image_id"), [1], r"annotations\[0\].image_id must be .*, got \[1\]"),
        (
            ("annotations", 0, "segmentation", 0, 3),
            "x",
            r"annotations\[0\].segmentation\[0\]\[3\] must be a valid number, got 'x'",
        ),
        (("annotations", 0, "bbox", 2), math.nan, r"annotations\[0\].bbox\[2\] must be a finite number, got nan"),
        (("annotations", 0, "bbox", 2), 1e12, r"annotations\[0\].bbox\[2\] must be less than or equal to 1000000000"),
        (("annotations", 1, "iscrowd"), "perhaps", r"annotations\[1\].iscrowd must be a valid boolean"),
        (("images", 1, "id"), [1], r"images\[1\].id must be "),
        (("images", 1, "file_name"), None, r"images\[1\].file_name must be a valid string, got None"),
        (("categories", 0, "id"), True, r"categories\[0\].id must be a number, got True"),
        (("categories", 0, "name"), None, r"categories\[0\].name must be a name"),
        (("images", 1), {"id": 3}, r"images\[1\].file_name is missing"),
        (("images", 1, "id"), 10, "two images have the same id"),
    ],
)
def test_the_line_names_file_entry_and_field(folder: Path, way: Any, odd: Any, message: str) -> None:
    (folder / "train.json").write_text(json.dumps(changed(COCO, way, lambda inner, key: inner.__setitem__(key, odd))))
    with pytest.raises(UserError, match=message):
        load_splits(DataConfig(name="odd", root=str(folder), train=Split(".", "train.json")))


def test_repair_leaves_out_the_entry_alone(folder: Path) -> None:
    document = changed(COCO, ("annotations", 2, "area"), lambda inner, key: inner.__setitem__(key, "big"))
    (folder / "train.json").write_text(json.dumps(document))
    data, problems = read_coco(folder / "train.json", folder)
    assert [len(r.labels) for r in data.records] == [1, 0] and len(data.records[0].crowd_labels) == 1
    assert [p.kind for p in problems] == ["unusable entry of `annotations`"] and isinstance(problems[0], Problem)


@pytest.mark.parametrize(("value", "crowd"), [("0", 0), ("1", 1), (0, 0), (1, 1), (False, 0), (None, 0), (0.0, 0)])
def test_crowd_is_what_the_file_means(folder: Path, value: Any, crowd: int) -> None:
    document = changed(COCO, ("annotations", 1, "iscrowd"), lambda inner, key: inner.__setitem__(key, value))
    (folder / "train.json").write_text(json.dumps(document))
    record = read_coco(folder / "train.json", folder)[0].records[0]
    assert len(record.crowd_labels) == crowd and len(record.labels) == 2 - crowd


@pytest.mark.parametrize("text", ["[" * 100_000, '{"images": ' + "9" * 5000 + "}", "\xff\xfe", "", "null", "3"])
def test_files_that_are_no_coco_file(folder: Path, text: str) -> None:
    (folder / "train.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"train\.json") as error:
        read_coco(folder / "train.json", folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b", "a map with `names`"),
        ("names: [a, yes]", r"names\[1\] must be a name \(in quotes, if this is one\), got True"),
        ("names: [a, a]", "two classes are called 'a'"),
        ("names: []", "no classes"),
        ("names: {0: a, 2: b}", "a map from 0, 1, 2"),
        ("names: {0: a, x: b}", r"names\.x"),
        ("nc: 3", "names must be .*got None"),
    ],
)
def test_the_line_for_a_data_yaml(folder: Path, text: str, message: str) -> None:
    (folder / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        yolo_classes(folder)


def test_unquoted_numbers_are_names(folder: Path) -> None:
    (folder / "data.yaml").write_text("names: [3, 1.5, seven]")
    assert yolo_classes(folder) == ["3", "1.5", "seven"]
