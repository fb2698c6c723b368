"""The pictures and the page of a search."""

from __future__ import annotations

from pathlib import Path

import pytest

import nas
from nas.report.search_record import network_parts
from nas.search_output import published, search_record, shape_of, write_search
from nas.searching import SearchResult


@pytest.fixture(scope="module")
def result() -> SearchResult:
    return nas.find({"latency_ms": 3.0}, evaluations=600)


def test_parts_add_up_to_the_network(result: SearchResult) -> None:
    parts = network_parts(result.best.spec, 640, result.table)
    counts = nas.count(result.best.spec)
    assert sum(part.macs for part in parts) == counts.macs
    assert sum(part.ms for part in parts) == pytest.approx(float(nas.latency(result.best.spec)))
    assert [part.name for part in parts][0] == "stem" and [part.name for part in parts][-3:] == [
        "neck",
        "head",
        "network",
    ]


def test_the_record_marks_the_published_networks(result: SearchResult) -> None:
    import numpy as np

    marks = published(result)
    assert [mark.name for mark in marks] == ["damo-yolo-t", "damo-yolo-s"]
    assert marks[0].score == pytest.approx(1015.1441, abs=1e-3) and marks[0].inside and not marks[1].inside
    record = search_record(result, np.arange(len(result.outcome.history)), marks)
    assert record.best_curve[-1, 1] == pytest.approx(result.best.score)
    assert sum(row["ms"] for row in record.prices) == pytest.approx(result.best.metrics["latency_ms"])


def test_every_file_is_written_and_self_contained(result: SearchResult, tmp_path: Path) -> None:
    written = write_search(result, tmp_path, published(result))
    assert written[0] == tmp_path / "best.yaml" and all(path.stat().st_size > 0 for path in written)
    page = (tmp_path / "report.html").read_text()
    assert "https://cdn" not in page.split("plotly.js v")[0] and "microseconds" in page
    assert (tmp_path / "pareto.csv").read_text().splitlines()[1].endswith(shape_of(result.best.spec))
