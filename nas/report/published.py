"""Published figures of detectors, read from published.csv beside this file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

PUBLISHED_FILE = Path(__file__).resolve().parent / "published.csv"
#: Column of the file -> column of a comparison.
KEYS = {
    "coco_ap": "ap_published",
    "t4_trt_fp16_ms": "published_ms",
    "params_m": "params_published_m",
    "flops_g": "flops_published_g",
}


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row of published figures, None where nothing was printed."""

    model: str
    family: str
    image_size: int
    figures: dict[str, float]
    source: str


def published_rows() -> tuple[PublishedRow, ...]:
    """Every published row, in the file's order; a model has one row for each source."""
    rows = []
    with PUBLISHED_FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            figures = {ours: float(row[theirs]) for theirs, ours in KEYS.items() if row[theirs]}
            rows.append(PublishedRow(row["model"], row["family"], int(row["image_size"]), figures, row["source"]))
    return tuple(rows)
