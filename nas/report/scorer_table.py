"""The report of a ranking: Markdown, CSV, PNG and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.files import csv_text, write_atomic
from nas.report.canvas import ACCENT, INK, PALE, WARM, canvas, label, save_png
from nas.report.page import escaped, figure_html, fold, html_table, note, page, plot, verdict
from nas.scorers.agreement import Agreement, Estimate, Spread

if TYPE_CHECKING:
    from plotly import graph_objects

#: Scores that count something of the network.
COUNTS = ("params", "macs", "layers", "depth", "mae_path")
#: What the table tells of each scorer.
HEADS = ("scorer", "Spearman", "Kendall tau-b", "nDCG@10", "best of its top 10", "Spearman over seeds", "seed noise",
         "s/net", "published")  # fmt: skip
#: Networks that the page shows.
MOST = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """How one scorer agrees with one accuracy; `published` is what others printed for it."""

    scorer: str
    target: str
    agreement: Agreement
    spread: Spread | None
    seconds: float
    published: str


@dataclass(frozen=True, slots=True)
class RankTable:
    """Scores (first seed) and repeats by scorer, accuracies by target, and the judgements."""

    names: list[str]
    columns: dict[str, np.ndarray]
    repeats: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]
    rows: list[Row]
    protocol: str


def write_rank_report(table: RankTable, folder: Path) -> str:
    """Write report.md, report.html, scores.csv, agreement.csv and, where accuracies are known, PNGs; returns the Markdown."""
    write_atomic(folder / "scores.csv", scores_csv(table))
    targets = list(dict.fromkeys(row.target for row in table.rows))
    if targets:
        write_atomic(folder / "agreement.csv", agreement_csv(table.rows))
        for target in targets:
            draw_agreement(table, target, folder / f"agreement_{target}.png")
    text = "\n".join([table.protocol, "", *_sections(table, targets)]) + "\n"
    write_atomic(folder / "report.md", text)
    write_atomic(folder / "report.html", rank_page(table, targets))
    return text


def rank_page(table: RankTable, targets: Sequence[str]) -> str:
    """report.html: what agrees best with each accuracy, every scorer's interval, scores against accuracy, the table."""
    body = [verdict(_verdict(table, targets))]
    for number, target in enumerate(targets):
        rows = sorted(
            (row for row in table.rows if row.target == target), key=lambda row: -row.agreement.spearman.value
        )
        scatter, choices = _scatter(table, target, [row.scorer for row in rows if row.scorer != "random"])
        body += [
            f"<h2>{escaped(target)}: {rows[0].agreement.networks} networks</h2>",
            figure_html(_intervals(rows), f"intervals{number}"),
            note("Spearman's rank correlation with the accuracy, 95 % bootstrap over networks. Diamonds: mere counts."),
            figure_html(scatter, f"scatter{number}", choices),
            fold("All statistics", html_table([_cells(row) for row in rows])),
        ]
    scores = {name: table.columns[name] for name in table.columns}
    named = [
        {"network": network, **{name: float(values[index]) for name, values in {**table.truth, **scores}.items()}}
        for index, network in enumerate(table.names[:MOST])
    ]
    what = f"the first {MOST} of {len(table.names)} networks" if len(table.names) > MOST else "all networks"
    body += [fold(f"Scores of {what}", html_table(named)) if targets else html_table(named), note(table.protocol)]
    return page("Ranking of networks by training-free scores", body)


def _verdict(table: RankTable, targets: Sequence[str]) -> list[str]:
    lines = []
    for target in targets:
        rows = {row.scorer: row.agreement.spearman for row in table.rows if row.target == target}
        best = max(rows.keys() - {*COUNTS, "random"} or rows, key=lambda name: (rows[name].value, name))
        line = f"{target}: of the scores {best} agrees best, Spearman {_interval(rows[best])}"
        if "macs" in rows and best not in COUNTS:
            beside = "no worse" if rows["macs"].value >= rows[best].value else "worse"
            certain = rows[best].low <= rows["macs"].value <= rows[best].high
            line += f"; counting MACs does {beside}{' within the interval' * certain}, {_interval(rows['macs'])}"
        lines.append(f"{line}.")
    if not targets:
        lines.append(f"Scores of {len(table.names)} networks; without accuracies nothing tells how far to trust them.")
    return [*lines, "A score of untrained networks is no accuracy: python -m nas.select trains the finalists."]


def _intervals(rows: Sequence[Row]) -> graph_objects.Figure:
    figure = plot(120 + 26 * len(rows), "Spearman's rho, 95 % interval")
    for name, counted, colour in (("scores", False, ACCENT), ("counts and chance", True, WARM)):
        chosen = [row for row in rows if (row.scorer in (*COUNTS, "random")) == counted]
        if not chosen:
            continue
        items = [row.agreement.spearman for row in chosen]
        figure.add_scatter(
            x=[item.value for item in items], y=[row.scorer for row in chosen], mode="markers", name=name,
            marker={"size": 10, "color": colour, "symbol": "diamond" if counted else "circle"},
            error_x={"type": "data", "symmetric": False, "array": [item.high - item.value for item in items],
                     "arrayminus": [item.value - item.low for item in items]},
        )  # fmt: skip
    figure.update_yaxes(categoryorder="array", categoryarray=[row.scorer for row in reversed(rows)])
    return figure


def _scatter(
    table: RankTable, target: str, scorers: Sequence[str]
) -> tuple[graph_objects.Figure, dict[str, tuple[dict[str, Any], dict[str, Any]]]]:
    """Accuracy against the first scorer, and what the menu changes to show another; at most MOST networks."""
    truth = table.truth[target]
    known = np.flatnonzero(np.isfinite(truth))
    known = known[:: -(-len(known) // MOST) or 1]
    rows = [[_number(table.columns[name][index]) for name in scorers] for index in known]
    figure = plot(420, scorers[0], target)
    figure.add_scatter(
        x=[row[0] for row in rows], y=[float(truth[index]) for index in known], customdata=rows, mode="markers",
        text=[table.names[index] for index in known], marker={"size": 6, "color": ACCENT, "opacity": 0.6},
        hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
    )  # fmt: skip
    choices = {name: ({"column": index}, {"xaxis.title.text": name}) for index, name in enumerate(scorers)}
    return figure, choices


def _number(value: float) -> float | None:
    """A number as JSON holds it."""
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _sections(table: RankTable, targets: list[str]) -> list[str]:
    lines: list[str] = []
    for target in targets:
        rows = [row for row in table.rows if row.target == target]
        rows.sort(key=lambda row: -row.agreement.spearman.value)
        best = float(np.nanmax(table.truth[target]))
        lines += [
            f"## {target}: {rows[0].agreement.networks} networks, best {best:.4f}",
            "",
            f"| {' | '.join(HEADS)} |",
            "|---" * len(HEADS) + "|",
            *(_line(row) for row in rows),
            "",
        ]
    if not targets:
        lines += _scores_table(table)
    elif any(row.spread for row in table.rows):
        lines += [
            "Brackets: 95 % bootstrap over networks. Seed noise: share of a score's variance that the seed makes.",
            "Spearman over seeds: the lowest and highest of the single seeds, on the networks that have all of them.",
        ]
    return lines


def _line(row: Row) -> str:
    return "| " + " | ".join(_cells(row).values()) + " |"


def _cells(row: Row) -> dict[str, str]:
    item = row.agreement
    seeds = f"{row.spread.lowest:.3f} .. {row.spread.highest:.3f}" if row.spread else ""
    noise = f"{row.spread.noise:.1%}" if row.spread else ""
    cells = (
        row.scorer,
        _interval(item.spearman),
        _interval(item.kendall),
        _interval(item.ndcg),
        _interval(item.found, 4),
        seeds,
        noise,
        f"{row.seconds:.3f}" if row.seconds else "",
        row.published,
    )
    return dict(zip(HEADS, cells, strict=True))


def _interval(estimate: Estimate, digits: int = 3) -> str:
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _scores_table(table: RankTable) -> list[str]:
    """One line a network: mean and deviation over its seeds."""
    names = list(table.columns)
    lines = ["| network | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for index, network in enumerate(table.names):
        cells = []
        for name in names:
            values = table.repeats[name][index] if name in table.repeats else table.columns[name][index : index + 1]
            values = values[~np.isnan(values)]
            deviation = f" ± {values.std(ddof=1):.3g}" if values.size > 1 and np.isfinite(values).all() else ""
            cells.append(f"{values.mean():.6g}{deviation}" if values.size else "")
        lines.append(f"| {network} | " + " | ".join(cells) + " |")
    return lines


def scores_csv(table: RankTable) -> str:
    """Networks by scorers: the first seed's scores and the accuracies."""
    columns = {**table.truth, **table.columns}
    rows = [[name, *(f"{column[index]:.8g}" for column in columns.values())] for index, name in enumerate(table.names)]
    return csv_text([["network", *columns], *rows])


def agreement_csv(rows: list[Row]) -> str:
    """One line a scorer and target: every statistic with its interval, the spread, the cost."""
    names = ("spearman", "kendall", "ndcg", "found")
    edges = [f"{name}{suffix}" for name in names for suffix in ("", "_low", "_high")]
    tail = ["seeds", "spearman_worst_seed", "spearman_best_seed", "seed_noise", "seconds"]
    lines: list[list[object]] = [["target", "scorer", "networks", *edges, *tail]]
    for row in rows:
        estimates: list[Estimate] = [getattr(row.agreement, name) for name in names]
        numbers = [f"{value:.5f}" for item in estimates for value in (item.value, item.low, item.high)]
        seeds = row.spread
        figures = (seeds.lowest, seeds.highest, seeds.noise) if seeds else ()
        extra = [str(seeds.seeds), *(f"{value:.5f}" for value in figures)] if seeds else [""] * 4
        lines.append([row.target, row.scorer, row.agreement.networks, *numbers, *extra, f"{row.seconds:.4f}"])
    return csv_text(lines)


def draw_agreement(table: RankTable, target: str, path: Path) -> Path:
    """Spearman's rho of all scorers with intervals, beside the scatter of the best one and of the MACs."""
    rows = sorted((row for row in table.rows if row.target == target), key=lambda row: row.agreement.spearman.value)
    figure, grid = canvas(1, 3, 13, 1.6 + 0.28 * len(rows))
    bars, first, second = grid[0]
    for position, row in enumerate(rows):
        item = row.agreement.spearman
        color = WARM if row.scorer in COUNTS else ACCENT
        bars.plot([item.low, item.high], [position, position], color=color, lw=3, alpha=0.45, solid_capstyle="butt")
        bars.plot(item.value, position, "o", color=color, ms=5)
    bars.set_yticks(range(len(rows)), [row.scorer for row in rows])
    bars.axvline(0, color=PALE, lw=1)
    label(bars, f"{target} (orange: counts)", "Spearman's rho, 95 % interval", "")
    truth = table.truth[target]
    others = [row.scorer for row in rows if row.scorer not in ("random", "macs")]
    for axes, name in ((first, others[-1]), (second, "macs")):
        values = table.columns[name]
        known = np.isfinite(values) & np.isfinite(truth)
        x = values[known]
        axes.plot(x, truth[known], ".", ms=2, color=INK, alpha=0.35, rasterized=True)
        if x.size and x.min() > 0 and x.max() > 50 * x.min():
            axes.set_xscale("log")
        label(axes, name, name, target)
    return save_png(figure, path)
