"""Measured tables: exact rows, neighbours, bounds, strict files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.blocks.operation import Operation
from nas.cost.kernel_model import Hardware, KernelModel, Parameters
from nas.cost.latency import LatencyTable
from nas.cost.measured_table import Kernels, MeasuredRows, Row
from nas.cost.table_file import Header, cpu_name, write_table
from nas.errors import UserError
from nas.options import read_object

MODEL = KernelModel(Parameters(0.1, 4, 1, 10, 0.5, 5, 0.1, 1, 1, 2, 0), Hardware(1, 4, 4))
HEADER = Header(
    "desk", "measured", "a desk", "onnxruntime", "fp32", 1, "ms", {"how": "made up"}, {},
    processor=cpu_name(), image_sizes=(160, 320), map_sizes=(5, 160),
)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [{"fused_activations": "relu"}, {"fused_activations": [1]}, {"fuses_sum": "false"}, {"fused_activations": 5}],
)
def test_kernels_of_another_type_are_refused(change: dict[str, object]) -> None:
    good = {"channel_block": 16, "fused_activations": ["none", "relu"], "fuses_sum": True}
    assert read_object(Kernels, good, "table") == Kernels(16, ("none", "relu"), True)
    with pytest.raises(
        UserError, match=r"table.(fused_activations(\[0\])?|fuses_sum) must be (a list|text|true or false)"
    ):
        read_object(Kernels, good | change, "table")


def conv(cin: int, cout: int, side: int, kernel: int = 3, **more: object) -> Operation:
    return Operation("conv", cin, cout, side, side, side, side, kernel, **more)  # type: ignore[arg-type]


def law(kernel: Operation) -> float:
    """A device that is a constant factor away from its model."""
    return 1.7 * MODEL.price_many([kernel])[0].ms


SHAPES = [(cin, cout, side) for cin in (16, 64, 256) for cout in (16, 64, 256) for side in (20, 40, 80)]
ROWS = [Row(k, law(k), 1.0) for k in (conv(*shape) for shape in SHAPES)] + [
    Row(k, law(k), 1.0) for k in (Operation("silu", c, c, 20, 20, 20, 20) for c in (16, 64, 256))
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    table = MeasuredRows(ROWS, Kernels(16, ("none", "relu"), True), MODEL, 1.1, 2.0)
    write_table(tmp_path / "desk.json", HEADER, table.body(ROWS))
    return tmp_path / "desk.json"


def test_rows_neighbours_and_bounds_name_themselves(path: Path) -> None:
    table = LatencyTable.load(path)
    measured, between, other = conv(64, 64, 40), conv(96, 128, 40), conv(64, 64, 40, kernel=5)
    assert table.price(measured).how == "exact"
    assert table.price(measured).ms == pytest.approx(1.1 * law(measured), rel=1e-4)
    assert table.price(between).how == "interpolated"
    assert table.price(between).ms == pytest.approx(1.1 * law(between), rel=1e-3)
    assert table.price(other).how == "roofline"
    assert table.price(other).ms == pytest.approx(1.1 * law(other), rel=1e-3)
    assert table.total([measured]).ms == pytest.approx(2.0 + 1.1 * law(measured), rel=1e-4)


def test_operations_fall_apart_into_the_runtimes_kernels(path: Path) -> None:
    table = LatencyTable.load(path)
    plain, silu = conv(64, 64, 20), conv(64, 64, 20, activation="silu")
    extra = Operation("silu", 64, 64, 20, 20, 20, 20)
    assert table.price(silu).ms == pytest.approx(table.price(plain).ms + table.price(extra).ms)
    assert table.price(conv(64, 64, 20, activation="relu", bias=True)).ms == table.price(plain).ms
    assert table.price(conv(50, 60, 20)).how == "exact"  # padded to blocks of 16
    kernels = Kernels(1, ("none",), False)
    parts = kernels.of(conv(8, 8, 20, activation="silu", fused_add=True))
    assert [part.kind for part in parts] == ["conv", "silu", "add"]


@settings(max_examples=40)
@given(st.integers(8, 300), st.integers(8, 300), st.sampled_from([20, 30, 40, 80]), st.integers(1, 80))
def test_prices_grow_with_channels(cin: int, cout: int, side: int, more: int) -> None:
    table = MeasuredRows(ROWS, Kernels(16, ("none", "relu"), True), MODEL)
    small, large = table.price_many([conv(cin, cout, side), conv(cin + more, cout, side)])
    assert large.ms >= 0.95 * small.ms


def change(path: Path, row: int, column: int, value: object) -> None:
    data = json.loads(path.read_text())
    data["rows"][row][column] = value
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, "", "row 3: kind must be a word"),
        (1, 0, "row 3: in_channels must be a positive integer"),
        (3, 20.0, "row 3: height must be a positive integer"),
        (11, 1, "row 3: fused_add must be true or false"),
        (12, "0.3 ms", "row 3: ms must be a number"),
        (12, -1.0, "row 3: ms must be a number"),
        (12, None, "row 3: ms must be a number"),
        (13, "small", "row 3: spread_percent must be a number"),
    ],
)
def test_a_corrupt_row_is_named(path: Path, column: int, value: object, message: str) -> None:
    change(path, 2, column, value)
    with pytest.raises(UserError, match=message) as caught:
        LatencyTable.load(path)
    assert "\n" not in str(caught.value)


def test_short_duplicated_and_missing_rows(path: Path) -> None:
    original = json.loads(path.read_text())
    for rows, message in (
        ([original["rows"][0][:-1]], "row 1: expected 14 values"),
        ([original["rows"][0], original["rows"][0]], "row 2: the same kernel as row 1"),
        ([], "has no rows"),
        ("none", "has no rows"),
    ):
        path.write_text(json.dumps(original | {"rows": rows}))
        with pytest.raises(UserError, match=message):
            LatencyTable.load(path)
    for missing in ("columns", "line", "kernels", "parameters", "hardware"):
        path.write_text(json.dumps({key: value for key, value in original.items() if key != missing}))
        with pytest.raises(UserError, match=missing):
            LatencyTable.load(path)


def test_a_round_trip_keeps_every_price(path: Path, tmp_path: Path) -> None:
    table = LatencyTable.load(path)
    rows = [replace(row, ms=float(f"{row.ms:.5g}")) for row in ROWS]
    again = MeasuredRows(rows, Kernels(16, ("none", "relu"), True), MODEL, 1.1, 2.0)
    write_table(tmp_path / "again.json", HEADER, again.body(rows))
    other = LatencyTable.load(tmp_path / "again.json")
    for kernel in (conv(64, 64, 40), conv(30, 200, 27), conv(8, 8, 5, kernel=7)):
        assert other.price(kernel) == table.price(kernel)
