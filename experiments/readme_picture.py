"""python -m experiments.readme_picture: draw docs/images/results.png, README's picture, from committed files.

Left: published AP over T4 milliseconds, and the milliseconds of what a search proves highest under some budgets, whose AP
on COCO nobody knows. Right: what training tells, the test AP of the bench's detectors over predicted CPU milliseconds.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.command import run
from experiments.detector_bench.table import Run, load
from nas.report.canvas import ACCENT, GREEN, INK, PALE, QUIET, WARM, canvas, label, save_png
from nas.report.detector_plots import pareto_front
from nas.report.detector_table import PUBLISHED_FILE, frontier_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parents[1]
PICTURE, BUDGETS = ROOT / "docs/images/results.png", ROOT / "experiments/exact_search/budgets.csv"
#: Slower detectors are left out, so that the rest can be told apart.
MOST_MS = 9.0
#: How a network of the bench came about -> colour and marker.
KINDS = {
    "highest effective_rank": (GREEN, "o"),
    "highest mae": (WARM, "s"),
    "highest other score": (ACCENT, "^"),
    "drawn by hand, scaled": (INK, "D"),
    "random": (QUIET, "x"),
}


def kind_of(one: Run) -> str:
    """The group of KINDS that a network of the bench belongs to."""
    if one.family == "optimal":
        return f"highest {one.score}" if one.score in ("effective_rank", "mae") else "highest other score"
    return "drawn by hand, scaled" if one.family == "scaled" else "random"


def published() -> list[tuple[str, float, float]]:
    """(model, T4 milliseconds, COCO AP) as their authors publish them."""
    with PUBLISHED_FILE.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["t4_trt_fp16_ms"] and row["coco_ap"]]
    return [(row["model"], float(row["t4_trt_fp16_ms"]), float(row["coco_ap"])) for row in rows]


def searched() -> list[float]:
    """Milliseconds on a T4 for which the highest `mae` is proved."""
    with BUDGETS.open(encoding="utf-8", newline="") as file:
        names = [row["budget"] for row in csv.DictReader(file)]
    return sorted(float(name[8:-2].replace("_", ".")) for name in names if re.fullmatch(r"latency_[\d_.]+ms", name))


def draw_published(axes: Axes) -> None:
    """AP over milliseconds of everything published, the single-file frontier with its line and names."""
    known = [point for point in published() if point[1] <= MOST_MS]
    axes.scatter([ms for _, ms, _ in known], [ap for *_, ap in known], s=14, color=PALE, label="authors' own protocols")
    ours = [point for point in known if point[0].startswith("damo")]
    axes.scatter([ms for _, ms, _ in ours], [ap for *_, ap in ours], s=26, color=WARM, marker="D", label="DAMO-YOLO")
    single = [row for row in frontier_rows() if row.ms <= MOST_MS]
    points = [(row.ms, row.ap) for row in single]
    xs, ys = zip(*points, strict=True)
    axes.scatter(xs, ys, s=22, color=ACCENT, label="AP and time of one file, NMS inside")
    front = pareto_front(points)
    axes.plot([xs[i] for i in front], [ys[i] for i in front], color=ACCENT, lw=1)
    for i in front:
        place: dict[str, Any] = {"xytext": (-6, 4), "textcoords": "offset points", "ha": "right"}
        axes.annotate(single[i].model, points[i], fontsize=9, color=INK, **place)
    low, limits = axes.get_ylim()[0], searched()
    known_by = "searched, highest `mae` proved: AP not known"
    axes.plot(limits, [low] * len(limits), "^", color=GREEN, ms=8, clip_on=False, label=known_by)
    axes.set_ylim(bottom=low)
    axes.legend(fontsize=9, frameon=False, loc="lower right")
    label(axes, "Published detectors", "milliseconds on a T4, TensorRT FP16", "COCO AP")


def draw_trained(axes: Axes, runs: Sequence[Run], data: str) -> None:
    """Test AP of the bench's networks over predicted milliseconds, by how they came about."""
    mine = [one for one in runs if one.data == data]
    for kind, (colour, marker) in KINDS.items():
        some = [one for one in mine if kind_of(one) == kind]
        xs, ys = [one.latency_ms for one in some], [100 * one.test_ap for one in some]
        axes.plot(xs, ys, marker, color=colour, ms=6, label=kind)
    axes.legend(fontsize=9, loc="upper left", framealpha=0.8, edgecolor="none")
    networks = len({one.digest for one in mine})
    title = f"Trained on {data}: {networks} detectors, {len(mine)} runs"
    label(axes, title, "predicted milliseconds, one CPU core, 320 px", "test AP")


def main(words: list[str]) -> None:
    """Draw the picture; takes no options."""
    figure, ((left, right),) = canvas(1, 2, 11, 4.2)
    draw_published(left)
    draw_trained(right, load(), "cards")
    for axes in (left, right):
        axes.tick_params(labelsize=9)
        axes.grid(color=PALE, lw=0.4)
        axes.set_axisbelow(True)
    print(save_png(figure, PICTURE))


if __name__ == "__main__":
    run(main)
