"""Every command of README and the results that needs neither network nor GPU is run, in seconds, on drawn data.

The five lines of the front door are run by tests/test_docs.py, as printed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from nas.files import save_spec
from nas.spec import Backbone, DetectorSpec, HeadSpec, NeckSpec, Residual, Stem

ROOT = Path(__file__).resolve().parents[2]
#: Commands of docs/reproducing.md that nothing else runs.
MORE = (
    "python -m experiments.search_speed",
    "python -m experiments.official_search problem=small table=PATH",
    "python -m experiments.exact_search problem=small table=PATH",
    "python -m experiments.predict_speed source=PICTURES",
    "python experiments/loader_speed/measure.py --peer DIR",
)
#: Commands that need the network, a GPU or another project's loader, and those that other tests run.
ELSEWHERE = {
    "python -m nas.data data=bccd action=fetch": "network; tests/data reads what it fetches",
    "python -m experiments.run all scale=gpu minutes=25": "GPU; its refusal is tested below, the queue in test_queue.py",
    "python -m experiments.run backbones scale=cpu320 minutes=200": "three hours; the queue runs in test_queue.py",
    "python -m experiments.run report_assigner report_backbone scale=cpu10 minutes=200 jobs=2": "hours, likewise",
    "python -m nas.profile hardware=NAME image_size='[160,320,640]'": "minutes; run small by the front door",
    "python -m nas.select": "tests/commands/test_select.py",
    "python -m nas.train": "tests/test_docs.py, as one of the five lines",
    "python -m experiments.results_page": "writes the pages; tests/experiments/test_results_page.py",
    "python -m experiments.readme_picture": "writes the picture; tests/experiments/test_readme_picture.py",
    "python experiments/bccd/run.py train": "run before its int8",
    "python -m experiments.detector_bench report": "reads the table; test_detector_bench.py writes one",
    "python -m experiments.selection train": "hours; test_selection_evidence.py trains two small ones",
    "python -m experiments.proxy_benchmark tables=PATH": "hours; test_proxy_benchmark.py has its parts, tests/report ranks",
}


def commands() -> list[str]:
    """The commands in the tables and in the text of README and docs/results.md, and MORE."""
    text = "".join((ROOT / page).read_text() for page in ("README.md", "docs/results.md"))
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return list(dict.fromkeys([*re.findall(r"`(python [^`]+)`", text), *MORE]))


def official_table(folder: Path) -> Path:
    """A table in the form of the TinyNAS programme's, with made-up milliseconds, where the real one is not at hand."""
    shared = Path(os.environ.get("MAENAS_SHARED", ROOT.parent / "shared")) / "data/latency/v100_fp16_damoyolo.txt"
    if shared.is_file():
        return shared
    lines = []
    for kernel, stride, fused in ((k, s, f) for k in (1, 3) for s in (1, 2) for f in (0, 1)):
        for out in (8, 32, 128, 512, 2048):
            for height in (5, 10, 20, 40, 80, 160, 320, 640):
                for inner in (3, out // 4, out // 2, out, 2 * out, 4 * out):
                    ms = 0.01 + 1e-12 * 64 * inner * out * (kernel * height / stride) ** 2
                    lines.append(f"{{Regular,32,{inner},{height},{height},{out},{kernel},{stride},{fused}}} {ms:.6f}")
    path = folder / "drawn_fp16.txt"
    path.write_text("\n".join(dict.fromkeys(lines)) + "\n")
    return path


@pytest.fixture(scope="module")
def blood(tmp_path_factory: pytest.TempPathFactory, drawn_bccd: Callable[[Path], Path]) -> Path:
    """Drawn shapes in the place and the form of BCCD."""
    return drawn_bccd(tmp_path_factory.mktemp("bccd"))


def run(words: list[str], folder: Path, blood: Path) -> str:
    """What a command prints; it runs in `folder` and must end well."""
    known = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MAENAS_BCCD": str(blood)}
    command = [sys.executable, *words[1:]]
    done = subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr[-1500:]}"
    return done.stdout


def short(command: str, folder: Path, blood: Path) -> list[list[str]]:
    """The command with settings that take seconds, after whatever it needs to have been run before it."""
    table = f"table={official_table(folder)}"
    bccd = str(folder / "experiments/bccd/run.py")
    speed = str(ROOT / "experiments/loader_speed/measure.py")
    photos, small = str(blood / "images/test"), str(folder / "small.onnx")
    made: Mapping[str, Callable[[list[str]], list[list[str]]]] = {
        "experiments.search_speed": lambda words: [[*words, "evaluations=2000"]],
        "experiments.official_search": lambda words: [[*words[:-1], table, "seconds=1"]],
        "experiments.exact_search": lambda words: [[*words[:-1], table]],
        "experiments.exact_search.budgets": lambda words: [words],
        "experiments.t4_calibration": lambda words: [words],
        "nas.search": lambda words: [[*words, "evaluations=500"]],
        "experiments.predict_speed": lambda words: [
            ["python", "-m", "nas.export", f"model={small_detector(folder / 'small.yaml')}", "image_size=64",
             f"output={small}", f"images={photos}", "check_images=2"],
            [*words[:-1], f"source={photos}", f"model={small}", "rounds=1", "pictures=2"],
        ],
        "experiments.scorer_truth": lambda words: [
            [*words, f"folder={folder}", "epochs=6", "image_size=64", "repeated=0", "device=cpu"],
        ],
        "experiments/bccd/run.py int8": lambda words: [["python", bccd, "train", "0.03"], ["python", bccd, "int8"]],
        "experiments/loader_speed/measure.py --peer DIR": lambda words: [
            ["python", speed, "--data", "bccd", "--images", "16", "--rounds", "1", "--size", "96", "--workers", "0"]
        ],
    }  # fmt: skip
    words = shlex.split(command)
    name = words[2] if words[1] == "-m" else " ".join(words[1:])
    assert name in made, f"README prints `{command}`, which no test runs"
    return made[name](words)


def small_detector(path: Path) -> Path:
    """The spec file of a detector of eight channels."""
    units = tuple(Residual("k1kx", out=out, bottleneck=8, depth=1, stride=2) for out in (8, 16, 16, 24))
    backbone = Backbone(Stem("focus", 8), units, (1, 2, 3))
    return save_spec(path, DetectorSpec(backbone, NeckSpec((8, 8, 8), depth=1), HeadSpec(3), 320))


def lay_out_bccd(folder: Path) -> None:
    """experiments/bccd with a small detector, and its second and third seeds as if they were trained."""
    shutil.copytree(ROOT / "experiments/bccd", folder / "experiments/bccd")
    small_detector(folder / "experiments/bccd/model.yaml")
    for seed in (1, 2):
        run = folder / f"outputs/bccd/train/seed{seed}"
        run.mkdir(parents=True)
        (run / "done").touch()
        (run / "epochs.jsonl").write_text(json.dumps({"epoch": 1, "ap": 0.1, "ap50": 0.2, "ap75": 0.1}) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in commands() if command not in ELSEWHERE])
def test_runs(command: str, tmp_path: Path, blood: Path) -> None:
    if "experiments/bccd" in command:
        lay_out_bccd(tmp_path)
    networks = (ROOT / "experiments/scorer_truth/networks.csv").read_text().splitlines(keepends=True)
    (tmp_path / "networks.csv").write_text("".join(networks[:2]))
    for words in short(command, tmp_path, blood):
        assert run(words, tmp_path, blood)


def test_what_is_left_out_is_still_printed() -> None:
    assert set(ELSEWHERE) <= set(commands())


def test_a_scale_that_needs_a_gpu_says_so() -> None:
    import torch

    from experiments.run import main
    from nas.errors import UserError

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="scale gpu needs a GPU and torch sees none; its runs wait in the queue"):
        main(["all", "scale=gpu", "minutes=25"])
