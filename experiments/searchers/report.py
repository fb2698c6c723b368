"""What the runs of searchers come to: a table with 95 % intervals, and curves of the best so far."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.page import write_part
from experiments.result_plots import interval
from experiments.searchers.problems import CASES
from nas.report.canvas import INK, QUIET, SERIES, canvas, label, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES: Mapping[str, str] = {
    "random": "random", "evolution": "evolution", "nsga2": "NSGA-II", "optuna": "TPE (Optuna)", "exact": "exact"
}  # fmt: skip
Rows = Sequence[Mapping[str, str]]


def optimum_of(rows: Rows, case: str) -> float | None:
    """The proved optimum of a case; None where exact search has no row yet."""
    return next((float(row["best"]) for row in rows if row["case"] == case and row["searcher"] == "exact"), None)


def runs_of(rows: Rows, case: str, searcher: str) -> Rows:
    """The runs of a searcher on a case."""
    return [row for row in rows if row["case"] == case and row["searcher"] == searcher]


def table(rows: Rows) -> str:
    """A line a case and searcher: the best at the end in percent of the optimum, and what it took to within 1 %."""
    heads = ("problem", "searcher", "runs", "evaluations", "best, % of the optimum", "within 1 %", "evaluations to 1 %",
             "CPU s to 1 %", "CPU s")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for case in CASES:
        optimum = optimum_of(rows, case)
        for searcher, name in NAMES.items():
            runs = runs_of(rows, case, searcher)
            if optimum is None or not runs:
                continue
            mean, half = interval([100 * float(run["best"]) / optimum for run in runs if run["best"]] or [float("nan")])
            close = [run for run in runs if run["seconds_to_1"]]
            cells = [case, name, str(len(runs)), _span([run["evaluations"] for run in runs]), _about(mean, half),
                     f"{len(close)} of {len(runs)}", _middle(close, "evaluations_to_1", len(runs), 0),
                     _middle(close, "seconds_to_1", len(runs), 1), _middle(runs, "seconds", len(runs), 1)]  # fmt: skip
            if searcher == "exact":
                cells[4], cells[6] = f"100 (proved: {float(runs[0]['optimum']) - optimum:.0e} below its bound)", ""
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _about(mean: float, half: float) -> str:
    """A mean with the half width of its interval, where there are several runs."""
    return f"{mean:.2f}" if math.isnan(half) else f"{mean:.2f} ± {half:.2f}"


def _span(counts: Sequence[str]) -> str:
    known = sorted({int(count) for count in counts if count})
    return "" if not known else f"{known[-1]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"


def _middle(runs: Rows, column: str, count: int, digits: int) -> str:
    """The median over all runs, those that never arrived counting as the longest."""
    values = [float(run[column]) for run in runs if run[column]]
    padded = sorted(values) + [float("inf")] * (count - len(values))
    middle = statistics.median(padded) if padded else float("inf")
    return f"{middle:,.{digits}f}" if middle < float("inf") else "more"


def curve_of(runs: Rows, optimum: float) -> list[tuple[int, float, float]]:
    """(evaluations, mean best in percent of the optimum, half width of its 95 % interval) where every run has a best."""
    curves = [dict(point.split(":") for point in run["curve"].split(";") if point) for run in runs]
    counts = sorted({int(count) for curve in curves for count in curve})
    found = []
    for count in counts:
        if all(str(count) in curve for curve in curves):
            found.append((count, *interval([100 * float(curve[str(count)]) / optimum for curve in curves])))
    return found


def draw(rows: Rows, path: Path) -> Path:
    """A panel a case: mean best so far with its interval over evaluations, and the proved optimum."""
    cases = [case for case in CASES if optimum_of(rows, case) is not None]
    figure, (panels,) = canvas(1, max(1, len(cases)), 3.1 * max(1, len(cases)), 3.0)
    for axes, case in zip(panels, cases, strict=False):
        _panel(axes, case, rows)
    if cases:
        panels[0].set_ylabel("best so far, % of the optimum", fontsize=9)
        panels[0].legend(fontsize=7, frameon=False, loc="lower right")
    return save_png(figure, path)


def _panel(axes: Axes, case: str, rows: Rows) -> None:
    optimum = optimum_of(rows, case)
    assert optimum is not None
    for (searcher, name), colour in zip(NAMES.items(), SERIES, strict=False):
        points = curve_of(runs_of(rows, case, searcher), optimum) if searcher != "exact" else []
        if points:
            counts, means, halves = zip(*points, strict=True)
            axes.plot(counts, means, "-", color=colour, lw=1.4, label=name)
            low = [mean - half for mean, half in zip(means, halves, strict=True)]
            high = [mean + half for mean, half in zip(means, halves, strict=True)]
            axes.fill_between(counts, low, high, color=colour, alpha=0.2, lw=0)
    axes.axhline(100, color=INK, lw=0.8)
    axes.axhline(99, color=QUIET, lw=0.8, ls=":")
    axes.set_xscale("log")
    axes.set_ylim(max(axes.get_ylim()[0], 70), 100.8)
    label(axes, case, "evaluations", "")


def write_report(folder: Path, rows: Rows) -> None:
    """The part of the page between its marks, and curves.png."""
    write_part(folder / "README.md", "searchers", table(rows))
    draw(rows, folder / "curves.png")
