"""One search a limit: the best network under each of several budgets, in one run with one table and one picture."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from nas.commands.search_files import published_marks
from nas.commands.search_screen import search_with_screen
from nas.cost.budget import Budget, Limited
from nas.cost.latency import LatencyTable
from nas.errors import UserError, shown
from nas.files import read_json, write_atomic
from nas.options import Positive, check_value
from nas.report.canvas import INK, WARM, canvas, label, save_png
from nas.report.search import axis_label
from nas.searchers.settings import SearchSettings

#: Limits of one curve.
MOST = 1000
#: What curve.csv tells of every point beside the limit.
COLUMNS = ("status", "score", "latency_ms", "flops_g", "params_m", "layers", "rho", "digest", "folder", "told")
#: A row of curve.csv, by column.
Point = dict[str, float | str]


@dataclass(frozen=True)
class Curve:
    """The metric that is limited, and its limits from the tightest to the loosest."""

    metric: str
    limits: tuple[float, ...]

    @classmethod
    def of(cls, given: object) -> Curve:
        """From `metric:first:last:count` (evenly spaced) or [metric, limit, ...]; UserError for anything else."""
        parts = list(given) if isinstance(given, list | tuple) else str(given).split(":")
        metric, values = str(parts[0]), list[Any](parts[1:])
        try:
            Limited.of(metric)
        except UserError as error:
            raise UserError(f"curve={shown(given)}: {error}") from None
        if not isinstance(given, list | tuple):
            count = values[2] if len(values) == 3 else ""
            if not (count.isdigit() and 2 <= int(count) <= MOST):
                raise UserError(f"curve={given}: write curve={metric}:FIRST:LAST:COUNT, such as curve={metric}:1.5:6:10, "
                                f"with 2 to {MOST} limits")  # fmt: skip
            first, last = (_limit(metric, text) for text in values[:2])
            values = [round(float(value), 6) for value in np.linspace(first, last, int(count))]
        limits = sorted({_limit(metric, value) for value in values})
        if not 1 <= len(limits) <= MOST:
            raise UserError(f"curve={shown(given)}: give one to {MOST} limits behind the metric")
        return cls(metric, tuple(limits))


def _limit(metric: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    return float(check_value(f"a limit of the curve on {metric}", number, Positive))


def search_along(settings: SearchSettings, curve: Curve, folder: Path, progress: bool) -> list[Point]:
    """Search under every limit, each in a folder of its own below `folder`, and write curve.csv and curve.png.

    settings: whose other limits hold everywhere. A point that is done is read back; one that nothing fits is told in the
    table. Raises KeyboardInterrupt after a signal, with everything kept.
    """
    console, rows = Console(), list[Point]()
    curve = replace(curve, metric=Budget.of({curve.metric: 1.0}, settings.hardware).metrics[0])
    name = re.sub(r"[^\w.@-]", "_", curve.metric)
    for number, limit in enumerate(curve.limits, 1):
        place = folder / "points" / f"{number:03}-{name}-{limit:g}"
        budget = Budget.of(dict(settings.budget.limits) | {curve.metric: limit})
        if not _done(place, settings.evaluations):
            console.rule(f"{curve.metric} <= {limit:g} ({number} of {len(curve.limits)})")
            try:
                search_with_screen(replace(settings, budget=budget), place, progress)
            except UserError as error:
                rows.append({curve.metric + "_limit": limit, "status": "nothing", "told": str(error)})
                continue
        rows.append({curve.metric + "_limit": limit, **row_of(place, folder)})
    write_atomic(folder / "curve.csv", table_of(rows, curve.metric))
    draw_curve(rows, curve, settings, folder / "curve.png")
    found = [row for row in rows if row["status"] != "nothing"]
    proved = sum(row["status"] == "proved" for row in rows)
    console.print(f"curve     {len(found)} of {len(rows)} limits have a network, {proved} proved: {folder}/curve.csv, curve.png",
                  highlight=False, soft_wrap=True)  # fmt: skip
    if not found:
        raise UserError(f"nothing fits any limit of the curve: {rows[-1]['told']}")
    return rows


def _done(place: Path, evaluations: int) -> bool:
    """Whether the search of a point has come to its end."""
    if not (place / "summary.json").is_file():
        return False
    known = _summary(place)
    return not known["interrupted"] and known["provenance"]["evaluations"] == evaluations


def _summary(place: Path) -> Any:
    """What `nas.commands.search_files.summary` told of a search."""
    return read_json(place / "summary.json")


def row_of(place: Path, folder: Path) -> Point:
    """What a finished search says of its point."""
    known = _summary(place)
    status = "unproven" if known["unproven"] or not known["proof"] else "proved"
    return {
        "status": status,
        **{name: value for name, value in known["best"].items() if name in (*COLUMNS, *known["limits"])},
        "folder": str(place.relative_to(folder)),
        "told": known["proof"] or known["unproven"] or "",
    }


def table_of(rows: Sequence[Point], metric: str) -> str:
    """curve.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, (f"{metric}_limit", *COLUMNS), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def draw_curve(rows: Sequence[Point], curve: Curve, settings: SearchSettings, path: Path) -> Path:
    """Score over the limited metric: proved optima, unproven ones, and the published networks beside them."""
    figure, grid = canvas(1, 1, 8.0, 5.0)
    axes = grid[0, 0]
    found = [row for row in rows if row["status"] != "nothing"]
    axes.plot([row[curve.metric] for row in found], [row["score"] for row in found], color=WARM, lw=1)
    for status, face in (("proved", WARM), ("unproven", "white")):
        chosen = [row for row in found if row["status"] == status]
        if not chosen:
            continue
        axes.plot([row[curve.metric] for row in chosen], [row["score"] for row in chosen], "o", ms=6, mec=WARM, mfc=face,
                  label=status)  # fmt: skip
    low, high = 0.5 * curve.limits[0], 1.5 * curve.limits[-1]
    for name, score, metrics in published_marks(settings, LatencyTable.load(settings.hardware)):
        if low <= metrics.get(curve.metric, math.inf) <= high:
            axes.plot(metrics[curve.metric], score, "D", ms=5, color=INK)
            axes.annotate(name, (metrics[curve.metric], score), fontsize=8, xytext=(5, 4), textcoords="offset points")
    label(
        axes, "the highest-scoring network under every limit", axis_label(curve.metric), f"{settings.scorer_name} score"
    )
    axes.legend(fontsize=9, frameon=False)
    return save_png(figure, path)
