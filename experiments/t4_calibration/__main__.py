"""Calibrates the kernel model of the NVIDIA T4 on published whole-detector latencies.

    python -m experiments.t4_calibration [--write] [--trade]

Prints fit, leave-one-family-out error and residuals by source; `--trade` adds how the left-out error depends on the
number of calibrated parameters; `--write` stores nas/cost/tables/t4_tensorrt*_fp16.json. The rows that these tables
give are calibrated, not measured: nobody has published latencies of single kernels on a T4.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from experiments.command import run
from nas.blocks.operation import Operation
from nas.cost.kernel_model import Features, Hardware, Parameters, evaluate
from nas.cost.table_file import TABLES, Header, write_table

HERE = Path(__file__).parent
T4 = Hardware(multiprocessors=40, cache_mb=4.0, value_bytes=2)
#: Families whose published rows share source and protocol and whose drawings are certain.
FAMILIES = ("damo-yolo", "yolov7", "yolov9", "yolo11")
#: Centre and relative width (of the logarithm) of each parameter before any fit: 65 TFLOP/s and 320 GB/s of the
#: datasheet less what real kernels lose, launch gaps of a few microseconds, and an open mind on the rest.
PRIORS: dict[str, tuple[float, float]] = {
    "rate": (45.0, 0.3),
    "tile_half": (16.0, 0.5),
    "window": (1.3, 0.3),
    "bandwidth": (240.0, 0.15),
    "cache_factor": (0.5, 0.4),
    "gap": (3.0, 0.4),
    "tile_gap": (1.0, 0.7),
    "silu": (0.5, 0.7),
    "concat": (0.5, 0.5),
    "depthwise": (1.5, 0.4),
    "network": (0.1, 1.0),
}
#: Calibrated, in the order of what they gain; the rest keeps its prior centre (more only follows the noise: --trade).
FREE = ("rate", "window", "bandwidth", "network", "silu", "depthwise")
#: Expected relative error of one published row.
SIGMA = 0.03


@dataclass(frozen=True)
class Point:
    """One published detector: its milliseconds and its kernels."""

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
    return float(evaluate(point.features, parameters, T4)[0].sum()) + parameters.network


def calibrate(points: Sequence[Point], free: Sequence[str] = FREE, start: Parameters | None = None) -> Parameters:
    """Least squares on log ratios under the priors; with `start`, the priors are centred there and half as wide."""
    fixed = start.to_dict() if start else {name: centre for name, (centre, _) in PRIORS.items()}
    centre = np.log([fixed[name] for name in free])
    width = np.array([PRIORS[name][1] for name in free]) * (0.5 if start else 1.0)

    def unpack(vector: np.ndarray[Any, Any]) -> Parameters:
        return Parameters(**{**fixed, **dict(zip(free, np.exp(vector).tolist(), strict=True))})

    def residuals(vector: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        parameters = unpack(vector)
        ratios = np.array([np.log(predict(parameters, point) / point.ms) for point in points])
        return np.concatenate([ratios / SIGMA, (vector - centre) / width])

    return unpack(least_squares(residuals, centre, diff_step=1e-3, xtol=1e-12, ftol=1e-12, gtol=1e-12).x)


def errors(parameters: Parameters, points: Sequence[Point]) -> dict[str, float]:
    """Signed percent error of each model."""
    return {point.model: round(100 * (predict(parameters, point) / point.ms - 1), 2) for point in points}


def mean_error(values: dict[str, float]) -> float:
    return round(float(np.mean(np.abs(list(values.values())))), 2)


def by_family(values: dict[str, float], points: Sequence[Point]) -> dict[str, float]:
    """Mean absolute percent error of each family."""
    families = dict.fromkeys(point.family for point in points if point.model in values)
    return {name: mean_error({p.model: values[p.model] for p in points if p.family == name}) for name in families}


def leave_one_family_out(points: Sequence[Point], free: Sequence[str] = FREE) -> dict[str, float]:
    """Errors of each family under a calibration that has not seen it."""
    result: dict[str, float] = {}
    for family in dict.fromkeys(point.family for point in points):
        parameters = calibrate([point for point in points if point.family != family], free)
        result |= errors(parameters, [point for point in points if point.family == family])
    return result


def ordered(parameters: Parameters, points: Sequence[Point]) -> bool:
    """Whether every family comes out in its published order."""
    for family in {point.family for point in points}:
        members = sorted((p for p in points if p.family == family), key=lambda point: point.ms)
        times = [predict(parameters, point) for point in members]
        if times != sorted(times):
            return False
    return True


def print_trade(points: Sequence[Point]) -> None:
    """Left-out error against the number of calibrated parameters."""
    ladder = (*FREE, *(name for name in PRIORS if name not in FREE))
    for count in range(2, len(ladder) + 1):
        free = ladder[:count]
        fit = errors(calibrate(points, free), points)
        left_out = leave_one_family_out(points, free)
        print(f"{count:3d} parameters (+ {free[-1]}): fit {mean_error(fit)} %, left out {mean_error(left_out)} %")


def store(name: str, runtime: str, parameters: Parameters, fit: dict[str, float], extra: dict[str, Any]) -> None:
    """Write one table file; parameters with five digits."""
    provenance = {
        "how": "calibrated on published whole-detector latencies, not measured kernel by kernel",
        "script": "python -m experiments.t4_calibration --write",
        "calibrated": ", ".join(FREE),
    }
    validation = {"mape_percent": mean_error(fit), "on": "the rows of the fit", "fit_error_percent": fit, **extra}
    where: dict[str, Any] = {"processor": "NVIDIA T4", "image_sizes": (640,), "map_sizes": (20, 320)}
    header = Header(name, "kernel_model", "NVIDIA T4", runtime, "fp16", 1, "ms", provenance, validation, **where)
    rounded = {key: float(f"{value:.5g}") for key, value in parameters.to_dict().items()}
    hardware = {"multiprocessors": T4.multiprocessors, "cache_mb": T4.cache_mb, "value_bytes": T4.value_bytes}
    write_table(TABLES / f"{name}.json", header, {"hardware": hardware, "parameters": rounded})


def main(arguments: Sequence[str]) -> None:
    points = read_points()
    modern = [point for point in points if point.source == "tensorrt10"]
    core = [point for point in modern if point.family in FAMILIES]
    others = [point for point in modern if point.family not in FAMILIES]
    parameters = calibrate(core)
    fit, left_out, unseen = errors(parameters, core), leave_one_family_out(core), errors(parameters, others)
    print("parameters:", {key: float(f"{value:.5g}") for key, value in parameters.to_dict().items()})
    print(f"fit, percent (mean {mean_error(fit)}): {fit}\n  by family {by_family(fit, core)}")
    print(f"left out by family (mean {mean_error(left_out)}): {left_out}\n  by family {by_family(left_out, core)}")
    print(f"not calibrated on: {unseen}\n  by family {by_family(unseen, others)}")
    original = [point for point in points if point.source == "hypothesis"]
    anchor = errors(parameters, original)
    print(f"YOLOv5 as first published, anchor-based (mean {mean_error(anchor)}): {anchor}")
    print("published order within every family:", ordered(parameters, modern))
    early = [point for point in points if point.source == "tensorrt7"]
    parameters7 = calibrate(early, ("rate", "bandwidth", "gap", "network"), start=parameters)
    fit7 = errors(parameters7, early)
    print(f"TensorRT 7 (mean {mean_error(fit7)}): {fit7}")
    if "--trade" in arguments:
        print_trade(core)
    if "--write" in arguments:
        extra = {
            "left_out_mape_percent": mean_error(left_out),
            "left_out_error_percent": left_out,
            "not_calibrated_error_percent": {**unseen, **anchor},
        }
        store("t4_tensorrt_fp16", "TensorRT 10", parameters, fit, extra)
        store("t4_tensorrt7_fp16", "TensorRT 7.2.1.6", parameters7, fit7, {})


if __name__ == "__main__":
    run(main)
