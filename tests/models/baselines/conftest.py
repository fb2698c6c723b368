"""Golden weights by entry name, and the names under which counts, layer tables and goldens list the models."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.models.base import DetectorModule
from nas.models.baselines import build_baseline

KEPT = ("num_batches_tracked", "anchors", "anchor_grid", "valid_mask", "num_points_scale")


def rule_value(name: str, shape: tuple[int, ...], batch_norm: bool) -> torch.Tensor:
    """The golden value of an entry, from its published name and shape alone."""
    v = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    leaf = name.rsplit(".", 1)[-1]
    if ".im." in name:
        v = 1 + 0.1 * v
    elif leaf == "running_var":
        v = 1 + 0.1 * abs(v)
    elif batch_norm and leaf == "weight":
        v = 1 + 0.1 * v
    elif len(shape) == 4 and leaf == "weight":
        v = v * np.sqrt(2 / np.prod(shape[1:]))
    elif "denoising" in name:
        v = 0.1 * v
    elif len(shape) == 2:
        v = v * np.sqrt(1 / shape[1])
    elif len(shape) == 1 and leaf == "weight":
        v = 1 + 0.1 * v
    else:
        v = 0.1 * v
    return torch.from_numpy(np.asarray(v, dtype=np.float32))


def rule_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Golden values of every entry that the rule covers (not constants such as anchors and the DFL weights)."""
    norms = {name.removesuffix("running_mean") for name in shapes if name.endswith("running_mean")}
    return {
        name: rule_value(name, shape, name.rsplit(".", 1)[0] + "." in norms)
        for name, shape in shapes.items()
        if not name.endswith(KEPT) and ".dfl" not in name
    }


@pytest.fixture(scope="session")
def golden_state() -> Callable[[Mapping[str, tuple[int, ...]]], dict[str, torch.Tensor]]:
    return rule_state


@pytest.fixture(scope="session")
def golden_model() -> Callable[[str], torch.nn.Module]:
    """A baseline for 320 pixels with golden weights, in evaluation mode."""

    def build(name: str) -> torch.nn.Module:
        model = build_baseline(name, image_size=320).eval()
        own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        model.load_state_dict({**model.state_dict(), **rule_state(own)})
        return model

    return build


@pytest.fixture(scope="session")
def golden_image() -> torch.Tensor:
    """The golden input, in our range 0..255."""
    return torch.from_numpy(np.random.RandomState(0).uniform(0, 1, (1, 3, 320, 320)).astype(np.float32)) * 255


@pytest.fixture(scope="session")
def shapes_of() -> Callable[[str], dict[str, tuple[int, ...]]]:
    """Names and shapes of the entries of a published state dict."""

    def read(table: str) -> dict[str, tuple[int, ...]]:
        path = Path(__file__).resolve().parents[2] / "golden" / "baselines" / "state_dict" / f"{table}.tsv.gz"
        rows = [line.split("\t") for line in gzip.decompress(path.read_bytes()).decode().splitlines()[1:]]
        return {name: () if shape == "scalar" else tuple(map(int, shape.split("x"))) for name, shape, _ in rows}

    return read


@pytest.fixture(scope="session")
def our_name() -> Callable[[str], str]:
    """The canonical name of a row of the tables: those of the Ultralytics YOLOv9 are `-u`, the PGI forms `-pgi`."""

    def translate(row: str) -> str:
        if re.fullmatch(r"yolov9[tsmce]", row):
            return f"{row}-u"
        if row == "yolov9_t":
            return "yolov9t-repo-pgi"
        if re.fullmatch(r"yolov9_[smce]", row):
            return f"yolov9{row[-1]}-pgi"
        return row

    return translate


@pytest.fixture(scope="session")
def lively() -> Callable[[str, int], DetectorModule]:
    """A detector of seven classes in which every weight and statistic matters, in evaluation mode."""

    def build(name: str, side: int) -> DetectorModule:
        torch.manual_seed(0)
        model = build_baseline(name, 7, side).eval()
        with torch.no_grad():
            for weight in (each for each in model.parameters() if each.requires_grad and each.numel()):
                if weight.dim() > 1:
                    weight.normal_(0, weight[0].numel() ** -0.5)
                else:
                    weight.add_(0.1 * torch.randn_like(weight))
            for entry, value in model.named_buffers():
                if entry.endswith("running_mean"):
                    value.normal_(0, 0.1)
                if entry.endswith("running_var"):
                    value.uniform_(0.5, 1.5)
        return model

    return build
