"""Forward passes equal the reference outputs with weights made from entry names; fusing changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.errors import UserError
from nas.models.baselines import build_baseline
from nas.models.build import build_model

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "baselines"
#: Pixels and scores: the goldens' own tolerances.
ABSOLUTE = 1e-3
SCORE = 1e-5
MODELS = {
    "yolo11n": "yolo11n",
    "yolo11m": "yolo11m",
    "yolov8n": "yolov8n",
    "yolov5nu": "yolov5n",
    "yolov9t": "yolov9t-u",
    "yolov9c": "yolov9c-u",
    "yolov9_t_published": "yolov9t",
    "gelan_t_repo": "yolov9t-repo",
}


def golden(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def published_tensor(scores: torch.Tensor, boxes: torch.Tensor) -> np.ndarray:
    """The references' output (1, 4 + C, A): centre and size in pixels, then scores."""
    centre, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    return torch.cat((centre, size, scores), -1).transpose(1, 2).numpy()


def assert_samples(values: np.ndarray, stats: Mapping[str, Any], tolerance: float = ABSOLUTE, tail: str = "") -> None:
    sampled = values.ravel()[stats[f"sample_idx{tail}"]]
    np.testing.assert_allclose(sampled, stats[f"sample_val{tail}"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("row", MODELS)
def test_output_before_and_after_fusing(row: str, golden_model: Callable[[str], Any], golden_image) -> None:
    reference, model = golden(row), golden_model(MODELS[row])
    with torch.no_grad():
        scores, boxes = model(golden_image)
        assert_samples(published_tensor(scores, boxes), reference)
        stats = [(scores.mean(), reference["output_cls"]["mean"])] if "output_cls" in reference else []
        for value, want in stats:
            assert float(value) == pytest.approx(want, abs=SCORE)
        fused_scores, fused_boxes = model.fuse()(golden_image)
    torch.testing.assert_close(fused_boxes, boxes, rtol=0, atol=ABSOLUTE)
    torch.testing.assert_close(fused_scores, scores, rtol=0, atol=SCORE)


def test_whole_output_of_yolo11n(golden_model: Callable[[str], Any], golden_image) -> None:
    want = np.load(GOLDEN / "yolo11n.npz")["output"]
    with torch.no_grad():
        got = published_tensor(*golden_model("yolo11n")(golden_image))
    np.testing.assert_allclose(got[:, :4], want[:, :4], rtol=0, atol=ABSOLUTE)
    np.testing.assert_allclose(got[:, 4:], want[:, 4:], rtol=0, atol=SCORE)


def test_both_branches_of_pgi(golden_model: Callable[[str], Any], golden_image) -> None:
    reference, model = golden("yolov9_t_repo"), golden_model("yolov9t-repo-pgi")
    with torch.no_grad():
        raw = model.predict_raw(golden_image)
        for branch, tail in ((raw.auxiliary, "0"), (raw, "1")):
            output = published_tensor(branch.class_logits.sigmoid(), branch.boxes)
            assert_samples(output, reference, tail=tail)
        scores, boxes = model(golden_image)
        torch.testing.assert_close(boxes, raw.boxes)
        fused_scores, fused_boxes = model.fuse()(golden_image)
    torch.testing.assert_close(fused_boxes, boxes, rtol=0, atol=ABSOLUTE)
    torch.testing.assert_close(fused_scores, scores, rtol=0, atol=SCORE)


def test_anchor_head_of_yolov7(golden_model: Callable[[str], Any], golden_image) -> None:
    model = golden_model("yolov7")
    with torch.no_grad():
        rows = model.head.decoded(model.features(golden_image)["neck"])
        assert_samples(rows.numpy(), golden("yolov7_training"))
        scores, boxes = model(golden_image)
        torch.testing.assert_close(scores, rows[..., 4:5] * rows[..., 5:])
        fused_scores, fused_boxes = model.fuse()(golden_image)
    torch.testing.assert_close(fused_boxes, boxes, rtol=0, atol=ABSOLUTE)
    torch.testing.assert_close(fused_scores, scores, rtol=0, atol=SCORE)


def test_both_branches_of_yolo26(golden_model: Callable[[str], Any], golden_image) -> None:
    reference, model = golden("yolo26n"), golden_model("yolo26n")
    with torch.no_grad():
        one = model.predict_raw(golden_image)
        for raw, name in ((one, "raw"), (one.auxiliary, "raw_o2m")):
            assert_samples(raw.box_logits[..., 0].transpose(1, 2).numpy(), reference[f"{name}_boxes"], SCORE)
            assert_samples(raw.class_logits.transpose(1, 2).numpy(), reference[f"{name}_scores"], SCORE)
        scores, boxes = model(golden_image)
    assert scores.shape == (1, 300, 80) and boxes.shape == (1, 300, 4)
    values, classes = scores.max(-1)
    assert (scores.sum(-1) - values).abs().max() == 0, "one class a row"
    assert (values.diff() <= 0).all(), "rows are ranked"
    dense = one.class_logits.sigmoid()
    best = dense.gather(1, dense.amax(-1).topk(300).indices[..., None].expand(-1, -1, 80))
    torch.testing.assert_close(values[0], best.flatten().topk(300).values)
    anchors = [(one.boxes[0] == box).all(-1).nonzero()[0, 0] for box in boxes[0, :5]]
    for row, anchor in enumerate(anchors):
        assert float(dense[0, anchor, classes[0, row]]) == pytest.approx(float(values[0, row]))


def test_fused_yolo26_keeps_the_deployed_branch(golden_model: Callable[[str], Any], golden_image) -> None:
    model = golden_model("yolo26n")
    with torch.no_grad():
        scores, boxes = model(golden_image)
        fused_scores, fused_boxes = model.fuse()(golden_image)
        assert model.predict_raw(golden_image).auxiliary is None
    torch.testing.assert_close(fused_scores.amax(-1), scores.amax(-1), rtol=0, atol=SCORE)
    assert (fused_boxes - boxes).abs().amax(-1).median() < ABSOLUTE


@pytest.mark.parametrize("name", ["yolov5n", "yolov8n", "yolov9t", "yolov9t-pgi", "yolo11n", "yolo26n"])
def test_training_form_has_gradients_everywhere(name: str) -> None:
    torch.manual_seed(0)
    model = build_baseline(name, num_classes=3, image_size=64)
    raw = model(torch.rand(2, 3, 64, 64) * 255)
    bins = 1 if name == "yolo26n" else 16
    priors = 64 + 16 + 4
    assert raw.class_logits.shape == (2, priors, 3) and raw.box_logits.shape == (2, priors, 4, bins)
    assert raw.boxes.shape == (2, priors, 4) and raw.points.shape == (priors, 2)
    assert raw.points[0].tolist() == [4.0, 4.0] and raw.strides.tolist()[-1] == 32.0
    assert [level.shape[-1] for level in raw.neck] == [8, 4, 2]
    loss = raw.class_logits.square().mean() + raw.boxes.square().mean()
    if raw.auxiliary is not None:
        loss = loss + raw.auxiliary.class_logits.square().mean() + raw.auxiliary.boxes.square().mean()
    loss.backward()
    missing = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert model.end_to_end == (name == "yolo26n")


def test_features_feed_neck_and_head() -> None:
    model = build_baseline("yolo11n", image_size=64).eval()
    with torch.no_grad():
        maps = model.features(torch.rand(1, 3, 64, 64) * 255)
    assert [level.shape[1] for level in maps["backbone"]] == [128, 128, 256]
    assert [level.shape[1] for level in maps["neck"]] == [64, 128, 256]


def test_bad_requests_say_what_to_do() -> None:
    with pytest.raises(UserError, match="yolov9c"):
        build_baseline("yolov9cc")
    with pytest.raises(UserError, match="multiple of 32"):
        build_baseline("yolo11n", image_size=100)
    with pytest.raises(UserError, match="2 class names"):
        build_baseline("yolo11n", num_classes=3, classes=["a", "b"])
    with torch.device("meta"), pytest.raises(UserError, match="anchor"):
        build_baseline("yolov7")(torch.zeros(1, 3, 64, 64))


def exact_corners(sides: torch.Tensor, points: torch.Tensor, strides: torch.Tensor) -> torch.Tensor:
    """Boxes in float64 from left, top, right, bottom distances (B, A, 4) in stride units."""
    reach = sides.double() * strides.double()[:, None]
    return torch.cat((points.double() - reach[..., :2], points.double() + reach[..., 2:]), -1)


@pytest.mark.parametrize("name", ["yolov5n", "yolov8n", "yolov9t", "yolov9t-pgi", "yolo11n", "yolo26n", "damo-yolo-ns"])
def test_autocast_leaves_decoding_in_float32(name: str, golden_model: Callable[[str], Any]) -> None:
    torch.manual_seed(0)
    model = build_model(name).eval() if name.startswith("damo") else golden_model(name)
    cells = [torch.randn(1, channels, 40 >> i % 3, 80 >> i % 3) for i, channels in enumerate(head_widths(model))]
    head = model.head
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        raw = head.raw(cells) if hasattr(head, "raw") else head.predict_raw(cells)
        scores, _ = model(torch.rand(1, 3, 64, 64) * 255)
    assert scores.dtype is torch.float32
    for branch in filter(None, (raw, raw.auxiliary)):
        kinds = {item.dtype for item in (branch.class_logits, branch.box_logits, branch.boxes, branch.points)}
        assert kinds == {torch.float32} == {branch.strides.dtype}
        assert len(branch.points.unique(dim=0)) >= 40 * 80, "priors far from the origin stay apart"
        bins = branch.box_logits.shape[-1]
        spread = branch.box_logits.double()
        sides = spread[..., 0] if bins == 1 else (spread.softmax(-1) * torch.arange(bins)).sum(-1)
        exact = exact_corners(sides, branch.points, branch.strides)
        torch.testing.assert_close(branch.boxes.double(), exact, rtol=0, atol=ABSOLUTE)


def head_widths(model: Any) -> list[int]:
    """Channels of the maps that a detector's head reads, the auxiliary branch's first."""
    if hasattr(model.head, "gfl_cls"):
        return [layer.in_channels for layer in model.head.gfl_cls]
    branches = [model.head.cv2, *([model.head.cv4] if hasattr(model.head, "cv4") else [])]
    return [level[0].conv.in_channels for branch in branches for level in branch]


def test_autocast_leaves_the_anchors_of_yolov7_in_float32(golden_model: Callable[[str], Any]) -> None:
    head = golden_model("yolov7").head
    maps = [torch.randn(1, layer.in_channels, 40 >> i, 80 >> i) for i, layer in enumerate(head.m)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        levels, rows = head.level_outputs(maps), head.decoded(maps)
        head.level_outputs = lambda _: [level.double() for level in levels]
        exact = head.decoded(maps)
    assert rows.dtype is torch.float32 and exact.dtype is torch.float64
    torch.testing.assert_close(rows.double(), exact, rtol=0, atol=ABSOLUTE)


def test_autocast_leaves_the_boxes_of_rtdetr_in_float32(golden_model: Callable[[str], Any], golden_image) -> None:
    model = golden_model("rtdetrv2-s")
    seen: dict[str, torch.Tensor] = {}
    model.body.decoder.query_pos_head.register_forward_pre_hook(lambda _, given: seen.update(before=given[0]))
    model.bbox_embed[2].register_forward_hook(lambda _, given, result: seen.update(moved=result))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores, boxes = model(golden_image)
    assert seen["moved"].dtype is torch.bfloat16
    assert {item.dtype for item in (scores, boxes, seen["before"])} == {torch.float32}
    centre, size = (seen["moved"].double() + torch.logit(seen["before"].double(), 1e-5)).sigmoid().split(2, -1)
    exact = torch.cat((centre - size / 2, centre + size / 2), -1) * 320
    torch.testing.assert_close(boxes.double(), exact, rtol=0, atol=ABSOLUTE)
