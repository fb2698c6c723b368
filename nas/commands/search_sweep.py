"""One table and one picture of all searches of a sweep, anew after each, so that the last of them leaves it whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from filelock import FileLock

from nas.files import csv_text, read_json, write_atomic
from nas.report.canvas import SERIES, canvas, label, save_png
from nas.report.search import axis_label

#: What sweep.csv tells of every search.
COLUMNS = ("job", "space", "scorer", "searcher", "hardware", "seed", "limits", "status", "score", "latency_ms", "flops_g",
           "params_m", "layers", "rho", "digest", "told")  # fmt: skip
#: A row of sweep.csv, by column.
Found = dict[str, object]


def write_sweep(folder: Path) -> list[Found]:
    """sweep.csv and sweep.png of the searches below a sweep's folder that have come to their end; returns the rows.

    A search without a result (nothing fits, an error, still at work) has a row that says so. Searches side by side wait
    for each other, so that the last to end writes what all have found.
    """
    with FileLock(folder / ".sweep.lock"):
        places = [place for place in folder.iterdir() if place.is_dir() and place.name.isdigit()]
        rows = [row_of(place) for place in sorted(places, key=lambda place: int(place.name))]
        table = [COLUMNS, *([row.get(name, "") for name in COLUMNS] for row in rows)]
        write_atomic(folder / "sweep.csv", csv_text(table))
        draw_sweep(rows, folder / "sweep.png")
    return rows


def row_of(place: Path) -> Found:
    """What the search in a folder found."""
    if not (place / "summary.json").is_file():
        return {"job": place.name, "status": "no result", "told": "nothing fits, or the search has not ended"}
    known: Any = read_json(place / "summary.json")
    origin, proved = known["provenance"], bool(known["proof"]) and not known["unproven"]
    return {
        "job": place.name,
        **{name: origin[name] for name in ("space", "scorer", "searcher", "hardware", "seed") if name in origin},
        "limits": json.dumps(known["limits"]).strip("{}").replace('"', ""),
        "status": "interrupted" if known["interrupted"] else "proved" if proved else "unproven",
        **{name: value for name, value in known["best"].items() if name in COLUMNS},
        "told": known["proof"] or known["unproven"] or "",
        "metric": next(iter(known["limits"])),
        **{f"cost {name}": value for name, value in known["best"].items()},
    }


def draw_sweep(rows: Sequence[Found], path: Path) -> Path:
    """Score over the first limited metric, a panel for each pair of scorer and metric (scores of two scorers do not
    compare), a colour for each space; filled where the optimum is proved."""
    found = [row for row in rows if "score" in row]
    panels = list(dict.fromkeys((str(row["scorer"]), str(row["metric"])) for row in found))
    figure, grid = canvas(1, max(1, len(panels)), 5.5 * max(1, len(panels)), 4.5)
    spaces = list(dict.fromkeys(str(row["space"]) for row in found))
    for axes, (scorer, metric) in zip(grid[0], panels, strict=False):
        for space, colour in zip(spaces, SERIES * (1 + len(spaces) // len(SERIES)), strict=False):
            mine = [row for row in found if (row["scorer"], row["metric"], row["space"]) == (scorer, metric, space)]
            named = space
            for row in mine:
                face = colour if row["status"] == "proved" else "white"
                point = cast(float, row[f"cost {metric}"]), cast(float, row["score"])
                axes.plot(*point, "o", ms=6, mec=colour, mfc=face, label=named)
                axes.annotate(str(row["job"]), point, fontsize=8, xytext=(5, 4), textcoords="offset points")
                named = ""
        label(axes, "the best network of every search, by its number", axis_label(metric), f"{scorer} score")
        axes.legend(fontsize=9, frameon=False)
    return save_png(figure, path)
