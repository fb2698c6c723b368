"""device= is honoured for exported files: where a file cannot run there, one line says so before any picture."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

import nas
from nas.deploy import load_runtime
from nas.deploy.onnx_graph import export_onnx, set_metadata, write
from nas.deploy.runtime import Metadata
from nas.errors import UserError
from nas.models.baselines import build_baseline


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    model = build_baseline("yolov8n", 2, 64, ["cell", "plate"]).fuse()
    graph = export_onnx(model, 64)
    set_metadata(graph, Metadata(("cell", "plate"), 64))
    return write(graph, tmp_path_factory.mktemp("export") / "model.onnx")


def session(started: list, works: bool):
    """A stand-in for ONNX Runtime's session on a machine whose CUDA provider starts, or falls back in silence."""
    original = onnxruntime.InferenceSession

    def start(file, options, providers):
        started.append(providers[0])
        real = original(file, options, providers=["CPUExecutionProvider"])
        names = ["CUDAExecutionProvider"] if works else ["CPUExecutionProvider"]
        return SimpleNamespace(
            get_inputs=real.get_inputs, get_modelmeta=real.get_modelmeta, run=real.run, get_providers=lambda: names
        )

    return start


def test_an_onnx_file_runs_where_it_is_told(path, monkeypatch):
    started: list = []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session(started, works=True))
    detector = nas.Detector.load(str(path))
    picture = np.zeros((64, 64, 3), np.uint8)
    detector.predict(picture)
    detector.predict(picture, device="cpu")
    assert len(started) == 1, "the CPU is where it was loaded"
    for _ in range(2):
        detector.predict(picture, device="cuda:1")
    assert (
        started[1:] == [("CUDAExecutionProvider", {"device_id": 1})] and detector.deployed("cuda:1").device == "cuda:1"
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", session(started, works=False))
    with pytest.raises(UserError, match="device=cuda: ONNX Runtime could not start CUDA"):
        detector.predict(picture, device="cuda")


def test_other_devices_are_refused(path, tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    detector = nas.Detector.load(str(path))
    for device, words in (
        ("cuda", "this onnxruntime has no CUDA"),
        ("mps", "runs a file on cpu or cuda"),
        ("gpu", "device 'gpu' cannot be used"),
        ("cuda:x", "device 'cuda:x' cannot be used"),
    ):
        with pytest.raises(UserError, match=words):
            detector.predict(np.zeros((64, 64, 3), np.uint8), device=device)
    (tmp_path / "model.xml").write_text("<net/>")
    (tmp_path / "model.engine").write_bytes(b"MAENASTRT1")
    with pytest.raises(UserError, match="OpenVINO file runs on the CPU"):
        load_runtime(tmp_path / "model.xml", "cuda")
    for device in ("cpu", "cuda:1"):
        with pytest.raises(UserError, match="an .engine file runs on the first GPU"):
            load_runtime(tmp_path / "model.engine", device)


def test_an_engine_needs_no_device(tmp_path, monkeypatch):
    (tmp_path / "model.engine").write_bytes(b"MAENASTRT1")
    made = SimpleNamespace(device="cuda")
    monkeypatch.setattr("nas.deploy.tensorrt.TensorRtRuntime", lambda path: made)
    assert load_runtime(tmp_path / "model.engine") is made
    detector = nas.Detector(made, str(tmp_path / "model.engine"))
    assert detector.deployed() is made and detector.deployed("cuda") is made
    with pytest.raises(UserError, match="leave device out"):
        detector.deployed("cpu")
