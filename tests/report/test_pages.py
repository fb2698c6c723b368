"""The pages of all reports: what they say, and, in a browser, that nothing overlaps or leaves the window at any width.

The pictures of the pages are left in the folder that MAENAS_PICTURES names, else in pytest's.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

import nas
from nas.commands.benchmark_files import Benchmark, Row, verdict_lines
from nas.commands.compare import CompareSettings, run_comparison
from nas.commands.rank import RankSettings, run_ranking
from nas.commands.search_files import decorate_search
from nas.commands.select_files import SelectionResult, summary, verdict
from nas.cost.budget import Budget
from nas.data.dataset import DetectionData, Record
from nas.files import dump_yaml, save_spec
from nas.frame import Frame
from nas.inference.scoring import Found, score_detections
from nas.measure.artefact import Interval, Parity, Stages
from nas.report.benchmark import benchmark_page
from nas.report.page import bars, copyable, escaped, figure_html, fold, html_table, page, plot
from nas.report.selection import selection_page
from nas.report.training import TrainingRecord, losses_by_epoch, write_training_report
from nas.selection.halving import RungResult, Standing
from nas.selection.portfolio import Finalist, Proposal
from nas.selection.rungs import Plan, Rung
from nas.selection.spent import Spent
from nas.selection.trainings import Deployed
from nas.spec import digest
from search_spaces import load_published
from tests.report.browser import CHROMIUM, MISSING, Browser

NAMES = ("search", "select", "train", "rank", "compare", "benchmark")
WIDTHS = (390, 1000, 1600)


def search(folder: Path) -> Path:
    decorate_search(nas.find({"latency_ms": 3.0}, evaluations=600), folder)
    return folder / "report.html"


def selected(folder: Path) -> SelectionResult:
    """Eight networks with made-up curves over two rungs; the best of the last was searched."""
    spec = load_published("damo-yolo-t")
    finalists = tuple(
        Finalist(f"network-{i}", "drawn" if i % 3 == 2 else "searched", "tinynas_k1kx", "mae", spec, digest(spec) + str(i),
                 {"latency_ms": 19.4 + 0.1 * i, "params_m": 8.4})
        for i in range(8)
    )  # fmt: skip
    curves = {
        f.digest: {e: (0.5 - 0.03 * i) * e / 9 for e in range(1, 10 if i < 3 else 4)} for i, f in enumerate(finalists)
    }
    rungs = tuple(
        RungResult(epochs, tuple(Standing(f, 0, epochs, curves[f.digest][epochs], curves[f.digest][epochs]) for f in entrants),
                   finalists[:3])
        for epochs, entrants in ((3, finalists), (9, finalists[:3]))
    )  # fmt: skip
    proposal = Proposal(Budget.of({"latency_ms": 20.0}), "cpu_onnxruntime_fp32_1thread", Frame())
    deployed = (Deployed(finalists[0], 0, Path("network-0.onnx"), "test", 0.47, 0.71, 20.3, (20.1, 20.6)),)
    plan = Plan((Rung(3, 8), Rung(9, 3)))
    return SelectionResult(folder, proposal, plan, finalists, rungs, curves, deployed)


def select(folder: Path) -> Path:
    result = selected(folder)
    path = folder / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(selection_page(result, verdict(result)))
    return path


def train(folder: Path) -> Path:
    """A training whose detector finds most boxes of three classes."""
    rng, records, found = Random(0), [], []
    for number in range(12):
        boxes = np.array([[x, 10, x + 30, 50] for x in (5, 60, 110)], np.float32)
        labels = np.array([number % 3, (number + 1) % 3, 2])
        records.append(Record(Path(f"{number}.jpg"), number, 160, 96, boxes, labels, np.full(3, 1200.0)))
        scores = np.array([0.4 + 0.05 * rng.randrange(10) for _ in range(3)])
        guessed = np.where(scores > 0.5, labels, (labels + 1) % 3)
        found.append(Found(boxes + rng.randrange(4), scores, guessed))
    data = DetectionData("cells", "val", ("a rather long name", "platelet", "ring"), (1, 2, 3), tuple(records))
    folder.mkdir(parents=True, exist_ok=True)
    steps = "".join(f"{step},{(step + 1) // 2},0.1,{4 / step},{2 / step},{6 / step}\n" for step in range(1, 9))
    (folder / "steps.csv").write_text("step,epoch,lr,class,box,total\n" + steps)
    epochs = [{"step": 2 * e, "epoch": e, "ap": 0.1 * e, "ap50": 0.2 * e, "ap75": 0.05 * e, "loss": 6 / e, "loss/box": 2 / e}
              for e in (1, 2, 3, 4)]  # fmt: skip
    pixels = {f"{i}.jpg": np.full((96, 320, 3), 40 * i, np.uint8) for i in range(3)}
    return write_training_report(
        TrainingRecord(
            "Training of a searched detector on cells", folder, epochs, 4, score_detections(data, found), pixels
        )
    )


def rank(folder: Path) -> Path:
    names = ("damo-yolo-t", "damo-yolo-s", "damo-yolo-m", "damo-yolo-l")
    networks = folder / "networks.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    networks.write_text(dump_yaml([{"model": name, "ap": 0.4 + 0.03 * i} for i, name in enumerate(names)]))
    run_ranking(RankSettings(networks=str(networks), scorers=("mae", "deepmad"), folder=folder, progress=False))
    return folder / "report.html"


def compare(folder: Path) -> Path:
    mine = save_spec(folder / "mine.yaml", load_published("damo-yolo-ns"))
    models = ("damo-yolo-s", "yolo11n", str(mine))
    run_comparison(CompareSettings(models, scorer={"name": "mae"}, folder=folder, ap={"yolo11n": 39.0}))
    return folder / "compare.html"


def benchmark(folder: Path) -> Path:
    """Four made-up rows: one that is recommended, one that loses too much, one that cannot run."""

    def stages(network: float) -> Stages:
        times = (Interval(ms, 0.95 * ms, 1.1 * ms) for ms in (1.2, network, 0.8, network + 2.0))
        return Stages(*times)

    def row(format: str, precision: str, ap: float, ms: float, matched: float) -> Row:
        parity = Parity(8, 210, matched, 0.01, 0.5)
        return Row(format, precision, "", "file", 33.1, ap, ap + 0.3, 72, stages(ms), 180.0, parity, host={"cores": 2})

    rows = (
        row("torch", "fp32", 0.61, 61.0, 1.0),
        row("onnx", "fp32", 0.6099, 40.0, 1.0),
        row("onnx", "int8", 0.60, 21.0, 0.97),
        Row("tensorrt", "fp16", "TensorRT is not installed: pip install tensorrt"),
    )
    result = Benchmark(folder, "damo-yolo-t", "bccd test", rows)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    path.write_text(benchmark_page(result, verdict_lines(result)))
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    return {make.__name__: make(root / make.__name__) for make in (search, select, train, rank, compare, benchmark)}


def words(path: Path) -> str:
    """The text of a page without styles, scripts and tags."""
    return re.sub(r"<[^>]+>", "", re.sub(r"<(style|script)>.*?</\1>", "", path.read_text(), flags=re.S))


@pytest.mark.slow
def test_a_benchmark_says_what_to_deploy_and_what_not(pages: dict[str, Path]) -> None:
    text = words(pages["benchmark"])
    assert "onnx fp32 is the fastest that keeps the AP: 42.00 ms a frame" in text and "1.5 times as fast" in text
    assert "Not recommended: onnx int8, which loses 1.0 AP." in text
    assert "Could not run: tensorrt fp16: TensorRT is not installed" in text


def test_a_search_says_first_what_it_found(pages: dict[str, Path]) -> None:
    text = words(pages["search"])
    assert re.search(
        r"The highest mae score with predicted latency \(ms\) at most 3: 1[34]\d\d(\.\d)?, (not )?proved\.", text
    )
    assert "mean error of the table, 3.1 %" in text and "no accuracy" in text and "nas.select" in text
    assert text.index("Score against cost") < text.index("The winner, part by part") < text.index("Provenance")
    assert "<button class='copy'>" in pages["search"].read_text() and "format: maenas-spec/1" in text


def test_a_selection_tells_who_was_dropped_where(pages: dict[str, Path]) -> None:
    text = words(pages["select"])
    assert "network-0 (searched) has the best validation AP, 50.0" in text
    assert "After epoch 3: network-3 (AP 13.7), network-4 (AP 12.7)" in text
    assert (
        "20.30 ms measured here (19.40 ms predicted)" in text and "dropped after epoch 3" in pages["select"].read_text()
    )


def test_a_selection_says_what_its_networks_started_from(tmp_path: Path) -> None:
    result = selected(tmp_path)
    told = [" ".join(verdict(replace(result, images=images))) for images in (0, 9_999, 10_000)]
    assert "All networks started from scratch on 9,999 pictures, which loses to weights" in told[1]
    assert "scratch" not in told[0] + told[2]
    kept = {finalist.digest: (10 * number, 90) for number, finalist in enumerate(result.finalists)}
    began = replace(result, images=300, weights="coco.safetensors", kept=kept)
    text = " ".join(verdict(began))
    assert "from coco.safetensors: 0 of 90 entries fit network-0, 20 of 90 entries fit network-2." in text
    assert "scratch" not in text and summary(began)["kept_entries"]["network-7"] == "70 of 90"  # type: ignore[index]
    assert "kept_entries" not in summary(result) and "entries kept" not in selection_page(result, ["made up"])
    page = selection_page(began, ["made up"])
    assert "entries kept" in page and "70 of 90" in page


def test_a_selection_says_how_long_the_whole_of_it_took(tmp_path: Path) -> None:
    result = selected(tmp_path)
    assert "seconds" not in summary(result) and "whole selection" not in " ".join(verdict(result))
    timed = replace(result, spent=Spent(3012.34, 2470.06, 2))
    known = summary(timed)
    assert [known[name] for name in ("seconds", "cpu_seconds", "starts")] == [3012.3, 2470.1, 2]
    assert (
        "The whole selection, search, trainings and files, took 50.2 minutes (41.2 CPU minutes, 2 starts)."
        in verdict(timed)
    )


def test_a_training_names_its_threshold_and_leaves_pictures(pages: dict[str, Path]) -> None:
    text, folder = words(pages["train"]), pages["train"].parent
    assert "by the weights of epoch 4 of 4." in text and "more epochs may still help" in text
    (f1, threshold) = re.search(r"serves best at (0\.\d\d), where F1 is (0\.\d\d)", text).groups()[::-1]  # type: ignore[union-attr]
    assert f"score_threshold={threshold}" in text and 0.3 < float(f1) < 1
    pictures = {"curves.png", "precision_recall.png", "confusion.png", "f1.png", "0.png", "1.png", "2.png"}
    assert {path.name for path in (folder / "pictures").iterdir()} == pictures
    losses = losses_by_epoch(folder / "steps.csv")
    figures = pages["train"].read_text()
    assert "total, validation" in figures and "box, validation" in figures and "class, validation" not in figures
    assert losses["epoch"] == [1, 2, 3, 4] and losses["class"][0] == 3.0 and losses["total"][1] == 1.75


def test_a_comparison_keeps_margins_one_family_and_the_frontier(pages: dict[str, Path]) -> None:
    text = words(pages["compare"])
    assert "3.53 ± 0.11 [" in text and "mine, not trained" in pages["compare"].read_text()
    assert "not that of yolo11n" in text
    assert "in that time the frontier has rf-detr-s, 53.0 COCO AP at 3.52 ms (single artifact" in text
    assert (
        "| lw-detr-s | 640 | 48.0 | 2.62 | 14.6 | single artifact"
        in (pages["compare"].parent / "compare.md").read_text()
    )


def test_a_ranking_sets_the_best_score_beside_counting(pages: dict[str, Path]) -> None:
    text = words(pages["rank"])
    assert "ap: of the scores deepmad agrees best, Spearman 1.000" in text or "mae agrees best, Spearman 1.000" in text
    assert "counting MACs does no worse within the interval, 1.000" in text and "Scores of all networks" in text


def test_nothing_that_is_shown_becomes_markup() -> None:
    assert escaped("<b>") == "&lt;b&gt;" and "<b>" not in html_table([{"<b>": "<b>", "x": 1.23456}]) + copyable("<b>")
    assert "1.235" in html_table([{"x": 1.23456}]) and html_table([]) == fold("empty", "") == ""
    assert "width:75.00%" in bars([("a", "", 2.0, "2 ms"), ("b", "", 1.0, "1 ms")])
    assert "width:37.50%" in bars([("a", "", 2.0, "2 ms"), ("b", "", 1.0, "1 ms")])
    assert "plotly" not in page("t", ["<p>words alone</p>"]).replace("js-plotly-plot", "")
    menu = figure_html(plot(), "it", {"a": ({"column": 0}, {}), "b": ({"column": 1}, {"t": "'"})})
    assert [json.loads(v.replace("&quot;", '"').replace("&#x27;", "'")) for v in re.findall("value='([^']*)'", menu)] == [
        [{"column": 0}, {}], [{"column": 1}, {"t": "'"}],
    ]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip(MISSING)
    with Browser() as browser:
        yield browser


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nothing_overlaps_or_leaves_the_window(
    pages: dict[str, Path], browser: Browser, name: str, tmp_path: Path
) -> None:
    pictures = Path(os.environ.get("MAENAS_PICTURES") or tmp_path)
    for width in WIDTHS:
        for dark in (False, True):
            picture = pictures / f"{name}-{width}-{'dark' if dark else 'light'}.png"
            assert browser.faults(pages[name], width, dark, picture) == [], f"{width} {dark}"
            assert picture.stat().st_size > 10_000


def test_faults_are_found(browser: Browser, tmp_path: Path) -> None:
    bad = page("bad", ["<p>one</p><p style='margin-top:-1.3rem'>two</p><div style='width:999px'>wide</div>"])
    (tmp_path / "bad.html").write_text(bad)
    found = browser.faults(tmp_path / "bad.html", 390, False, tmp_path / "bad.png")
    assert any(fault.startswith("overlap: one | two") for fault in found)
    assert "outside: DIV wide" in found and any(fault.startswith("scrolls sideways") for fault in found)


@pytest.mark.slow
def test_the_menu_puts_another_cost_across(pages: dict[str, Path], browser: Browser) -> None:
    browser.open(pages["search"], 1000, False)
    change = "(c => { c.selectedIndex = 2; c.onchange() })(document.querySelector('select[data-plot=cloud]'))"
    browser.run(change)
    title, x, row = json.loads(browser.run(
        "(p => JSON.stringify([p.layout.xaxis.title.text, p.data[4].x[0], p.data[4].customdata[0]]))"
        "(document.getElementById('cloud'))"
    ))  # fmt: skip
    assert title == "parameters (M)" and x == row[2]
