"""The compared backbones have equal predicted latency in the same frame, and keep their family's proportions."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.backbones.__main__ import DRAWN, TOLERANCE, scaled, whole_heads, write_backbones
from experiments.tables import detector_of, load_table
from nas.api import latency
from nas.files import load_spec
from nas.spec import Backbone
from search_spaces import load_published


def test_latencies_are_equal_within_two_percent() -> None:
    table = load_table("backbones")
    detectors = [detector_of(table, row) for row in table.rows]
    milliseconds = [float(latency(detector)) for detector in detectors]
    assert max(milliseconds) / min(milliseconds) - 1 < TOLERANCE
    assert len({(detector.neck, detector.head, detector.image_size) for detector in detectors}) == 1


def test_searched_ones_stay_below_the_target() -> None:
    target = max(float(latency(detector_of(load_table("backbones"), row))) for row in load_table("backbones").rows)
    table = load_table("backbones_searched")
    for row in table.rows:
        assert float(latency(detector_of(table, row))) <= target * (1 + TOLERANCE)


def test_files_are_what_the_script_writes(tmp_path: Path) -> None:
    write_backbones(tmp_path)
    for name in ("tinynas", "gelan", "c3k2"):
        committed = Path(__file__).resolve().parents[2] / "experiments" / "backbones" / f"{name}.yaml"
        assert load_spec(tmp_path / f"{name}.yaml") == load_spec(committed)


@pytest.mark.parametrize("name", DRAWN.values())
def test_factor_one_changes_nothing(name: str) -> None:
    backbone = load_published(name)
    assert isinstance(backbone, Backbone)
    assert scaled(backbone, 1.0) == backbone
    wide = scaled(backbone, 2.0)
    assert wide.blocks[0].out == 2 * backbone.blocks[0].out and wide.stem.out == 2 * backbone.stem.out


def test_attention_heads_are_whole() -> None:
    assert [whole_heads(width) for width in (256, 320, 400, 768)] == [256, 320, 384, 768]
