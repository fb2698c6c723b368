"""How far a table is from the device: whole random networks that it has not seen, predicted and timed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from nas.cost.latency import LatencyTable
from nas.cost.table_file import read_table, write_table
from nas.errors import UserError
from nas.files import write_atomic
from nas.lowering import operations
from nas.measure import open_runtime
from nas.measure.measurement import Runtime
from nas.measure.profiler import MeasurementStore, ProfileSettings, Progress
from nas.spec import DetectorSpec, digest

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


class Timed(NamedTuple):
    """A network that the table has not seen: predicted and measured milliseconds an image, spread of the repetitions."""

    spec: DetectorSpec
    predicted: float
    measured: float
    spread_percent: float


def validate_table(
    settings: ProfileSettings, table_path: Path, progress: Progress = print, runtime: Runtime | None = None
) -> Validation:
    """Time `validation_networks` random networks, none of which made the table, and write the result into its header.

    They are spread evenly over the latencies of the space (`spread_over_range`): a uniform draw crowds in the middle,
    where ranks are decided by the noise of the device, and leaves the ends of the range untested. All milliseconds are
    per image. Beside the table lie `<name>_validation.csv` and a scatter plot. Raises UserError for a table of another
    runtime, batch, precision or device.
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
    timed = []
    for number, spec in enumerate(specs, 1):
        item = runtime.measure(spec, settings.repetitions, kernels=False)
        predicted = float(table.total(operations(spec, "folded")))
        timed.append(Timed(spec, predicted, item.ms / runtime.batch, item.spread_percent))
        progress(f"network {number} of {len(specs)}: predicted {predicted:.2f}, measured {timed[-1].measured:.2f} ms")
    result = Validation.of([item.predicted for item in timed], [item.measured for item in timed])
    # What the table says of itself stays as it is but for the error.
    parts: tuple[str, ...] = ("hardware", "parameters", "kernels", "line", "postprocess", "columns", "rows")
    kept = {key: body[key] for key in parts if key in body}
    on = "random networks over the whole range, not used for the table"
    told = asdict(result) | {"mape_percent_by_image_size": error_by_size(timed), "on": on}
    write_table(table_path, replace(header, validation=told), kept)
    draw_validation(settings.output / f"{header.name}_validation", timed, f"{header.name}: {result}")
    return result


def error_by_size(timed: Sequence[Timed]) -> dict[str, float]:
    """Mean error in percent at each image size."""
    shares: dict[int, list[float]] = defaultdict(list)
    for item in timed:
        shares[item.spec.image_size].append(abs(item.predicted / item.measured - 1))
    return {str(side): round(100 * float(np.mean(shares[side])), 2) for side in sorted(shares)}


def spread_over_range(values: Sequence[float], count: int) -> list[int]:
    """Places of `count` values nearest to a geometric ladder from the smallest to the largest, each place once."""
    free = set(range(len(values)))
    chosen = []
    for target in np.geomspace(min(values), max(values), min(count, len(values))):
        place = min(free, key=lambda i: (abs(values[i] - target), i))
        free.remove(place)
        chosen.append(place)
    return chosen


def draw_validation(stem: Path, timed: Sequence[Timed], title: str) -> None:
    """`stem`.csv and `stem`.png of what was predicted and timed."""
    from nas.report.evaluation_plots import save_scatter

    lines = ["digest,predicted_ms,measured_ms,spread_percent"]
    lines += [f"{digest(t.spec)},{t.predicted:.4f},{t.measured:.4f},{t.spread_percent:.2f}" for t in timed]
    write_atomic(stem.with_suffix(".csv"), "\n".join(lines) + "\n")
    save_scatter(stem.with_suffix(".png"), [t.predicted for t in timed], [t.measured for t in timed], title)
