"""The kernel model: physics that must hold, and the T4 calibration."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.t4_calibration.__main__ import FAMILIES, calibrate, errors, ordered, predict, read_points
from nas.blocks.operation import Operation
from nas.cost.kernel_model import KernelModel, Parameters
from nas.cost.latency import LatencyTable
from nas.cost.table_file import TABLES
from nas.errors import UserError

POINTS = read_points()
T4 = LatencyTable.load("t4_tensorrt_fp16")


def shipped_parameters(name: str = "t4_tensorrt_fp16") -> Parameters:
    return Parameters(**json.loads((TABLES / f"{name}.json").read_text())["parameters"])


def conv(cin: int, cout: int, side: int, kernel: int = 3, stride: int = 1, **more: object) -> Operation:
    return Operation("conv", cin, cout, side // stride, side // stride, side, side, kernel, stride, **more)  # type: ignore[arg-type]


convolutions = st.builds(
    conv,
    st.integers(1, 600),
    st.integers(1, 600),
    st.sampled_from([10, 20, 40, 80, 160, 320]),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([1, 2]),
    activation=st.sampled_from(["none", "relu", "silu"]),
    fused_add=st.booleans(),
)


@settings(max_examples=150)
@given(convolutions, st.integers(1, 64), st.integers(1, 64))
def test_latency_grows_with_channels_and_resolution(operation: Operation, more_in: int, more_out: int) -> None:
    before = T4.price(operation).ms
    wider = replace(operation, out_channels=operation.out_channels + more_out)
    deeper = replace(operation, in_channels=operation.in_channels + more_in)
    larger = replace(
        operation,
        **{name: 2 * getattr(operation, name) for name in ("height", "width", "in_height", "in_width")},
    )
    for grown in (wider, deeper, larger):
        assert T4.price(grown).ms >= before * (1 - 1e-9)


@settings(max_examples=50)
@given(st.lists(convolutions, min_size=1, max_size=6), convolutions)
def test_latency_is_additive_and_grows_with_depth(operations: list[Operation], extra: Operation) -> None:
    total = T4.total(operations)
    assert total.ms == pytest.approx(T4.offset_ms + sum(T4.price(operation).ms for operation in operations))
    assert T4.total([*operations, extra]).ms > total.ms


def test_bounds_name_what_limits() -> None:
    assert T4.price(conv(512, 512, 80)).bound == "compute"
    assert T4.price(conv(64, 64, 320, kernel=3, groups=64)).bound == "memory"
    assert T4.price(Operation("add", 16, 8, 5, 5, 5, 5)).bound == "launch"


def test_damo_yolo_within_three_percent_and_the_rest_as_promised() -> None:
    parameters = shipped_parameters()
    core = [point for point in POINTS if point.source == "tensorrt10" and point.family in FAMILIES]
    fit = errors(parameters, core)
    assert all(abs(error) <= 3 for model, error in fit.items() if model.startswith("damo"))
    assert sum(map(abs, fit.values())) / len(fit) <= 3.5
    unseen = [point for point in POINTS if point.family in ("rtdetrv2", "yolov5-anchor")]
    assert all(abs(error) <= 12 for error in errors(parameters, unseen).values())
    assert ordered(parameters, [point for point in POINTS if point.source == "tensorrt10"])


def test_a_family_left_out_of_the_calibration_is_predicted() -> None:
    core = [point for point in POINTS if point.source == "tensorrt10" and point.family in FAMILIES]
    parameters = calibrate([point for point in core if point.family != "damo-yolo"])
    assert all(abs(error) <= 5 for error in errors(parameters, [p for p in core if p.family == "damo-yolo"]).values())


def test_the_shipped_table_is_what_the_calibration_gives() -> None:
    core = [point for point in POINTS if point.source == "tensorrt10" and point.family in FAMILIES]
    fresh, shipped = calibrate(core), shipped_parameters()
    for point in core:
        assert predict(fresh, point) == pytest.approx(predict(shipped, point), rel=1e-4)


def test_tensorrt7_follows_its_own_report() -> None:
    early = [point for point in POINTS if point.source == "tensorrt7"]
    assert all(abs(error) <= 5 for error in errors(shipped_parameters("t4_tensorrt7_fp16"), early).values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": "fast"}, "rate must be a number"),
        ({"rate": 0}, "rate must be a number of at least 1e-06"),
        ({"bandwidth": -1}, "bandwidth must be a number"),
        ({"cache_factor": 2}, "cache_factor must be a number from 0 to 1"),
        ({"speed": 1}, "parameters has no option 'speed'"),
    ],
)
def test_wrong_parameters_are_named(change: dict[str, object], message: str) -> None:
    body = json.loads((TABLES / "t4_tensorrt_fp16.json").read_text())
    body["parameters"] |= change
    with pytest.raises(UserError, match=message):
        KernelModel.from_body(body, 1, "table.json")
