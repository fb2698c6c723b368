"""python -m nas.search as a user meets it: results that repeat, interruptions that cost nothing, one-line errors."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

import nas
from nas.cost.count import peak_memory_mb
from nas.errors import Caution, UserError
from nas.files import load_spec, read_spec_document
from nas.frame import Frame
from nas.spec import digest
from search_spaces import find_space

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("evaluations=3000", "progress=false")


def command(*arguments: str, torch_free: bool = True) -> list[str]:
    start = "import sys; sys.modules['torch'] = None; " if torch_free else ""
    code = f"{start}import runpy; runpy.run_module('nas.search', run_name='__main__')"
    return [sys.executable, "-c", code, *arguments]


def search(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, cwd=ROOT)


def error_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """The one line with which the command ends in this process, without torch; a process prints it, with status 1."""
    GlobalHydra.instance().clear()
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(sys, "argv", ["nas.search", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("nas.search", run_name="__main__")
    line = ended.value.code
    assert isinstance(line, str) and "\n" not in line
    return line


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "run"
    result = search("+budget=latency_3ms", *QUICK, f"hydra.run.dir={folder}")
    assert result.returncode == 0, result.stderr
    assert "winner" in result.stdout and "best.yaml" in result.stdout
    return folder


def test_the_default_result_is_a_detector_inside_the_official_caps(finished: Path) -> None:
    spec, known = read_spec_document(finished / "best.yaml")
    assert known["metrics"]["latency_ms"] == pytest.approx(float(nas.latency(spec)), abs=1e-6)
    assert 2.8 <= known["metrics"]["latency_ms"] <= 3.0
    assert 19 <= known["metrics"]["layers"] <= 25
    assert known["metrics"]["params_m"] == pytest.approx(nas.count(spec).params / 1e6)
    assert known["metrics"]["score"] == pytest.approx(nas.score(spec, "mae"))
    depths = [block.depth for block in spec.backbone.blocks]
    assert all(depth <= cap for depth, cap in zip(depths, (2, 3, 3, 3, 3), strict=True))


def test_everything_that_is_promised_is_written(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"best.yaml", "pareto.csv", "trace.csv", "summary.json", "report.html", "score.png", "cloud.png",
            "winner.png", "latency.png", "config.yaml", "state.npz"} <= names  # fmt: skip
    assert any(name.startswith("events.out.tfevents") for name in names)
    page = (finished / "report.html").read_text()
    assert "damo-yolo-s" in page and "Pareto front" in page and "<script src=" not in page
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["evaluated"] == 3000 and summary["host"]
    assert "no member of space tinynas_k1kx within the limits scores more" in summary["proof"]


@pytest.mark.slow
@pytest.mark.parametrize("scorer", ["mae", "random"])
def test_workers_and_kills_do_not_change_a_byte(scorer: str, finished: Path, tmp_path: Path) -> None:
    arguments = ("+budget=latency_3ms", f"scorer={scorer}", *QUICK)
    straight = finished
    if scorer != "mae":
        straight = tmp_path / "straight"
        assert search(*arguments, f"hydra.run.dir={straight}").returncode == 0
    pair = tmp_path / "pair"
    assert search(*arguments, "workers=2", f"hydra.run.dir={pair}").returncode == 0
    killed = tmp_path / "killed"
    process = subprocess.Popen(command(*arguments, f"hydra.run.dir={killed}"), cwd=ROOT, stdout=subprocess.DEVNULL)
    while not (killed / "config.yaml").exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.4)  # how far it comes decides what is resumed, not what is found
    process.kill()
    process.wait()
    resumed = search(f"resume={killed}", "progress=false")
    assert resumed.returncode == 0, resumed.stderr
    for name in ("best.yaml", "pareto.csv"):
        expected = (straight / name).read_bytes()
        assert (pair / name).read_bytes() == expected
        assert (killed / name).read_bytes() == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no budget"),
        (("+budget=latency_9ms",), "latency_3ms"),
        (("+budget=latency_3ms", "sed=1"), "'sed'"),
        (("+budget=[latency_2ms,latency_3ms]",), "two limits on latency_ms"),
        (("+budget.mine.latency_ms=0.01",), "impossible budget"),
        (("+budget.mine.speed=1",), "unknown budget metric 'speed'"),
        (("+budget=latency_3ms", "hydra.run.dir=/proc/none/run"), "/proc/none"),
        (("+budget=latency_3ms", "space.max_layer=3"), "space.max_layer"),
        (("+budget=latency_3ms", "hardware=abacus"), "no latency table 'abacus'"),
        (("+budget=latency_3ms", "searcher.population=1"), "population"),
        (("+budget=latency_3ms", "scope=roof"), "scope"),
        (("+budget=latency_3ms", "image_size=600"), "image_size must be a positive multiple of 32, got 600"),
        (("resume=absent",), "config.yaml"),
    ],
)
def test_errors_are_one_clear_line(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = arguments if any("hydra.run.dir" in a for a in arguments) else (*arguments, f"hydra.run.dir={tmp_path}/run")
    line = error_of(monkeypatch, *given, *([] if given[0].startswith("resume") else ["evaluations=100"]))
    assert line.startswith("error: ") and words in line and not capsys.readouterr().err


def test_an_error_ends_the_process_with_one_line_and_status_1(tmp_path: Path) -> None:
    result = search("+budget.mine.latency_ms=0.01", "evaluations=100", f"hydra.run.dir={tmp_path}/run")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and "impossible budget" in result.stderr
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr


def test_a_corrupt_table_row_is_named_before_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "broken.json"
    table.write_text('{"format": "maenas-latency/1", "kind": "kernel_model"')
    line = error_of(monkeypatch, "+budget=latency_3ms", f"hardware={table}", f"hydra.run.dir={tmp_path}/run")
    assert "broken.json" in line


@pytest.mark.slow
def test_a_resumed_run_refuses_other_settings(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "seed" in error_of(monkeypatch, f"resume={finished}", "seed=5")


SMALL = {"space": find_space("tinynas_k1kx", depths=(1, 2, 2, 2, 2)), "neck": "nano"}


@pytest.mark.slow
@pytest.mark.parametrize("searcher", ["evolution", "nsga2", "random"])
def test_a_search_that_goes_on_further_is_the_longer_search(searcher: str, tmp_path: Path) -> None:
    for evaluations in (2500, 4100):
        further = nas.find(
            {"latency_ms": 2.0}, searcher=searcher, evaluations=evaluations, state=tmp_path / "s", **SMALL
        )
    longer = nas.find({"latency_ms": 2.0}, searcher=searcher, evaluations=4100, **SMALL)
    assert (further.outcome.history.matrix() == longer.outcome.history.matrix()).all()
    assert [c.digest for c in further.front] == [c.digest for c in longer.front]


@pytest.mark.slow
def test_a_continuation_may_bring_more_evaluations_and_keeps_them(finished: Path, tmp_path: Path) -> None:
    further, longer = tmp_path / "further", tmp_path / "longer"
    shutil.copytree(finished, further)
    done = search(f"resume={further}", "evaluations=3500", "progress=false")
    assert done.returncode == 0, done.stderr
    assert (
        search("+budget=latency_3ms", "evaluations=3500", "progress=false", f"hydra.run.dir={longer}").returncode == 0
    )
    for name in ("best.yaml", "pareto.csv", "front.jsonl", "config.yaml"):
        assert (further / name).read_bytes() == (longer / name).read_bytes(), name
    back = search(f"resume={further}", "evaluations=9")
    assert back.returncode == 1 and "it can go on to more, not to 9" in back.stderr


@pytest.mark.parametrize("searcher", ["evolution", "nsga2", "random", "auto", "exact", "optuna"])
def test_every_searcher_begins_with_what_it_is_given(searcher: str, finished: Path) -> None:
    options = {"population": 20} if searcher == "optuna" else {"steps": 1000} if searcher in ("auto", "exact") else {}
    given = nas.load(finished / "best.yaml")
    with pytest.warns(Caution, match=r"damo-yolo-s is not in space tinynas_k1kx \(block 1: depth 5 exceeds 3\)"):
        found = nas.find({"latency_ms": 3.0}, start=[f"{finished}/front.jsonl:3", given, "damo-yolo-s"], searcher=searcher,
                         searcher_options=options, evaluations=40)  # fmt: skip
    assert found.best.score >= nas.score(given, "mae") - 1e-9
    scores = found.outcome.history.column("score")[:3]
    if searcher != "exact":
        third = nas.score(nas.load(f"{finished}/front.jsonl:3"), "mae")
        assert scores == pytest.approx([third, nas.score(given, "mae"), 1173.108875], abs=1e-5)


@pytest.mark.slow
def test_a_warm_start_stands_in_page_and_record(finished: Path, tmp_path: Path) -> None:
    start = f"start=[{finished}/best.yaml,damo-yolo-s,{finished}/front.jsonl:3]"
    own = ("searcher=evolution", "evaluations=600", "progress=false", f"hydra.run.dir={tmp_path}/run")
    result = search("+budget=latency_3ms", start, *own)
    assert result.returncode == 0, result.stderr
    assert "(block 1: depth 5 exceeds 3): the search begins with the nearest member" in result.stderr
    assert all(f"start {number}" in result.stdout for number in (1, 2, 3))
    given, best = read_spec_document(finished / "best.yaml")[1], read_spec_document(tmp_path / "run" / "best.yaml")[1]
    assert best["metrics"]["score"] >= given["metrics"]["score"] - 1e-9 and len(best["provenance"]["start"]) == 3
    assert "start 2" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("start", "words"),
    [("absent.yaml", "cannot read absent.yaml"), ("abacus", "unknown architecture 'abacus'"),
     ("damo-yolo-m", "start damo-yolo-m: not in space tinynas_k1kx"), ("x.jsonl", "say which line, as in x.jsonl:1")],
)  # fmt: skip
def test_what_no_search_can_begin_with_is_told(start: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        nas.find({"latency_ms": 3.0}, start=[start])


def test_the_networks_of_a_front_are_read_by_their_line(finished: Path) -> None:
    rows = (finished / "pareto.csv").read_text().splitlines()[1:]
    lines = (finished / "front.jsonl").read_text().splitlines()
    assert len(rows) == len(lines) > 2
    assert nas.load(f"{finished}/front.jsonl:1") == nas.load(finished / "best.yaml")
    third = nas.load(f"{finished}/front.jsonl:3")
    assert digest(third) == rows[2].split(",")[0] and nas.count(f"{finished}/front.jsonl:3") == nas.count(third)
    with pytest.raises(UserError, match=f"has {len(rows)} networks, there is no line 9999"):
        nas.load(f"{finished}/front.jsonl:9999")
    with pytest.raises(UserError, match="say which line"):
        nas.load(f"{finished}/front.jsonl")
    damaged = finished / "damaged.jsonl"
    damaged.write_text(lines[0].replace('"out": ', '"out": 8', 1) + "\n{")
    for line, words in ((1, "the digest does not belong"), (2, "line 2 is damaged")):
        with pytest.raises(UserError, match=words):
            nas.load(f"{damaged}:{line}")


def test_from_python_a_search_takes_what_the_command_takes(tmp_path: Path) -> None:
    told: list[int] = []
    own = {"neck": "nano", "image_size": 320, "searcher": "evolution", "start": ["damo-yolo-t"]}
    own |= {"searcher_options": {"population": 64}}
    found = nas.find({"latency_ms": 1.2}, evaluations=700, progress=lambda standing: told.append(standing.evaluated),
                     state=tmp_path / "state.npz", **own)  # fmt: skip
    assert found.best.spec.image_size == 320 and found.best.spec.neck.depth == 2 and found.best.spec.neck.depthwise
    assert told[-1] == 700 and told[0] < 700
    further = nas.find({"latency_ms": 1.2}, evaluations=900, state=tmp_path / "state.npz", progress=True, **own)
    assert further.best.digest == nas.find({"latency_ms": 1.2}, evaluations=900, **own).best.digest
    command = search("+budget.x.latency_ms=1.2", "neck=nano", "image_size=320", "searcher=evolution", "start=[damo-yolo-t]",
                     "searcher.population=64", "searcher.minor_from=50000", "evaluations=900", "progress=false",
                     f"hydra.run.dir={tmp_path}/run")  # fmt: skip
    assert command.returncode == 0 and nas.load(tmp_path / "run" / "best.yaml") == further.best.spec
    with pytest.raises(UserError, match="frame= holds the neck"):
        nas.find({"latency_ms": 1.2}, neck="t", frame=Frame())


@pytest.mark.slow
def test_a_sweep_makes_one_run_per_combination(tmp_path: Path) -> None:
    result = search("-m", "+budget=latency_2ms,latency_3ms", "seed=0,1", "evaluations=600", "progress=false",
                    "searcher=evolution", f"hydra.sweep.dir={tmp_path}")  # fmt: skip
    assert result.returncode == 0, result.stderr
    best = [load_spec(tmp_path / str(job) / "best.yaml") for job in range(4)]
    assert len(set(best)) == 4
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert [row["job"] for row in rows] == ["0", "1", "2", "3"] and {row["status"] for row in rows} == {"unproven"}
    assert [row["seed"] for row in rows] == ["0", "1", "0", "1"] and rows[0]["limits"] == "latency_ms: 2.0"
    assert (tmp_path / "sweep.png").stat().st_size > 10_000


@pytest.mark.slow
def test_two_limits_hold_together(tmp_path: Path) -> None:
    result = search("+budget=[latency_3ms,layers_20]", *QUICK, f"hydra.run.dir={tmp_path}/run")
    assert result.returncode == 0, result.stderr
    metrics = read_spec_document(tmp_path / "run" / "best.yaml")[1]["metrics"]
    assert metrics["latency_ms"] <= 3 and metrics["layers"] <= 20


CPU = "latency_ms@cpu_onnxruntime_fp32_1thread"


@pytest.mark.slow
def test_devices_ranges_and_parts_hold_together_in_every_file(tmp_path: Path) -> None:
    limits = ("+budget.t4.latency_ms=3", "+budget.t4.hardware=t4_tensorrt_fp16", "+budget.cpu.latency_ms=330",
              "+budget.cpu.hardware=cpu_onnxruntime_fp32_1thread", "+budget.size.params_m=[6,8.5]",
              "+budget.neck.params_m=4", "+budget.neck.part=neck")  # fmt: skip
    result = search(*limits, *QUICK, "searcher=evolution", f"hydra.run.dir={tmp_path}/run")
    assert result.returncode == 0, result.stderr
    spec, known = read_spec_document(tmp_path / "run" / "best.yaml")
    metrics = known["metrics"]
    told = {"latency_ms": 3.0, CPU: 330.0, "params_m": [6.0, 8.5], "params_m.neck": 4.0}
    assert known["provenance"]["limits"] == told and list(known["provenance"]["other_tables"]) == [CPU[11:]]
    assert metrics[CPU] == pytest.approx(nas.latency(spec, CPU[11:]).ms) and metrics[CPU] <= 330
    assert metrics["latency_ms"] <= 3 and 6 <= metrics["params_m"] <= 8.5 and 0 < metrics["params_m.neck"] <= 4
    parts = [op for op in nas.api.deployed_operations(spec) if op.role == "neck"]
    assert metrics["params_m.neck"] == pytest.approx(sum(op.params for op in parts) / 1e6, rel=0.01)  # folded: no norms
    assert CPU in (tmp_path / "run" / "pareto.csv").read_text().splitlines()[0]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "predicted latency (ms) on cpu_onnxruntime_fp32_1thread at most 330" in page
    assert "parameters (M) at least 6 and at most 8.5" in page and "parameters (M), neck at most 4" in page
    found = nas.find({name: limit for name, limit in told.items()}, searcher="evolution", evaluations=3000)
    assert found.best.digest == known["digest"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("+budget.x.params_m=3", "+budget.x.hardware=t4_tensorrt_fp16"), "budget.x.hardware=t4_tensorrt_fp16 limits nothing"),
        (("+budget.x.latency_ms=3", "+budget.x.hardware=abacus"), "no latency table 'abacus'"),
        (("+budget.x.latency_ms=3", "+budget.y.latency_ms=4", "+budget.y.hardware=t4_tensorrt_fp16"), "two limits on latency_ms"),
        (("+budget.x.params_m=3", "+budget.x.part=roof"), "there is no part 'roof'"),
        (("+budget.x.params_m=[5,2]",), "must be the most, or [least, most]"),
        (("+budget.x.params_m=0.01", "+budget.x.part=neck"), "impossible budget: params_m.neck <= 0.01"),
        (("+budget.x.params_m=3", "+budget.x.part=neck", "scope=backbone"), "with scope=backbone there is no neck"),
        (("+budget.x.rho=[0.01,null]", "searcher=exact"), "searcher exact cannot serve: rho is not a sum over blocks"),
        (("+budget.x.params_m=[900,null]", "searcher=exact"), "no member of space tinynas_k1kx fits the budget (proven)"),
    ],
)  # fmt: skip
def test_limits_that_cannot_be_are_told_before_the_search(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = (f"hydra.run.dir={tmp_path}/run", "evaluations=100", "progress=false")
    assert words in error_of(monkeypatch, *arguments, *own)


def test_a_limit_that_does_not_bind_is_explained() -> None:
    found = nas.find({"latency_ms": 7.0}, evaluations=3000)
    assert any("latency_ms does not bind" in note and "max_layers 25" in note for note in found.notes)


def test_peak_memory_is_a_budget() -> None:
    found = nas.find({"peak_memory_mb": 8.5, "latency_ms": 3.0}, evaluations=400)
    assert found.best.metrics["peak_memory_mb"] <= 8.5
    assert found.best.metrics["peak_memory_mb"] == pytest.approx(peak_memory_mb(found.best.spec))


def test_an_exact_search_shows_its_proof(tmp_path: Path) -> None:
    channels, depths, stem = ((8, 24), (64, 72), (64, 72), (128, 136), (256, 264)), (1, 2, 1, 2, 1), (16, 16)
    limits = {"channels": channels, "depths": depths, "stem_channels": stem}
    overrides = [f"space.{key}={str(value).replace('(', '[').replace(')', ']')}" for key, value in limits.items()]
    result = search(
        "+budget=latency_3ms", "searcher=exact", *overrides, "progress=false", f"hydra.run.dir={tmp_path}/run"
    )
    assert result.returncode == 0, result.stderr
    assert "proof     no member of space tinynas_k1kx" in result.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "architectures covered" in summary["proof"]
    space = find_space("tinynas_k1kx", **limits)
    evolved = nas.find({"latency_ms": 3.0}, space, searcher="evolution", evaluations=5000)
    assert evolved.best.score == pytest.approx(summary["best"]["score"])
