"""The report of a training: curves, precision and recall, F1 with its best threshold, confusions, and pictures, on one page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.files import read_rows, write_atomic
from nas.report.canvas import ACCENT, QUIET, SERIES, canvas, label, save_png
from nas.report.evaluation_plots import SHOWN, save_evaluation
from nas.report.page import figure_html, fold, html_table, note, page, picture, plot, verdict

if TYPE_CHECKING:
    from plotly import graph_objects

    from nas.inference.scoring import Evaluation

#: Widest picture inside the page, in pixels.
WIDEST = 1100
#: Axes from 0 to 1.
UNIT = {"xaxis_range": [-0.02, 1.02], "yaxis_range": [-0.04, 1.04]}


@dataclass(frozen=True)
class TrainingRecord:
    """What the report of a training shows.

    epochs: the validations in order; evaluation: of the best checkpoint on the validation split; test: AP on the test
    split if there is one; pictures: truth left and prediction right, (H, W, 3), by name. best: the name of the figure by
    which the best weights were chosen, "" for AP.
    """

    title: str
    folder: Path
    epochs: Sequence[Mapping[str, float]]
    best_epoch: int
    evaluation: Evaluation
    pictures: Mapping[str, NDArray[np.uint8]]
    test: Mapping[str, float] | None = None
    best: str = ""


def losses_by_epoch(path: Path) -> dict[str, list[float]]:
    """The mean of every loss over the steps of each epoch, and the epochs, from steps.csv; empty without steps."""
    rows = read_rows(path)
    if not rows:
        return {}
    numbers = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "step"}
    every = np.unique(numbers["epoch"])
    return {
        name: [float(column[numbers["epoch"] == epoch].mean()) for epoch in every] for name, column in numbers.items()
    }


def write_training_report(record: TrainingRecord) -> Path:
    """Write report.html and, below `pictures/`, its PNGs into the folder of the training; returns the page's path."""
    place = record.folder / "pictures"
    losses = losses_by_epoch(record.folder / "steps.csv")
    _draw_curves(record, losses, place / "curves.png")
    save_evaluation(place, record.evaluation)
    for name, pixels in record.pictures.items():
        write_atomic(place / f"{Path(name).stem}.png", _encoded(pixels, "png"))
    scored = record.evaluation
    body = [
        verdict(_verdict(record)),
        "<h2>Validation AP</h2>",
        figure_html(_scores(record), "scores"),
        "<h2>Losses</h2>",
        figure_html(_losses(record, losses), "losses"),
        note("Dashed, with dots: of the averaged weights on the validation split, without augmentation."),
        "<h2>F1 and the threshold</h2>",
        figure_html(_f1(scored), "f1"),
        note("F1 at IoU 0.5 of what is left above a score; thick: the mean over classes."),
        "<h2>Precision and recall</h2>",
        figure_html(_precision_recall(scored), "precision_recall"),
        note("At IoU 0.5; thick: the mean over classes. The number behind a class is its AP50."),
        "<h2>What is taken for what</h2>",
        figure_html(_confusion(scored), "confusion"),
        note(
            f"Boxes found with a score above {scored.confusion_score:g}, at IoU 0.5; background: missed, or not there."
        ),
        "<h2>Pictures: truth left, prediction right</h2>",
        f"<div class='shots'>{''.join(picture(name, _small(pixels), 'jpeg') for name, pixels in record.pictures.items())}</div>",
        "<h2>More</h2>",
        fold("Classes", html_table([{"class": name, **one._asdict()} for name, one in scored.per_class.items()])),
        fold("All numbers", html_table([{"": name, "value": value} for name, value in scored.numbers.items()])),
    ]
    return write_atomic(record.folder / "report.html", page(record.title, body))


def _verdict(record: TrainingRecord) -> list[str]:
    scored, last = record.evaluation, record.epochs[-1]["epoch"] if record.epochs else record.best_epoch
    f1, threshold = scored.best_f1
    known = {name: one for name, one in scored.per_class.items() if one.boxes}
    lines = [
        f"Validation AP {100 * scored.ap:.1f}, AP50 {100 * scored.ap50:.1f}, by the weights of epoch {record.best_epoch} "
        f"of {last:g}{f', chosen by the validation {record.best}' if record.best else ''}."
    ]
    if record.test is not None:
        lines.append(f"On the test split: AP {100 * record.test['ap']:.1f}, AP50 {100 * record.test['ap50']:.1f}.")
    lines.append(f"One threshold for all classes serves best at {threshold:.2f}, where F1 is {f1:.2f}.")
    if len(known) > 1:
        worst = min(known, key=lambda name: known[name].ap)
        lines.append(
            f"The class that is found worst is {worst}: AP {100 * known[worst].ap:.1f}, {known[worst].boxes} boxes."
        )
    if len(record.epochs) > 2 and record.best_epoch == last:
        lines.append("The last validation was the best: more epochs may still help.")
    line = f"python -m nas.predict model={record.folder / 'best.safetensors'} source=PICTURES score_threshold={threshold:.2f}"
    return [*lines, f"Next: {line}"]


def _draw_curves(record: TrainingRecord, losses: Mapping[str, Sequence[float]], path: Path) -> Path:
    figure, ((left, right),) = canvas(1, 2, 11, 4)
    for name, colour in (("ap50", SERIES[5]), ("ap", ACCENT)):
        points = [(row["epoch"], 100 * row[name]) for row in record.epochs if name in row]
        left.plot([x for x, _ in points], [y for _, y in points], "o-", ms=3, color=colour, label=name)
    label(left, record.title, "epoch", "validation AP")
    for (name, values), colour in zip(_terms(losses), SERIES * 9, strict=False):
        right.plot(losses["epoch"], values, color=colour, label=name)
        if points := _validated(record, name):
            right.plot(*zip(*points, strict=True), "o--", ms=3, color=colour, label=f"{name}, validation")
    label(right, "mean loss of an epoch", "epoch", "loss")
    for axes in (left, right):
        if axes.lines:
            axes.legend(fontsize=8, frameon=False)
    return save_png(figure, path)


def _terms(losses: Mapping[str, Sequence[float]]) -> list[tuple[str, Sequence[float]]]:
    return [(name, values) for name, values in losses.items() if name not in ("epoch", "lr")]


def _scores(record: TrainingRecord) -> graph_objects.Figure:
    figure = plot(380, "epoch", "AP")
    names = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}
    for (name, title), colour in zip(names.items(), SERIES, strict=False):
        rows = [row for row in record.epochs if name in row]
        figure.add_scatter(
            x=[row["epoch"] for row in rows], y=[100 * row[name] for row in rows], name=title, mode="lines+markers",
            line={"color": colour, "width": 3 if name == "ap" else 1.5},
        )  # fmt: skip
    return figure


def _validated(record: TrainingRecord, term: str) -> list[tuple[float, float]]:
    """(epoch, loss) of a term, or of their total, on the validation split; none where it was not measured."""
    key = "loss" if term == "total" else f"loss/{term}"
    return [(row["epoch"], row[key]) for row in record.epochs if key in row]


def _losses(record: TrainingRecord, losses: Mapping[str, Sequence[float]]) -> graph_objects.Figure:
    figure = plot(380, "epoch", "mean loss of an epoch")
    for (name, values), colour in zip(_terms(losses), SERIES * 9, strict=False):
        figure.add_scatter(x=losses["epoch"], y=values, name=name, mode="lines", line={"color": colour})
        if points := _validated(record, name):
            figure.add_scatter(x=[x for x, _ in points], y=[y for _, y in points], name=f"{name}, validation",
                               mode="lines+markers", line={"color": colour, "dash": "dash"})  # fmt: skip
    return figure


def _f1(scored: Evaluation) -> graph_objects.Figure:
    figure = plot(380, "score threshold", "F1", **UNIT)
    _class_lines(figure, scored.f1_curves, {})
    f1, threshold = scored.best_f1
    figure.add_scatter(x=[threshold], y=[f1], mode="markers", name=f"best: {f1:.2f} at {threshold:.2f}",
                       marker={"size": 13, "symbol": "star", "color": SERIES[1]})  # fmt: skip
    return figure


def _precision_recall(scored: Evaluation) -> graph_objects.Figure:
    figure = plot(420, "recall", "precision", **UNIT)
    _class_lines(figure, scored.curves, {name: f" {one.ap50:.3f}" for name, one in scored.per_class.items()})
    return figure


def _class_lines(
    figure: graph_objects.Figure, curves: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], behind: Mapping[str, str]
) -> None:
    """A line a class, named where they are few, and their mean."""
    for (name, (x, y)), colour in zip(list(curves.items())[:SHOWN], SERIES * 9, strict=False):
        figure.add_scatter(x=list(x), y=[round(float(v), 4) for v in y], name=f"{name}{behind.get(name, '')}", mode="lines",
                           line={"color": colour, "width": 1.5}, showlegend=len(curves) <= 8)  # fmt: skip
    if len(curves) > 1:
        x, mean = next(iter(curves.values()))[0], np.mean([y for _, y in curves.values()], 0)
        figure.add_scatter(x=list(x), y=[round(float(v), 4) for v in mean], name="mean", mode="lines",
                           line={"color": QUIET, "width": 4})  # fmt: skip


def _confusion(scored: Evaluation) -> graph_objects.Figure:
    """Shares of each row; the counts are told where they fit, and under the pointer."""
    counts, names = scored.confusion, [*scored.per_class, "background"]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    few = len(names) <= 12
    figure = plot(140 + 46 * len(names) if few else 760, "predicted", "annotated")
    figure.add_heatmap(
        z=shares.round(4).tolist(), x=names, y=names, text=counts.tolist(), zmin=0, zmax=1, colorscale="Blues",
        showscale=False, texttemplate="%{text}" if few else None,
        hovertemplate="annotated %{y}, predicted %{x}: %{text}<extra></extra>",
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(tickangle=-90)
    return figure


def _small(pixels: NDArray[np.uint8]) -> bytes:
    """The picture as JPEG, no wider than the page shows it."""
    step = -(-pixels.shape[1] // WIDEST)
    return _encoded(pixels[::step, ::step], "jpeg")


def _encoded(pixels: NDArray[np.uint8], kind: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, kind)
    return stream.getvalue()
