"""Pictures of a search as PNG: its course, the cloud of candidates, the winner, the winner's milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.report.canvas import ACCENT, BOUND_COLOURS, INK, PALE, WARM, canvas, label, save_png
from nas.report.search import SearchRecord, axis_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_search(record: SearchRecord, folder: Path) -> list[Path]:
    """Write the pictures of a search into `folder`; returns their paths."""
    written = [save_png(_course(record), folder / "score.png")]
    written.append(save_png(_cloud(record, record.costs()), folder / "cloud.png"))
    written.append(save_png(_winner(record), folder / "winner.png"))
    if record.prices:
        written.append(save_png(_prices(record), folder / "latency.png"))
    return written


def _course(record: SearchRecord) -> Figure:
    figure, grid = canvas(1, 1, 7, 3.6)
    axes = grid[0, 0]
    curve = record.best_curve
    feasible = record.columns["feasible"] > 0
    axes.plot(record.columns["evaluation"][feasible], record.columns["score"][feasible], ".", ms=2, color=PALE)
    if len(curve):
        last = max(record.columns["evaluation"].max(), curve[-1, 0])
        axes.step([*curve[:, 0], last], [*curve[:, 1], curve[-1, 1]], where="post", color=ACCENT, lw=1.6)
    label(axes, f"{record.title}: best {record.scorer} score so far", "evaluations", f"{record.scorer} score")
    return figure


def _cloud(record: SearchRecord, metrics: list[str]) -> Figure:
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure, grid = canvas(rows, columns, 4.2 * columns, 3.3 * rows)
    feasible = record.columns["feasible"] > 0
    for axes, metric in zip(grid.flat, metrics, strict=False):
        x, y = record.columns[metric], record.columns["score"]
        axes.plot(x[~feasible], y[~feasible], ".", ms=1.5, color="#e9e2db")
        axes.plot(x[feasible], y[feasible], ".", ms=2, color=PALE)
        for mark in record.marks:
            if metric in mark.metrics:
                axes.plot(mark.metrics[metric], mark.score, "D", ms=4, color=INK)
                axes.annotate(mark.name, (mark.metrics[metric], mark.score), fontsize=6, xytext=(3, 3),
                              textcoords="offset points")  # fmt: skip
        axes.plot(record.winner[metric], record.winner["score"], "*", ms=11, color=WARM)
        for end in record.ends(metric):
            axes.axvline(end, color=WARM, lw=0.8, ls="--")
        label(axes, "", axis_label(metric), f"{record.scorer} score")
    for axes in list(grid.flat)[len(metrics) :]:
        axes.set_visible(False)
    return figure


def _winner(record: SearchRecord) -> Figure:
    figure, grid = canvas(1, 1, 8, 0.42 * len(record.parts) + 1.2)
    axes = grid[0, 0]
    widest = max(part.out for part in record.parts)
    for row, part in enumerate(record.parts):
        for unit in range(part.depth):
            axes.barh(row, part.out / widest, left=unit * 1.05, height=0.72, color=ACCENT if part.stride == 1 else INK)
        text = f"{part.shape}  x{part.depth}" + (f"  {part.ms:.3f} ms" if part.ms else "")
        axes.annotate(text, (part.depth * 1.05 + 0.05, row), va="center", fontsize=7)
    axes.set_yticks(range(len(record.parts)), [part.name for part in record.parts], fontsize=8)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_xlim(0, max(part.depth for part in record.parts) * 1.05 + 2.2)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(
        "the winner: a bar is a unit, its length the width; dark blocks halve the map", loc="left", fontsize=9
    )
    return figure


def _prices(record: SearchRecord) -> Figure:
    figure, grid = canvas(1, 1, 9, 3.4)
    axes = grid[0, 0]
    for index, row in enumerate(record.prices):
        axes.bar(index, 1000 * float(row["ms"]), color=BOUND_COLOURS.get(str(row.get("bound")), INK), width=1.0)
    for bound, colour in BOUND_COLOURS.items():
        axes.bar([0], [0], color=colour, label=f"{bound}-bound")
    axes.legend(fontsize=7, frameon=False)
    label(axes, "the winner's latency, operation by operation", "operation in execution order", "microseconds")
    return figure
