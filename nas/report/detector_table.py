"""The table of a comparison: what is known of each detector, published figures included, and where every number is from."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nas.files import csv_text

#: Column -> heading and number of decimals.
COLUMNS: dict[str, tuple[str, int]] = {
    "params_m": ("params, M", 2),
    "params_train_m": ("training form, M", 2),
    "params_published_m": ("published, M", 2),
    "params_difference": ("off, %", 1),
    "flops_g": ("GFLOPs", 2),
    "flops_published_g": ("published GFLOPs", 1),
    "flops_difference": ("off, %", 1),
    "predicted_ms": ("predicted ms", 2),
    "e2e_ms": ("predicted ms until boxes", 2),
    "published_ms": ("published ms", 2),
    "ms_difference": ("off, %", 1),
    "measured_ms": ("measured ms", 2),
    "ap_own": ("AP, our run", 1),
    "ap_published": ("AP, published", 1),
    "score": ("score", 2),
}
#: Column of a difference -> what we count or predict, and what was published.
DIFFERENCES = {
    "params_difference": ("params_m", "params_published_m"),
    "flops_difference": ("flops_g", "flops_published_g"),
    "ms_difference": ("predicted_ms", "published_ms"),
}
PUBLISHED_FILE, FRONTIER_FILE = (Path(__file__).resolve().parent / f"{name}.csv" for name in ("published", "frontier"))
#: Column of that file -> column of a comparison.
PUBLISHED_COLUMNS = {
    "coco_ap": "ap_published",
    "t4_trt_fp16_ms": "published_ms",
    "params_m": "params_published_m",
    "flops_g": "flops_published_g",
}

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, where it comes from, and its error bar in the same unit if one is known."""

    value: float
    source: str
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A row: the name to print, its family, the side of its image, and its figures by column.

    `drawn` is false for a second row of a model, which the pictures leave out.
    """

    name: str
    family: str
    image_size: int
    figures: dict[str, Figure] = field(default_factory=dict)
    drawn: bool = True

    def value(self, column: str) -> float | None:
        figure = self.figures.get(column)
        return None if figure is None else figure.value


def shown_columns(entries: Sequence[Entry]) -> list[str]:
    """The columns that any entry fills, in order."""
    return [column for column in COLUMNS if any(column in entry.figures for entry in entries)]


def source_letters(entries: Sequence[Entry]) -> dict[str, str]:
    """A letter for each source, in order of appearance; differences are of the two columns before them."""
    sources = dict.fromkeys(
        entry.figures[column].source
        for entry in entries
        for column in shown_columns(entries)
        if column in entry.figures and column not in DIFFERENCES
    )
    return {source: LETTERS[i % 26] * (1 + i // 26) for i, source in enumerate(sources)}


def comparison_markdown(entries: Sequence[Entry], title: str, notes: Sequence[str] = ()) -> str:
    """A heading, the table with a source letter at every number, the sources, and the notes."""
    columns, letters = shown_columns(entries), source_letters(entries)
    lines = [
        f"# {title}",
        "",
        "| detector | px | " + " | ".join(COLUMNS[column][0] for column in columns) + " |",
        "|---|---:|" + "---:|" * len(columns),
    ]
    for entry in entries:
        cells = [figure_cell(entry, column, letters) for column in columns]
        lines.append(f"| {entry.name} | {entry.image_size} | " + " | ".join(cells) + " |")
    lines += ["", "Sources: " + "; ".join(f"[{letter}] {source}" for source, letter in letters.items()) + "."]
    lines += [line for note in notes for line in ("", note)]
    return "\n".join(lines) + "\n"


def figure_cell(entry: Entry, column: str, letters: dict[str, str]) -> str:
    """A number with its error bar and the letter of its source; empty where it is not known."""
    figure = entry.figures.get(column)
    if figure is None:
        return ""
    decimals = COLUMNS[column][1]
    if column in DIFFERENCES:
        return f"{figure.value:+.{decimals}f}"
    margin = f" ± {figure.error:.{decimals}f}" if figure.error is not None else ""
    return f"{figure.value:.{decimals}f}{margin} [{letters[figure.source]}]"


def comparison_csv(entries: Sequence[Entry]) -> str:
    """One row an entry; every number is followed by its error bar where it has one, and by its source."""
    columns = shown_columns(entries)
    with_error = {column for column in columns if any(_error(entry, column) is not None for entry in entries)}
    header: list[object] = ["detector", "family", "image_size"]
    for column in columns:
        header += [column, *([f"{column}_error"] if column in with_error else []), f"{column}_source"]
    rows: list[list[object]] = [header]
    for entry in entries:
        row: list[object] = [entry.name, entry.family, entry.image_size]
        for column in columns:
            figure = entry.figures.get(column)
            row.append("" if figure is None else round(figure.value, 6))
            if column in with_error:
                error = _error(entry, column)
                row.append("" if error is None else round(error, 6))
            row.append("" if figure is None else figure.source)
        rows.append(row)
    return csv_text(rows)


def _error(entry: Entry, column: str) -> float | None:
    figure = entry.figures.get(column)
    return None if figure is None else figure.error


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row of published figures, only those that were printed; `protocol` says how AP and milliseconds were taken."""

    model: str
    family: str
    image_size: int
    figures: dict[str, float]
    protocol: str
    source: str


def published_rows() -> tuple[PublishedRow, ...]:
    """Every published row, in the file's order; a model has one row for each source."""
    rows = []
    with PUBLISHED_FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            figures = {ours: float(row[theirs]) for theirs, ours in PUBLISHED_COLUMNS.items() if row[theirs]}
            told = (row["protocol"], row["source"])
            rows.append(PublishedRow(row["model"], row["family"], int(row["image_size"]), figures, *told))
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class FrontierRow:
    """A detector of the frontier: COCO AP and milliseconds on a T4 as `protocol` takes them, parameters where known."""

    model: str
    image_size: int
    ap: float
    ms: float
    params_m: float | None
    protocol: str
    source: str


def frontier_rows() -> tuple[FrontierRow, ...]:
    """The frontier of real-time detectors, in the file's order."""
    with FRONTIER_FILE.open(encoding="utf-8", newline="") as file:
        return tuple(
            FrontierRow(
                row["model"],
                int(row["resolution"]),
                float(row["coco_ap"]),
                float(row["latency_ms"]),
                float(row["params_m"]) if row["params_m"] else None,
                row["protocol"],
                row["source"],
            )
            for row in csv.DictReader(file)
        )


def frontier_at(ms: float) -> FrontierRow | None:
    """The frontier's highest AP within so many milliseconds."""
    return max((row for row in frontier_rows() if row.ms <= ms), key=lambda row: row.ap, default=None)


def frontier_markdown() -> str:
    """The frontier as a section of Markdown."""
    lines = [
        "## The frontier",
        "",
        "| detector | px | AP | ms | params, M | protocol |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in frontier_rows():
        params = "" if row.params_m is None else f"{row.params_m:.1f}"
        lines.append(f"| {row.model} | {row.image_size} | {row.ap:.1f} | {row.ms:.2f} | {params} | {row.protocol} |")
    return "\n".join(lines) + "\n"
