"""Predicted against measured milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def draw_scatter(path: Path, predicted: Sequence[float], measured: Sequence[float], title: str) -> None:
    """Write a PNG with every network, the diagonal and a band of 10 percent around it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    low, high = 0.95 * min([*predicted, *measured]), 1.05 * max([*predicted, *measured])
    axes.fill_between([low, high], [0.9 * low, 0.9 * high], [1.1 * low, 1.1 * high], color="0.92", label="10 %")
    axes.plot([low, high], [low, high], color="0.5", linewidth=1)
    axes.scatter(measured, predicted, s=18)
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="measured ms", ylabel="predicted ms")
    axes.set_title(title, fontsize=8, wrap=True)
    axes.legend(loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
