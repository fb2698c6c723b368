"""The published detectors, written out from their tables (apart from search_spaces/published), and golden weights."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch

from nas.spec import CSP, Backbone, DetectorSpec, HeadSpec, InvertedResidual, NeckSpec, Residual, Stem

RESIDUAL = {  # stem, (out, stride, units, bottleneck) ...
    "T": (24, ((64, 2, 2, 24), (96, 2, 2, 64), (192, 2, 2, 96), (192, 1, 2, 152), (384, 2, 1, 192))),
    "S": (32, ((128, 2, 1, 24), (128, 2, 5, 88), (256, 2, 3, 128), (256, 1, 2, 120), (512, 2, 1, 144))),
}
STAGES = {  # (out, units, bottleneck) ...
    "M": ((128, 1, 64), (128, 3, 64), (256, 7, 256), (512, 2, 256)),
    "L": ((128, 2, 96), (128, 4, 96), (256, 9, 384), (512, 3, 384)),
}
MOBILE = {  # stem, (out, hidden, units) ...
    "Ns": (16, ((24, 88, 1), (40, 160, 2), (64, 288, 2), (80, 400, 2), (160, 880, 2))),
    "Nm": (16, ((40, 144, 2), (64, 256, 2), (112, 504, 2), (128, 640, 2), (256, 1408, 1))),
    "Nl": (24, ((48, 168, 1), (80, 320, 2), (160, 720, 2), (160, 800, 3), (320, 1760, 2))),
    "N": (16, ((40, 144, 2), (80, 320, 2), (112, 504, 2), (112, 560, 2), (160, 880, 1))),
}
NECKS = {
    "T": NeckSpec((64, 128, 256), 3, (1.0, 1.0, 1.0)),
    "S": NeckSpec((128, 256, 512), 3, (0.75, 0.75, 0.75)),
    "M": NeckSpec((128, 256, 512), 4, (1.0, 1.0, 1.0), "silu"),
    "L": NeckSpec((128, 256, 512), 6, (1.0, 1.0, 1.0), "silu"),
    "Ns": NeckSpec((40, 80, 160), 2, (0.5, 0.5, 0.5), "silu", depthwise=True),
    "Nm": NeckSpec((64, 128, 256), 2, (0.5, 0.5, 0.5), "silu", depthwise=True),
    "Nl": NeckSpec((80, 160, 320), 2, (0.5, 0.5, 0.5), "silu", depthwise=True),
    "N": NeckSpec((64, 128, 256), 2, (0.5, 0.5, 0.5), "silu", depthwise=True),
}
GAINS = {  # G and H of the golden weight rule
    "T": (1.1, 1.3), "S": (1.0, 1.0), "M": (1.5, 5.0), "L": (1.5, 3.0),
    "Ns": (2.0, 0.025), "Nm": (2.0, 0.025), "Nl": (2.0, 0.012), "N": (2.0, 0.025),
}  # fmt: skip


def published_spec(name: str) -> DetectorSpec:
    if name in RESIDUAL:
        stem, rows = RESIDUAL[name]
        blocks = tuple(Residual("k1kx", out, width, depth, stride) for out, stride, depth, width in rows)
        backbone = Backbone(Stem("focus", stem), blocks, (1, 3, 4), "spp", "relu", reparam=True)
    elif name in STAGES:
        stages = tuple(CSP(out, width, depth) for out, depth, width in STAGES[name])
        backbone = Backbone(Stem("focus", 32), stages, (1, 2, 3), "spp", "silu", reparam=True)
    else:
        stem, wide = MOBILE[name]
        units = tuple(
            InvertedResidual(out, hidden, depth, 1 if index == 3 else 2)
            for index, (out, hidden, depth) in enumerate(wide)
        )
        backbone = Backbone(Stem("focus" if name == "N" else "conv", stem), units, (1, 3, 4), "spp", "silu")
    if name in MOBILE:
        return DetectorSpec(backbone, NECKS[name], HeadSpec(80, 7, 3 if name == "N" else 1), 416)
    return DetectorSpec(backbone, NECKS[name], HeadSpec(80, 16, 3), 640)


def golden_entry(model: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The golden weight rule: a value that depends only on the model and the entry's official name."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name == "head.integral.project":
        return torch.arange(shape[0], dtype=torch.float32)
    head = name.startswith("head.")
    v = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) == 4:
        gain, head_gain = GAINS[model]
        v = v * np.sqrt((1.0 if head else gain) / np.prod(shape[1:])) * (head_gain if head else 1.0)
        v = v / 128.0 if shape[1] in (3, 12) else v
    elif name.endswith("running_mean"):
        v = 0.1 * v
    elif name.endswith("running_var"):
        v = 1 + 0.1 * np.abs(v)
    elif name.endswith((".weight", ".scale")):
        v = 1 + 0.1 * v
    else:
        v = 0.1 * v
    return torch.from_numpy(np.asarray(v, dtype=np.float32))


@pytest.fixture(scope="session")
def spec_of() -> Callable[[str], DetectorSpec]:
    return published_spec


@pytest.fixture(scope="session")
def golden_weights() -> Callable[[str, torch.nn.Module], dict[str, torch.Tensor]]:
    def weights(model: str, module: torch.nn.Module) -> dict[str, torch.Tensor]:
        return {name: golden_entry(model, name, tuple(value.shape)) for name, value in module.state_dict().items()}

    return weights


@pytest.fixture(scope="session")
def golden_images() -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(0).uniform(0, 255, (1, 3, 320, 320)).astype(np.float32))
