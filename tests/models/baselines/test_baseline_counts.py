"""Parameters, multiply-accumulates and layer tables of every hand-drawn detector equal the reference figures."""

from __future__ import annotations

import ast
import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nas.models.baselines import build_baseline, canonical_name
from nas.models.baselines.graph import run_rows
from nas.models.layers import fold_batch_norms, merge_branches

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "baselines"
#: Not built here: DAMO-YOLO is our own spec, and the R34 variant of RT-DETRv2 is none of the published sizes.
ELSEWHERE = ("damoyolo", "rtdetrv2_m_r34")


def table() -> dict[str, dict[str, str]]:
    with (GOLDEN / "counts.csv").open() as file:
        return {row["model"]: row for row in csv.DictReader(file) if not row["model"].startswith(ELSEWHERE)}


#: Of every family the smallest; the larger sizes are the same code with other numbers.
SMALLEST = (
    "yolov5nu", "yolov7", "yolov8n", "yolov9t", "yolov9_t", "yolov9_t_published", "gelan_t", "yolo11n", "yolo26n", "rtdetrv2_s",
)  # fmt: skip


def by_size(names: Iterable[str]) -> list[Any]:
    """The names as parameters, of which all but the smallest networks are slow."""
    return [pytest.param(name, marks=() if name in SMALLEST else pytest.mark.slow) for name in names]


def macs(function: Callable[[torch.Tensor], object]) -> int:
    """Multiply-accumulates of convolutions, linear layers and matrix products on a 640 pixel image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(torch.zeros(1, 3, 640, 640))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("row", by_size(table()))
def test_counts(row: str, our_name: Callable[[str], str]) -> None:
    if row.startswith("rtdetr"):
        pytest.importorskip("transformers")
    want = table()[row]
    with torch.device("meta"):
        model = build_baseline(our_name(row)).eval()
        training_form = model.predict_raw if model.auxiliary else model
        assert sum(p.numel() for p in model.parameters()) == int(want["params_unfused"])
        assert macs(training_form) == int(want["macs_unfused"])
        if model.auxiliary == "pgi":  # the reference folds the training form with both branches
            merge_branches(model)
            fold_batch_norms(model)
            assert macs(model.predict_raw) == int(want["macs_fused"])
        else:
            model.fuse()
            assert macs(model) == int(want["macs_fused"])
        assert sum(p.numel() for p in model.parameters()) == int(want["params_fused"])


@pytest.mark.parametrize("size", ["t-repo", "s", "m", "c", "e"])
def test_dropping_pgi_leaves_the_inference_form(size: str) -> None:
    """What remains has the names, order and shapes of the published inference form."""
    with torch.device("meta"):
        training, deployed = build_baseline(f"yolov9{size}-pgi"), build_baseline(f"yolov9{size}")
    training.drop_auxiliary()
    assert training.sources == deployed.sources
    assert training.backbone == deployed.backbone
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (training, deployed)]
    assert shapes[0] == shapes[1]


NAMES = {"Silence": "Identity", "MP": "MaxPool2d", "RepConv": "PlannedRepConv"}


@pytest.mark.parametrize("name", by_size(sorted(path.stem for path in (GOLDEN / "layers").glob("*.csv"))))
def test_layer_table(name: str, our_name: Callable[[str], str]) -> None:
    """Inputs, block, output shape and parameters of every row."""
    with torch.device("meta"):
        model = build_baseline(our_name(name))
        maps = run_rows(model.model, model.sources, torch.zeros(1, 3, 640, 640), list(range(len(model.model) - 1)))
    with (GOLDEN / "layers" / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(model.model)
    for index, (row, block, sources) in enumerate(zip(rows, model.model, model.sources, strict=True)):
        read = ast.literal_eval(row["from"])
        read = read if isinstance(read, list) else [read]
        assert sources == tuple(source if source >= 0 else index + source for source in read)
        assert sum(p.numel() for p in block.parameters()) == int(row["params_train_form"])
        if index == len(rows) - 1:
            break
        assert type(block).__name__ == NAMES.get(row["block"], row["block"])
        shape = ast.literal_eval(row["out_shape_at_640"])
        pieces = maps[index] if isinstance(shape[0], list) else [maps[index]]
        assert [list(piece.shape) for piece in pieces] == (shape if isinstance(shape[0], list) else [shape])


def test_official_spellings() -> None:
    assert canonical_name("yolov5nu") == "yolov5n"
    assert canonical_name("GELAN-C") == "yolov9c"
    assert canonical_name("RT-DETRv2-L") == "rtdetrv2-l"
    assert canonical_name("yolov9_t_published") == "yolov9t"
    assert canonical_name("yolov12n") is None


def test_a_width_of_ones_own_follows_the_name(tmp_path):
    assert canonical_name("YOLOv11n@0.30") == "yolo11n@0.3" and canonical_name("yolov8s@1") == "yolov8s@1"
    for wrong in (
        "yolo11n@",
        "yolo11n@x",
        "yolo11n@0",
        "yolo11n@9",
        "yolov9t@0.5",
        "yolov7@1",
        "yolo11n@0.3@0.3",
        "yolo11n@-1",
    ):
        assert canonical_name(wrong) is None, wrong
    own = {name: value.shape for name, value in build_baseline("yolo11n", 3, 64).state_dict().items()}
    same = {name: value.shape for name, value in build_baseline("yolo11n@0.25", 3, 64).state_dict().items()}
    wide = {name: value.shape for name, value in build_baseline("yolo11n@0.5", 3, 64).state_dict().items()}
    assert own == same and wide == {n: v.shape for n, v in build_baseline("yolo11s", 3, 64).state_dict().items()}
    from nas.models.checkpoint import load_checkpoint, save_checkpoint

    narrow = build_baseline("yolo11n@0.3", 3, 64)
    again = load_checkpoint(save_checkpoint(tmp_path / "narrow.safetensors", narrow))
    assert again.name == "yolo11n@0.3" and again.model[0].conv.out_channels == 24
