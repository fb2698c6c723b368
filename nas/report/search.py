"""The report of a search: what it shows, gathered once, its PNG pictures, and one self-contained page (plotly inlined)."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nas.cost.budget import Budget, Limited
from nas.cost.latency import LatencyTable
from nas.files import write_atomic
from nas.lowering import Operation, backbone_operations
from nas.lowering.network import neck_and_head_operations, out_sizes
from nas.report.canvas import (
    ACCENT,
    BOUND_COLOURS,
    INK,
    PALE,
    WARM,
    canvas,
    figure_html,
    html_table,
    label,
    page,
    save_png,
)
from nas.spec import Backbone, DetectorSpec, backbone_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from plotly import graph_objects

#: Metrics that stand beside every score, with their axis labels.
LABELS = {
    "latency_ms": "predicted latency (ms)",
    "flops_g": "GFLOPs",
    "params_m": "parameters (M)",
    "activations_m": "activations (M)",
    "peak_memory_mb": "peak memory (MB)",
    "layers": "layers",
    "rho": "effectiveness rho",
}


def axis_label(name: str) -> str:
    """What stands along the axis of a cost."""
    cost = Limited.of(name)
    return LABELS[cost.metric] + f", {cost.part}" * bool(cost.part) + f" on {cost.hardware}" * bool(cost.hardware)


@dataclass(frozen=True, slots=True)
class Part:
    """One stem, block, neck or head of a network and what it costs."""

    name: str
    shape: str
    out: int
    depth: int
    stride: int
    ms: float
    macs: int
    params: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A published network set beside the search."""

    name: str
    score: float
    metrics: Mapping[str, float]
    inside: bool


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """Everything a reader of the report sees.

    columns: sampled evaluations, one array a metric, with `evaluation`, `score`, `feasible`; best_curve: (evaluation,
    score) at each improvement; prices: the winner's latency, one row an operation (`Latency.explain`); near: networks of
    other shapes within `near_share` of the best score.
    """

    title: str
    scorer: str
    budget: Budget
    binding: tuple[str, ...]
    notes: tuple[str, ...]
    columns: Mapping[str, npt.NDArray[np.float64]]
    best_curve: npt.NDArray[np.float64]
    winner: Mapping[str, float]
    parts: tuple[Part, ...]
    prices: tuple[Mapping[str, Any], ...]
    front: tuple[Mapping[str, Any], ...] = ()
    near: tuple[Mapping[str, Any], ...] = ()
    near_share: float = 0.01
    marks: tuple[Mark, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def costs(self) -> list[str]:
        """The costs that have a picture: every known metric, and what else is limited."""
        return [name for name in dict.fromkeys([*LABELS, *self.budget.metrics]) if name in self.columns]

    def ends(self, name: str) -> list[float]:
        """The least and the most that a cost may be, as far as there are."""
        return [end for cost, *ends in self.budget.ranges if cost == name for end in ends if 0 < end < math.inf]


def network_parts(spec: Backbone | DetectorSpec, image_size: int, table: LatencyTable | None) -> tuple[Part, ...]:
    """Stem, blocks, neck and head of a network with the cost of each."""
    backbone = backbone_of(spec)
    groups = backbone_operations(backbone, image_size, "folded")
    stem = backbone.stem
    parts = [_part("stem", f"{stem.kind} {stem.kernel}x{stem.kernel}", stem.out, 1, stem.stride, groups[0], table)]
    for index, (block, group) in enumerate(zip(backbone.blocks, groups[1:], strict=True)):
        kind = getattr(block, "kind", type(block).__name__)
        width = getattr(block, "bottleneck", getattr(block, "hidden", ""))
        label = f"block {index}" + (
            f" (C{3 + backbone.out_blocks.index(index)})" if index in backbone.out_blocks else ""
        )
        parts.append(
            _part(label, f"{kind} {block.out}/{width}".rstrip("/"), block.out, block.depth, block.stride, group, table)
        )
    if isinstance(spec, DetectorSpec):
        c3, c4, c5 = backbone.out_channels
        tail = neck_and_head_operations(spec.neck, spec.head, (c3, c4, c5), out_sizes(backbone, image_size), "folded")
        neck = tuple(op for op in tail if op.role == "neck")
        head = tuple(op for op in tail if op.role == "head")
        widths = "/".join(map(str, spec.neck.out))
        parts.append(_part("neck", f"RepGFPN {widths}", spec.neck.out[-1], spec.neck.depth, 1, neck, table))
        parts.append(_part("head", "ZeroHead", spec.head.num_classes, 1 + spec.head.stacked, 1, head, table))
    if table is not None and table.offset_ms:
        # what a whole network costs beside its operations, by the table's calibration
        parts.append(Part("network", "fixed cost", 0, 1, 1, table.offset_ms, 0, 0))
    return tuple(parts)


def _part(
    name: str,
    shape: str,
    out: int,
    depth: int,
    stride: int,
    group: tuple[Operation, ...],
    table: LatencyTable | None,
) -> Part:
    ms = sum(table.price(op).ms for op in group) if table else 0.0
    return Part(name, shape, out, depth, stride, ms, sum(op.macs for op in group), sum(op.params for op in group))


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


def write_search_page(record: SearchRecord, path: Path) -> Path:
    """Write report.html of a search."""
    import plotly.graph_objects as go

    layout = {"template": "plotly_white", "margin": {"l": 60, "r": 20, "t": 40, "b": 50}, "height": 420}
    course = go.Figure(layout=layout | {"title": f"best {record.scorer} score", "xaxis_title": "evaluations"})
    course.add_scatter(x=record.best_curve[:, 0], y=record.best_curve[:, 1], line_shape="hv", mode="lines+markers")
    body = [
        *_verdict(record),
        _comparison(record),
        "".join(f"<p class='note'>{html.escape(note)}</p>" for note in record.notes),
        "<h2>Course of the search</h2>",
        figure_html(course, inline=True),
        "<h2>Score against every cost</h2>",
        figure_html(_cloud_page(record, layout), inline=False),
        "<h2>The winner, block by block</h2>",
        html_table([_part_row(part) for part in record.parts]),
    ]
    if record.prices:
        body += [
            "<h2>Its latency, operation by operation</h2>",
            figure_html(_prices_page(record, layout), inline=False),
        ]
        body.append(html_table([dict(row) for row in record.prices]))
    if record.near:
        within = f"<h2>Other shapes within {100 * record.near_share:g} % of the best score</h2>"
        body += [within, html_table([dict(row) for row in record.near])]
    if record.front:
        body += ["<h2>Pareto front</h2>", html_table([dict(row) for row in record.front])]
    body += ["<h2>Provenance</h2>", html_table([{"": key, "value": value} for key, value in record.provenance.items()])]
    return write_atomic(path, page(record.title, body))


def _verdict(record: SearchRecord) -> list[str]:
    """What was found, what it does not say, and the next command, in words."""
    limits = ", ".join(
        f"{axis_label(name)}{f' at least {low:g}' * bool(low)}{' and' * (0 < low and high < math.inf)}"
        f"{f' at most {high:g}' * (high < math.inf)}"
        for name, low, high in record.budget.ranges
    )
    binding = f"; what stops it is {', '.join(record.binding)}" if record.binding else ""
    found = f"The highest score found: {record.scorer} {record.winner['score']:.5g} ({limits}{binding})."
    return [
        f"<p>{html.escape(found)}</p>",
        "<p>The score is of an untrained network and no accuracy: <code>python -m nas.select</code> trains equally fast "
        "finalists of several scores, and drawn networks beside them, on your data. To train this one: "
        "<code>python -m nas.train model=best.yaml data=FOLDER</code>.</p>",
    ]


def _comparison(record: SearchRecord) -> str:
    """The winner and the published networks in one table, score always beside the counts."""
    keys = ["score", *(key for key in dict.fromkeys([*LABELS, *record.budget.metrics]) if key in record.winner)]
    rows = [{"network": "winner", **{key: float(record.winner[key]) for key in keys}, "inside the budget": "yes"}]
    for mark in record.marks:
        values = {"score": mark.score, **mark.metrics}
        row = {"network": mark.name, **{key: float(values.get(key, float("nan"))) for key in keys}}
        rows.append(row | {"inside the budget": "yes" if mark.inside else "no"})
    return html_table(rows)


def _part_row(part: Part) -> dict[str, Any]:
    return {
        "part": part.name,
        "shape": part.shape,
        "units": part.depth,
        "stride": part.stride,
        "ms": part.ms,
        "GMACs": part.macs / 1e9,
        "params (M)": part.params / 1e6,
    }


def _cloud_page(record: SearchRecord, layout: dict[str, Any]) -> graph_objects.Figure:
    """Score against each metric, chosen by a menu; limits drawn, published networks named."""
    import plotly.graph_objects as go

    metrics = record.costs()
    figure = go.Figure(layout=layout | {"height": 520, "yaxis_title": f"{record.scorer} score"})
    feasible = record.columns["feasible"] > 0
    for index, metric in enumerate(metrics):
        shown = index == 0
        x, y = record.columns[metric], record.columns["score"]
        figure.add_scattergl(x=x[feasible], y=y[feasible], mode="markers", name="inside", visible=shown,
                             marker={"size": 4, "color": ACCENT, "opacity": 0.35})  # fmt: skip
        figure.add_scattergl(x=x[~feasible], y=y[~feasible], mode="markers", name="outside", visible=shown,
                             marker={"size": 3, "color": PALE, "opacity": 0.5})  # fmt: skip
        known = [mark for mark in record.marks if metric in mark.metrics]
        figure.add_scatter(x=[m.metrics[metric] for m in known], y=[m.score for m in known], mode="markers+text",
                           text=[m.name for m in known], textposition="top center", name="published", visible=shown,
                           marker={"size": 9, "symbol": "diamond", "color": INK})  # fmt: skip
        figure.add_scatter(x=[record.winner[metric]], y=[record.winner["score"]], mode="markers", name="winner",
                           visible=shown, marker={"size": 14, "symbol": "star", "color": WARM})  # fmt: skip
    buttons: list[dict[str, Any]] = []
    for index, metric in enumerate(metrics):
        visible = [trace // 4 == index for trace in range(4 * len(metrics))]
        lines = [{"type": "line", "xref": "x", "yref": "paper", "x0": end, "x1": end,
                  "y0": 0, "y1": 1, "line": {"dash": "dash", "color": WARM}} for end in record.ends(metric)]  # fmt: skip
        changes = {"xaxis.title.text": axis_label(metric), "shapes": lines}
        buttons.append({"label": metric, "method": "update", "args": [{"visible": visible}, changes]})
    menu = {"buttons": buttons, "x": 1, "y": 1.25, "xanchor": "right", "yanchor": "top"}
    figure.update_layout(updatemenus=[menu], margin={"t": 110})
    if metrics:
        figure.update_layout(**{key.replace(".", "_"): value for key, value in buttons[0]["args"][1].items()})
    return figure


def _prices_page(record: SearchRecord, layout: dict[str, Any]) -> graph_objects.Figure:
    import plotly.graph_objects as go

    figure = go.Figure(layout=layout | {"yaxis_title": "microseconds", "xaxis_title": "operation"})
    for bound, colour in BOUND_COLOURS.items():
        rows = [(i, row) for i, row in enumerate(record.prices) if row.get("bound") == bound]
        figure.add_bar(x=[i for i, _ in rows], y=[1000 * float(row["ms"]) for _, row in rows], name=f"{bound}-bound",
                       marker_color=colour, hovertext=[str(dict(row)) for _, row in rows])  # fmt: skip
    return figure
