"""The loss on validation pictures: the training's own terms, of the deployed network, without a trace in any result."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from nas.data.loader import build_loader
from nas.loss import LossOptions
from nas.loss.assignment import pad_targets
from nas.loss.detection import DetectionLoss
from nas.loss.validation import ValidationLoss
from nas.models.baselines import build_baseline
from nas.models.detector import build_detector
from nas.training.averaging import Validator
from nas.training.hooks import read_epochs
from nas.training.options import TrainerOptions
from nas.training.setup import make_fabric


def of_loss(row):
    return {name: value for name, value in row.items() if name.startswith("loss")}


def test_it_changes_no_byte_of_the_weights_and_no_score(tiny, root, tmp_path):
    for name, wanted in (("with", True), ("without", False)):
        tiny.run(root, tmp_path / name, {"validation_loss": wanted})
    one, two = tmp_path / "with", tmp_path / "without"
    for file in ("best.safetensors", "last.safetensors", "steps.csv"):
        assert (one / file).read_bytes() == (two / file).read_bytes(), file
    rows, plain = read_epochs(one), read_epochs(two)
    assert [{k: v for k, v in row.items() if k not in of_loss(row)} for row in rows] == plain
    assert all(set(of_loss(row)) == {"loss", "loss/class", "loss/box", "loss/dfl"} for row in rows)
    assert all(row["loss"] == pytest.approx(sum(of_loss(row).values()) - row["loss"]) for row in rows)
    assert json.loads((one / "epochs.jsonl").read_text().splitlines()[0])["ap"] == plain[0]["ap"]


def test_it_is_the_mean_of_the_terms_over_the_pictures(tiny, root):
    """Six pictures in batches of four and two; the terms of each computed by hand."""
    _, val = tiny.shapes(root)
    model = build_detector(tiny.tiny_spec(), 5, val.classes).eval()
    fabric = make_fabric("cpu", "fp32")
    found = Validator(val, 64, 4, fabric, loss=lambda: ValidationLoss(LossOptions(), 64, 4))(model).numbers
    fused, loss = copy.deepcopy(model).fuse(), DetectionLoss(LossOptions(), 64)
    sums, plain = {}, Validator(val, 64, 4, fabric)(model).numbers
    with torch.inference_mode():
        for batch in build_loader(val, 4, 64, train=False):
            terms = loss(fused.predict_raw(batch.images.float()), pad_targets(batch.boxes, batch.labels))
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + len(batch.images) * float(value) / 6
    assert {name: found[f"loss/{name}"] for name in sums} == pytest.approx(sums, rel=1e-6)
    assert found["loss"] == pytest.approx(sum(sums.values())) and found["loss"] > 0
    assert {name: value for name, value in found.items() if name not in of_loss(found)} == plain
    assert next(iter(found)) == "ap"


def test_a_loss_by_the_batch_is_that_of_a_step_whatever_the_validation_batch():
    torch.manual_seed(0)
    raw = build_baseline("yolo11n", 2, 64).eval().predict_raw(torch.rand(2, 3, 64, 64) * 255)
    targets = pad_targets([torch.tensor([[8.0, 8, 40, 40]])] * 2, [torch.tensor([1])] * 2)
    options = LossOptions(assigner="tal", classification="bce", box_weighting="quality", scale_by_batch=True)
    one, two = ValidationLoss(options, 64, 2), ValidationLoss(options, 64, 16)
    for loss in (one, two):
        loss.add(raw, targets)
    step = DetectionLoss(options, 64)(raw, targets)
    assert one.numbers()["loss"] == pytest.approx(float(sum(step.values())))
    assert two.numbers()["loss"] == pytest.approx(8 * one.numbers()["loss"])


@pytest.mark.parametrize("name", ["damo", "yolo11n", "yolo26n", "yolov9t-pgi"])
def test_one_pass_gives_what_two_give(tiny, name):
    torch.manual_seed(0)
    model = build_detector(tiny.tiny_spec(), 5) if name == "damo" else build_baseline(name, 3, 64)
    images = torch.rand(2, 3, 64, 64) * 255
    for form in (model.eval(), copy.deepcopy(model).fuse()):
        with torch.inference_mode():
            (scores, boxes), raw = form.predict_both(images)
            plain, alone = form.predict(images), form.predict_raw(images)
        assert torch.equal(scores, plain[0]) and torch.equal(boxes, plain[1])
        assert torch.equal(raw.class_logits, alone.class_logits) and torch.equal(raw.boxes, alone.boxes)


def test_only_the_deployed_branch_counts():
    """YOLO26 with its branch of training and without it: the same numbers, by the weight of the end of a training."""
    torch.manual_seed(0)
    raw = build_baseline("yolo26n", 2, 64).eval().predict_raw(torch.rand(1, 3, 64, 64) * 255)
    assert raw.auxiliary is not None
    targets = pad_targets([torch.tensor([[8.0, 8, 40, 40]])], [torch.tensor([0])])
    options = LossOptions(assigner="tal", classification="bce", box_weighting="quality", end_to_end=True)
    loss = ValidationLoss(options, 64, 1)
    loss.add(raw, targets)
    whole = DetectionLoss(options, 64)(raw, targets, progress=1.0)
    deployed = {f"loss/{name}": float(value) for name, value in whole.items() if not name.startswith("aux_")}
    numbers = loss.numbers()
    assert numbers == pytest.approx({"loss": sum(deployed.values())} | deployed)


def test_it_waits_for_no_other_process(monkeypatch):
    """The first process validates while the others wait: a mean over processes would never end."""
    monkeypatch.setattr("nas.loss.detection.world_size", lambda: 2)
    monkeypatch.setattr("nas.loss.detection.mean_over_processes", lambda value: pytest.fail("waits"))
    raw = build_baseline("yolo11n", 2, 64).eval().predict_raw(torch.rand(1, 3, 64, 64) * 255)
    loss = ValidationLoss(LossOptions(), 64, 1)
    loss.add(raw, pad_targets([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.long)]))
    assert loss.numbers()["loss/box"] == 0 and loss.numbers()["loss/class"] > 0


def test_it_may_differ_between_a_run_and_its_continuation():
    assert TrainerOptions(validation_loss=False).decisive() == TrainerOptions().decisive()
