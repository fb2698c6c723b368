"""Data sets whose annotations come with maenas: images out of an archive, scaled, our labels beside them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.data import data_config
from nas.data.actions import DataCommand, run_data_action
from nas.data.fetch import annotated_names, load_annotated, place_annotated
from nas.data.sources import DataConfig, Download, load_splits
from nas.errors import UserError

SPLITS = ("train", "val", "test")
#: Images and boxes of each split.
COUNTS = {
    "bccd": ((205, 2800), (87, 1135), (72, 944)),
    "cards": ((216, 383), (80, 144), (67, 143)),
    "aquarium": ((411, 3024), (136, 986), (91, 804)),
}


def photograph(width: int, height: int, quarter_turn: bool = False) -> bytes:
    """A JPEG of a left-to-right ramp; turned: stored lying on its side, upright only by its EXIF."""
    ramp = np.broadcast_to(np.linspace(0, 255, width)[None, :, None], (height, width, 3)).astype(np.uint8)
    image, exif, stream = Image.fromarray(np.ascontiguousarray(ramp)), Image.Exif(), io.BytesIO()
    if quarter_turn:
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[0x0112] = 6
    image.save(stream, "JPEG", quality=95, exif=exif)
    return stream.getvalue()


def slice_of(name: str, images: Mapping[str, str]) -> dict[str, Any]:
    """The file of a set, reduced to one image a split."""
    document = load_annotated(name)
    splits = {s: [row for row in document["splits"][s] if row[1] == images[s]] for s in SPLITS}
    assert all(len(rows) == 1 for rows in splits.values())
    return document | {"splits": splits}


CARDS = {"train": "IMG_2396.JPG", "val": "IMG_2385.JPG", "test": "IMG_2383.JPG"}
CELLS = {"train": "BloodImage_00133.jpg", "val": "BloodImage_00338.jpg", "test": "BloodImage_00007.jpg"}


def packed(path: Path, folder: str, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as contents:
        for name, data in files.items():
            contents.writestr(f"repository-0123abc/{folder}/{name}", data)
    return path


def test_the_committed_sets_are_whole_and_sound() -> None:
    assert annotated_names() == tuple(sorted(COUNTS))
    for name, counts in COUNTS.items():
        document = load_annotated(name)
        files = [row[1] for split in SPLITS for row in document["splits"][split]]
        assert len(files) == len(set(files))
        raw = {split: sum(len(row[4]) for row in document["splits"][split]) for split in SPLITS}
        dropped = sum(edit["becomes"] is None for edit in document["corrections"])
        assert sum(raw.values()) - dropped == sum(boxes for _, boxes in counts)
        assert [len(document["splits"][split]) for split in SPLITS] == [images for images, _ in counts]
        for _, file, width, height, objects in (row for split in SPLITS for row in document["splits"][split]):
            for label, x, y, w, h in objects:
                assert 0 <= label < len(document["classes"]), file
                assert x >= 0 and y >= 0 and x + w <= width + 0.02 and y + h <= height + 0.02, file
        everything = {(row[1], *box) for split in SPLITS for row in document["splits"][split] for box in row[4]}
        for edit in document["corrections"]:  # each one finds its box
            assert (edit["image"], document["classes"].index(edit["class"]), *edit["box"]) in everything


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_a_configuration_of_each_set_names_its_layout(name: str) -> None:
    config = data_config(name)
    assert config.layout == config.name == name and config.download[0].url.endswith(".zip")
    commit = load_annotated(name)["source"].rpartition(" ")[2]
    assert commit in config.download[0].url


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "cards" else pytest.mark.slow) for name in sorted(COUNTS)]
)
def test_fetched_annotations_equal_the_shared_ones(shared: Path, tmp_path: Path, name: str) -> None:
    source = shared / "data" / name
    archive = packed(tmp_path / "a.zip", load_annotated(name)["folder"], {})
    with zipfile.ZipFile(archive, "a") as contents:
        for path in sorted((source / "images").iterdir()):
            contents.write(path, f"r/{load_annotated(name)['folder']}/{path.name}")
    place_annotated(load_annotated(name) | {"quality": None}, [archive], tmp_path)
    folders = ("annotations", "annotations_raw") if name == "bccd" else ("annotations",)
    for folder in folders:
        for split, (images, boxes) in zip(SPLITS, COUNTS[name], strict=True):
            ours, theirs = (json.loads((root / folder / f"{split}.json").read_text()) for root in (tmp_path, source))
            keys = ("id", "file_name", "width", "height")
            assert [[i[k] for k in keys] for i in ours["images"]] == [[i[k] for k in keys] for i in theirs["images"]]
            rows = [
                [(a["image_id"], a["category_id"], [round(v, 2) for v in a["bbox"]]) for a in document["annotations"]]
                for document in (ours, theirs)
            ]
            assert rows[0] == rows[1]
            assert len(ours["images"]) == images and (folder != "annotations" or len(rows[0]) == boxes)
            names = [[c["name"] for c in document["categories"]] for document in (ours, theirs)]
            assert names[0] == names[1]


def test_fetch_scales_turns_and_corrects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = slice_of("cards", CARDS)
    size = document["splits"]["train"][0][2:4]
    assert size == [378, 504]
    document["splits"]["test"][0][2:4] = [640, 360]
    monkeypatch.setattr("nas.data.fetch.load_annotated", lambda name: document)
    files = {
        "train/IMG_2396.JPG": photograph(378, 504, quarter_turn=True),
        "train/IMG_2385.JPG": photograph(378, 504),
        "test/IMG_2383.JPG": photograph(1280, 720),
        "test/another.JPG": b"not wanted",
    }
    archive = packed(tmp_path / "cards.zip", "images", files)
    config = data_config("cards")
    config.download = [Download(archive.as_uri())]
    lines = run_data_action(DataCommand(config, action="fetch"), tmp_path / "cards")
    assert "licence Apache-2.0" in lines[0] and lines[-1] == f"cards is in {tmp_path / 'cards'}"
    config.root = str(tmp_path / "cards")
    splits, report = load_splits(config)  # strict: every image opens at the annotated size
    assert not report.errors and [len(splits[s]) for s in SPLITS] == [1, 1, 1]
    assert {path.name for path in (tmp_path / "cards/images").iterdir()} == set(CARDS.values())
    for name, side in (("IMG_2396.JPG", (378, 504)), ("IMG_2383.JPG", (640, 360))):
        with Image.open(tmp_path / "cards/images" / name) as image:
            row = np.asarray(image.convert("L"), np.float64)[side[1] // 2]
            assert image.size == side and not image.getexif()
            assert np.abs(row - np.linspace(0, 255, side[0])).max() < 6  # still the ramp, left to right
    labels = [
        json.loads((tmp_path / f"cards/{folder}/train.json").read_text())["annotations"][0]["category_id"]
        for folder in ("annotations_raw", "annotations")
    ]
    assert labels == [1, 2]  # the ten that was labelled nine


def test_blood_cells_keep_their_bytes_and_lose_their_broken_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, picture = slice_of("bccd", CELLS), photograph(640, 480)
    archive = packed(tmp_path / "a.zip", "BCCD/JPEGImages", dict.fromkeys(CELLS.values(), picture))
    lines = place_annotated(document, [archive], tmp_path / "bccd")
    assert "12 labels corrected" in lines[1]
    assert (tmp_path / "bccd/images/BloodImage_00133.jpg").read_bytes() == picture
    counts = [
        len(json.loads((tmp_path / f"bccd/{folder}/val.json").read_text())["annotations"])
        for folder in ("annotations_raw", "annotations")
    ]
    assert counts[0] - counts[1] == 1


def test_archives_that_do_not_fit_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    document = slice_of("cards", CARDS)
    files = {f"train/{name}": photograph(378, 504) for name in CARDS.values()}
    elsewhere = packed(tmp_path / "elsewhere.zip", "pictures", files)
    with pytest.raises(UserError, match="3 of 3 images are not in images of elsewhere.zip; first: IMG_2396.JPG"):
        place_annotated(document, [elsewhere], tmp_path / "out")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match="bad.zip cannot be unpacked"):
        place_annotated(document, [tmp_path / "bad.zip"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for content, message in ((photograph(504, 378), "is 504 x 378, annotated as 378 x 504"), (b"x", "is no image")):
        other = packed(tmp_path / "other.zip", "images", files | {"train/IMG_2385.JPG": content})
        with pytest.raises(UserError, match=f"IMG_2385.JPG {message}"):
            place_annotated(document, [other], tmp_path / "out")
        assert not (tmp_path / "out/annotations").exists()
    unknown = DataConfig(layout="cats", download=[Download(elsewhere.as_uri())])
    with pytest.raises(UserError, match="data.layout=cats: as_is, or one of aquarium, bccd, cards"):
        run_data_action(DataCommand(unknown, action="fetch"), tmp_path / "cats")
