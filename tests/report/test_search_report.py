"""The pictures and the page of a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nas
from nas.commands import search_files as search_output
from nas.commands.search import SearchCommand
from nas.commands.search_files import decorate_search, published, search_record, shape_of, write_search
from nas.files import read_spec_document
from nas.frame import Frame
from nas.options import check_fields
from nas.report.search import network_parts
from nas.searchers.run import SearchResult, run_search
from search_spaces import SearchSpace, find_space


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
    written, decoration = write_search(result, tmp_path), decorate_search(result, tmp_path)
    assert written[0] == tmp_path / "best.yaml" and decoration.warnings == ()
    assert all(path.stat().st_size > 0 for path in (*written, *decoration.written))
    page = (tmp_path / "report.html").read_text()
    assert "https://cdn" not in page.split("plotly.js v")[0] and "microseconds" in page
    assert (tmp_path / "pareto.csv").read_text().splitlines()[1].endswith(shape_of(result.best.spec))


@pytest.mark.parametrize("broken", ["published", "search_record", "write_search_page", "draw_search"])
def test_what_cannot_be_drawn_is_a_warning(
    result: SearchResult, tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise TypeError("object of type 'NoneType' has no len()")

    monkeypatch.setattr(search_output, broken, fails)
    written, decoration = write_search(result, tmp_path), decorate_search(result, tmp_path)
    assert {path.name for path in written} == {"best.yaml", "pareto.csv", "trace.csv", "summary.json", "front.jsonl"}
    (warning,) = decoration.warnings
    assert warning.endswith("left out: TypeError: object of type 'NoneType' has no len()")
    assert bool(decoration.marks) == (broken != "published")


@pytest.mark.parametrize(
    ("space", "scorer", "options"),
    [
        (find_space("tinynas_k1kx", max_layers=21, depths=[1, 2, 2, 2, 2]), "mae", {"level_weights": [0, 0, 1, 1, 8]}),
        (find_space("giraffe", backbone={"max_layers": 21}, neck_depth=[1, 2]), "mae_neck", {}),
        (find_space("gelan", depths=[1]), "level_balance", {"level_weights": (0, 0, 1, 1, 2)}),
    ],
)
def test_a_search_can_be_repeated_from_best_yaml(
    space: SearchSpace[Any], scorer: str, options: dict[str, Any], tmp_path: Path
) -> None:
    frame = Frame(num_classes=3, activation="silu", image_size=320)
    found = nas.find({"flops_g": 8.0}, space, scorer=scorer, scorer_options=options, searcher="evolution",
                     searcher_options={"population": 32}, frame=frame, evaluations=100, seed=4)  # fmt: skip
    write_search(found, tmp_path)
    spec, known = read_spec_document(tmp_path / "best.yaml")
    told = known["provenance"]
    values = (
        {group: {"name": told[group], **told[f"{group}_{rest}"]}
         for group, rest in (("space", "limits"), ("scorer", "options"), ("searcher", "options"))}
        | {"budget": told["limits"], "workers": 1}
        | {key: told[key] for key in ("neck", "image_size", "hardware", "scope", "seed", "evaluations")}
    )  # fmt: skip
    again = SearchCommand(**check_fields(SearchCommand, values)).settings
    assert again.identity == found.settings.identity == told["search"]
    assert run_search(again).best.spec == spec
    assert json.loads((tmp_path / "summary.json").read_text())["provenance"] == told
