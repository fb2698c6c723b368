"""A whole run over good and broken files: every one is accounted for, the good ones are written."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from nas.detector import Detector
from nas.errors import UserError
from nas.inference import PredictCommand
from nas.inference.drawing import draw
from nas.inference.predictor import Prediction
from nas.inference.run import ResultIds, predict_into
from nas.models.detector import build_detector
from nas.spec import Backbone, DetectorSpec, HeadSpec, InvertedResidual, NeckSpec, Stem


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    blocks = tuple(InvertedResidual(16, 16, 1, 2) for _ in range(4))
    backbone = Backbone(Stem("conv", 8), blocks, (1, 2, 3), activation="silu")
    neck = NeckSpec((16, 16, 16), 1, activation="silu", depthwise=True)
    model = build_detector(DetectorSpec(backbone, neck, HeadSpec(2, 7, 1), 64), classes=("cell", "plate")).eval()
    with torch.no_grad():
        for layer in model.head.gfl_cls:
            layer.bias.fill_(-1.0)
    return Detector(model)


@pytest.fixture()
def folder(tmp_path):
    """A text file, an empty file, a 1x1 image, a 10000x10 image, a CMYK JPEG, a truncated JPEG, and a good image."""
    root = tmp_path / "in"
    root.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    Image.fromarray(noise).save(root / "000012.jpg")
    Image.fromarray(noise).convert("CMYK").save(root / "cmyk.jpg")
    Image.new("RGB", (1, 1)).save(root / "one.png")
    Image.new("RGB", (10000, 10)).save(root / "wide.png")
    (root / "notes.txt").write_text("hello")
    (root / "empty.jpg").write_bytes(b"")
    (root / "cut.jpg").write_bytes((root / "000012.jpg").read_bytes()[:3000])
    return root


def test_every_file_is_accounted_for(detector, folder, tmp_path):
    run = predict_into(
        detector, PredictCommand(model="m", source=str(folder), score_threshold=0.2, batch=3), tmp_path / "out"
    )
    errors = {row.name: row.error for row in run.rows if row.error}
    assert set(errors) == {"notes.txt", "empty.jpg", "cut.jpg"}
    assert all(str(folder / name) in text for name, text in errors.items())
    written = sorted(path.name for path in run.pictures.iterdir())
    assert written == ["000012.jpg", "cmyk.jpg", "one.png", "wide.png"]
    rows = json.loads(run.results.read_text())
    assert rows and {row["file_name"] for row in rows} <= set(written)
    row = next(row for row in rows if row["file_name"] == "000012.jpg")
    assert row["image_id"] == 12 and row["category_name"] == ("cell", "plate")[row["category_id"]]
    x, y, width, height = row["bbox"]
    assert 0 <= x <= x + width <= 120.001 and 0 <= y <= y + height <= 90.001 and 0.2 < row["score"] < 1


def test_ids_come_from_the_annotations(detector, folder, tmp_path):
    path = tmp_path / "truth.json"
    data = {
        "images": [{"id": 77, "file_name": "x/000012.jpg"}],
        "categories": [{"id": 5, "name": "plate"}, {"id": 900, "name": "cell"}],
        "annotations": [],
    }
    path.write_text(json.dumps(data))
    run = predict_into(
        detector,
        PredictCommand(model="m", source=str(folder), annotations=str(path), pictures=False, score_threshold=0.2),
        tmp_path / "out",
    )
    rows = json.loads(run.results.read_text())
    assert rows and {row["image_id"] for row in rows} == {77} and {row["category_id"] for row in rows} <= {5, 900}
    data["categories"].pop()
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match="no category 'cell'"):
        predict_into(detector, PredictCommand(model="m", source=str(folder), annotations=str(path)), tmp_path / "out")


def test_ids_of_pictures_in_folders_and_of_frames(tmp_path):
    own = ResultIds(("cell",))
    names = ("000012.jpg", "a/000012.jpg", "b/x.y.png", "7.mp4#000003")
    assert [own.image(name) for name in names] == [12, "a/000012", "b/x.y", "7.mp4#000003"]
    path = tmp_path / "truth.json"
    images = [{"id": i, "file_name": name} for i, name in enumerate(("s1/0.jpg", "s2/0.jpg", "s2/1.jpg"))]
    path.write_text(json.dumps({"images": images, "categories": [{"id": 5, "name": "cell"}], "annotations": []}))
    given = ResultIds(("cell",), path)
    assert [given.image(name) for name in ("s1/0.jpg", "s2/0.jpg", "1.jpg", "2.jpg")] == [0, 1, 2, None]
    with pytest.raises(UserError, match=r"0.jpg may be s1/0.jpg or s2/0.jpg"):
        given.image("0.jpg")


def test_nothing_readable_is_an_error(detector, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="a.jpg: not an image"):
        predict_into(detector, PredictCommand(model="m", source=str(tmp_path / "a.jpg")), tmp_path / "out")
    (tmp_path / "b.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="none of 2 files is a readable picture"):
        predict_into(detector, PredictCommand(model="m", source=str(tmp_path / "*.jpg")), tmp_path / "out")


def test_predict_raises_for_one_and_reports_for_many(detector, folder):
    with pytest.raises(UserError, match="empty.jpg: the file is empty"):
        detector.predict(folder / "empty.jpg")
    assert sum(bool(found.error) for found in detector.predict(folder)) == 3
    with pytest.raises(UserError, match="thresh"):
        detector.predict(folder, thresh=0.3)
    with pytest.raises(UserError, match="multiple of 32"):
        detector.predict(folder, image_size=100)
    with pytest.raises(UserError, match="device 'cuda:77' cannot be used"):
        detector.predict(folder, device="cuda:77")


def test_predicting_leaves_the_model_as_it_was(detector, folder):
    before = {name: value.clone() for name, value in detector.model.state_dict().items()}
    detector.predict(folder / "000012.jpg")
    after = detector.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())


def test_drawing_marks_the_box_and_spares_the_rest():
    pixels = np.zeros((60, 80, 3), np.uint8)
    found = Prediction("a", np.array([[20.0, 30, 60, 50]]), np.array([0.5]), np.array([0]), ("x",), 80, 60)
    drawn = draw(pixels, found)
    assert not pixels.any() and drawn[30, 40].any() and drawn[50, 40].any() and not drawn[40, 40].any()


def test_command_line(detector, folder, tmp_path):
    path = detector.save(tmp_path / "model.safetensors")
    command = [sys.executable, "-m", "nas.predict", f"model={path}", "score_threshold=0.2"]
    done = subprocess.run(
        [*command, f"source={folder}", f"hydra.run.dir={tmp_path / 'run'}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "4 pictures, 3 skipped" in done.stdout and "notes.txt: not an image" in done.stdout
    assert (tmp_path / "run/results.json").is_file() and (tmp_path / "run/pictures/cmyk.jpg").is_file()
    command += ["source=absent.jpg", f"hydra.run.dir={tmp_path / 'second'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.strip() == "error: absent.jpg: no such file, folder or glob"
