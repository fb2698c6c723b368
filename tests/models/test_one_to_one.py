"""ZeroHead without NMS: two branches in training, one in the deployed network, the same detections in every form."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import nas
from nas.cost.count import count_spec
from nas.deploy.export import ExportSettings, export_model
from nas.errors import UserError
from nas.inference.postprocess import postprocess
from nas.loss.assignment import ATSS, OTA, TAL, pad_targets
from nas.loss.detection import DetectionLoss, LossOptions
from nas.measure.trace import count_module
from nas.models.base import best_pairs
from nas.models.baselines import build_baseline
from nas.models.checkpoint import load_checkpoint, save_checkpoint
from nas.models.detector import build_detector
from nas.models.passport import generated_pictures
from nas.spec import digest, from_dict, to_dict
from nas.training.setup import prepare_detector
from search_spaces.published import load_published
from tests.training.tiny_training import tiny_spec

NAMES = ("disc", "square", "triangle", "ring", "cross")


def end_to_end_spec(width: int = 8, side: int = 64):
    spec = tiny_spec(width, side)
    return replace(spec, head=replace(spec.head, one_to_one=True))


def test_specs_of_before_keep_their_digests_and_the_new_field_is_stored():
    assert digest(load_published("damo-yolo-t")) == "efd7980b6f9af65e"
    spec = end_to_end_spec()
    assert "one_to_one" not in json.dumps(to_dict(tiny_spec())) and digest(spec) != digest(tiny_spec())
    assert from_dict(to_dict(spec)) == spec and from_dict(to_dict(tiny_spec())) == tiny_spec()
    with pytest.raises(UserError, match="one_to_one must be true or false"):
        replace(spec.head, one_to_one=1)


def test_the_deployed_branch_learns_nothing_into_the_network_below_it():
    torch.manual_seed(0)
    model = build_detector(end_to_end_spec(), classes=NAMES).train()
    raw = model(torch.rand(2, 3, 64, 64) * 255)
    assert raw.auxiliary is not None and model.end_to_end and model.auxiliary == "one_to_many"
    assert raw.class_logits.shape == raw.auxiliary.class_logits.shape == (2, 64 + 16 + 4, 5)
    raw.class_logits.sum().backward()
    assert all(p.grad is None for p in (*model.backbone.parameters(), *model.neck.parameters()))
    assert model.head.single.gfl_cls[0].weight.grad is not None and model.head.gfl_cls[0].weight.grad is None
    model(torch.rand(2, 3, 64, 64) * 255).auxiliary.class_logits.sum().backward()
    assert next(model.backbone.parameters()).grad is not None


@pytest.mark.parametrize("assigner", ["align_ota", "align_ota_report", "sim_ota", "tal", "tal_report"])
def test_one_prior_an_object_by_the_same_metric(assigner):
    torch.manual_seed(1)
    model = build_detector(end_to_end_spec(), classes=NAMES).train()
    raw = model(torch.rand(1, 3, 64, 64) * 255)
    targets = pad_targets([torch.tensor([[4.0, 4, 40, 40], [30, 20, 60, 63]])], [torch.tensor([0, 3])])
    loss = DetectionLoss(LossOptions(assigner=assigner, end_to_end=True), 64)
    one, many = loss.assign(raw, targets), loss.assign(raw, targets, loss.auxiliary_assigner)
    assert [int((one.matched == index).sum()) for index in range(2)] == [1, 1]
    assert int(many.positive.sum()) > 2
    assert not (one.positive & ~many.positive).any()  # consistent: the best of those that the other branch learns
    terms = loss(raw, targets, progress=0.5)
    assert set(terms) == {"class", "box", "dfl", "aux_class", "aux_box", "aux_dfl"}
    assert all(torch.isfinite(value) for value in terms.values())


def test_assigners_tell_their_one_to_one_form():
    assert OTA(power=1.0).one_to_one() == OTA(power=1.0, most=1) and TAL().one_to_one() == TAL(topk=7, keep=1)
    with pytest.raises(UserError, match="assigner ATSS has no one-to-one form"):
        ATSS().one_to_one()


@torch.no_grad()
def test_every_form_gives_the_same_rows_and_counts_as_the_spec_says(tmp_path):
    torch.manual_seed(2)
    spec = end_to_end_spec()
    model = build_detector(spec, classes=NAMES).eval()
    for level in range(3):
        torch.nn.init.normal_(model.head.single.gfl_cls[level].weight, std=0.5)
    images = torch.rand(2, 3, 64, 64) * 255
    scores, boxes = model(images)
    expected = best_pairs(*model.head.single(model.features(images)["neck"]))
    assert torch.equal(scores, expected[0]) and torch.equal(boxes, expected[1])
    assert (scores.gt(0).sum(-1) == 1).all() and (scores.amax(-1).diff() <= 0).all()
    fused = copy.deepcopy(model).fuse()
    again = fused(images)
    assert (again[0] - scores).abs().max() < 1e-4 and not any(
        "gfl" in n for n in fused.head.state_dict() if "single" not in n
    )
    loaded = load_checkpoint(save_checkpoint(tmp_path / "fused.safetensors", fused))
    assert torch.equal(loaded(images)[0], again[0])
    for form, module in (("train", model), ("merged", copy.deepcopy(model).merge()), ("folded", fused)):
        told, counted = count_spec(spec, form), count_module(module, form=form)
        assert (told.params, told.macs) == (counted.params, counted.macs), form
    plain = tiny_spec()
    assert count_spec(spec, "merged").params == count_spec(plain, "merged").params
    assert count_spec(spec, "train").params > count_spec(plain, "train").params
    big, large = replace(spec, image_size=320), replace(plain, image_size=320)
    assert nas.latency(big, hardware="t4_tensorrt_fp16").ms == nas.latency(large, hardware="t4_tensorrt_fp16").ms


def test_a_head_is_exchanged_and_starts_from_the_weights_of_the_other(tmp_path):
    torch.manual_seed(3)
    with_nms = build_detector(tiny_spec(), classes=NAMES)
    path = save_checkpoint(tmp_path / "nms.safetensors", with_nms)
    made = prepare_detector(path, NAMES, None, one_to_one=True)
    old, new = with_nms.state_dict(), made.state_dict()
    assert made.spec.head.one_to_one and all(torch.equal(new[name], value) for name, value in old.items())
    assert all(torch.equal(new[f"head.single.{n[5:]}"], v) for n, v in old.items() if n.startswith("head."))
    back = prepare_detector(save_checkpoint(tmp_path / "e2e.safetensors", made), ("a", "b"), None, one_to_one=False)
    assert not back.end_to_end and back.num_classes == 2
    kept = {n: v for n, v in old.items() if not n.startswith("head.gfl_cls")}
    assert all(torch.equal(back.state_dict()[name], value) for name, value in kept.items())
    with pytest.raises(UserError, match="one_to_one is of ZeroHead; yolo11n has a head of its own"):
        prepare_detector("yolo11n", NAMES, 64, one_to_one=True)
    yolo26 = build_baseline("yolo26n", 5, 64, NAMES)
    assert yolo26.auxiliary == "one_to_many" and build_baseline("yolo11n", 5, 64, NAMES).auxiliary == ""


@pytest.mark.parametrize("suffix", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_one_graph_without_nms_is_exported(suffix, tmp_path):
    pytest.importorskip(suffix)
    torch.manual_seed(4)
    model = build_detector(end_to_end_spec(), classes=NAMES).eval()
    with torch.no_grad():
        for level in range(3):
            torch.nn.init.normal_(model.head.single.gfl_cls[level].weight, std=0.5)
    report = export_model(model, tmp_path / "model", ExportSettings(format=suffix))
    detector = nas.Detector.load(report.path)
    assert detector.network.end_to_end
    images = torch.from_numpy(np.concatenate(generated_pictures(3, 64)))
    with torch.no_grad():
        found, expected = detector.network(images), copy.deepcopy(model).fuse()(images)
    assert (found[0] - expected[0]).abs().max() < 1e-3
    rows = postprocess(*expected, 0.3, nms=False)[0]
    assert len(rows.scores) == int((expected[0][0].amax(-1) > 0.3).sum())
    if suffix == "onnx":
        import onnx

        kinds = {node.op_type for node in onnx.load(report.path).graph.node}
        assert "TopK" in kinds and "NonMaxSuppression" not in kinds
        with pytest.raises(UserError, match="end-to-end and needs no NMS"):
            export_model(model, tmp_path / "nms", ExportSettings(format="onnx_nms"))
