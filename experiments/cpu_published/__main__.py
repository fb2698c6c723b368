"""Published CPU ONNX milliseconds beside the predictions of a CPU table of ours.

    python -m experiments.cpu_published [TABLE] [FOLDER]

Another machine with another number of threads measured the published figures, so that only ratios and ranks compare:
the plot shows both on logarithmic axes with the line of their common ratio, and the spread around it.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from experiments.command import run
from experiments.t4_calibration.__main__ import read_operations
from nas.cost.latency import LatencyTable

HERE = Path(__file__).parent


def compare(table: LatencyTable) -> list[tuple[str, str, float, float]]:
    """Model, family, published and predicted milliseconds."""
    with (HERE / "points.csv").open() as stream:
        return [
            (row["model"], row["family"], float(row["cpu_onnx_ms"]), table.total(read_operations(row["op_list"])).ms)
            for row in csv.DictReader(stream)
        ]


def ratios(points: list[tuple[str, str, float, float]]) -> tuple[float, float, float]:
    """Common ratio published / predicted (geometric mean), mean distance from it in percent, rank correlation."""
    logs = np.log([published / predicted for _, _, published, predicted in points])
    spread = 100 * float(np.mean(np.abs(np.exp(logs - logs.mean()) - 1)))
    rank = float(spearmanr([p[2] for p in points], [p[3] for p in points]).statistic)
    return float(np.exp(logs.mean())), spread, rank


def draw(path: Path, points: list[tuple[str, str, float, float]], title: str) -> None:
    """Both on logarithmic axes, one colour a family."""
    from matplotlib.figure import Figure

    common, _, _ = ratios(points)
    figure = Figure(figsize=(6.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for family in dict.fromkeys(point[1] for point in points):
        members = [point for point in points if point[1] == family]
        axes.plot([p[3] for p in members], [p[2] for p in members], "o-", label=family)
    for model, _, published, predicted in points:
        axes.annotate(model, (predicted, published), xytext=(4, -9), textcoords="offset points", fontsize=7)
    ends = np.array([min(p[3] for p in points), max(p[3] for p in points)])
    axes.plot(ends, common * ends, color="0.6", linestyle="--", label=f"ratio {common:.2f}")
    axes.set(xscale="log", yscale="log", xlabel="predicted ms, our table", ylabel="published ms, another machine")
    axes.set_title(title, fontsize=8)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(arguments: list[str]) -> None:
    table = LatencyTable.load(arguments[0] if arguments else "cpu_onnxruntime_fp32_1thread")
    folder = Path(arguments[1] if len(arguments) > 1 else "outputs/cpu_published")
    points = compare(table)
    common, spread, rank = ratios(points)
    for model, _, published, predicted in points:
        print(
            f"{model:10s} published {published:7.1f} ms  predicted {predicted:7.1f} ms  ratio {published / predicted:.2f}"
        )
    line = f"common ratio {common:.2f}, mean distance from it {spread:.1f} %, Spearman {rank:.3f}"
    print(line)
    draw(folder / "cpu_published.png", points, f"{table.header.device}: {line}")
    print(f"plot: {folder / 'cpu_published.png'}")


if __name__ == "__main__":
    run(main)
