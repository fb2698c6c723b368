"""The front door: the overview, what exists, tab completion in a real bash, and mistakes that are understood or answered."""

from __future__ import annotations

import os
import runpy
import shlex
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

import nas
from nas import extensions
from nas.__main__ import completed, main, overview
from nas.command_line import COMMANDS, about, groups, help_text, options, settings, understood
from nas.errors import UserError
from nas.files import config_folder
from nas.list import KINDS, lines
from nas.models.baselines import BASELINES, family
from nas.scorers import SCORERS

ROOT = Path(__file__).resolve().parents[1]


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """How `maenas` ends in this process: its error, or nothing."""
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["maenas", *words])
    try:
        main()
    except SystemExit as ended:
        return str(ended.code or "")
    return ""


def test_the_overview_is_one_screen_with_a_line_and_an_example_each() -> None:
    shown = overview().splitlines()
    assert len(shown) < 30 and max(map(len, shown)) <= 80
    for name in COMMANDS:
        assert about(name).sentence and f"            maenas {name} {about(name).example}" in shown
        for word in shlex.split(about(name).example) if name != "list" else ():
            key = word.partition("=")[0].lstrip("+")
            assert key in groups(name) or key in settings(name), word


@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["search", "--help"], ["completion", "words", "maenas t"]]
)
def test_overview_help_and_completion_import_nothing_heavy(words: list[str]) -> None:
    code = f"import sys; from nas.__main__ import main; sys.argv = ['maenas', *{words}]; main(); print(sorted(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    loaded = told.splitlines()[-1]
    assert not [name for name in ("torch", "hydra", "pydantic", "numpy", "rich") if f"'{name}'" in loaded]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "list"])
def test_help_shows_the_own_groups_and_settings_alone(name: str) -> None:
    conf = yaml.safe_load((Path(config_folder()) / f"{name}.yaml").read_text())
    text = help_text(name)
    for key in conf.keys() - {"defaults", "hydra"}:
        assert f"  {key}:" in text
    known = {path.name for path in Path(config_folder()).iterdir() if path.is_dir()} | {"space"}
    listed = {line.split()[0].lstrip("+") for line in text.partition("Groups:")[2].partition("Settings:")[0].splitlines()[1:]
              if line.startswith("  ") and line[2] != " "}  # fmt: skip
    assert listed == groups(name).keys() and listed <= known
    for group, default in groups(name).items():
        assert f"[{default}]" in text or default is None and "+budget" in text, group


def test_every_kind_has_a_sentence_a_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, (setting, made) in KINDS.items():
        rows = made()
        assert rows and all(len(text) > 5 for text in rows.values()), kind
        group = setting.strip("+=")
        if group in {path.name for path in Path(config_folder()).iterdir()} | {"space"} and group != "scorer":
            assert sorted(rows) == sorted(options(group))
    assert set(KINDS["scorers"][1]()) == set(SCORERS) and set(BASELINES) < set(KINDS["models"][1]())
    assert not run(monkeypatch, "list", "hardware") and "T4" in capsys.readouterr().out
    assert not run(monkeypatch, "list") and "budgets" in capsys.readouterr().out
    assert "there is no list of 'model'; there are models" in run(monkeypatch, "list", "model")


def test_entry_points_are_listed_and_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("slim", "mine.spaces:Slim", "maenas.spaces")
    monkeypatch.setattr(extensions, "entry_points", lambda group: [point] if group == point.group else [])
    told = "\n".join(lines("spaces"))
    assert "slim" in told and "installed: mine.spaces:Slim" in told and "space=my_package.module:attribute" in told
    assert completed("maenas search space=sl") == ["space=slim"]


def test_families_of_baselines_are_drawn_by_the_module_that_is_named() -> None:
    from nas.models.baselines import YOLO_SIZES
    from nas.models.baselines.yolo import SIZES

    drawn = {family(name) for name in BASELINES}
    assert drawn == {"yolo", "yolov7", "yolov9", "rtdetrv2", "dfine", "deimv2", "lwdetr", "rfdetr"}
    assert all(tuple(sizes) == YOLO_SIZES for sizes in SIZES.values())


# ---------------------------------------------------------------------- completion


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("maenas ex", ["export"]),
        ("maenas list tr", ["trainers"]),
        ("maenas train data=bc", ["data=bccd"]),
        ("maenas train model=best.yaml trainer=cpu", ["trainer=cpu_small"]),
        ("maenas train trainer.optimizer.l", ["trainer.optimizer.lr=", "trainer.optimizer.lr_per_image="]),
        ("maenas search +budget=latency_2", ["+budget=latency_2ms"]),
        (
            "maenas search -m +budget=latency_3ms,layers_2",
            ["+budget=latency_3ms,layers_20", "+budget=latency_3ms,layers_25"],
        ),
        ("maenas search budget=[latency_3ms,layers_20", ["budget=[latency_3ms,layers_20"]),
        ("maenas search hard", ["hardware="]),
        ("maenas search hardware=t4_tensorrt7", ["hardware=t4_tensorrt7_fp16"]),
        ("maenas evaluate model=damo-yolo-l", ["model=damo-yolo-l"]),
        ("maenas nothing x", []),
    ],
)
def test_what_can_follow(line: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert completed(line) == expected


def test_completion_in_bash(tmp_path: Path) -> None:
    """The function that `maenas completion bash` prints, called as bash calls it: words are broken at =."""
    program = tmp_path / "maenas"
    program.write_text(f"#!{sys.executable}\nfrom nas.__main__ import main\nmain()\n")
    program.chmod(0o755)
    (tmp_path / "photos").mkdir()

    def reply(words: list[str]) -> list[str]:
        """words: as bash has broken the line; the last is being completed."""
        line = ""
        for word in words:
            line += word if word == "=" or line.endswith("=") else f" {word}" if line else word
        replaced = "" if words[-1] == "=" else words[-1]
        code = (
            f'eval "$(maenas completion bash)"; complete -p maenas >&2; COMP_LINE={shlex.quote(line)}; COMP_POINT={len(line)}; '
            f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; "
            f"_maenas maenas {shlex.quote(replaced)} {shlex.quote(words[-2])}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        known = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=tmp_path, env=known)
        assert "complete -F _maenas maenas" in done.stderr, done.stderr
        return done.stdout.split()

    assert reply(["maenas", "se"]) == ["search", "select"]
    assert reply(["maenas", "train", "data", "=", "co"]) == ["coco", "coco_mini"]
    assert set(reply(["maenas", "train", "trainer", "="])) == set(options("trainer"))
    assert reply(["maenas", "train", "data", "=", "pho"]) == ["photos/"]
    assert reply(["maenas", "list", "sc"]) == ["scorers"]
    assert reply(["maenas", "search", "+budget", "=", "latency_7"]) == ["latency_7ms"]


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("command", "line", "read"),
    [
        ("search", "budget=latency_3ms", "+budget=latency_3ms"),
        ("search", "budget.mine.latency_ms=3", "+budget.mine.latency_ms=3"),
        ("search", "+budget=latency_3ms -m seed=0,1", "+budget=latency_3ms -m seed=0,1"),
        ("search", "--cfg job +budget=latency_3ms", "--cfg job +budget=latency_3ms"),
        ("train", "budget=latency_3ms", "budget=latency_3ms"),
    ],
)
def test_a_budget_needs_no_plus(command: str, line: str, read: str) -> None:
    assert understood(command, line.split()) == read.split()


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("search latency_3ms seed=1", "type: maenas search +budget=latency_3ms seed=1"),
        ("search seed", "type: maenas search seed=..."),
        ("search nonsense", "maenas search --help lists those that there are"),
        ("train damo-yolo-s bccd", "type: maenas train model=damo-yolo-s data=bccd"),
        ("predict best.safetensors .", "type: maenas predict model=best.safetensors source=."),
        ("predict", "model and source are not given: add model=... source=..., as in: maenas predict model="),
        ("predict model=damo-yolo-t", "source is not given: add source=..., as in: maenas predict"),
        ("evaluate model=yolov8", "did you mean yolov7, yolov8l, yolov8m, yolov8n, yolov8s, yolov8x?"),
        ("serch", "did you mean maenas search?"),
        ("dance", "there are search, select, train"),
    ],
)
def test_mistakes_are_answered_with_the_line_to_type(
    line: str, answer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    told = run(monkeypatch, *line.split())
    assert told.startswith("error: ") and answer in told and "\n" not in told


def test_a_command_of_maenas_is_that_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ["evaluations=64", "searcher=random", "progress=false"]
    assert not run(monkeypatch, "search", "budget=latency_3ms", *quick, "hydra.run.dir=one")
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["nas.search", "+budget=latency_3ms", *quick, "hydra.run.dir=two"])
    runpy.run_module("nas.search", run_name="__main__")
    assert Path("one/best.yaml").read_bytes() == Path("two/best.yaml").read_bytes()
    assert not run(monkeypatch, "--version") and nas.__version__ in capsys.readouterr().out


def test_a_baseline_has_no_spec_and_is_told_so() -> None:
    with pytest.raises(UserError, match=r"yolo11n has no spec.*nas.Detector.load\('yolo11n'\)"):
        nas.load("yolo11n")


@pytest.mark.parametrize(
    "module", ["experiments.run", "experiments.report", "experiments.search_speed", "experiments.same_results"]
)
def test_an_experiment_tells_what_it_is(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    runpy.run_module(module, run_name="__main__")
    assert f"python -m {module}" in capsys.readouterr().out


def test_every_experiment_has_help() -> None:
    for path in (ROOT / "experiments").rglob("*.py"):
        text = path.read_text()
        if '__name__ == "__main__"' in text:
            assert any(word in text for word in ("run(", "--help", "ArgumentParser", "launch(")), path
