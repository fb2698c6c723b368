"""The official V100 table is read and interpolated as the official program does."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from nas.blocks.operation import Operation
from nas.cost.latency import LatencyTable
from nas.cost.official_table import OfficialTable, Query
from nas.errors import UserError


def _query(row: list) -> Query:
    kind, stride, fused, kernel, _, cin, height, cout = row
    return Query(kind, stride, fused, kernel, cin, height, cout)


def _line(cin: int, height: int, cout: int, ms: float, kernel: int = 3, batch: int = 32) -> str:
    return f"{{Regular,{batch},{cin},{height},{height},{cout},{kernel},1,0}} {ms}\n"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Ratio 1 and ratio 2 planes in which ms = cout * height / 1000 * ratio."""
    path = tmp_path / "tiny_fp16.txt"
    rows = [
        _line(ratio * cout, height, cout, ratio * cout * height / 1000)
        for ratio in (1, 2) for cout in (16, 32, 64) for height in (10, 20, 40)
    ]  # fmt: skip
    path.write_text("".join(rows))
    return path


@pytest.mark.parametrize("name", ["k1kx_a", "kxkx_a", "k1kxk1_a", "published"])
def test_official_latency_is_reproduced(shared: Path, name: str) -> None:
    table = OfficialTable.read(shared / "data/latency/v100_fp16_damoyolo.txt")
    finite = 0
    for record in json.loads((shared / f"golden/tinynas/{name}.json").read_text())["records"]:
        seconds = (record.get("latency_s_per_image") or {}).get("FP16_DAMOYOLO", {}).get("32")
        if not isinstance(seconds, float):
            continue
        queries = [_query(row) for row in record["ops"]]
        known = table.milliseconds(queries)
        assert sum(known[query] for query in queries) / 32 / 1000 == pytest.approx(seconds, rel=1e-6)
        finite += 1
    assert finite >= 8


def test_exact_points_and_ratio_interpolation(small: Path) -> None:
    table = OfficialTable.read(small)
    exact = Query("Regular", 1, 0, 3, 32, 20, 32)
    between = Query("Regular", 1, 0, 3, 48, 20, 32)
    known = table.milliseconds([exact, between])
    assert known[exact] == pytest.approx(0.64)
    assert known[between] == pytest.approx(0.96)


def test_outside_the_table_is_its_nearest_point_and_missing_kernels_are_infinite(small: Path) -> None:
    table = OfficialTable.read(small)
    outside = Query("Regular", 1, 0, 3, 512, 40, 512)
    missing = Query("Regular", 1, 0, 5, 32, 20, 32)
    grouped = Query("Grouped", 1, 0, 3, 32, 20, 32)
    known = table.milliseconds([outside, missing, grouped])
    assert known[outside] == pytest.approx(2.56)
    assert known[missing] == known[grouped] == math.inf


def test_operations_are_priced_and_the_rest_is_free(small: Path) -> None:
    table = LatencyTable.load(small)
    assert (table.header.batch, table.header.precision) == (32, "fp16")
    conv = Operation("conv", 32, 32, 20, 20, 20, 20, kernel=3)
    pool = Operation("avgpool", 32, 32, 10, 10, 20, 20, kernel=2, stride=2)
    assert table.total([conv, pool, conv]).ms == pytest.approx(1.28 / 32), "an image of a batch of 32"
    assert table.price(pool).ms == 0


@pytest.mark.parametrize(
    "line",
    [
        "{Regular,32,64,20,20,64,3,1} 0.5",
        "{Regular,32,64,20,20,64,3,1,0}",
        "{Regular,32,64,20,20,64,3,1,0} half",
        "{Regular,32,64,20,20,sixty,3,1,0} 0.5",
        "{Regular,32,64,20,20,64,3,1,0} nan",
    ],
)
def test_a_corrupt_row_is_named(small: Path, line: str) -> None:
    small.write_text(small.read_text() + line + "\n")
    with pytest.raises(UserError, match="line 19") as caught:
        LatencyTable.load(small)
    assert "\n" not in str(caught.value)


def test_other_batches_are_refused(small: Path) -> None:
    with pytest.raises(UserError, match="batch 32; not 1"):
        LatencyTable.load(small, batch=1)
    small.write_text(small.read_text() + _line(16, 10, 16, 0.1, batch=1))
    with pytest.raises(UserError, match="batch 1, 32; choose one"):
        LatencyTable.load(small)
    assert LatencyTable.load(small, batch=32).header.batch == 32
