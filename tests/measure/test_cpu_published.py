"""Published CPU milliseconds rank as the shipped CPU table predicts, machine aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.cpu_published.__main__ import compare, draw, ratios
from nas.cost.latency import LatencyTable


def test_ranks_agree_with_the_published_ones(tmp_path: Path) -> None:
    points = compare(LatencyTable.load("cpu_onnxruntime_fp32_1thread"))
    _, _, rank = ratios(points)
    assert len(points) == 10 and rank > 0.95
    draw(tmp_path / "plot.png", points, "published and predicted")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_ratios_by_hand() -> None:
    common, spread, rank = ratios([("a", "f", 20.0, 10.0), ("b", "f", 40.0, 20.0), ("c", "f", 60.0, 30.0)])
    assert common == pytest.approx(2.0) and spread == pytest.approx(0.0, abs=1e-9) and rank == pytest.approx(1.0)
