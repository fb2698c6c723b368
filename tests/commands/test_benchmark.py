"""python -m nas.benchmark: every row is one file, what cannot run says why, and a finished row is never repeated."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import nas.commands.benchmark as command_module
import nas.measure.artefact as artefact
from nas.commands.benchmark import BenchmarkCommand, benchmark_in
from nas.commands.benchmark_files import Benchmark, Row, read_row, table_rows, verdict_lines
from nas.data.shapes import CLASSES, draw_shapes
from nas.data.sources import DataConfig, Split, load_splits
from nas.deploy import load_runtime
from nas.detector import Detector
from nas.errors import UserError
from nas.inference.evaluator import evaluate
from nas.measure.artefact import ArtefactJob, Interval, Parity, Stages
from nas.models.detector import build_detector
from nas.spec import Backbone, DetectorSpec, HeadSpec, NeckSpec, Residual, Stem

SIDE = 64
LIMITS = {"score_threshold": 0.0, "max_detections": 20, "max_candidates": 200, "check_images": 2, "timed_images": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_shapes(tmp_path_factory.mktemp("shapes"), counts={"train": 4, "val": 3, "test": 0}, size=96)


def detector() -> Detector:
    torch.manual_seed(0)
    blocks = tuple(Residual("k1kx", 16, 8, 1, 2) for _ in range(4))
    backbone = Backbone(Stem("focus", 8), blocks, (1, 2, 3), "spp", "relu", reparam=True)
    spec = DetectorSpec(backbone, NeckSpec((16, 16, 16), 1, (0.5, 0.5, 0.5)), HeadSpec(len(CLASSES), 7, 1), SIDE)
    return Detector(build_detector(spec, classes=CLASSES).eval(), "tiny")


def test_rows_are_of_their_files_and_finished_ones_are_not_repeated(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = artefact.measured_apart
    # The exported file is measured in a process of its own, as all are; torch here, which is quicker.
    monkeypatch.setattr(
        artefact, "measured_apart", lambda job: (artefact.measure if job.format == "torch" else apart)(job)
    )
    options = {"data.root": str(root), "data.test.images": None, "data.test.annotations": None, **LIMITS}
    asked = {"formats": ["onnx", "tensorrt"], "precisions": ["fp32"], **options}
    found = detector().benchmark("shapes", tmp_path / "run", **asked)
    plain, onnx, tensorrt = found.rows
    assert [row.name for row in found.rows] == ["torch fp32", "onnx fp32", "tensorrt fp32"]
    assert "TensorRT" in tensorrt.reason and "\n" not in tensorrt.reason and found.done == (plain, onnx)
    assert onnx.ap == pytest.approx(plain.ap, abs=1e-3) and onnx.images == 3 and found.data == "shapes val"
    assert onnx.parity is not None and onnx.parity.pictures >= 2 and onnx.parity.score_difference < 1e-3
    file = tmp_path / "run" / onnx.file
    assert onnx.megabytes == pytest.approx(file.stat().st_size / 1e6, abs=1e-3)
    data = load_splits(DataConfig(name="shapes", root=str(root), val=Split("images/val", "annotations/val.json")))[0][
        "val"
    ]
    limits = {name: LIMITS[name] for name in ("score_threshold", "max_detections", "max_candidates")}
    assert onnx.ap == pytest.approx(evaluate(load_runtime(file), data, SIDE, **limits).ap, abs=1e-6)  # type: ignore[arg-type]
    for row in found.done:
        assert 0 < row.ms("preprocess") < row.ms("frame") and 0 < row.times("network").low <= row.ms("network")
        assert row.threads == 1 and row.host["processor"]
    written = list(csv.DictReader((tmp_path / "run" / "benchmark.csv").read_text().splitlines()))
    assert [line["remark"] for line in written] == ["", "", tensorrt.reason]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Could not run: tensorrt fp32" in page and "AP against milliseconds" in page
    rows = {path.name: path.read_bytes() for path in (tmp_path / "run" / "rows").iterdir()}
    assert json.loads(rows["onnx-fp32.json"])["milliseconds"]["frame"]["median"] == onnx.ms()

    (tmp_path / "run" / "rows" / "onnx-fp32.json").unlink()
    monkeypatch.setattr(artefact, "measured_apart", lambda job: pytest.fail(f"{job.format} was measured again"))
    monkeypatch.setattr(
        command_module._RowMaker, "_exported", lambda self, row: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    again = BenchmarkCommand(resume=str(tmp_path / "run"), progress=False)
    with pytest.raises(KeyboardInterrupt):  # the deleted row is made anew, and only that one
        benchmark_in(again, tmp_path, say=lambda text: None)
    (tmp_path / "run" / "rows" / "onnx-fp32.json").write_bytes(rows["onnx-fp32.json"])
    assert benchmark_in(again, tmp_path, say=lambda text: None).done == found.done
    with pytest.raises(UserError, match="already holds a benchmark: resume="):
        detector().benchmark("shapes", tmp_path / "run", **asked)


def row(format: str, precision: str, ap: float, ms: float, **more: object) -> Row:
    times = Interval(ms, ms - 0.1, ms + 0.1)
    stages = Stages(Interval(0.1, 0.1, 0.1), times, Interval(0.2, 0.2, 0.2), times)
    return Row(format, precision, file="x", megabytes=1.0, ap=ap, ap50=ap, images=9, milliseconds=stages, **more)  # type: ignore[arg-type]


def test_what_loses_more_than_half_a_point_is_not_recommended() -> None:
    parity = Parity(8, 100, 0.97, 0.01, 0.2)
    rows = (row("torch", "fp32", 0.4, 9.0), row("onnx", "fp32", 0.4, 4.0), row("onnx", "int8", 0.394, 2.0, parity=parity),
            row("openvino", "int8", 0.395, 3.0), Row("tensorrt", "fp16", "TensorRT needs an NVIDIA GPU"))  # fmt: skip
    found = Benchmark(Path(), "m", "d test", rows)
    assert [round(found.lost(one), 3) for one in rows] == [0, 0, 0.6, 0.5, 0]
    assert [found.recommended(one) for one in rows] == [True, True, False, True, False]
    assert found.best is rows[3]
    told = verdict_lines(found)
    assert told[0].startswith("openvino int8 is the fastest that keeps the AP: 3.00 ms a frame")
    assert (
        "3.0 times as fast and loses 0.50 AP" in told[1]
        and told[2] == "Not recommended: onnx int8, which loses 0.6 AP."
    )
    assert told[3] == "Could not run: tensorrt fp16: TensorRT needs an NVIDIA GPU." and len(told) == 4
    gained = verdict_lines(Benchmark(Path(), "m", "d", (rows[0], row("onnx", "int8", 0.402, 3.0))))
    assert gained[1].endswith("3.0 times as fast and has 0.20 AP more.")
    (axes,) = found.plot().axes
    low, high = axes.get_ylim()
    assert high - low >= 4 and low < 39.4 < 40 < high
    table = table_rows(found)
    assert table[2]["remark"] == "not recommended" and table[2]["matched %"] == 97.0 and table[4]["AP"] is None
    assert verdict_lines(Benchmark(Path(), "m", "d", rows[4:]))[0].startswith("No row could be measured")


def test_a_busy_machine_is_said() -> None:
    host = {"load_average": 5.3, "cores": 2}
    told = verdict_lines(Benchmark(Path(), "m", "d", (row("torch", "fp32", 0.4, 9.0, host=host),)))
    assert told[-1].startswith("The machine was busy (load up to 5.3 on 2 cores)")


@pytest.mark.parametrize(
    ("code", "said", "errors", "expected"),
    [
        (-9, "", "", "killed by signal 9, as happens when memory runs out"),
        (1, "", "Traceback\nValueError: odd", "its process failed: ValueError: odd"),
        (0, 'loading\n{"error": "x.onnx: no such file"}\n', "", "^x.onnx: no such file$"),
        (0, "[1]", "", "its process failed: it said nothing"),
    ],
)
def test_how_a_process_ends_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, code: int, said: str, errors: str, expected: str
) -> None:
    done = SimpleNamespace(returncode=code, stdout=said, stderr=errors)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(UserError, match=expected):
        artefact.measured_apart(ArtefactJob(Path("x.onnx"), "onnx", "fp32", DataConfig(), "val"))


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "row.json").write_text('{"format": "onnx", "precision": 5}')
    with pytest.raises(UserError, match=r"row.json: .*precision must be text, got 5"):
        read_row(tmp_path / "row.json")


def test_an_interval_is_the_median_between_the_quartiles() -> None:
    assert Interval.of([5.0, 1.0, 2.0, 3.0, 4.0]) == Interval(3.0, 2.0, 4.0)
    assert Interval.of([2.0]) == Interval(2.0, 2.0, 2.0)


def test_memory_that_was_given_back_still_counts_at_the_peak() -> None:
    """In a process of its own, which has no freed memory left to take."""
    code = (
        "from nas.memory import peak_memory, start_peak\n"
        "before = start_peak()\n"
        "taken = bytearray(64_000_000)\n"
        "taken[::4096] = b'x' * len(taken[::4096])\n"
        "del taken\n"
        "print(-1 if before is None else peak_memory() - before)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    if float(told) < 0:
        pytest.skip("this system does not let a process count its peak anew")
    assert 60 < float(told) < 200
