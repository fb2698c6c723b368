"""The page of a benchmark: the verdict, AP against milliseconds of every deployed file, the table, where it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas.report.canvas import SERIES
from nas.report.page import figure_html, fold, html_table, note, page, plot, verdict

if TYPE_CHECKING:
    from plotly import graph_objects

    from nas.commands.benchmark_files import Benchmark, Row


def benchmark_page(result: Benchmark, told: Sequence[str]) -> str:
    """report.html; told: the verdict in sentences, the most important first."""
    rows = [_row(result, row) for row in result.done]
    refused = [{"row": row.name, "why": row.reason} for row in result.rows if row.reason]
    hosts = [{"row": row.name, **row.host, "seconds": row.seconds} for row in result.done]
    body = [
        verdict(told),
        "<h2>AP against milliseconds</h2>",
        figure_html(_figure(result), "frames"),
        note(
            "A frame from its pixels in memory to its boxes, one at a time. Bars: quartiles. Crosses: not recommended."
        ),
        "<h2>Every row</h2>",
        html_table(rows),
        note(
            "Milliseconds are medians of one image at a time: the bare network back to back, as latency tables time it; the "
            "other stages as frames follow one another, by the thresholds of the AP. Matched: detections of torch in float32 "
            "that the file finds again. Memory: what loading and running add to the process at its peak."
        ),
        fold("What could not run, and why", html_table(refused)),
        fold("Where it was measured", *(html_table([host]) for host in hosts)),
    ]
    return page(f"Benchmark of {result.model} on {result.data}", body)


def _row(result: Benchmark, row: Row) -> dict[str, object]:
    known: dict[str, object] = {
        "row": row.name,
        "AP": f"{100 * (row.ap or 0):.1f}",
        "AP50": f"{100 * (row.ap50 or 0):.1f}",
    }
    known["lost"] = f"{result.lost(row):.2f}" + ("" if result.recommended(row) else ", not recommended")
    for stage in ("preprocess", "network", "postprocess", "frame"):
        times = row.times(stage)
        known[f"{stage}, ms"] = f"{times.median:.2f} ({times.low:.2f} to {times.high:.2f})"
    matched = row.parity and f"{100 * row.parity.matched:.1f} % of {row.parity.detections}"
    memory = row.memory_mb and f"{row.memory_mb:.0f}"
    known |= {"matched": matched, "file, MB": f"{row.megabytes or 0:.2f}", "memory, MB": memory}
    return known | {"threads": row.threads, "device": row.device, "images": row.images}


def _figure(result: Benchmark) -> graph_objects.Figure:
    figure = plot(420, "milliseconds of a frame", "AP")
    for row, colour in zip(result.done, SERIES * 9, strict=False):
        frame = row.times("frame")
        symbol = "circle" if result.recommended(row) else "x"
        error = {"array": [frame.high - frame.median], "arrayminus": [frame.median - frame.low]}
        figure.add_scatter(
            x=[frame.median], y=[100 * (row.ap or 0)], name=row.name, mode="markers",
            marker={"size": 11, "color": colour, "symbol": symbol}, error_x=error,
            hovertemplate=f"{row.name}<br>%{{x:.2f}} ms, AP %{{y:.1f}}<extra></extra>",
        )  # fmt: skip
    return figure
