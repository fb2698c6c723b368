"""Official checkpoints load by name; what does not fit, or would run, is refused in one line."""

from __future__ import annotations

import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nas.errors import UserError
from nas.models.detector import build_detector
from nas.models.weights import from_official


@pytest.fixture(scope="module")
def official(spec_of, golden_weights):
    """A state dict in the official layout, with golden weights."""
    return golden_weights("Ns", build_detector(spec_of("Ns")))


@torch.no_grad()
def test_official_file_gives_the_golden_outputs(official, golden_images, golden, tmp_path):
    state = {f"module.{name}": value for name, value in official.items()}
    torch.save({"epoch": 300, "model": state, "optimizer": {"state": {}}}, tmp_path / "official.pth")
    scores, boxes = from_official("damo-yolo-ns", tmp_path / "official.pth")(golden_images)
    record = np.load(golden / "damo/Ns_train_form.npz")
    for name, value, tolerance in (("scores", scores, 1e-5), ("boxes", boxes, 1e-3)):
        sample = value.reshape(-1)[torch.from_numpy(record[f"{name}_idx"])].numpy()
        np.testing.assert_allclose(sample, record[f"{name}_val"], rtol=0, atol=tolerance)


def test_every_published_layout_loads(shared, spec_of, golden_weights):
    for name in ("T", "S", "M", "L", "Ns", "Nm", "Nl"):
        rows = [row.split("\t") for row in (shared / f"golden/damo/state_dict/{name}.tsv").read_text().splitlines()[1:]]
        shapes = {row[0]: [] if row[1] == "scalar" else list(map(int, row[1].split("x"))) for row in rows}
        with torch.device("meta"):
            state = {key: torch.empty(shape) for key, shape in shapes.items()}
            assert from_official(f"damo-yolo-{name.lower()}", state).num_classes == 80


@torch.no_grad()
def test_another_class_count_replaces_the_class_layer_alone(official, golden_images):
    whole, other = from_official("tinynasL18_Ns", official), from_official("damo-yolo-ns", official, num_classes=3)
    assert other.num_classes == 3
    for name, value in whole.state_dict().items():
        if not name.startswith("head.gfl_cls"):
            assert torch.equal(value, other.state_dict()[name]), name
    scores, boxes = other(golden_images)
    assert scores.shape[2] == 3 and torch.equal(boxes, whole(golden_images)[1])


@torch.no_grad()
def test_merged_checkpoints_load_too(spec_of, golden_weights, golden_images):
    model = build_detector(spec_of("T")).eval()
    model.load_state_dict(golden_weights("T", model))
    merged = from_official("damo-yolo-t", model.merge().state_dict())
    assert torch.equal(merged(golden_images)[1], model(golden_images)[1])


def test_what_does_not_fit_is_named(official):
    with pytest.raises(UserError, match=r"as damo-yolo-t\).*missing .*unexpected"):
        from_official("damo-yolo-t", official)
    short = {name: value for name, value in official.items() if "merge_3.conv1.conv" not in name}
    with pytest.raises(UserError, match=r"1 missing \(neck.merge_3.conv1.conv.weight\)"):
        from_official("damo-yolo-ns", short)
    with pytest.raises(UserError, match=r"1 unexpected \(neck.extra\)"):
        from_official("damo-yolo-ns", official | {"neck.extra": torch.zeros(1)})
    with pytest.raises(UserError, match="no state dict"):
        from_official("damo-yolo-ns", {})
    with pytest.raises(UserError, match="no tensors: epoch"):
        from_official("damo-yolo-ns", {"epoch": 3})
    with pytest.raises(UserError, match="backbone has no classes"):
        from_official("tinynas_l25_k1kx", official)


def test_hostile_and_broken_files_are_refused(tmp_path, official):
    path, trace = tmp_path / "weights.pth", tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {trace}",)

    writers = [
        (lambda: torch.save({"model": Hostile()}, path), "is refused"),
        (lambda: path.write_bytes(pickle.dumps(Hostile())), "is refused"),
        (lambda: torch.save({"model": SimpleNamespace(a=1)}, path), "is refused"),
        (lambda: path.write_bytes(b"hello"), "damaged or not a torch file"),
        (lambda: path.write_bytes(b""), "damaged or not a torch file"),
        (lambda: (torch.save(official, path), path.write_bytes(path.read_bytes()[:5000])), "damaged"),
    ]
    for write, words in writers:
        write()
        with pytest.raises(UserError, match=words) as error:
            from_official("damo-yolo-ns", path)
        assert "\n" not in str(error.value)
    assert not trace.exists()
    with pytest.raises(UserError, match="no such file"):
        from_official("damo-yolo-ns", tmp_path / "absent.pth")
