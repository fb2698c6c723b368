"""Peak activation memory from operations, beside exact liveness of the traced module."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from nas.cost.count import peak_memory_mb
from nas.measure.trace import trace_peak_memory_mb
from nas.models.detector import build_detector
from nas.spec import Backbone, DetectorSpec, Residual, Stem
from search_spaces.published import load_published


def detector(name: str) -> DetectorSpec:
    spec = load_published(name)
    assert isinstance(spec, DetectorSpec)
    return spec


@pytest.mark.parametrize("name", ["damo-yolo-t", "damo-yolo-s", "damo-yolo-m", "damo-yolo-l", "damo-yolo-ns"])
def test_the_list_agrees_with_exact_liveness(name: str) -> None:
    spec = replace(detector(name), image_size=320)
    assert peak_memory_mb(spec) == pytest.approx(trace_peak_memory_mb(build_detector(spec), 320), rel=0.12)


def test_a_chain_by_hand() -> None:
    block = Residual("k1kx", 8, 4, 2, 1)
    backbone = Backbone(Stem("conv", 8), (block,), (0,))
    side = 32
    stem = 3 * side**2 + 8 * (side // 2) ** 2
    assert peak_memory_mb(backbone, side) == pytest.approx(2 * stem / 1e6)
    # behind a wide stem: the projection of the first unit reads the stem's map while the main branch's result waits
    wide = 2 * (200 + 8 + 8) * (side // 2) ** 2 / 1e6
    assert peak_memory_mb(replace(backbone, stem=Stem("conv", 200)), side) == pytest.approx(wide)


def test_exact_liveness_by_hand() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x).relu()
            return torch.cat([y, self.b(y)], 1)

    cells = 8 * 8
    # the concatenation of 4 and 6 channels is alive beside both of its inputs; the image is gone by then
    assert trace_peak_memory_mb(Two(), 8, value_bytes=1) == pytest.approx((4 + 6 + 10) * cells / 1e6)


def test_it_scales_with_pixels_and_bytes() -> None:
    spec = detector("damo-yolo-s")
    assert peak_memory_mb(spec, 640) == pytest.approx(4 * peak_memory_mb(spec, 320))
    assert peak_memory_mb(spec, value_bytes=4) == pytest.approx(2 * peak_memory_mb(spec))
    assert peak_memory_mb(spec.backbone) == peak_memory_mb(spec.backbone, 640)
