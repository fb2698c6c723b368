"""The report of a search: what it shows, gathered once, and one self-contained page of it (plotly inlined)."""

from __future__ import annotations

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
    GREEN,
    QUIET,
    WARM,
)
from nas.report.page import Ready, bars, copyable, figure_html, fold, html_table, note, page, plot, verdict
from nas.spec import Backbone, DetectorSpec, backbone_of

if TYPE_CHECKING:
    from plotly import graph_objects

#: Metrics that stand beside every score, with their axis labels.
LABELS = {
    "latency_ms": "predicted latency (ms)",
    "e2e_ms": "predicted latency until boxes (ms)",
    "flops_g": "GFLOPs",
    "params_m": "parameters (M)",
    "activations_m": "activations (M)",
    "peak_memory_mb": "peak memory (MB)",
    "layers": "layers",
    "rho": "effectiveness rho",
}

#: Sampled networks that the page draws, at most; the pictures draw all.
DRAWN = 2000


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
class Near:
    """A network that scores almost as much as the winner: its shape, score and costs, and its spec file."""

    shape: str
    metrics: Mapping[str, float]
    yaml: str


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """Everything a reader of the report sees.

    columns: sampled evaluations, one array a metric, with `evaluation`, `score`, `feasible`; best_curve: (evaluation,
    score) at each improvement; shape: the winner's, in one line; prices: its latency, one row an operation
    (`Latency.explain`); near: networks of other shapes within `near_share` of the best score; table: the latency table,
    error_percent: its mean error if it is known; unproven: why an exact search proved nothing.
    """

    title: str
    scorer: str
    budget: Budget
    binding: tuple[str, ...]
    notes: tuple[str, ...]
    columns: Mapping[str, npt.NDArray[np.float64]]
    best_curve: npt.NDArray[np.float64]
    winner: Mapping[str, float]
    shape: str
    parts: tuple[Part, ...]
    prices: tuple[Mapping[str, Any], ...]
    front: tuple[Mapping[str, Any], ...] = ()
    near: tuple[Near, ...] = ()
    near_share: float = 0.01
    marks: tuple[Mark, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    table: str = ""
    error_percent: float | None = None
    e2e_ms: float | None = None
    proof: str = ""
    unproven: str = ""

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


def write_search_page(record: SearchRecord, path: Path) -> Path:
    """Write report.html of a search: the verdict, then the cloud, the winner, its equals, and the tables folded."""
    metrics = record.costs()
    body = [
        verdict(_verdict(record)),
        *(note(text) for text in record.notes),
        html_table(_comparison(record)),
        "<h2>Score against cost</h2>",
        figure_html(_cloud_page(record, metrics), "cloud", _choices(record, metrics)),
        "<h2>The winner, part by part</h2>",
        bars([_bar(part) for part in record.parts]),
        fold("Its parts in numbers", html_table([_part_row(part) for part in record.parts])),
    ]
    if record.prices:
        operations = html_table([dict(row) for row in record.prices])
        body.append(
            fold("Its latency, operation by operation", figure_html(_prices_page(record), "prices"), operations)
        )
    if record.near:
        body.append(f"<h2>Other shapes within {100 * record.near_share:g} % of the highest score</h2>")
        body += [
            fold(_near_title(near), copyable(near.yaml))
            for near in sorted(record.near, key=lambda near: -near.metrics["score"])
        ]
    body.append("<h2>More</h2>")
    body.append(fold("Course of the search", figure_html(_course_page(record), "course")))
    body.append(fold("Pareto front", html_table([dict(row) for row in record.front])))
    facts = [{"": key, "value": value} for key, value in record.provenance.items()]
    body.append(fold("Provenance", html_table(facts)))
    return write_atomic(path, page(record.title, body))


def _verdict(record: SearchRecord) -> list[str]:
    """What was found, how fast, whether it is proved, what the score does not say, and the next command."""
    limits = " and ".join(
        f"{axis_label(name)}{f' at least {low:g}' * bool(low)}{' and' * (0 < low and high < math.inf)}"
        f"{f' at most {high:g}' * (high < math.inf)}"
        for name, low, high in record.budget.ranges
    )
    certain = "proved" if record.proof else "not proved"
    lines = [f"The highest {record.scorer} score with {limits}: {record.winner['score']:.5g}, {certain}."]
    if "latency_ms" in record.winner:
        margin = record.winner["latency_ms"] * (record.error_percent or 0) / 100
        error = f" ± {margin:.2f} (mean error of the table, {record.error_percent:.1f} %)" if margin else ""
        lines.append(f"It takes {record.winner['latency_ms']:.3f} ms{error} by table {record.table}.")
    if record.e2e_ms is not None:
        lines.append(f"Until boxes, with what follows the network, it takes {record.e2e_ms:.3f} ms (e2e_ms).")
    if record.binding:
        lines.append(f"What stops it from scoring more: {', '.join(axis_label(name) for name in record.binding)}.")
    lines.append(
        f"The proof: {record.proof}."
        if record.proof
        else record.unproven or "Nothing is proved: this searcher tries networks out."
    )
    return [
        *lines,
        "The score is of an untrained network and is no accuracy: among equally fast networks a higher one does not tell "
        "the better detector.",
        Ready("Next: <code>python -m nas.train model=best.yaml data=FOLDER</code> trains this network; <code>python -m "
              "nas.select</code> trains it against equally fast ones of other scores and against published networks."),
    ]  # fmt: skip


def _comparison(record: SearchRecord) -> list[dict[str, Any]]:
    """The winner and the published networks, score always beside the counts."""
    keys = ["score", *(key for key in dict.fromkeys([*LABELS, *record.budget.metrics]) if key in record.winner)]
    heads = {"score": f"{record.scorer} score"} | {key: axis_label(key) for key in keys[1:]}
    everyone = [
        ("winner", record.winner, True),
        *((m.name, {"score": m.score, **m.metrics}, m.inside) for m in record.marks),
    ]
    return [
        {
            "network": name,
            **{heads[key]: values.get(key) for key in keys},
            "inside the budget": "yes" if inside else "no",
        }
        for name, values, inside in everyone
    ]


def _near_title(near: Near) -> str:
    ms = f", {near.metrics['latency_ms']:.3f} ms" if "latency_ms" in near.metrics else ""
    return f"{near.metrics['score']:.5g}{ms}: {near.shape}"


def _bar(part: Part) -> tuple[str, str, float, str]:
    units = f" × {part.depth}" if part.depth > 1 else ""
    return part.name, f"{part.shape}{units}", part.ms, f"{part.ms:.3f} ms"


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


def _course_page(record: SearchRecord) -> graph_objects.Figure:
    figure = plot(360, "evaluations", f"highest {record.scorer} score so far")
    figure.add_scatter(x=record.best_curve[:, 0], y=record.best_curve[:, 1], line={"shape": "hv", "color": ACCENT})
    return figure


def _cloud_page(record: SearchRecord, metrics: list[str]) -> graph_objects.Figure:
    """Score against the first metric; a point tells its score and costs, and its shape where it is known."""
    figure = plot(520, axis_label(metrics[0]), f"{record.scorer} score", shapes=_limit_lines(record, metrics[0]))
    told = "<br>".join(f"{axis_label(metric)} %{{customdata[{index}]:.4g}}" for index, metric in enumerate(metrics))
    hover = f"score %{{y:.6g}}<br>{told}<extra></extra>"
    inside = record.columns["feasible"] > 0
    sampled = np.stack([record.columns[name] for name in (*metrics, "score")], axis=1)
    shown = np.arange(len(sampled)) % -(-len(sampled) // DRAWN) == 0
    for name, chosen, marker in (
        ("outside the budget", ~inside & shown, {"size": 4, "color": QUIET, "opacity": 0.25}),
        ("inside", inside & shown, {"size": 5, "color": ACCENT, "opacity": 0.6}),
    ):
        rows = [[float(f"{value:.6g}") for value in row] for row in sampled[chosen].tolist()]
        _points(figure, rows, name, marker, hover)
    known = [(near.shape, near.metrics) for near in record.near] + [(str(row["shape"]), row) for row in record.front]
    published = [(mark.name, {"score": mark.score, **mark.metrics}) for mark in record.marks]
    for name, networks, colour, symbol, size in (
        ("with their shape", known, GREEN, "circle", 7),
        ("published", published, QUIET, "diamond", 10),
        ("the winner", [(record.shape, record.winner)], WARM, "star", 15),
    ):
        costs = [[values.get(key) for key in (*metrics, "score")] for _, values in networks]
        marker = {"size": size, "symbol": symbol, "color": colour}
        _points(figure, costs, name, marker, f"%{{text}}<br>{hover}", [text for text, _ in networks])
    return figure


def _points(
    figure: graph_objects.Figure, rows: list[list[Any]], name: str, marker: dict[str, Any], hover: str, text: Any = None
) -> None:
    """Add networks whose rows hold their costs, the first of them drawn, and their score at the end."""
    x, y = [row[0] for row in rows], [row[-1] for row in rows]
    figure.add_scatter(
        x=x, y=y, customdata=rows, text=text, hovertemplate=hover, mode="markers", name=name, marker=marker
    )


def _choices(record: SearchRecord, metrics: list[str]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What the menu of the cloud changes for each cost."""
    return {
        axis_label(metric): (
            {"column": index},
            {"xaxis.title.text": axis_label(metric), "shapes": _limit_lines(record, metric)},
        )
        for index, metric in enumerate(metrics)
    }


def _limit_lines(record: SearchRecord, metric: str) -> list[dict[str, Any]]:
    style = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dash", "color": WARM}}
    return [style | {"x0": end, "x1": end} for end in record.ends(metric)]


def _prices_page(record: SearchRecord) -> graph_objects.Figure:
    figure = plot(360, "operation in execution order", "microseconds")
    for bound, colour in BOUND_COLOURS.items():
        rows = [(i, row) for i, row in enumerate(record.prices) if row.get("bound") == bound]
        figure.add_bar(
            x=[i for i, _ in rows], y=[1000 * float(row["ms"]) for _, row in rows], name=f"{bound}-bound",
            marker={"color": colour},
            hovertext=[f"{row['operation']}, {row['channels']}, {row['map']}" for _, row in rows],
        )  # fmt: skip
    return figure
