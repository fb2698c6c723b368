"""One model of each family as ONNX: the file finds on pictures what torch finds; end-to-end ones without NMS."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.deploy import load_runtime
from nas.deploy.onnx_graph import export_onnx, set_metadata, write
from nas.deploy.parity import TOLERANCES, verify
from nas.deploy.runtime import Metadata
from nas.models.passport import generated_pictures
from nas.models.weights import from_official

FAMILIES = {"yolov5n": 64, "yolov7": 64, "yolov8n": 64, "yolov9t-pgi": 64, "yolo11n": 64, "yolo26n": 128}
SHARED = Path(os.environ.get("MAENAS_SHARED", Path(__file__).resolve().parents[4] / "shared"))


def pictures(side: int) -> list[np.ndarray]:
    """Real pictures where there are some, and made-up ones."""
    made = generated_pictures(2, side)
    for path in sorted((SHARED / "data" / "bccd" / "images").glob("*"))[:2]:
        pixels = np.asarray(Image.open(path).convert("RGB").resize((side, side)), np.float32)
        made.append(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
    return made


def assert_same_findings(model, side: int, path: Path, batch: int | None = 1) -> None:
    model.fuse()
    graph = export_onnx(model, side, batch=batch)
    assert not [node for node in graph.graph.node if "NonMaxSuppression" in node.op_type]
    set_metadata(graph, Metadata(tuple(model.classes), side, model.end_to_end))
    runtime = load_runtime(write(graph, path))
    assert runtime.end_to_end == model.end_to_end
    seen = pictures(side) if batch else [*pictures(side), np.concatenate(pictures(side))]
    agreement = verify(model, runtime, seen, TOLERANCES["fp32"], end_to_end=model.end_to_end)
    assert agreement.problem == "" and agreement.detections >= 100, agreement


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_onnx_agrees_with_torch(name: str, golden_model: Callable[[str], torch.nn.Module], tmp_path: Path) -> None:
    assert_same_findings(golden_model(name), FAMILIES[name], tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("deimv2-atto", 160),
        pytest.param("deimv2-s", 128, marks=pytest.mark.slow),
        pytest.param("d-fine-n", 256, marks=pytest.mark.slow),
        pytest.param("lw-detr-t", 192, marks=pytest.mark.slow),
        pytest.param("rf-detr-n", 288, marks=pytest.mark.slow),
    ],
)
def test_detectors_of_transformers_agree_with_torch(
    name: str, side: int, lively: Callable[[str, int], torch.nn.Module], tmp_path: Path
) -> None:
    pytest.importorskip("transformers", "5.23")
    assert_same_findings(lively(name, side), side, tmp_path / "model.onnx", batch=None)


@pytest.mark.slow
def test_rtdetrv2_agrees_with_torch(golden_state: Callable, shapes_of: Callable, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    shapes = shapes_of("rtdetrv2_s")
    shapes = {
        name: shape for name, shape in shapes.items() if not name.startswith(("decoder.anchors", "decoder.valid"))
    }
    constants = {name: torch.full(shape, 0.25) for name, shape in shapes.items() if name.endswith("num_points_scale")}
    assert_same_findings(from_official("rtdetrv2-s", {**golden_state(shapes), **constants}), 160, tmp_path / "m.onnx")
