"""The pictures of the tables: AP of every row with its 95 % interval, beside the published AP where there is one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.tables import Table
from nas.report.canvas import ACCENT, INK, PALE, WARM, canvas, label, save_png


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval by Student's t (nan for a single value)."""
    from scipy.stats import t

    mean, count = sum(values) / len(values), len(values)
    if count < 2:
        return mean, math.nan
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    return mean, float(t.ppf(0.975, count - 1)) * spread / math.sqrt(count)


def draw_table(table: Table, title: str, found: Mapping[str, Sequence[float]], path: Path) -> Path:
    """Rows of `found` (row -> AP of each seed) as mean, interval and seeds; published APs in a panel of their own."""
    rows = [row for row in table.rows if found.get(row.name)]
    published = [row for row in rows if "ap" in row.published]
    figure, (panels,) = canvas(1, 2 if published else 1, 9 if published else 6, 0.9 + 0.34 * len(rows))
    for height, row in enumerate(rows):
        values = found[row.name]
        mean, half = interval(values)
        panels[0].plot(values, [height] * len(values), "o", color=PALE, ms=4)
        panels[0].errorbar(
            mean, height, xerr=None if math.isnan(half) else half, fmt="o", color=ACCENT, ms=6, capsize=3
        )
        if "ap" in row.published:
            panels[1].plot(row.published["ap"], height, "D", color=WARM, ms=6)
    for axes, heading in zip(panels, (title, "published, COCO"), strict=False):
        label(axes, heading, "AP", "")
        axes.set_yticks(range(len(rows)), [row.name for row in rows], color=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x", color=PALE, lw=0.5)
    if published:
        panels[1].tick_params(labelleft=False)
    return save_png(figure, path)
