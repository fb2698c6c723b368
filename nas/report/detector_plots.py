"""The files of a comparison, and its pictures: quality against milliseconds, FLOPs and parameters, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.files import write_atomic
from nas.report.canvas import INK, PALE, QUIET, SERIES, canvas, label, save_png
from nas.report.detector_table import (
    COLUMNS,
    DIFFERENCES,
    Entry,
    FrontierRow,
    comparison_csv,
    comparison_markdown,
    figure_cell,
    frontier_markdown,
    frontier_rows,
    shown_columns,
    source_letters,
)
from nas.report.page import figure_html, fold, html_table, note, page, plot, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from plotly import graph_objects

COSTS = {"predicted_ms": "predicted latency, ms", "flops_g": "GFLOPs", "params_m": "parameters, M"}
#: Qualities in order of preference: the first that two entries have is drawn.
QUALITIES = {"ap": "AP (our run, else published)", "score": "training-free score"}
#: Networks without a quality that stand in the pictures as lines.
LINES = 8


def write_comparison(
    entries: Sequence[Entry],
    title: str,
    folder: Path,
    notes: Sequence[str] = (),
    frontier: Sequence[FrontierRow] = (),
) -> str:
    """Write compare.md, compare.csv, compare.png and compare.html into `folder`; returns the Markdown of the table.

    frontier: rows that are drawn beside the entries; the files list the frontier always.
    """
    text = comparison_markdown(entries, title, notes)
    write_atomic(folder / "compare.md", f"{text}\n{frontier_markdown()}")
    write_atomic(folder / "compare.csv", comparison_csv(entries))
    draw_comparison(entries, title, folder / "compare.png", frontier)
    write_comparison_page(entries, title, folder / "compare.html", notes, frontier)
    return text


def quality_of(entry: Entry, wanted: str) -> float | None:
    """The entry's quality: AP of our own run before the published one, or its score."""
    if wanted == "score":
        return entry.value("score")
    own = entry.value("ap_own")
    return own if own is not None else entry.value("ap_published")


def chosen_quality(entries: Sequence[Entry], frontier: Sequence[FrontierRow] = ()) -> str | None:
    """What the pictures have on their upright axis; None if no two networks can be compared."""
    return next(
        (key for key in QUALITIES if sum(quality_of(entry, key) is not None for entry in entries) > 1),
        "ap" if frontier else None,
    )


def frontier_points(frontier: Sequence[FrontierRow], cost: str, quality: str) -> list[tuple[FrontierRow, float, float]]:
    """The rows of the frontier that have this cost, with it and their AP."""
    costs = [(row, {"predicted_ms": row.ms, "params_m": row.params_m}.get(cost)) for row in frontier]
    return [(row, x, row.ap) for row, x in costs if quality == "ap" and x is not None]


def unjudged(entries: Sequence[Entry], cost: str, quality: str) -> list[tuple[str, float]]:
    """Name and cost of networks whose quality nobody knows yet, such as one that was just found."""
    known = [(entry.name, entry.value(cost)) for entry in entries if entry.drawn and quality_of(entry, quality) is None]
    return [(name, x) for name, x in known if x is not None][:LINES]


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
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}


def draw_comparison(
    entries: Sequence[Entry], title: str, path: Path, frontier: Sequence[FrontierRow] = ()
) -> Path | None:
    """Write a PNG of quality against each cost; None where there is nothing to draw."""
    quality = chosen_quality(entries, frontier)
    costs = [cost for cost in COSTS if any(cost in entry.figures for entry in entries)]
    if quality is None or not costs:
        return None
    figure, grid = canvas(1, len(costs), 5.2 * len(costs), 4.6)
    for axes, cost in zip(grid[0], costs, strict=True):
        _panel(axes, entries, cost, quality, frontier)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    return save_png(figure, path)


def _panel(axes: Axes, entries: Sequence[Entry], cost: str, quality: str, frontier: Sequence[FrontierRow]) -> None:
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
        axes.annotate(entry.name, (x, y), fontsize=7, xytext=(3, 2), textcoords="offset points")
    points_of_frontier = frontier_points(frontier, cost, quality)
    for row, x, y in points_of_frontier:
        axes.annotate(row.model, (x, y), fontsize=6, color=QUIET, xytext=(3, -7), textcoords="offset points")
    if points_of_frontier:
        x_values, y_values = zip(*((x, y) for _, x, y in points_of_frontier), strict=True)
        axes.plot(x_values, y_values, "D", ms=3.5, mfc="none", color=QUIET, label="frontier, by its protocol")
    for (name, x), colour in zip(unjudged(entries, cost, quality), SERIES[::-1], strict=False):
        axes.axvline(x, color=colour, lw=1.2, ls="--", label=f"{name}, not trained")
    axes.set_xscale("log")
    for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="x", which="minor", labelsize=6)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=6, frameon=False, loc="lower right")
    label(axes, "", COSTS[cost], QUALITIES[quality])


def write_comparison_page(
    entries: Sequence[Entry],
    title: str,
    path: Path,
    notes: Sequence[str] = (),
    frontier: Sequence[FrontierRow] = (),
) -> Path:
    """Write the interactive page: what is worth knowing, quality across costs, the table with every number's source."""
    letters = source_letters(entries)
    quality = chosen_quality(entries, frontier)
    body = [verdict([_headline(entries, quality), *notes])]
    if quality is not None:
        drawn, choices = _figure(entries, quality, frontier)
        body += [
            figure_html(drawn, "quality", choices),
            note("Hover for names. Line: the Pareto front of what is compared."),
        ]
    body += ["<h2>Numbers</h2>", html_table([_row(entry, shown_columns(entries), letters) for entry in entries])]
    body += [note(f"[{letter}] {source}") for source, letter in letters.items()]
    body.append("<h2>The frontier</h2>")
    body.append(note("What the fastest good detectors reach on COCO, as their tables say; compare within a protocol."))
    body.append(fold(f"{len(frontier_rows())} detectors", html_table([_frontier_row(row) for row in frontier_rows()])))
    return write_atomic(path, page(title, body))


def _headline(entries: Sequence[Entry], quality: str | None) -> str:
    """Who is on the front of the first cost, in a sentence."""
    cost = next((cost for cost in COSTS if any(cost in entry.figures for entry in entries)), None)
    drawn, points = drawn_points(entries, cost, quality) if cost and quality else ([], [])
    front = ", ".join(drawn[i].name for i in pareto_front(points))
    if len(points) < 2 or cost is None or quality is None:
        return f"{len(entries)} detectors; fewer than two have a quality that can be compared."
    return f"On the Pareto front of {QUALITIES[quality]} across {COSTS[cost]}: {front}."


def _frontier_row(row: FrontierRow) -> dict[str, Any]:
    params = "" if row.params_m is None else f"{row.params_m:.1f}"
    return {"detector": row.model, "px": row.image_size, "AP": f"{row.ap:.1f}", "ms": f"{row.ms:.2f}",
            "params, M": params, "protocol": row.protocol, "source": row.source}  # fmt: skip


def _row(entry: Entry, columns: Sequence[str], letters: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"detector": entry.name, "px": entry.image_size}
    for column in columns:
        heading = COLUMNS[column][0]
        if column in DIFFERENCES:
            heading = f"{COLUMNS[DIFFERENCES[column][0]][0]} off, %"
        row[heading] = figure_cell(entry, column, letters)
    return row


def _figure(
    entries: Sequence[Entry], quality: str, frontier: Sequence[FrontierRow]
) -> tuple[graph_objects.Figure, dict[str, Any]]:
    """The picture, and what its menu changes for each cost."""
    costs = [cost for cost in COSTS if any(cost in entry.figures for entry in entries)]
    figure, owners = plot(560, COSTS[costs[0]] if costs else "", QUALITIES[quality], xaxis_type="log"), list[str]()

    def add(cost: str, points: Sequence[tuple[float, float]], name: str, texts: Sequence[str], **style: Any) -> None:
        owners.append(cost)
        x, y = [point[0] for point in points], [point[1] for point in points]
        hover = "%{text}<br>%{x:.3g}, %{y:.4g}<extra></extra>"
        figure.add_scatter(
            x=x,
            y=y,
            name=name,
            text=texts,
            hovertemplate=hover,
            visible=cost == costs[0],
            **{"mode": "markers", **style},
        )

    for cost in costs:
        drawn, points = drawn_points(entries, cost, quality)
        front = pareto_front(points)
        if len(front) > 1:
            add(cost, [points[i] for i in front], "Pareto front", [drawn[i].name for i in front], mode="lines",
                line={"color": PALE, "width": 3})  # fmt: skip
        known = frontier_points(frontier, cost, quality)
        if known:
            add(cost, [(x, y) for _, x, y in known], "frontier, by its protocol",
                [f"{row.model}: {row.protocol}" for row, _, _ in known],
                marker={"symbol": "diamond-open", "size": 9, "color": QUIET})  # fmt: skip
        for family, colour in families(entries).items():
            rows = [i for i, entry in enumerate(drawn) if entry.family == family]
            errors = [drawn[i].figures[cost].error or 0.0 for i in rows]
            if rows:
                add(cost, [points[i] for i in rows], family,
                    [f"{drawn[i].name}: {drawn[i].figures[cost].source}" for i in rows],
                    error_x={"array": errors, "visible": any(errors)}, marker={"size": 10, "color": colour})  # fmt: skip
        heights = [y for _, y in points] + [y for *_, y in known]
        for (name, x), colour in zip(unjudged(entries, cost, quality), SERIES[::-1], strict=False):
            ends = [(x, min(heights, default=0.0)), (x, max(heights, default=1.0))]
            add(cost, ends, f"{name}, not trained", [name] * 2, mode="lines", line={"color": colour, "dash": "dash"})
    choices = {
        COSTS[cost]: ({"visible": [owner == cost for owner in owners]}, {"xaxis.title.text": COSTS[cost]})
        for cost in costs
    }
    return figure, choices
