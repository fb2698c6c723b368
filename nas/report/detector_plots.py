"""The files of a comparison, and its pictures: quality against milliseconds, FLOPs and parameters, with the Pareto front."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.files import write_atomic
from nas.report.canvas import INK, PALE, canvas, figure_html, html_table, label, page, save_png
from nas.report.detector_table import (
    COLUMNS,
    DIFFERENCES,
    Entry,
    comparison_csv,
    comparison_markdown,
    shown_columns,
    source_letters,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COSTS = {"predicted_ms": "predicted latency, ms", "flops_g": "GFLOPs", "params_m": "parameters, M"}
#: Qualities in order of preference: the first that two entries have is drawn.
QUALITIES = {"ap": "AP (our run, else published)", "score": "training-free score"}
COLOURS = ("#0b7285", "#d9480f", "#5f3dc4", "#2b8a3e", "#e67700", "#1864ab", "#a61e4d", "#495057", "#087f5b")


def write_comparison(entries: Sequence[Entry], title: str, folder: Path, notes: Sequence[str] = ()) -> str:
    """Write compare.md, compare.csv, compare.png and compare.html into `folder`; returns the Markdown."""
    text = comparison_markdown(entries, title, notes)
    write_atomic(folder / "compare.md", text)
    write_atomic(folder / "compare.csv", comparison_csv(entries))
    draw_comparison(entries, title, folder / "compare.png")
    write_comparison_page(entries, title, folder / "compare.html", notes)
    return text


def quality_of(entry: Entry, wanted: str) -> float | None:
    """The entry's quality: AP of our own run before the published one, or its score."""
    if wanted == "score":
        return entry.value("score")
    own = entry.value("ap_own")
    return own if own is not None else entry.value("ap_published")


def chosen_quality(entries: Sequence[Entry]) -> str | None:
    """What the pictures have on their upright axis; None if no two entries can be compared."""
    return next((key for key in QUALITIES if sum(quality_of(entry, key) is not None for entry in entries) > 1), None)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, quality) that no cheaper or equally cheap point matches, by increasing cost."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for index in order:
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def drawn_points(entries: Sequence[Entry], cost: str, quality: str) -> tuple[list[Entry], list[tuple[float, float]]]:
    """The entries that have both numbers, and their points (cost, quality)."""
    drawn, points = [], []
    for entry in entries:
        x, y = entry.value(cost), quality_of(entry, quality)
        if entry.drawn and x is not None and y is not None:
            drawn.append(entry)
            points.append((x, y))
    return drawn, points


def families(entries: Sequence[Entry]) -> dict[str, str]:
    """A colour for each family."""
    names = dict.fromkeys(entry.family for entry in entries)
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def draw_comparison(entries: Sequence[Entry], title: str, path: Path) -> Path | None:
    """Write a PNG of quality against each cost; None where there is nothing to draw."""
    quality = chosen_quality(entries)
    costs = [cost for cost in COSTS if any(cost in entry.figures for entry in entries)]
    if quality is None or not costs:
        return None
    figure, grid = canvas(1, len(costs), 5.2 * len(costs), 4.6)
    for axes, cost in zip(grid[0], costs, strict=True):
        _panel(axes, entries, cost, quality)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    return save_png(figure, path)


def _panel(axes: Axes, entries: Sequence[Entry], cost: str, quality: str) -> None:
    drawn, points = drawn_points(entries, cost, quality)
    front = pareto_front(points)
    axes.plot([points[i][0] for i in front], [points[i][1] for i in front], color=PALE, lw=2, zorder=0)
    colours, seen = families(entries), set()
    for entry, (x, y) in zip(drawn, points, strict=True):
        name = None if entry.family in seen else entry.family
        seen.add(entry.family)
        axes.errorbar(
            x, y, xerr=entry.figures[cost].error, fmt="o", ms=4, lw=0.7, color=colours[entry.family], label=name
        )
        axes.annotate(entry.name, (x, y), fontsize=5.5, xytext=(3, 2), textcoords="offset points")
    axes.set_xscale("log")
    for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="x", which="minor", labelsize=6)
    if drawn:
        axes.legend(fontsize=6, frameon=False, loc="lower right")
    label(axes, "", COSTS[cost], QUALITIES[quality])


def write_comparison_page(entries: Sequence[Entry], title: str, path: Path, notes: Sequence[str] = ()) -> Path:
    """Write the interactive page: the pictures with a menu of costs, and the table with every number's source."""
    letters = source_letters(entries)
    body: list[str] = []
    quality = chosen_quality(entries)
    if quality is not None:
        body.append(figure_html(_figure(entries, quality), inline=True))
    body.append(html_table([_row(entry, shown_columns(entries), letters) for entry in entries]))
    body += [f"<p class='note'>[{letter}] {html.escape(source)}</p>" for source, letter in letters.items()]
    body += [f"<p>{html.escape(note)}</p>" for note in notes]
    return write_atomic(path, page(title, body))


def _row(entry: Entry, columns: Sequence[str], letters: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"detector": entry.name, "px": entry.image_size}
    for column in columns:
        figure = entry.figures.get(column)
        heading, decimals = COLUMNS[column]
        if column in DIFFERENCES:
            heading = f"{COLUMNS[DIFFERENCES[column][0]][0]} off, %"
        letter = "" if figure is None or column in DIFFERENCES else f" [{letters[figure.source]}]"
        row[heading] = "" if figure is None else f"{figure.value:.{decimals}f}{letter}"
    return row


def _figure(entries: Sequence[Entry], quality: str) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure(layout={"template": "plotly_white", "height": 560, "yaxis_title": QUALITIES[quality]})
    colours = families(entries)
    costs = [cost for cost in COSTS if any(cost in entry.figures for entry in entries)]
    owners: list[str] = []
    for cost in costs:
        drawn, points = drawn_points(entries, cost, quality)
        front = pareto_front(points)
        figure.add_scatter(x=[points[i][0] for i in front], y=[points[i][1] for i in front], mode="lines",
                           name="Pareto front", line={"color": PALE, "width": 3}, visible=cost == costs[0])  # fmt: skip
        owners.append(cost)
        for family, colour in colours.items():
            rows = [i for i, entry in enumerate(drawn) if entry.family == family]
            errors = [drawn[i].figures[cost].error or 0.0 for i in rows]
            figure.add_scatter(
                x=[points[i][0] for i in rows], y=[points[i][1] for i in rows], mode="markers+text", name=family,
                text=[drawn[i].name for i in rows], textposition="top center", textfont={"size": 9},
                error_x={"array": errors, "visible": any(errors)}, marker={"size": 9, "color": colour},
                hovertext=[f"{drawn[i].name}: {drawn[i].figures[cost].source}" for i in rows],
                visible=cost == costs[0],
            )  # fmt: skip
            owners.append(cost)
    buttons = [
        {
            "label": COSTS[cost],
            "method": "update",
            "args": [{"visible": [owner == cost for owner in owners]}, {"xaxis.title.text": COSTS[cost]}],
        }
        for cost in costs
    ]
    figure.update_layout(updatemenus=[{"buttons": buttons, "x": 1, "y": 1.12, "xanchor": "right"}])
    figure.update_xaxes(type="log", title_text=COSTS[costs[0]] if costs else "")
    return figure
