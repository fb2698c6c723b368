"""The comparison's table and files: every number keeps its source, the Pareto front is the front."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nas.report.detector_plots import chosen_quality, pareto_front, write_comparison
from nas.report.detector_table import Entry, Figure, comparison_csv, comparison_markdown, published_rows

ENTRIES = [
    Entry("a", "one", 640, {"predicted_ms": Figure(2.0, "table", 0.1), "ap_published": Figure(40.0, "paper")}),
    Entry("b", "two", 320, {"predicted_ms": Figure(3.0, "table", 0.2), "ap_own": Figure(45.5, "run")}),
    Entry("c", "two", 320, {"params_m": Figure(1.0, "counted")}),
]


def test_markdown_names_every_source() -> None:
    text = comparison_markdown(ENTRIES, "title", ["a note"])
    assert "| a | 640 |  | 2.00 ± 0.10 [a] |  | 40.0 [b] |" in text
    assert "| b | 320 |  | 3.00 ± 0.20 [a] | 45.5 [c] |  |" in text
    assert "[a] table; [b] paper; [c] run; [d] counted." in text and text.endswith("a note\n")


def test_csv_repeats_numbers_errors_and_sources() -> None:
    rows = list(csv.DictReader(io.StringIO(comparison_csv(ENTRIES))))
    assert rows[1]["predicted_ms"] == "3.0" and rows[1]["predicted_ms_error"] == "0.2"
    assert rows[1]["ap_own_source"] == "run" and rows[0]["ap_own_source"] == ""


def test_files_are_written(tmp_path: Path) -> None:
    assert chosen_quality(ENTRIES) == "ap"
    write_comparison(ENTRIES, "A comparison", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "compare.csv", "compare.html", "compare.md", "compare.png",
    ]  # fmt: skip
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "compare.html").read_text()
    assert "plotly" in page and "src=" not in page.split("</style>")[0]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=30))
def test_pareto_front(points: list[tuple[float, float]]) -> None:
    front = [points[i] for i in pareto_front(points)]
    assert front == sorted(front) and len(set(front)) == len(front)
    for point in points:
        assert any(cost <= point[0] and quality >= point[1] for cost, quality in front)
    for cost, quality in front:
        assert not any(x <= cost and y >= quality and (x, y) != (cost, quality) for x, y in points)


def test_published_figures() -> None:
    rows = published_rows()
    assert len(rows) == 58 and all(row.protocol and row.source for row in rows)
    assert next(row for row in rows if row.model == "rtdetrv2-x").figures == {
        "ap_published": 54.3, "published_ms": 15.03, "params_published_m": 76.0, "flops_published_g": 259.0,
    }  # fmt: skip
    assert rows[-1].figures == {"ap_published": 52.22, "published_ms": 7.87} and "NMS not timed" in rows[-1].protocol
