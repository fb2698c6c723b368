"""From measurements to a table: the kernel model of the device, the line from sums to whole networks, the rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from nas.blocks.operation import Operation
from nas.cost.kernel_model import Features, Hardware, KernelModel, Parameters, evaluate
from nas.cost.measured_table import MeasuredRows, Row, consistent
from nas.errors import UserError
from nas.lowering import operations
from nas.measure.measurement import Measurement, Runtime

#: Parameters that rows or whole networks tell; the rest keeps its start.
FREE = ("rate", "window", "bandwidth", "gap", "depthwise", "silu")
#: Networks below which neither a model nor a line can be fitted.
FEWEST = 4


def collect_rows(measurements: Sequence[Measurement]) -> list[Row]:
    """One row per kernel over all networks: the median of what each saw."""
    found: dict[Operation, list[Row]] = defaultdict(list)
    for measurement in measurements:
        for row in measurement.kernels:
            found[row.kernel].append(row)
    return [
        Row(kernel, median(row.ms for row in rows), median(row.spread_percent for row in rows))
        for kernel, rows in found.items()
    ]


def start_parameters(measurements: Sequence[Measurement], hardware: Hardware) -> Parameters:
    """A first guess from whole networks: nine tenths of the time computes, five hundredths move bytes."""
    rates, widths = [], []
    for measurement in measurements:
        listed = operations(measurement.spec, "folded")
        rates.append(2 * sum(op.macs for op in listed) / (0.9 * measurement.ms) * 1e-9)
        widths.append(sum(op.reads + op.writes for op in listed) * hardware.value_bytes / (0.3 * measurement.ms) * 1e-6)
    return Parameters(
        rate=1.5 * median(rates), tile_half=4.0, window=1.0, bandwidth=median(widths), cache_factor=0.5, gap=5.0,
        tile_gap=0.1, silu=1.0, concat=1.0, depthwise=2.0, network=0.0,
    )  # fmt: skip


def fit_model(measurements: Sequence[Measurement], runtime: Runtime, rows: Sequence[Row]) -> KernelModel:
    """Least squares of the kernel model on the logarithms of the rows, or of whole networks where there are no rows."""
    start = start_parameters(measurements, runtime.hardware)
    batch, hardware = runtime.batch, runtime.hardware
    if rows:
        features = [Features([row.kernel for row in rows], hardware, batch)]
        times = np.array([row.ms for row in rows])
        weights = np.sqrt(times / times.sum() * len(rows)) / 0.3
        groups = None
    else:
        features = [Features(operations(item.spec, "folded"), hardware, batch) for item in measurements]
        times = np.array([item.ms for item in measurements])
        weights, groups = np.full(len(times), 1 / 0.03), True
    centre = np.log([getattr(start, name) for name in FREE])

    def unpack(vector: npt.NDArray[np.float64]) -> Parameters:
        return replace(start, **dict(zip(FREE, np.exp(vector).tolist(), strict=True)))

    def residuals(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        parameters = unpack(vector)
        priced = [evaluate(feature, parameters, hardware)[0] for feature in features]
        predicted = np.array([part.sum() for part in priced]) if groups else priced[0]
        return np.concatenate([np.log(predicted / times) * weights, vector - centre])

    fitted = least_squares(residuals, centre, diff_step=1e-3, loss="soft_l1").x
    return KernelModel(unpack(fitted), hardware, batch)


def fit_line(sums: Sequence[float], totals: Sequence[float]) -> tuple[float, float]:
    """Offset (at least 0) and factor of total = offset + factor * sum with the least relative error.

    Networks of one space take similar times, and noisy sums flatten a line: an offset needs evidence, one percent of the
    typical total is as surprising as an error of one percent.
    """
    x, y = np.array(sums), np.array(totals)
    design = np.stack([1 / y, x / y], axis=1)
    design = np.concatenate([design, [[1 / median(totals), 0.0]]])
    offset, factor = np.linalg.lstsq(design, np.append(np.ones(len(y)), 0.0), rcond=None)[0].tolist()
    if offset < 0 or factor <= 0:
        ratio = x / y
        return 0.0, float(ratio.sum() / (ratio**2).sum())
    return float(offset), float(factor)


def build_table(measurements: Sequence[Measurement], runtime: Runtime) -> tuple[MeasuredRows, list[Row]]:
    """The table of what was measured. Raises UserError for too few networks."""
    if len(measurements) < FEWEST:
        raise UserError(f"{len(measurements)} networks were measured, {FEWEST} are needed: raise networks")
    rows = consistent(collect_rows(measurements))
    model = fit_model(measurements, runtime, rows)
    table = MeasuredRows(rows, runtime.kernels, model)
    sums = [predicted_sum(table, item) for item in measurements]
    offset, factor = fit_line(sums, [item.ms for item in measurements])
    return MeasuredRows(rows, runtime.kernels, model, factor, offset), rows


def predicted_sum(table: MeasuredRows, measurement: Measurement) -> float:
    """The table's price of a measured network, without the offset."""
    return sum(price.ms for price in table.price_many(operations(measurement.spec, "folded")))
