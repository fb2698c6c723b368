"""nas.Detector: from an architecture over a short training to evaluation and prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nas
from nas.data.shapes import draw_shapes
from nas.errors import UserError
from nas.spec import Backbone, DetectorSpec, HeadSpec, InvertedResidual, NeckSpec, Stem
from nas.training.hooks import Hook


def tiny() -> DetectorSpec:
    blocks = tuple(InvertedResidual(16, 16, 1, 2) for _ in range(4))
    backbone = Backbone(Stem("conv", 8), blocks, (1, 2, 3), activation="silu")
    return DetectorSpec(backbone, NeckSpec((16, 16, 16), 1, activation="silu", depthwise=True), HeadSpec(3, 7, 1), 64)


def test_train_evaluate_predict(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_shapes(tmp_path / "shapes", counts={"train": 16, "val": 4, "test": 4}, size=64)
    detector = nas.Detector.load(tiny())
    before, steps = detector.network, []

    class Counting(Hook):
        def on_step_end(self, view, step):
            steps.append(step.number)

    settings = {
        "image_size": 64,
        "device": "cpu",
        "data.root": str(tmp_path / "shapes"),
        "trainer": "cpu_small",
        "trainer.epochs": 1,
        "trainer.workers": 0,
        "trainer.batch_size": 4,
        "trainer.schedule.warmup_epochs": 0,
        "augmentation.closing_epochs": 0,
    }
    result = detector.train("shapes", tmp_path / "run", progress=False, hooks=[Counting()], **settings)
    assert steps == list(range(1, result.steps + 1))
    assert detector.network is not before and len(detector.classes) == 5
    assert detector.source == str(result.best) and result.best.is_file()
    scores = detector.evaluate("shapes", root=tmp_path / "shapes")
    assert scores.images > 0 and 0 <= scores.ap <= 1
    found = nas.Detector.load(result.best).predict(np.zeros((48, 80, 3), np.uint8), score_threshold=0.0)
    assert len(found) == 1 and found[0].boxes.shape[1] == 4
    further = settings | {"trainer.epochs": 2, "report": False}
    more = detector.train("shapes", tmp_path / "run", progress=False, resume=str(tmp_path / "run"), **further)
    assert more.steps == 2 * result.steps and [row["epoch"] for row in more.to_dict()["validations"]] == [1, 2]
    with pytest.raises(UserError, match="goes on in that folder: give it as `folder` too"):
        detector.train("shapes", tmp_path / "other", resume=str(tmp_path / "run"), **further)


def test_wrong_settings_are_one_line(tmp_path):
    detector = nas.Detector.load(tiny())
    for options, words in (
        ({"trainer": {"epoch": 3}}, "epoch"),
        ({"image_size": "big"}, "big"),
        ({"colour": 1}, "colour"),
    ):
        with pytest.raises(UserError, match=words) as error:
            detector.train("shapes", tmp_path / "run", **options)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="nodata"):
        detector.train("nodata", tmp_path / "run")
    with pytest.raises(UserError, match="this is a backbone"):
        nas.Detector.load("tinynas_l25_k1kx")


def test_names_files_and_specs_load(tmp_path):
    with torch.device("meta"):
        assert nas.Detector.load("damo-yolo-ns", classes=("a", "b")).classes == ("a", "b")
    path = nas.Detector.load(tiny()).save(tmp_path / "model.safetensors")
    assert nas.Detector.load(path).image_size == 64
