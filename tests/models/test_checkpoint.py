"""Checkpoints are self-contained, exact, and refused with one line when they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nas.detector import Detector
from nas.errors import UserError
from nas.models.build import build_model
from nas.models.checkpoint import load_checkpoint, read_header, read_tensors, save_checkpoint
from nas.models.detector import build_detector


@pytest.fixture()
def model(spec_of):
    torch.manual_seed(1)
    return build_detector(spec_of("Ns"), classes=("cell", "plate", "dust")).eval()


@torch.no_grad()
@pytest.mark.parametrize("form", ["train", "merge", "fuse"])
@pytest.mark.parametrize("name", ["Ns", "T"])
def test_round_trip_is_exact_in_every_form(spec_of, tmp_path, form, name):
    model = build_detector(spec_of(name), num_classes=2).eval()
    if form != "train":
        getattr(model, form)()
    path = save_checkpoint(tmp_path / "model.safetensors", model, {"epoch": 3})
    random_state = torch.get_rng_state()
    loaded = load_checkpoint(path)
    assert torch.equal(random_state, torch.get_rng_state())
    images = torch.rand(1, 3, 64, 64) * 255
    for ours, theirs in zip(model(images), loaded(images), strict=True):
        assert torch.equal(ours, theirs)
    assert (loaded.spec, loaded.classes, loaded.image_size) == (model.spec, model.classes, model.image_size)
    assert read_header(path)["extra"] == {"epoch": 3}


def test_equal_checkpoints_are_equal_files(model, tmp_path):
    files = {save_checkpoint(tmp_path / "model.safetensors", model, {"epoch": 3}).read_bytes() for _ in range(12)}
    assert len(files) == 1


def test_a_baseline_round_trips(tmp_path):
    model = build_model("yolov8n", classes=("a", "b")).eval()
    path = save_checkpoint(tmp_path / "model.safetensors", model)
    loaded = build_model(path)
    assert loaded.name == "yolov8n" and loaded.classes == ("a", "b")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_header_is_plain_json(model, tmp_path):
    header = read_header(save_checkpoint(tmp_path / "model.safetensors", model))
    assert header["format"] == "maenas-checkpoint/1"
    assert header["classes"] == ["cell", "plate", "dust"] and header["image_size"] == 416
    assert header["architecture"]["spec"]["backbone"]["blocks"][0]["type"] == "InvertedResidual"


def test_other_files_are_refused(model, tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match="no such checkpoint"):
        load_checkpoint(path)
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        load_checkpoint(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="without maenas' header"):
        load_checkpoint(path)
    whole = save_checkpoint(path, model).read_bytes()
    path.write_bytes(whole[:-1000])
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(path)


def edited(path, change):
    """Rewrite a checkpoint after `change(header, tensors)`."""
    header, tensors = read_header(path), load_file(path)
    change(header, tensors)
    save_file(tensors, path, {"maenas": json.dumps(header)})


def test_what_does_not_fit_is_named(model, tmp_path):
    path = tmp_path / "model.safetensors"
    cases = [
        (lambda h, t: t.pop("neck.merge_3.conv1.conv.weight"), r"1 missing \(neck.merge_3.conv1.conv.weight\)"),
        (lambda h, t: t.update(extra=torch.zeros(1)), r"1 unexpected \(extra\)"),
        (lambda h, t: h["classes"].pop(), "6 of another shape"),
        (lambda h, t: h.update(format="maenas-checkpoint/9"), "this version reads"),
        (lambda h, t: h["architecture"]["spec"].update(colour=1), "unknown field 'colour'"),
        (lambda h, t: h.pop("classes"), "lacks 'classes'"),
        (lambda h, t: h.update(architecture={"baseline": "yolov0"}), "yolov0"),
    ]
    for change, words in cases:
        edited(save_checkpoint(path, model), change)
        with pytest.raises(UserError, match=words) as error:
            load_checkpoint(path)
        assert "\n" not in str(error.value) and "model.safetensors" in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_told(model, tmp_path, value):
    with torch.no_grad():
        model.neck.merge_3.conv1.conv.weight.view(-1)[5] = value
    path = save_checkpoint(tmp_path / "model.safetensors", model)
    with pytest.raises(
        UserError, match=r"values that are not finite in 1 of \d+ entries \(neck.merge_3.conv1.conv.weight\)"
    ):
        load_checkpoint(path)
    with pytest.raises(UserError, match="the model has values that are not finite"):
        Detector(model).predict(np.zeros((8, 8, 3), np.uint8))


def test_a_failed_write_keeps_the_old_file(model, tmp_path, monkeypatch):
    import os

    path = save_checkpoint(tmp_path / "model.safetensors", model)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        save_checkpoint(path, model)
    assert path.read_bytes() == before and [item.name for item in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_loaded_file_is_let_go(model, tmp_path):
    """Windows replaces no file that is mapped into memory, as a training does with its last one."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("this system does not tell what a process maps")
    path = save_checkpoint(tmp_path / "model.safetensors", model)
    loaded, (_, tensors) = load_checkpoint(path), read_tensors(path)
    assert len(tensors) == len(loaded.state_dict()) and str(path) not in maps.read_text()


def test_build_dispatches_on_what_it_is_given(model, spec_of, tmp_path):
    path = save_checkpoint(tmp_path / "model.safetensors", model)
    assert build_model(path, classes=("x", "y", "z")).classes == ("x", "y", "z")
    with pytest.raises(UserError, match="has 3 classes, not 5"):
        build_model(path, num_classes=5)
    with torch.device("meta"):
        assert build_model("damo-yolo-t", num_classes=7).num_classes == 7
        assert build_model("yolov8n").num_classes == 80
        assert len(build_model(spec_of("T").backbone)(torch.empty(1, 3, 64, 64))) == 3
    with pytest.raises(UserError, match="no file and no model is called 'damo-yolo-q'; did you mean damo-yolo-l, "):
        build_model("damo-yolo-q")
