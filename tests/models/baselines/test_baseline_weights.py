"""Public weights load by name and shape, in training and deployed forms; whatever does not fit is named."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.errors import UserError
from nas.models.baselines import build_baseline
from nas.models.weights import from_official

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "baselines"
PUBLISHED = {
    "gelan_c_repo": "yolov9c", "gelan_s_repo": "yolov9s", "gelan_t_repo": "yolov9t-repo", "yolo11m": "yolo11m",
    "yolo11n": "yolo11n", "yolo11s": "yolo11s", "yolo26n": "yolo26n", "yolov5nu": "yolov5n",
    "yolov7_training": "yolov7", "yolov7x_training": "yolov7x", "yolov8n": "yolov8n", "yolov9_c_repo": "yolov9c-pgi",
    "yolov9_s_repo": "yolov9s-pgi", "yolov9_t_repo": "yolov9t-repo-pgi", "yolov9_t_published": "yolov9t",
    "yolov9c": "yolov9c-u", "yolov9s": "yolov9s-u", "yolov9t": "yolov9t-u",
    "yolov7_deploy_fused": "yolov7", "yolov7x_deploy_fused": "yolov7x",
}  # fmt: skip


def shapes_in(lines: list[str]) -> dict[str, tuple[int, ...]]:
    rows = csv.DictReader(lines, delimiter="\t")
    return {row["name"]: () if row["shape"] == "scalar" else tuple(map(int, row["shape"].split("x"))) for row in rows}


def assert_same_entries(table: str, want: dict[str, tuple[int, ...]]) -> None:
    with torch.device("meta"):
        model = build_baseline(PUBLISHED[table])
        if table.endswith("fused"):
            model.fuse()
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == want


@pytest.mark.parametrize("table", ["yolov9t", "yolo26n", "yolov7_training", "yolov9_t_repo"])
def test_entries_are_the_published_ones(table: str, shapes_of: Callable) -> None:
    assert_same_entries(table, shapes_of(table))


def test_entries_of_every_published_file(shared: Path) -> None:
    for table in PUBLISHED:
        lines = (shared / "golden" / "baselines" / "state_dict" / f"{table}.tsv").read_text().splitlines()
        assert_same_entries(table, shapes_in(lines))


def test_a_file_gives_its_weights(tmp_path: Path, golden_model: Callable[[str], torch.nn.Module], golden_image) -> None:
    source = golden_model("yolov9t")
    torch.save({"model": source.state_dict()}, tmp_path / "weights.pt")
    loaded = from_official("yolov9t", tmp_path / "weights.pt")
    with torch.no_grad():
        torch.testing.assert_close(loaded(golden_image)[1], source(golden_image)[1], rtol=0, atol=0)


def test_a_fused_file_gives_a_fused_model(golden_model: Callable[[str], torch.nn.Module], golden_image) -> None:
    source = golden_model("yolo11n").fuse()
    loaded = from_official("yolo11n", source.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(loaded(golden_image)[1], source(golden_image)[1], rtol=0, atol=0)


def test_a_training_file_gives_up_its_auxiliary_branch(golden_model: Callable, golden_image) -> None:
    source = golden_model("yolov9t-repo-pgi")
    loaded = from_official("yolov9t-repo", source.state_dict())
    assert loaded.name == "yolov9t-repo" and len(loaded.model) == 23
    with torch.no_grad():
        torch.testing.assert_close(loaded(golden_image)[1], source(golden_image)[1], rtol=0, atol=0)


def test_yolov7_without_implicit_vectors(golden_model: Callable, golden_image) -> None:
    """The deployed configuration has plain outputs: neutral implicit vectors make the same network."""
    source = golden_model("yolov7")
    for add, multiply in zip(source.head.ia, source.head.im, strict=True):
        torch.nn.init.zeros_(add.implicit)
        torch.nn.init.ones_(multiply.implicit)
    state = {name: value for name, value in source.state_dict().items() if "implicit" not in name}
    with torch.no_grad():
        scores = from_official("yolov7", state)(golden_image)[0]
        torch.testing.assert_close(scores, source(golden_image)[0], rtol=0, atol=0)


def test_other_classes_replace_class_layers_only() -> None:
    source = build_baseline("yolo11n").state_dict()
    loaded = from_official("yolo11n", source, num_classes=3).state_dict()
    changed = [name for name, value in loaded.items() if not torch.equal(value, source.get(name, torch.empty(0)))]
    assert changed and all(name.startswith("model.23.cv3.") for name in changed)
    wide = build_baseline("yolo11s").state_dict()
    kept = from_official("yolo11s", wide, num_classes=3).state_dict()
    changed = [name for name, value in kept.items() if value.shape != wide[name].shape]
    assert changed == [f"model.23.cv3.{level}.2.{leaf}" for level in range(3) for leaf in ("weight", "bias")]


def test_misfits_are_named() -> None:
    state = build_baseline("yolov8n").state_dict()
    state["model.0.conv.weight"] = torch.zeros(8, 3, 3, 3)
    state["model.99.conv.weight"] = torch.zeros(1)
    del state["model.1.bn.bias"]
    with pytest.raises(UserError, match=r"model\.1\.bn\.bias.*model\.99\.conv\.weight.*model\.0\.conv\.weight"):
        from_official("yolov8n", state)
    with pytest.raises(UserError, match="no model"):
        from_official("yolov10n", state)


def test_rtdetrv2_names_cover_the_published_file(golden_state: Callable, shapes_of: Callable, golden_image) -> None:
    """Every published entry finds its place, and the encoder and decoder compute the reference values.

    The order of the queries is decided by scores that are 1e-6 apart at places: in float64 it is the same everywhere.
    """
    pytest.importorskip("transformers")
    shapes = shapes_of("rtdetrv2_s")
    model = from_official("rtdetrv2-s", {**golden_constants(shapes), **golden_state(shapes)}).double()
    chosen: list[torch.Tensor] = []
    model.body.enc_score_head.register_forward_hook(lambda module, given, out: chosen.append(out.amax(-1)))
    image = golden_image.double()
    with torch.no_grad():
        logits, boxes = model.decode(model.features(image)["neck"])
        scores, corners = model(image)
        fused = model.fuse()(image)
    reference = json.loads((GOLDEN / "rtdetrv2_s.json").read_text())
    ranks = chosen[0].topk(300).values[0]
    assert_samples(logits[0], reference["pred_logits"], ranks, 1e-5)
    assert_samples(boxes[0], reference["pred_boxes"], ranks, 1e-6)
    assert boxes.sum((0, 1)).tolist() == pytest.approx(reference["order_free"]["box_sum"], abs=1e-4)
    assert float(logits.sum()) == pytest.approx(reference["order_free"]["logit_sum"], abs=1e-3)
    torch.testing.assert_close(scores, logits.sigmoid())
    torch.testing.assert_close(corners[..., :2], (boxes[..., :2] - boxes[..., 2:] / 2) * 320)
    torch.testing.assert_close(fused[0], scores, rtol=0, atol=1e-9)
    torch.testing.assert_close(fused[1], corners, rtol=0, atol=1e-6)


def golden_constants(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Entries that the weight rule leaves as built."""
    constants = {name: shape for name, shape in shapes.items() if name.endswith("num_points_scale")}
    counters = {name: torch.tensor(0) for name in shapes if name.endswith("num_batches_tracked")}
    anchors = {name: torch.zeros(shapes[name]) for name in ("decoder.anchors", "decoder.valid_mask")}
    return {**{name: torch.full(shape, 0.25) for name, shape in constants.items()}, **counters, **anchors}


def assert_samples(values: torch.Tensor, stats: dict[str, Any], ranks: torch.Tensor, tolerance: float) -> None:
    """Values (300, N) at the sampled places; the float32 reference may swap queries whose scores it cannot tell apart."""
    for index, want in zip(stats["sample_idx"], stats["sample_val"], strict=True):
        query, column = divmod(index, values.shape[1])
        alike = (ranks - ranks[query]).abs() < 2e-6
        assert int(alike.sum()) <= 2 and float((values[alike, column] - want).abs().min()) < tolerance


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"maenas\[rtdetr\]"):
        build_baseline("rtdetrv2-s")
