"""The rows of a benchmark: a JSON record each, the table as CSV, the verdict in sentences, the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.files import csv_text, read_json, write_json
from nas.measure.artefact import Interval, Parity, Stages
from nas.options import read_object
from nas.report.canvas import SERIES, Shown, canvas, label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGES = ("preprocess", "network", "postprocess", "frame")
#: Points of AP that the picture spans at least.
SPAN = 4.0
#: The times of a row that could not run.
ENDLESS = Interval(float("inf"), float("inf"), float("inf"))
#: Points of AP that a deployed file may lose against torch in float32 before it is not recommended.
MOST_LOST = 0.5


@dataclass(frozen=True)
class Row:
    """A detector in one format and precision: what its file is worth, or in `reason` why there is none.

    ap and ap50 in [0, 1], of `images`; milliseconds by stage, one image at a time; parity:
    detections found again against torch in float32 (None: this is torch in float32); host: processor, versions, date.
    """

    format: str
    precision: str
    reason: str = ""
    file: str = ""
    megabytes: float | None = None
    ap: float | None = None
    ap50: float | None = None
    images: int = 0
    milliseconds: Stages | None = None
    memory_mb: float | None = None
    parity: Parity | None = None
    threads: int = 1
    device: str = "cpu"
    seconds: float = 0.0
    host: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.format} {self.precision}"

    def times(self, stage: str) -> Interval:
        """Milliseconds of one of STAGES; infinite where nothing was timed."""
        return getattr(self.milliseconds, stage, ENDLESS)

    def ms(self, stage: str = "frame") -> float:
        """Median milliseconds of a stage."""
        return self.times(stage).median


@dataclass(frozen=True)
class Benchmark(Shown):
    """A detector in every format and precision that was asked for, torch in float32 first.

    data: name and split that were scored. The picture has AP over the milliseconds of a whole frame.
    """

    folder: Path
    model: str
    data: str
    rows: tuple[Row, ...]

    @property
    def done(self) -> tuple[Row, ...]:
        """The rows that could run."""
        return tuple(row for row in self.rows if not row.reason)

    def lost(self, row: Row) -> float:
        """Points of AP below torch in float32; 0 where either is not known."""
        plain = next((one for one in self.done if (one.format, one.precision) == ("torch", "fp32")), None)
        return 0.0 if plain is None or plain.ap is None or row.ap is None else round(100 * (plain.ap - row.ap), 4)

    def recommended(self, row: Row) -> bool:
        """Whether a row runs and keeps the AP of torch in float32 to half a point."""
        return not row.reason and self.lost(row) <= MOST_LOST

    @property
    def best(self) -> Row | None:
        """The fastest recommended row, by whole frames."""
        return min(filter(self.recommended, self.rows), key=Row.ms, default=None)

    def __repr__(self) -> str:
        best = f"; fastest: {self.best.name}, {self.best.ms():.2f} ms a frame" if self.best else ""
        return f"Benchmark({self.model} on {self.data}: {len(self.done)} of {len(self.rows)} rows{best})"

    def to_dict(self) -> dict[str, object]:
        rows = [asdict(row) | {"lost": self.lost(row), "recommended": self.recommended(row)} for row in self.rows]
        return {"model": self.model, "data": self.data, "rows": rows}

    def plot(self) -> Figure:
        figure, ((axes,),) = canvas(1, 1, 7, 4)
        for row, colour in zip(self.done, SERIES * 9, strict=False):
            frame, mark = row.times("frame"), "o" if self.recommended(row) else "x"
            error = [[frame.median - frame.low], [frame.high - frame.median]]
            axes.errorbar(frame.median, 100 * (row.ap or 0.0), xerr=error, fmt=mark, color=colour, label=row.name)
        if self.done:
            axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        low, high = axes.get_ylim()
        spare = max(0.0, SPAN - (high - low)) / 2  # differences of hundredths are to look like that
        axes.set_ylim(low - spare, high + spare)
        label(axes, f"{self.model} on {self.data}", "milliseconds of a frame", "AP")
        return figure


def read_row(path: Path) -> Row:
    """The record of a row; UserError naming the file if it is damaged."""
    return read_object(Row, read_json(path), f"{path}:")


def write_row(path: Path, row: Row) -> Path:
    """Store a row as JSON."""
    return write_json(path, asdict(row))


def table_rows(result: Benchmark) -> list[dict[str, object]]:
    """A dictionary a row, for CSV and page: AP in percent, milliseconds as medians with their quartiles."""
    rows: list[dict[str, object]] = []
    for row in result.rows:
        known: dict[str, object] = {"format": row.format, "precision": row.precision}
        known["AP"] = None if row.ap is None else round(100 * row.ap, 2)
        known["AP50"] = None if row.ap50 is None else round(100 * row.ap50, 2)
        known["lost"] = None if row.reason else round(result.lost(row), 2)
        for stage in STAGES:
            times = row.times(stage)
            known[f"{stage} ms"] = None if row.reason else round(times.median, 3)
            known[f"{stage} quartiles"] = None if row.reason else f"{times.low:.3f} to {times.high:.3f}"
        known["matched %"] = row.parity and round(100 * row.parity.matched, 1)
        known["detections"] = row.parity and row.parity.detections
        known |= {"file MB": row.megabytes, "memory MB": row.memory_mb, "threads": row.threads, "device": row.device}
        known["remark"] = row.reason or ("" if result.recommended(row) else "not recommended")
        rows.append(known)
    return rows


def table_csv(result: Benchmark) -> str:
    """The table as CSV."""
    rows = table_rows(result)
    return csv_text([list(rows[0]), *(["" if value is None else value for value in row.values()] for row in rows)])


def verdict_lines(result: Benchmark) -> list[str]:
    """What came out, in sentences, the most important first."""
    lines = []
    best, plain = result.best, result.rows[0]
    if best is not None:
        lines.append(
            f"{best.name} is the fastest that keeps the AP: {best.ms():.2f} ms a frame ({best.ms('network'):.2f} ms of it "
            f"the network), AP {100 * (best.ap or 0.0):.1f} on {result.data}."
        )
        if best != plain and not plain.reason:
            lines.append(
                f"torch fp32: {plain.ms():.2f} ms a frame, AP {100 * (plain.ap or 0.0):.1f}; {best.name} is "
                f"{plain.ms() / best.ms():.1f} times as fast and {_change(result.lost(best))}."
            )
    else:
        lines.append("No row could be measured and recommended; the reasons stand below.")
    lines += [
        f"Not recommended: {row.name}, which loses {result.lost(row):.1f} AP."
        for row in result.done
        if not result.recommended(row)
    ]
    return (
        lines + [f"Could not run: {row.name}: {row.reason}." for row in result.rows if row.reason] + _busy(result.done)
    )


def _change(lost: float) -> str:
    """What a row loses or gains, in words."""
    return f"loses {lost:.2f} AP" if lost > 0 else f"has {-lost:.2f} AP more" if lost < 0 else "has the same AP"


def _busy(rows: Sequence[Row]) -> list[str]:
    """A reservation where the machine had other work than this."""
    loads = [float(row.host.get("load_average", 0.0)) for row in rows]
    cores = max((int(row.host.get("cores", 1)) for row in rows), default=1)
    if not loads or max(loads) <= cores:
        return []
    return [
        f"The machine was busy (load up to {max(loads):.1f} on {cores} cores): its milliseconds are to be taken again in quiet."
    ]
