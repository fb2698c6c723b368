"""One self-contained interactive page of a search (plotly inlined: it opens offline and can be mailed)."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.files import write_atomic
from nas.report.search_record import LABELS, SearchRecord

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1b2a41}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;font-size:13px}
td,th{padding:.25rem .7rem;border-bottom:1px solid #dde3e8;text-align:right}td:first-child,th:first-child{text-align:left}
.note{color:#5c677d}
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole HTML document around ready fragments; the first figure in it must inline plotly."""
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>{''.join(body)}</body></html>"
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """An HTML table of dictionaries that share their keys."""
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(str(key))}</th>" for key in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row.values()) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))


def figure_html(figure: Figure, inline: bool) -> str:
    """A plotly figure as a fragment; `inline` carries the library itself, once a page."""
    return str(figure.to_html(full_html=False, include_plotlyjs="inline" if inline else False))


def write_search_page(record: SearchRecord, path: Path) -> Path:
    """Write report.html of a search."""
    import plotly.graph_objects as go

    layout = {"template": "plotly_white", "margin": {"l": 60, "r": 20, "t": 40, "b": 50}, "height": 420}
    course = go.Figure(layout=layout | {"title": f"best {record.scorer} score", "xaxis_title": "evaluations"})
    course.add_scatter(x=record.best_curve[:, 0], y=record.best_curve[:, 1], line_shape="hv", mode="lines+markers")
    body = [
        "<h2>Result</h2>",
        _comparison(record),
        "".join(f"<p class='note'>{html.escape(note)}</p>" for note in record.notes),
        "<h2>Course of the search</h2>",
        figure_html(course, inline=True),
        "<h2>Score against every cost</h2>",
        figure_html(_cloud(record, layout), inline=False),
        "<h2>The winner, block by block</h2>",
        table([_part_row(part) for part in record.parts]),
    ]
    if record.prices:
        body += ["<h2>Its latency, operation by operation</h2>", figure_html(_prices(record, layout), inline=False)]
        body.append(table([dict(row) for row in record.prices]))
    if record.near:
        within = f"<h2>Other shapes within {100 * record.near_share:g} % of the best score</h2>"
        body += [within, table([dict(row) for row in record.near])]
    if record.front:
        body += ["<h2>Pareto front</h2>", table([dict(row) for row in record.front])]
    body += ["<h2>Provenance</h2>", table([{"": key, "value": value} for key, value in record.provenance.items()])]
    return write_atomic(path, page(record.title, body))


def _comparison(record: SearchRecord) -> str:
    """The winner and the published networks in one table, score always beside the counts."""
    keys = ["score", *(key for key in LABELS if key in record.winner)]
    rows = [{"network": "winner", **{key: float(record.winner[key]) for key in keys}, "inside the budget": "yes"}]
    for mark in record.marks:
        values = {"score": mark.score, **mark.metrics}
        row = {"network": mark.name, **{key: float(values.get(key, float("nan"))) for key in keys}}
        rows.append(row | {"inside the budget": "yes" if mark.inside else "no"})
    return table(rows)


def _part_row(part: Any) -> dict[str, Any]:
    return {
        "part": part.name,
        "shape": part.shape,
        "units": part.depth,
        "stride": part.stride,
        "ms": part.ms,
        "GMACs": part.macs / 1e9,
        "params (M)": part.params / 1e6,
    }


def _cloud(record: SearchRecord, layout: dict[str, Any]) -> Figure:
    """Score against each metric, chosen by a menu; limits drawn, published networks named."""
    import plotly.graph_objects as go

    metrics = [metric for metric in LABELS if metric in record.columns]
    figure = go.Figure(layout=layout | {"height": 520, "yaxis_title": f"{record.scorer} score"})
    feasible = record.columns["feasible"] > 0
    for index, metric in enumerate(metrics):
        shown = index == 0
        x, y = record.columns[metric], record.columns["score"]
        figure.add_scattergl(x=x[feasible], y=y[feasible], mode="markers", name="inside", visible=shown,
                             marker={"size": 4, "color": "#0b7285", "opacity": 0.35})  # fmt: skip
        figure.add_scattergl(x=x[~feasible], y=y[~feasible], mode="markers", name="outside", visible=shown,
                             marker={"size": 3, "color": "#c9d6df", "opacity": 0.5})  # fmt: skip
        known = [mark for mark in record.marks if metric in mark.metrics]
        figure.add_scatter(x=[m.metrics[metric] for m in known], y=[m.score for m in known], mode="markers+text",
                           text=[m.name for m in known], textposition="top center", name="published", visible=shown,
                           marker={"size": 9, "symbol": "diamond", "color": "#1b2a41"})  # fmt: skip
        figure.add_scatter(x=[record.winner[metric]], y=[record.winner["score"]], mode="markers", name="winner",
                           visible=shown, marker={"size": 14, "symbol": "star", "color": "#d9480f"})  # fmt: skip
    buttons: list[dict[str, Any]] = []
    for index, metric in enumerate(metrics):
        visible = [trace // 4 == index for trace in range(4 * len(metrics))]
        line = [{"type": "line", "xref": "x", "yref": "paper", "x0": record.limits[metric], "x1": record.limits[metric],
                 "y0": 0, "y1": 1, "line": {"dash": "dash", "color": "#d9480f"}}] if metric in record.limits else []  # fmt: skip
        changes = {"xaxis.title.text": LABELS[metric], "shapes": line}
        buttons.append({"label": metric, "method": "update", "args": [{"visible": visible}, changes]})
    figure.update_layout(updatemenus=[{"buttons": buttons, "x": 1, "y": 1.15, "xanchor": "right"}])
    if metrics:
        figure.update_layout(**{key.replace(".", "_"): value for key, value in buttons[0]["args"][1].items()})
    return figure


def _prices(record: SearchRecord, layout: dict[str, Any]) -> Figure:
    import plotly.graph_objects as go

    colours = {"compute": "#0b7285", "memory": "#d9480f", "launch": "#c9d6df"}
    figure = go.Figure(layout=layout | {"yaxis_title": "microseconds", "xaxis_title": "operation"})
    for bound in ("compute", "memory", "launch"):
        rows = [(i, row) for i, row in enumerate(record.prices) if row.get("bound") == bound]
        figure.add_bar(x=[i for i, _ in rows], y=[1000 * float(row["ms"]) for _, row in rows], name=f"{bound}-bound",
                       marker_color=colours[bound], hovertext=[str(dict(row)) for _, row in rows])  # fmt: skip
    return figure
