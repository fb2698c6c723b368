"""The report of a ranking: Markdown, CSV and PNG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.files import csv_text, write_atomic
from nas.report.canvas import ACCENT, INK, PALE, WARM, canvas, label, save_png
from nas.scorers.agreement import Agreement, Estimate, Spread


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
    """Write report.md, scores.csv, agreement.csv and, where accuracies are known, PNGs; returns the Markdown."""
    write_atomic(folder / "scores.csv", scores_csv(table))
    targets = list(dict.fromkeys(row.target for row in table.rows))
    if targets:
        write_atomic(folder / "agreement.csv", agreement_csv(table.rows))
        for target in targets:
            draw_agreement(table, target, folder / f"agreement_{target}.png")
    text = "\n".join([table.protocol, "", *_sections(table, targets)]) + "\n"
    write_atomic(folder / "report.md", text)
    return text


def _sections(table: RankTable, targets: list[str]) -> list[str]:
    lines: list[str] = []
    for target in targets:
        rows = [row for row in table.rows if row.target == target]
        rows.sort(key=lambda row: -row.agreement.spearman.value)
        best = float(np.nanmax(table.truth[target]))
        lines += [
            f"## {target}: {rows[0].agreement.networks} networks, best {best:.4f}",
            "",
            "| scorer | Spearman | Kendall tau-b | nDCG@10 | best of its top 10 | Spearman over seeds | seed noise "
            "| s/net | published |",
            "|---|---|---|---|---|---|---|---|---|",
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
    item = row.agreement
    seeds = f"{row.spread.lowest:.3f} .. {row.spread.highest:.3f}" if row.spread else ""
    noise = f"{row.spread.noise:.1%}" if row.spread else ""
    cells = [
        row.scorer,
        _interval(item.spearman),
        _interval(item.kendall),
        _interval(item.ndcg),
        _interval(item.found, 4),
        seeds,
        noise,
        f"{row.seconds:.3f}" if row.seconds else "",
        row.published,
    ]
    return "| " + " | ".join(cells) + " |"


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
        counted = not row.seconds
        color = WARM if counted else ACCENT
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
