"""D-FINE, DEIMv2, LW-DETR and RF-DETR: the outputs of `transformers`, published costs, forms, names and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.errors import UserError
from nas.measure.trace import count_module, trace_operations
from nas.models.base import DetectorModule
from nas.models.baselines import BASELINES, DETR_FAMILIES, build_baseline, canonical_name
from nas.models.baselines.detr import DEVIATION, MEAN, of_transformers
from nas.models.checkpoint import load_checkpoint, save_checkpoint
from nas.models.weights import from_official
from nas.report.detector_table import published_rows

transformers = pytest.importorskip("transformers", "5.23")
Lively = Callable[[str, int], DetectorModule]
#: The smallest size of each family, and of DEIMv2 the smallest with DINOv3, with a small side.
SMALL = {"d-fine-n": 256, "deimv2-atto": 160, "deimv2-s": 128, "lw-detr-t": 192, "rf-detr-n": 288}
WHOLE = {
    "d-fine": "DFineForObjectDetection",
    "deimv2": "Deimv2ForObjectDetection",
    "lw-detr": "LwDetrForObjectDetection",
    "rf-detr": "RfDetrForObjectDetection",
}


def image(side: int) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 255


@pytest.mark.parametrize("name", SMALL)
def test_the_outputs_are_those_of_transformers_and_stay_when_fused(name: str, lively: Lively) -> None:
    side, model = SMALL[name], lively(name, SMALL[name])
    whole: Any = getattr(transformers, WHOLE[name.rpartition("-")[0]])(model.body.config).eval()
    body = whole if "detr" in name else whole.model
    missing, unexpected = body.load_state_dict(model.body.state_dict(), strict=False)
    assert not unexpected
    assert all("points_scale" in entry or "class_embed" in entry or "lqe" in entry for entry in missing)
    pixels = image(side) / 255
    if model.takes.standardised:
        pixels = (image(side) - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(DEVIATION).view(-1, 1, 1)
    with torch.no_grad():
        scores, boxes = model(image(side))
        want = whole(pixels)
        centre, size = want.pred_boxes.split(2, -1)
        torch.testing.assert_close(scores, want.logits.sigmoid(), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            boxes, torch.cat((centre - size / 2, centre + size / 2), -1) * side, rtol=0, atol=0.01
        )
        assert scores.shape == (1, model.takes.queries, 7) and scores.std() > 0.005 and boxes.std() > 1
        maps = model.features(image(side))
        fused_scores, fused_boxes = model.fuse()(image(side))
    assert not [entry for entry in model.state_dict() if "running" in entry]
    torch.testing.assert_close(fused_scores, scores, rtol=0, atol=1e-3)
    torch.testing.assert_close(fused_boxes, boxes, rtol=0, atol=0.5)
    assert maps["backbone"] and [level.shape[-1] for level in maps["neck"]] == [side // s for s in model.takes.strides]
    assert model.end_to_end and sum(weight.numel() for weight in model.parameters()) > 4e5


def test_parameters_are_the_published_ones() -> None:
    """Of LW-DETR and RF-DETR the form with all groups of queries was counted, of the others the deployed one."""
    rows = [row for row in published_rows() if row.model.rpartition("-")[0] in DETR_FAMILIES]
    assert {row.model for row in rows} == {name for name in BASELINES if name.rpartition("-")[0] in DETR_FAMILIES}
    for row in rows:
        with torch.device("meta"):
            model = build_baseline(row.model).eval()
        assert model.image_size == row.image_size
        model = model if "detr" in row.model else model.fuse()
        ours = sum(weight.numel() for weight in model.parameters()) / 1e6
        told = row.figures["params_published_m"]
        rounding = 0.5 if row.model.startswith("d-fine") else 0.05
        assert abs(ours - told) < max(0.01 * told, rounding), (row.model, ours, told)


@pytest.mark.parametrize(
    ("name", "published", "products"),
    [("d-fine-n", 7, False), ("deimv2-atto", 0.8, False), ("deimv2-s", 25.6, False), ("lw-detr-t", 2 * 11.2, True),
     ("rf-detr-n", 31.9, True)],
)  # fmt: skip
def test_operations_are_the_published_ones(name: str, published: float, products: bool) -> None:
    """GFLOPs; D-FINE and DEIMv2 leave out products of activations, LW-DETR prints multiply-accumulates."""
    with torch.device("meta"):
        model = build_baseline(name)
    kernels = trace_operations(model, model.image_size)
    counted = 2 * sum(kernel.macs for kernel in kernels if products or kernel.kind != "matmul") / 1e9
    assert abs(counted - published) < max(0.05 * published, 0.5 if name == "d-fine-n" else 0.05), (name, counted)


@pytest.mark.parametrize("name", ["d-fine-n", "deimv2-s", "lw-detr-t", "rf-detr-n"])
def test_tracing_sees_the_same_work_and_leaves_the_module_alone(name: str, lively: Lively) -> None:
    side, model = SMALL[name], lively(name, SMALL[name])
    kernels = trace_operations(model, side)
    assert sum(kernel.macs for kernel in kernels) == pytest.approx(count_module(model, image_size=side).macs, rel=0.01)
    with torch.no_grad():
        assert torch.isfinite(model(image(side))[1]).all(), "no tensor without values is kept"


@pytest.mark.parametrize("name", ["deimv2-atto", "lw-detr-t"])
def test_a_checkpoint_brings_the_network_back_whole_and_fused(name: str, lively: Lively, tmp_path: Path) -> None:
    model = lively(name, SMALL[name])
    for form in (model, model.fuse()):
        again = load_checkpoint(save_checkpoint(tmp_path / "kept.safetensors", form)).eval()
        assert again.name == name and again.image_size == SMALL[name]
        with torch.no_grad():
            for ours, theirs in zip(form(image(SMALL[name])), again(image(SMALL[name])), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_official_spellings() -> None:
    for told, known in {
        "D-FINE-S": "d-fine-s", "dfine_hgnetv2_n_coco": "d-fine-n", "dfine-xlarge-coco": "d-fine-x", "dfinel": "d-fine-l",
        "DEIMv2_DINOv3_S_COCO": "deimv2-s", "deimv2_hgnetv2_pico_coco": "deimv2-pico", "lwdetr_tiny_60e_coco": "lw-detr-t",
        "LW-DETR-xlarge": "lw-detr-x", "RFDETRNano": "rf-detr-n", "rf-detr-medium": "rf-detr-m", "rf-detr-x": None,
        "d-fine-t": None, "deimv2": None,
    }.items():  # fmt: skip
        assert canonical_name(told) == known, told


def test_what_cannot_be_is_refused_in_one_line() -> None:
    with torch.device("meta"):
        for name, side, words in (
            ("lw-detr-t", 96, "multiples of 64, got 96x96"),
            ("rf-detr-n", 256, "chooses 300 places of an image, and 256x256 pixels have 256: give at least 288"),
            ("d-fine-n", 100, "multiple of 32"),
        ):
            with pytest.raises(UserError, match=words):
                build_baseline(name, image_size=side)
        small = build_baseline("deimv2-atto").train()
        with pytest.raises(UserError, match="give at least 160 pixels"):
            small.predict(torch.zeros(1, 3, 128, 128))
        with pytest.raises(UserError, match="DEIMv2 is built for inference, evaluation and export; train yolo26n"):
            small(torch.zeros(1, 3, 320, 320))
    with pytest.raises(UserError, match="official weights of rf-detr-n are not read yet"):
        from_official("RFDETRNano", {"x": torch.zeros(1)})
    with pytest.raises(UserError, match=r"D-FINE needs transformers 5.23 or newer: .*maenas\[detr\]"):
        of_transformers("D-FINE", "NoSuchConfig")
