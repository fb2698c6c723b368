"""Whole detectors as operations: the published counts in all three forms, and the shape of every list."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nas
from nas.cost.count import count_spec, peak_memory_mb
from nas.errors import SpecError, UserError
from nas.lowering import Operation, backbone_operations, operations
from nas.lowering.network import head_operations, stem_operations
from nas.lowering.repgfpn import neck_graph
from nas.spec import Backbone, DetectorSpec, HeadSpec, NeckSpec, Stem, image_side
from search_spaces import load_published

MODELS = ("T", "S", "M", "L", "Ns", "Nm", "Nl")


@pytest.fixture(scope="module")
def published(golden: Path) -> dict[str, dict[str, str]]:
    with (golden / "damo-counts.csv").open() as stream:
        return {row["model"]: row for row in csv.DictReader(stream)}


def detector(model: str) -> DetectorSpec:
    spec = load_published(f"damo-yolo-{model.lower()}")
    assert isinstance(spec, DetectorSpec)
    return spec


@pytest.mark.parametrize("model", MODELS)
def test_params_and_macs_equal_the_official_models(model: str, published: dict[str, dict[str, str]]) -> None:
    spec, row = detector(model), published[model]
    train, merged, folded = (operations(spec, form) for form in ("train", "merged", "folded"))
    assert sum(op.params for op in train) == int(row["params_train"])
    assert sum(op.params for op in merged) == int(row["params_deploy_rep"])
    assert sum(op.params for op in folded) == int(row["params_deploy_rep_all_bn_folded"])
    for role in ("neck", "head"):
        assert sum(op.params for op in train if op.role == role) == int(row[f"params_train_{role}"])
    backbone = [op for group in backbone_operations(spec.backbone, 640, "train") for op in group]
    assert sum(op.params for op in backbone) == int(row["params_train_backbone"])
    # the decoding's integral is arithmetic of ours, not a convolution of theirs
    assert sum(op.macs for op in operations(spec, "train", 640)) == int(row["conv_macs_640_train"])
    assert sum(op.macs for op in operations(spec, "merged", 640)) == int(row["conv_macs_640_deploy"])


@pytest.mark.parametrize("model", MODELS)
def test_maps_chain_without_gaps(model: str) -> None:
    spec = detector(model)
    for group in backbone_operations(spec.backbone, spec.image_size):
        for op in group:
            assert op.height == -(-op.in_height // op.stride) or op.kind == "globalpool"
    last = operations(spec)[-1]
    cells = sum((spec.image_size // stride) ** 2 for stride in (8, 16, 32))
    assert (last.out_channels, last.height) == (4, cells)


def test_branches_exist_in_the_training_form_alone() -> None:
    spec = detector("S")
    assert any(op.branch for op in operations(spec, "train"))
    assert not any(op.branch for op in operations(spec, "merged"))
    assert not any(op.norm for op in operations(spec, "folded"))


def test_the_image_is_read_by_three_channels() -> None:
    first, second = stem_operations(Stem("focus", 24), (64, 96), "relu")
    assert first == Operation("slice", 3, 12, 32, 48, 64, 96, 2, 2)
    assert (second.in_channels, second.out_channels, second.stride, second.height) == (12, 24, 1, 32)
    (alone,) = stem_operations(Stem("conv", 24), (64, 96), "relu")
    assert (alone.in_channels, alone.out_channels, alone.stride, alone.height, alone.in_width) == (3, 24, 2, 32, 96)


def test_pyramids_pool_where_and_as_wide_as_published() -> None:
    def pools(name: str) -> list[list[int]]:
        spec = load_published(name)
        backbone = spec.backbone if isinstance(spec, DetectorSpec) else spec
        assert isinstance(backbone, Backbone)
        groups = backbone_operations(backbone, 640)[1:]
        return [[op.kernel for op in group if op.kind == "maxpool" and op.role == "spp"] for group in groups]

    assert pools("damo-yolo-s")[-1] == [5, 9, 13] and not any(pools("damo-yolo-s")[:-1])
    *before, carrier, attention = pools("yolo11-n-backbone")
    assert carrier == [5, 5, 5] and attention == [] and not any(before)


def test_the_head_is_two_projections_a_level_and_one_decoding() -> None:
    head = HeadSpec(3, reg_max=7, stacked=1)
    sizes = ((8, 12), (4, 6), (2, 3))
    *levels, classes, bins, integral, boxes = head_operations(head, (16, 24, 32), sizes, "silu")
    assert len(levels) == 3 * 4
    for number, (width, (height, wide)) in enumerate(zip((16, 24, 32), sizes, strict=True)):
        stacked, scores, distances, softmax = levels[4 * number : 4 * number + 4]
        same = {"height": height, "width": wide, "in_height": height, "in_width": wide}
        layer = Operation("conv", width, width, **same, kernel=3, activation="silu", norm=True)
        assert stacked == replace(layer, bias=stacked.bias)
        assert scores == Operation("conv", width, 3, **same, kernel=head.kernel, activation="sigmoid", bias=True)
        assert distances == Operation("conv", width, 32, **same, kernel=head.kernel, bias=True, scalars=1)
        assert softmax == Operation("softmax", 32, 32, **same)
    assert (classes, bins) == tuple(Operation("concat", n, n, 126, 1, 126, 1) for n in (3, 32))
    assert integral == Operation("integral", 32, 4, 126, 1, 126, 1)
    assert boxes == Operation("elementwise", 4, 4, 126, 1, 126, 1)
    assert {op.role for op in (*levels, classes, bins, integral, boxes)} == {"head"}


def test_a_head_without_nms_is_there_twice_while_it_is_trained() -> None:
    spec = detector("Ns")
    pair = replace(spec, head=replace(spec.head, one_to_one=True))
    for form, more in (("train", 1), ("merged", 0), ("folded", 0)):
        alone = [op for op in operations(spec, form) if op.role == "head"]
        assert [op for op in operations(pair, form) if op.role == "head"] == alone * (1 + more)


def test_queen_fusion_edges_add_the_documented_inputs() -> None:
    def inputs(down: bool, up: bool) -> dict[str, str]:
        neck = NeckSpec((128, 256, 512), extra_down=down, extra_up=up)
        return {n.name: " ".join(source.origin for source in n.sources) for n in neck_graph(neck, (128, 256, 512))}

    assert inputs(False, False) == {"P4": "C4 C5", "N3": "C3 P4", "N4": "P4 N3", "N5": "C5 N4"}
    assert inputs(True, False) == {
        "P5": "C5 C4", "P4": "C4 C3 P5", "N3": "C3 P4", "N4": "P4 N3", "N5": "P5 P4 N4",
    }  # fmt: skip
    assert inputs(False, True) == {
        "P4": "C4 C5 C5", "P3": "C3 P4 C4", "N3": "P3 P4", "N4": "P4 N3 C5", "N5": "C5 N4",
    }  # fmt: skip
    assert inputs(True, True) == {
        "P5": "C5 C4", "P4": "C4 C3 P5 C5", "P3": "C3 P4 C4", "N3": "P3 P4", "N4": "P4 N3 P3 P5", "N5": "P5 P4 N4",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fusion", "published_gflops"), [("conv", 44.3), ("csp", 36.7), ("csp_rep", 36.7), ("elan", 37.8)]
)
def test_fusion_styles_cost_what_the_report_prints(fusion: str, published_gflops: float) -> None:
    spec = detector("S")
    changed = replace(spec, neck=replace(spec.neck, fusion=fusion))
    assert 2 * sum(op.macs for op in operations(changed)) / 1e9 == pytest.approx(published_gflops, rel=0.01)


def test_a_bare_backbone_is_taken_at_640_pixels_unless_told() -> None:
    backbone = detector("T").backbone
    assert operations(backbone) == operations(backbone, image_size=640) != operations(backbone, image_size=320)


@pytest.mark.parametrize("side", [-64, 0, 33, 20, 320.0, "a", True])
def test_one_rule_refuses_the_image_sizes_of_detectors_everywhere(side: int) -> None:
    spec = detector("T")
    asked = (
        lambda: operations(spec, image_size=side),
        lambda: count_spec(spec, image_size=side),
        lambda: peak_memory_mb(spec, side),
        lambda: nas.latency(spec, image_size=side),
        lambda: nas.score(spec, "mae", image_size=side),
        lambda: nas.score(spec, "deepmad", image_size=side),
        lambda: nas.count("yolo11n", image_size=side),
        lambda: nas.latency("yolo11n", image_size=side),
    )
    for ask in asked:
        with pytest.raises(UserError, match="image_size must be a positive multiple of 32"):
            ask()


def test_a_backbone_takes_any_size_that_its_strides_leave_a_map_of() -> None:
    backbone = detector("T").backbone
    assert image_side(backbone, np.int64(33)) == 33 and type(image_side(backbone, np.int64(33))) is int
    assert image_side(replace(detector("T"), image_size=320)) == 320
    for side in (31, 0, -64, 33.5):
        with pytest.raises(SpecError, match="image_size must be"):
            count_spec(backbone, image_size=side)
