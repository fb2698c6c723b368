"""Pictures of an evaluation, of a data set and of a latency table's validation, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.report.canvas import SERIES, WARM, canvas, save_png

if TYPE_CHECKING:
    from nas.inference.scoring import Evaluation

SHOWN = 40  # classes in one picture; the most frequent are taken


def save_evaluation(folder: Path, scored: Evaluation) -> None:
    """Write confusion.png, precision_recall.png and f1.png of an evaluation."""
    save_confusion(folder / "confusion.png", scored.confusion, list(scored.per_class))
    curves = scored.curves
    save_precision_recall(
        folder / "precision_recall.png", curves, {name: scored.per_class[name].ap50 for name in curves}
    )
    save_f1(folder / "f1.png", scored.f1_curves, *scored.best_f1)


def save_f1(
    path: Path, curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], best: float, threshold: float
) -> Path:
    """F1 over the score threshold of each class, their mean, and its highest place."""
    figure, ((axes,),) = canvas(1, 1, 7, 5)
    for (name, (scores, f1)), colour in zip(list(curves.items())[:SHOWN], SERIES * 9, strict=False):
        axes.plot(scores, f1, linewidth=1, color=colour, label=name if len(curves) <= 10 else None)
    if curves:
        scores = next(iter(curves.values()))[0]
        axes.plot(scores, np.mean([f1 for _, f1 in curves.values()], 0), color="black", linewidth=2, label="mean")
        axes.plot([threshold], [best], "*", ms=12, color=WARM, label=f"best: {best:.2f} at {threshold:.2f}")
        axes.legend(fontsize=8)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score threshold", ylabel="F1 at IoU 0.5")
    axes.grid(alpha=0.3)
    return save_png(figure, path)


def save_confusion(path: Path, confusion: NDArray[np.int64], classes: Sequence[str]) -> Path:
    """The confusion matrix (C + 1, C + 1), background last, as shares of each row with the counts written in."""
    counts = np.asarray(confusion)
    names = [*classes, "background"]
    if len(classes) > SHOWN:
        chosen = np.sort(np.argsort(-counts[:-1].sum(1), kind="stable")[:SHOWN])
        kept = [*chosen.tolist(), len(classes)]
        counts, names = counts[np.ix_(kept, kept)], [names[i] for i in kept]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(4.5, 0.45 * len(names) + 2)
    figure, ((axes,),) = canvas(1, 1, side, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("annotated")
    if len(names) <= 25:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    return save_png(figure, path)


def save_precision_recall(
    path: Path, curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], scores: Mapping[str, float]
) -> Path:
    """Precision over recall at IoU 0.5 of each class, and their mean; `scores`: the AP50 in the legend."""
    figure, ((axes,),) = canvas(1, 1, 7, 5)
    for (name, (recall, precision)), colour in zip(list(curves.items())[:SHOWN], SERIES * 9, strict=False):
        label = f"{name} {scores[name]:.3f}" if len(curves) <= 10 else None
        axes.plot(recall, precision, linewidth=1, color=colour, label=label)
    if curves:
        recall = next(iter(curves.values()))[0]
        mean = np.mean([precision for _, precision in curves.values()], 0)
        axes.plot(recall, mean, color="black", linewidth=2, label=f"mean {np.mean(list(scores.values())):.3f}")
        axes.legend(fontsize=8)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision at IoU 0.5")
    axes.grid(alpha=0.3)
    return save_png(figure, path)


def save_histogram(path: Path, histograms: Mapping[str, Sequence[int]], classes: Sequence[str]) -> Path:
    """Boxes of each class, a bar a split, the most frequent classes first."""
    totals = np.sum([np.asarray(h) for h in histograms.values()], 0)
    order = np.argsort(-totals, kind="stable")[:SHOWN]
    figure, ((axes,),) = canvas(1, 1, max(5, 0.3 * len(order) + 2), 4)
    width = 0.8 / max(len(histograms), 1)
    for number, (split, counts) in enumerate(histograms.items()):
        axes.bar(np.arange(len(order)) + number * width, np.asarray(counts)[order], width, label=split)
    axes.set_xticks(np.arange(len(order)) + 0.4 - width / 2, [classes[c] for c in order], rotation=90)
    axes.set_ylabel("boxes")
    axes.legend()
    return save_png(figure, path)


def save_scatter(path: Path, predicted: Sequence[float], measured: Sequence[float], title: str) -> Path:
    """Predicted against measured milliseconds of every network, the diagonal and a band of 10 percent around it."""
    figure, ((axes,),) = canvas(1, 1, 6, 6)
    low, high = 0.95 * min([*predicted, *measured]), 1.05 * max([*predicted, *measured])
    axes.fill_between([low, high], [0.9 * low, 0.9 * high], [1.1 * low, 1.1 * high], color="0.92", label="10 %")
    axes.plot([low, high], [low, high], color="0.5", linewidth=1)
    axes.scatter(measured, predicted, s=18)
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="measured ms", ylabel="predicted ms")
    axes.set_title(title, fontsize=8, wrap=True)
    axes.legend(loc="upper left")
    return save_png(figure, path)
