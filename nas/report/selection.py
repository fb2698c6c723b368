"""The page of a selection: the verdict, every network's learning curve and where it was dropped, AP against milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nas.report.canvas import QUIET, SERIES
from nas.report.page import figure_html, fold, html_table, note, page, plot, verdict

if TYPE_CHECKING:
    from plotly import graph_objects

    from nas.commands.select_files import SelectionResult

#: Costs of the table by their names there.
HEADS = {"latency_ms": "predicted ms", "flops_g": "GFLOPs", "params_m": "params, M", "layers": "layers"}


def selection_page(result: SelectionResult, told: Sequence[str]) -> str:
    """report.html; told: the verdict in sentences, the most important first."""
    rows = [_row(row, result) for row in result.rows()]
    short = (
        "rank",
        "network",
        "origin",
        "predicted ms",
        *["entries kept"] * bool(result.weights),
        *(head for head in rows[0] if head.startswith("AP ")),
    )
    dropped = [
        f"After epoch {rung.epochs}: " + ", ".join(_dropped(rung)) + "." for rung in result.rungs[:-1] if _dropped(rung)
    ]
    body = [
        verdict(told),
        "<h2>Learning curves</h2>",
        figure_html(_curves(result), "curves"),
        note("Validation AP of the averaged weights. Dotted: drawn by people. Grey: dropped, at the cross."),
        "<h2>Who was dropped where</h2>",
        *(f"<p>{line}</p>" for line in dropped or ["Nobody: all networks were trained to the end."]),
        "<h2>AP against milliseconds</h2>",
        figure_html(_costs(result), "costs"),
        note("Validation AP where each network's training ended: dropped ones were trained for fewer epochs."),
        "<h2>Finalists</h2>",
        html_table([{head: row[head] for head in short} for row in rows]),
        fold("Everything known of them", html_table(rows)),
    ]
    return page(f"Selection: {result.winner.name} out of {len(result.finalists)}", body)


def _row(row: dict[str, Any], result: SelectionResult) -> dict[str, Any]:
    """A row of selection.csv with AP in percent, what its network started with, and headings to read."""
    known: dict[str, Any] = {"rank": row["rank"], "network": row["name"], "origin": row["origin"]}
    known |= {HEADS[name]: f"{float(row[name]):.{0 if name == 'layers' else 2}f}" for name in HEADS if name in row}
    if result.weights:
        known["entries kept"] = "{} of {}".format(*result.kept[row["digest"]])
    for name, value in row.items():
        if name.startswith("ap_"):
            known[f"AP at epoch {name[3:]}"] = None if value is None else f"{100 * value:.1f}"
    return known | {"space": row["space"], "score": row["score"], "digest": row["digest"]}


def _dropped(rung: Any) -> list[str]:
    kept = {finalist.digest for finalist in rung.kept}
    gone = sorted((s for s in rung.standings if s.finalist.digest not in kept), key=lambda standing: -standing.ap)
    return list(dict.fromkeys(f"{s.finalist.name} (AP {100 * s.ap:.1f})" for s in gone))


def _curves(result: SelectionResult) -> graph_objects.Figure:
    """The last rung in colours, the winner's line thick; the others grey, by the rung that dropped them."""
    figure = plot(460, "epoch", "validation AP")
    last = {finalist.digest: colour for finalist, colour in zip(result.ranking, SERIES * 99, strict=False)}
    ends = {
        standing.finalist.digest: rung.epochs for rung in result.rungs for standing in rung.standings
    }  # the last rung that a network took part in
    for finalist in sorted(result.finalists, key=lambda finalist: finalist.digest in last):
        curve = sorted(result.curves.get(finalist.digest, {}).items())
        colour, end = last.get(finalist.digest, QUIET), f"dropped after epoch {ends.get(finalist.digest, 0)}"
        first = not any(trace.legendgroup == end for trace in figure.data)
        named = (
            {"name": finalist.name}
            if finalist.digest in last
            else {"name": end, "legendgroup": end, "showlegend": first}
        )
        symbols = ["circle"] * (len(curve) - 1) + ["circle" if finalist.digest in last else "x"]
        figure.add_scatter(
            x=[epoch for epoch, _ in curve], y=[100 * ap for _, ap in curve], mode="lines+markers",
            hovertemplate=f"{finalist.name}<br>epoch %{{x}}: AP %{{y:.1f}}<extra></extra>",
            line={"color": colour, "width": 3.5 if finalist == result.winner else 2 if finalist.digest in last else 1,
                  "dash": "dot" if finalist.origin == "drawn" else "solid"},
            marker={"size": 7 if finalist.digest in last else 5, "symbol": symbols}, **named,
        )  # fmt: skip
    return figure


def _costs(result: SelectionResult) -> graph_objects.Figure:
    figure = plot(440, "milliseconds", "validation AP")
    rows: list[dict[str, Any]] = result.rows()
    reached = {row["digest"]: 100 * row[f"ap_{row['epochs']}"] for row in rows if row["epochs"]}
    measured = [item for item in result.deployed if item.ms is not None]
    points = [
        (f"{origin}, predicted", symbol, colour, [
            (finalist, finalist.metrics["latency_ms"]) for finalist in result.finalists if finalist.origin == origin
        ])
        for origin, symbol, colour in (("searched", "circle", SERIES[0]), ("drawn", "diamond", SERIES[1]))
    ]  # fmt: skip
    points.append(("measured", "x", SERIES[2], [(item.finalist, item.ms or 0.0) for item in measured]))
    for name, symbol, colour, networks in points:
        known = [(finalist, ms) for finalist, ms in networks if finalist.digest in reached]
        if known:
            figure.add_scatter(
                x=[ms for _, ms in known], y=[reached[finalist.digest] for finalist, _ in known], mode="markers",
                name=name, text=[finalist.name for finalist, _ in known], marker={"symbol": symbol, "size": 11, "color": colour},
                hovertemplate="%{text}<br>%{x:.3f} ms, AP %{y:.1f}<extra></extra>",
            )  # fmt: skip
    return figure
