"""How far a table is from the device: whole random networks that it has not seen, predicted and timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from nas.cost.latency import LatencyTable
from nas.cost.table_file import read_table, write_table
from nas.errors import UserError
from nas.lowering import operations
from nas.measure import open_runtime
from nas.measure.measurement import Runtime
from nas.measure.profiler import MeasurementStore, ProfileSettings, Progress
from nas.spec import digest

#: Distance of the validation networks' seed from the plan's, so that they are others.
SEED_STEP = 1_000_003
#: Random networks that are drawn for each one that is timed.
POOL = 25


@dataclass(frozen=True)
class Validation:
    """Error of a table on whole networks: percent, shares within 5 and 10 percent, rank correlation."""

    networks: int
    mape_percent: float
    bias_percent: float
    within_5_percent: float
    within_10_percent: float
    spearman: float

    @classmethod
    def of(cls, predicted: Sequence[float], measured: Sequence[float]) -> Validation:
        """From predicted and measured milliseconds of the same networks."""
        ratio = 100 * (np.array(predicted) / np.array(measured) - 1)
        return cls(
            len(measured),
            round(float(np.abs(ratio).mean()), 2),
            round(float(ratio.mean()), 2),
            round(float((np.abs(ratio) <= 5).mean() * 100), 1),
            round(float((np.abs(ratio) <= 10).mean() * 100), 1),
            round(float(spearmanr(predicted, measured).statistic), 4),
        )

    def __str__(self) -> str:
        return (
            f"{self.networks} networks: mean error {self.mape_percent} % (bias {self.bias_percent:+} %), "
            f"{self.within_5_percent} % within 5 %, {self.within_10_percent} % within 10 %, Spearman {self.spearman}"
        )


def validate_table(
    settings: ProfileSettings, table_path: Path, progress: Progress = print, runtime: Runtime | None = None
) -> Validation:
    """Time `validation_networks` random networks, none of which made the table, and write the result into its header.

    They are spread evenly over the latencies of the space (`spread_over_range`): a uniform draw crowds in the middle,
    where ranks are decided by the noise of the device, and leaves the ends of the range untested. All milliseconds are
    per image. Beside the table lie
    `<name>_validation.csv` and a scatter plot. Raises UserError for a table of another runtime, batch, precision or
    device.
    """
    header, body = read_table(table_path)
    runtime = runtime or open_runtime(settings.runtime, settings.threads, settings.batch)
    header.require(batch=runtime.batch, precision=runtime.precision, device=runtime.device())
    if header.runtime != runtime.name:
        raise UserError(f"{table_path} was measured with {header.runtime}, not {runtime.name}")
    table = LatencyTable.load(table_path)
    used = {
        digest(item.spec) for item in MeasurementStore(settings.output, runtime, settings.changed_space).measurements
    }
    settings = replace(settings, image_size=settings.image_size or header.image_sizes)
    pool = settings.random_detectors(POOL * settings.validation_networks, settings.seed + SEED_STEP)
    unseen = [spec for group in pool for spec in group if digest(spec) not in used]
    expected = [float(table.total(operations(spec, "folded"))) for spec in unseen]
    specs = [unseen[place] for place in spread_over_range(expected, settings.validation_networks)]
    predicted, measured, lines = [], [], ["digest,predicted_ms,measured_ms,spread_percent"]
    for number, spec in enumerate(specs, 1):
        item = runtime.measure(spec, settings.repetitions, kernels=False)
        predicted.append(float(table.total(operations(spec, "folded"))))
        measured.append(item.ms / runtime.batch)
        lines.append(f"{digest(spec)},{predicted[-1]:.4f},{measured[-1]:.4f},{item.spread_percent:.2f}")
        progress(f"network {number} of {len(specs)}: predicted {predicted[-1]:.2f}, measured {measured[-1]:.2f} ms")
    result = Validation.of(predicted, measured)
    by_size: dict[str, float] = {}
    for side in sorted({spec.image_size for spec in specs}):
        shares = [
            abs(p / m - 1) for spec, p, m in zip(specs, predicted, measured, strict=True) if spec.image_size == side
        ]
        by_size[str(side)] = round(100 * float(np.mean(shares)), 2)
    write_results(settings, table_path, header, body, result, by_size, predicted, measured, lines)
    return result


def spread_over_range(values: Sequence[float], count: int) -> list[int]:
    """Places of `count` values nearest to a geometric ladder from the smallest to the largest, each place once."""
    free = set(range(len(values)))
    chosen = []
    for target in np.geomspace(min(values), max(values), min(count, len(values))):
        place = min(free, key=lambda i: (abs(values[i] - target), i))
        free.remove(place)
        chosen.append(place)
    return chosen


def write_results(
    settings: ProfileSettings,
    table_path: Path,
    header: Any,
    body: dict[str, Any],
    result: Validation,
    by_size: dict[str, float],
    predicted: Sequence[float],
    measured: Sequence[float],
    lines: Sequence[str],
) -> None:
    """Header of the table, CSV and picture."""
    from nas.files import write_atomic
    from nas.report.evaluation_plots import save_scatter

    kept: dict[str, Any] = {
        key: body[key] for key in ("hardware", "parameters", "kernels", "line", "columns", "rows") if key in body
    }
    on = "random networks over the whole range, not used for the table"
    validation = asdict(result) | {"mape_percent_by_image_size": by_size, "on": on}
    write_table(table_path, replace(header, validation=validation), kept)
    stem = settings.output / f"{header.name}_validation"
    write_atomic(stem.with_suffix(".csv"), "\n".join(lines) + "\n")
    save_scatter(stem.with_suffix(".png"), predicted, measured, f"{header.name}: {result}")
