"""What scores are worth among networks that cost the same: NAS-Bench-201 with its measured latencies.

A search with a latency budget compares networks at the edge of the budget, not cheap ones with dear ones. So the
networks are cut into windows of equal latency, and the rank correlation with accuracy is averaged over the windows.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from nas.errors import UserError
from nas.scorers.agreement import spearman
from nas.scorers.measuring import read_table

#: Columns of the latency table: a GPU at batch 1 and 256, a server CPU, a phone, a small board.
DEVICES = ("titan_rtx_1", "titan_rtx_256", "gold_6226", "pixel3", "raspi4")


def windows(latency: np.ndarray, width: float, least: int) -> list[np.ndarray]:
    """Indices of the networks in consecutive windows whose latencies differ by at most `width`, at least `least` each."""
    order = np.argsort(latency, kind="stable")
    found, start = [], 0
    values = latency[order]
    while start < order.size:
        end = int(np.searchsorted(values, values[start] * (1 + width), side="right"))
        if end - start >= least:
            found.append(order[start:end])
        start = end
    return found


def within_windows(score: np.ndarray, accuracy: np.ndarray, groups: list[np.ndarray]) -> float:
    """Mean Spearman's rho inside the windows, weighted by their networks."""
    sizes = [group.size for group in groups]
    return float(np.average([spearman(score[group], accuracy[group]) for group in groups], weights=sizes))


def equal_latency_table(
    scores_path: Path, tables: Path, target: str = "c10_test_e200", width: float = 0.03, least: int = 10
) -> str:
    """Markdown: each score's rank correlation over all networks and inside windows of equal latency on each device.

    Raises UserError where the scores or the latency table are missing.
    """
    if not scores_path.is_file():
        raise UserError(f"{scores_path} is missing")
    stored = {row["arch"]: row for row in read_table(tables / "nb201_latency_ms.csv.gz", ("arch", *DEVICES))}
    scores = _columns(scores_path)
    names = scores.pop("network")
    accuracy = scores.pop(target).astype(float)
    columns = {name: _finite(values.astype(float)) for name, values in scores.items() if not name.endswith("_e200")}
    groups = {}
    for device in DEVICES:
        latency = np.array([float(stored[name][device]) for name in names])
        groups[device] = windows(latency, width, least)
    overall = {name: spearman(values, accuracy) for name, values in columns.items()}
    lines = [f"| score | all networks | {' | '.join(DEVICES)} |", "|---" * (len(DEVICES) + 2) + "|"]
    for name in sorted(columns, key=lambda item: -overall[item]):
        cells = [f"{within_windows(columns[name], accuracy, groups[device]):.3f}" for device in DEVICES]
        lines.append(f"| {name} | {overall[name]:.3f} | {' | '.join(cells)} |")
    counted = [f"{len(groups[device])} ({sum(group.size for group in groups[device])})" for device in DEVICES]
    lines.append(f"| windows (networks) | | {' | '.join(counted)} |")
    return "\n".join(lines)


def _columns(path: Path) -> dict[str, np.ndarray]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), -np.inf, values)
