"""The joint table and picture of a sweep: every search has a row, whatever came of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from nas.commands.search_sweep import COLUMNS, row_of, write_sweep


def finished(place: Path, score: float, **changes: Any) -> None:
    """The summary that a search leaves in its folder."""
    known: dict[str, Any] = {
        "best": {"digest": "ab12", "score": score, "latency_ms": 2.5, "params_m": 4.0, "layers": 21.0},
        "limits": {"latency_ms": 3.0, "params_m": [2.0, 5.0]}, "proof": "no member scores more", "unproven": "",
        "interrupted": False,
        "provenance": {"space": "tinynas_k1kx", "scorer": "mae", "searcher": "auto", "hardware": "t4", "seed": 1},
    }  # fmt: skip
    known["provenance"] |= changes.pop("provenance", {})
    place.mkdir(parents=True)
    (place / "summary.json").write_text(json.dumps(known | changes))


def test_every_search_has_a_row_in_the_order_of_its_number(tmp_path: Path) -> None:
    finished(tmp_path / "10", 7.0, proof="", unproven="the limit of 3 steps")
    finished(tmp_path / "2", 9.5)
    finished(tmp_path / "3", 1e3, provenance={"scorer": "params", "space": "gelan"}, interrupted=True)
    (tmp_path / "0").mkdir()
    (tmp_path / "notes").mkdir()
    write_sweep(tmp_path)
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["job"], row["status"]) for row in rows] == [
        ("0", "no result"), ("2", "proved"), ("3", "interrupted"), ("10", "unproven"),
    ]  # fmt: skip
    assert rows[0]["told"].startswith("nothing fits") and rows[3]["told"] == "the limit of 3 steps"
    assert rows[1]["score"] == "9.5" and rows[1]["limits"] == "latency_ms: 3.0, params_m: [2.0, 5.0]"
    assert (tmp_path / "sweep.png").stat().st_size > 10_000


def test_a_sweep_that_found_nothing_has_its_table(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    assert write_sweep(tmp_path) == [row_of(tmp_path / "0")]
    assert (tmp_path / "sweep.csv").read_text().count("\n") == 2
    assert (tmp_path / "sweep.png").is_file()
