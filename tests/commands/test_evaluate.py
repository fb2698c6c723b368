"""The evaluation command's work: one folder from a checkpoint and from the file exported from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nas.commands.evaluate import EvaluateCommand, evaluate_into
from nas.data.shapes import CLASSES, draw_shapes
from nas.data.sources import DataConfig, Split
from nas.detector import Detector
from nas.errors import UserError


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    root = draw_shapes(tmp_path_factory.mktemp("shapes"), counts={"val": 4}, size=96)
    return DataConfig(name="shapes", root=str(root), val=Split("images/val", "annotations/val.json"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    detector = Detector.load("damo-yolo-ns", classes=CLASSES)
    detector.network.image_size = 64
    return detector.save(tmp_path_factory.mktemp("model") / "m.safetensors")


def config(model: Path, data: DataConfig, **more: object) -> EvaluateCommand:
    options = {"batch_size": 4, "score_threshold": 0.0, "max_detections": 20, "progress": False} | more
    return EvaluateCommand(model=str(model), data=data, **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_checkpoint_and_its_export_score_the_same(checkpoint: Path, shapes: DataConfig, tmp_path: Path) -> None:
    exported = tmp_path / "m.onnx"
    Detector.load(checkpoint).export(exported, check_images=2)
    scores, boxes = [], []
    for name, model in (("torch", checkpoint), ("onnx", exported)):
        result = evaluate_into(config(model, shapes, time=name == "onnx"), tmp_path / name)
        written = json.loads((tmp_path / name / "scores.json").read_text())
        assert (
            written["ap"] == result.ap
            and ("batch1" in written["milliseconds"]) == (name == "onnx")
            and written["image_size"] == 64
        )
        assert (tmp_path / name / "confusion.png").is_file() and (tmp_path / name / "precision_recall.png").is_file()
        rows = json.loads((tmp_path / name / "results.json").read_text())
        assert {row["category_id"] for row in rows} <= set(range(1, 6))
        scores.append(sorted(row["score"] for row in rows))
        boxes.append(len(rows))
    assert boxes[0] == boxes[1] == 80
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_what_cannot_be_evaluated_is_said_before_any_image(
    checkpoint: Path, shapes: DataConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="split must be one of train, val, test"):
        evaluate_into(config(checkpoint, shapes, split="dev"), tmp_path)
    with pytest.raises(UserError, match="none of the splits test has paths"):
        evaluate_into(config(checkpoint, shapes, split="test"), tmp_path)
    with pytest.raises(UserError, match="missing.safetensors"):
        evaluate_into(config(tmp_path / "missing.safetensors", shapes), tmp_path)
    with pytest.raises(UserError, match="image_size must be .*, a multiple of 32 or null, got 100"):
        evaluate_into(config(checkpoint, shapes, image_size=100), tmp_path)
    assert not list(tmp_path.iterdir())
