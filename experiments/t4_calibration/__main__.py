"""Calibrates the kernel model of the NVIDIA T4 on published whole-detector latencies.

    python -m experiments.t4_calibration [--write]

Prints fit, leave-one-family-out error and residuals; `--write` stores nas/cost/tables/t4_tensorrt*_fp16.json. The rows
of those tables are calibrated, not measured: nobody has published latencies of single kernels on a T4.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from nas.cost.kernel_model import Device, Features, Parameters, evaluate
from nas.cost.table_file import TABLES, Header, write_table
from nas.lowering.operation import Operation

HERE = Path(__file__).parent
T4 = Device()
#: Families whose published rows share source and protocol and whose drawings are certain.
FAMILIES = ("damo-yolo", "yolov7", "yolov9", "yolo11")
#: Prior centre and relative width (of the logarithm) of each parameter: datasheet and common kernel lore, before any fit.
PRIORS: dict[str, tuple[float, float]] = {
    "rate": (35.0, 0.3),
    "tile_half": (16.0, 0.5),
    "bandwidth": (240.0, 0.15),
    "cache_factor": (0.5, 0.4),
    "gap_gemm": (3.0, 0.4),
    "gap_other": (3.0, 0.4),
    "tile_gap": (1.0, 0.7),
    "silu": (0.5, 0.7),
    "concat": (0.5, 0.5),
    "depthwise": (1.5, 0.4),
}
#: Expected relative error of one row by source; DAMO-YOLO's is smaller because its own detectors are what is searched.
SIGMA = 0.03


@dataclass(frozen=True)
class Point:
    model: str
    family: str
    ms: float
    source: str
    features: Features


def read_operations(name: str) -> list[Operation]:
    """The fused kernels of one published detector."""
    data = json.loads((HERE / "op_lists" / f"{name}.json").read_text())
    return [Operation(**dict(zip(data["columns"], row, strict=True))) for row in data["rows"]]


def read_points() -> list[Point]:
    with (HERE / "points.csv").open() as stream:
        return [
            Point(
                row["model"],
                row["family"],
                float(row["ms"]),
                row["source"],
                Features(read_operations(row["op_list"]), T4),
            )
            for row in csv.DictReader(stream)
        ]


def predict(parameters: Parameters, point: Point) -> float:
    return float(evaluate(point.features, parameters, T4)[0].sum())


def unpack(vector: np.ndarray[Any, Any]) -> Parameters:
    return Parameters(**dict(zip(PRIORS, np.exp(vector).tolist(), strict=True)))


def calibrate(
    points: Sequence[Point], sigma: dict[str, float] | None = None, start: Parameters | None = None
) -> Parameters:
    """Least squares on log ratios under the priors; with `start`, the priors are centred there and half as wide."""
    centre = np.log([getattr(start, name) if start else PRIORS[name][0] for name in PRIORS])
    width = np.array([PRIORS[name][1] for name in PRIORS]) * (0.5 if start else 1.0)
    weights = np.array([(sigma or {}).get(point.family, SIGMA) for point in points])

    def residuals(vector: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        parameters = unpack(vector)
        ratios = np.array([np.log(predict(parameters, point) / point.ms) for point in points])
        return np.concatenate([ratios / weights, (vector - centre) / width])

    return unpack(least_squares(residuals, centre, diff_step=1e-3, xtol=1e-12, ftol=1e-12, gtol=1e-12).x)


def errors(parameters: Parameters, points: Sequence[Point]) -> dict[str, float]:
    """Signed percent error of each model."""
    return {point.model: round(100 * (predict(parameters, point) / point.ms - 1), 2) for point in points}


def mean_error(values: dict[str, float]) -> float:
    return round(float(np.mean(np.abs(list(values.values())))), 3)


def leave_one_family_out(points: Sequence[Point]) -> dict[str, float]:
    result: dict[str, float] = {}
    for family in dict.fromkeys(point.family for point in points):
        parameters = calibrate([point for point in points if point.family != family])
        result |= errors(parameters, [point for point in points if point.family == family])
    return result


def ordered(parameters: Parameters, points: Sequence[Point]) -> bool:
    """Every family in the published order."""
    families = {point.family for point in points}
    for family in families:
        members = sorted((p for p in points if p.family == family), key=lambda point: point.ms)
        times = [predict(parameters, point) for point in members]
        if times != sorted(times):
            return False
    return True


def store(name: str, runtime: str, parameters: Parameters, fit: dict[str, float], extra: dict[str, Any]) -> None:
    header = Header(
        name=name,
        kind="kernel_model",
        device="NVIDIA T4",
        runtime=runtime,
        precision="fp16",
        batch=1,
        units="ms",
        provenance={
            "how": "calibrated on published whole-detector latencies, not measured kernel by kernel",
            "script": "python -m experiments.t4_calibration --write",
            "priors": {key: list(value) for key, value in PRIORS.items()},
        },
        validation={"mape_percent": mean_error(fit), "fit_error_percent": fit, **extra},
    )
    rounded = {key: float(f"{value:.5g}") for key, value in parameters.to_dict().items()}
    hardware = {"multiprocessors": T4.multiprocessors, "cache_mb": T4.cache_mb, "value_bytes": T4.value_bytes}
    write_table(TABLES / f"{name}.json", header, {"hardware": hardware, "parameters": rounded})


def main(write: bool) -> None:
    points = read_points()
    modern = [point for point in points if point.source == "tensorrt10"]
    core = [point for point in modern if point.family in FAMILIES]
    parameters = calibrate(core, {"damo-yolo": 0.012})
    fit = errors(parameters, core)
    others = {
        point.model: error for point in modern if point not in core for error in errors(parameters, [point]).values()
    }
    left_out = leave_one_family_out(core)
    print("parameters:", {key: float(f"{value:.4g}") for key, value in parameters.to_dict().items()})
    print(f"fit, percent ({mean_error(fit)} mean):", fit)
    print(f"left out by family ({mean_error(left_out)} mean):", left_out)
    print("not calibrated on:", others)
    print("order within families:", ordered(parameters, modern))
    early = [point for point in points if point.source == "tensorrt7"]
    parameters7 = calibrate(early, start=parameters)
    fit7 = errors(parameters7, early)
    print(f"TensorRT 7 ({mean_error(fit7)} mean):", fit7)
    if write:
        extra = {
            "left_out_mape_percent": mean_error(left_out), "left_out_error_percent": left_out,
            "not_calibrated_error_percent": others,
        }  # fmt: skip
        store("t4_tensorrt_fp16", "TensorRT 10", parameters, fit, extra)
        store("t4_tensorrt7_fp16", "TensorRT 7.2.1.6", parameters7, fit7, {})


if __name__ == "__main__":
    main("--write" in sys.argv[1:])
