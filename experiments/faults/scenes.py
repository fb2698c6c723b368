"""The runs that faults end: a search, a training, an export, a selection and the queue, each of a second or two.

What only computes (the tracing of a graph, the search for finalists, times of files) is done once and kept, so that hundreds
of points fit into an hour; every file is written by the code that users run.
"""

from __future__ import annotations

import copy
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from matplotlib import figure

import experiments.run as queue_run
import experiments.train_row as train_row
import nas.commands.select_screen as select_screen
import nas.deploy.export as export
import nas.selection.trainings as trainings
from experiments.faults.points import Scene
from experiments.queue import COLUMNS, Trainings
from experiments.scales import load_scale
from experiments.tables import load_table
from nas.augment.pipeline import Augmentation
from nas.commands.select import SelectCommand
from nas.config import compose_config
from nas.data.by_path import find_data
from nas.data.shapes import draw_shapes
from nas.data.sources import load_splits
from nas.deploy import ExportSettings
from nas.deploy.runtime import Metadata
from nas.files import save_spec, write_atomic
from nas.models.build import build_model
from nas.models.checkpoint import load_checkpoint, save_checkpoint
from nas.models.detector import build_detector
from nas.selection.portfolio import Proposal
from nas.spec import Backbone, DetectorSpec, HeadSpec, NeckSpec, Residual, Stem
from nas.training.options import EmaOptions, TrainerOptions
from nas.training.run import run_training
from nas.training.state import read_state
from nas.training.task import TrainingTask

QUEUED, QUEUED_ROWS = "report_distillation", ("M, MAE-CSP", "mimic")
TRAINER = ("trainer=cpu_small", "trainer.batch_size=4", "trainer.workers=0", "trainer.evaluate_every=1", "device=cpu",
           "trainer.ema.norm_images=0", "trainer.cache=none", "progress=false")  # fmt: skip


def tiny_detector() -> DetectorSpec:
    blocks = tuple(Residual("k1kx", out=8 * scale, bottleneck=8, depth=1, stride=2) for scale in (1, 2, 2, 3))
    backbone = Backbone(Stem("focus", 8), blocks, (1, 2, 3), reparam=True)
    return DetectorSpec(backbone, NeckSpec((8, 8, 8), depth=1), HeadSpec(5, reg_max=7), 64)


def prepared(place: Path) -> None:
    """Drawn pictures, a network, and a checkpoint of it."""
    if not (place / "tiny.safetensors").exists():
        draw_shapes(place / "shapes", counts={"train": 8, "val": 4, "test": 4}, size=64)
        save_spec(place / "tiny.yaml", tiny_detector(), name="tiny")
        torch.manual_seed(0)
        save_checkpoint(place / "tiny.safetensors", build_model(str(place / "tiny.yaml"), None))


def command(name: str, *words: str) -> None:
    """A command of maenas as the console calls it, in this process."""
    sys.argv = [f"python -m nas.{name}", *words]
    runpy.run_module(f"nas.{name}", run_name="__main__")


def started(name: str, words: Callable[[Path], tuple[str, ...]]) -> Callable[[Path], None]:
    return lambda folder: command(name, *words(folder), f"hydra.run.dir={folder}")


def resumed(name: str) -> Callable[[Path], None]:
    return lambda folder: command(name, f"resume={folder}", "progress=false")


def files(folder: Path, *patterns: str) -> dict[str, bytes]:
    """The files that are to be the same, by their place in the folder."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


def training_files(folder: Path, place: str = "") -> dict[str, bytes]:
    """What a training leaves, its state without the clock."""
    kept = files(folder, *(f"{place}{name}" for name in ("*.safetensors", "steps.csv", "epochs.jsonl", "config.yaml")))
    for path in folder.glob(f"{place}last.state"):
        state = read_state(path.parent)
        state["position"].pop("seconds")
        kept[str(path.relative_to(folder))] = repr(state).encode() + b"".join(
            value.contiguous().numpy().tobytes() for part in ("network", "ema") for value in state[part].values()
        )
    return kept


def search_words(folder: Path) -> tuple[str, ...]:
    return ("+budget.mine.params_m=3", "image_size=64", "neck=nano", "searcher=evolution", "evaluations=400",
            "progress=false")  # fmt: skip


def prepare_search(place: Path) -> None:
    """The prices of blocks are known after one search, and pictures are not drawn: that is most of the time."""
    prepared(place)
    figure.Figure.savefig = lambda self, path, **rest: Path(path).write_bytes(bytes(20_000))  # type: ignore[method-assign]
    sys.stdout.flush()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        command("search", *search_words(place / "warm"), f"hydra.run.dir={place / 'warm'}")


def search_files(folder: Path) -> Mapping[str, bytes]:
    return files(folder, "best.yaml", "pareto.csv", "trace.csv", "config.yaml")


def train_words(folder: Path) -> tuple[str, ...]:
    place = folder.parent
    return (f"model={place}/tiny.yaml", f"data={place}/shapes", "trainer.epochs=2", "trainer.save_steps=1", *TRAINER)


def prepare_export(place: Path) -> None:
    """The graph is traced once."""
    prepared(place)
    model = load_checkpoint(place / "tiny.safetensors")
    fused = copy.deepcopy(model).fuse().eval()
    graph = export.deployed_graph(fused, model.image_size, ExportSettings())
    export.deployed_graph = lambda *rest: graph
    export._median_milliseconds = lambda *rest: 1.0


def export_words(folder: Path) -> tuple[str, ...]:
    return (f"model={folder.parent}/tiny.safetensors", "check_images=1", f"output={folder}/best.onnx")


def export_files(folder: Path) -> Mapping[str, bytes]:
    return files(folder, "*.onnx")


def prepare_select(place: Path) -> None:
    """The finalists are found once, and no file is timed."""
    prepared(place)
    words = {"+budget.mine.params_m": 1.5, "image_size": 64, "candidates": 2, "evaluations": 100}
    settings = compose_config("select", SelectCommand, words | {"neck": "nano", "data": str(place / "shapes")})
    found = select_screen.proposal_of(settings, 5).finalists()
    Proposal.finalists = lambda self, say: found  # type: ignore[method-assign]
    graphs = {}
    for finalist in found:
        model = build_detector(finalist.spec).eval()
        facts = Metadata(tuple(model.classes), model.image_size, False, False, "fp32")
        export._write(export.deployed_graph(model.fuse(), model.image_size, ExportSettings()),
                      place / f"{finalist.name}.onnx", facts, ExportSettings())  # fmt: skip
        graphs[finalist.name] = (place / f"{finalist.name}.onnx").read_bytes()

    def exported(model: Any, path: Path, settings: Any) -> Any:
        return SimpleNamespace(path=write_atomic(path, graphs[path.stem.rpartition("-seed")[0]]))

    trainings.export_model = exported
    trainings.time_in_turns = lambda networks: [[1.0] * 5 for _ in networks]


def select_words(folder: Path) -> tuple[str, ...]:
    return ("+budget.mine.params_m=1.5", "neck=nano", "image_size=64", "candidates=2", "epochs=2", "evaluations=100",
            f"data={folder.parent}/shapes", *TRAINER)  # fmt: skip


def select_files(folder: Path) -> Mapping[str, bytes]:
    kept = files(folder, "selection.csv", "selected.yaml", "selected.safetensors", "finalists.json", "plan.json")
    return kept | training_files(folder, "candidates/*/")


class Forked:
    """A started command as a fork: in place of a new interpreter, which takes ten seconds."""

    def __init__(self, line: list[str], stdout: Any, stderr: Any, **rest: Any) -> None:
        sys.stdout.flush()
        self.pid = os.fork()
        self.returncode: int | None = None
        if not self.pid:
            code = 1
            try:
                os.setsid()
                os.dup2(stdout.fileno(), 1)
                os.dup2(stderr.fileno(), 2)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                # a new interpreter knows no data that other scenes offered
                ConfigStore.instance().repo.pop("data", None)
                sys.argv = line[line.index("experiments.train_row") :]
                train_row.launch("row", train_row.RowConfig, lambda c, job: train_row.finish_row(c, job.folder),
                                 str(train_row.FOLDER))  # fmt: skip
                code = 0
            except SystemExit as ended:
                code = 0 if not ended.code else 1
                print(ended.code, file=sys.stderr)
            except BaseException as error:
                print(f"Traceback of {error!r}", file=sys.stderr)
            finally:
                sys.stderr.flush()
                os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            child, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if child else None
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def prepare_queue(place: Path) -> None:
    """Every row of the table is the tiny training."""
    prepared(place)
    splits, _ = load_splits(find_data(place / "shapes")[0])

    def tiny_row(config: Any, folder: Path) -> dict[str, Any]:
        options = TrainerOptions(epochs=1, batch_size=4, workers=0, ema=EmaOptions(0.9, 5.0))
        task = TrainingTask(
            tiny_detector(), splits["train"], splits["val"], options, Augmentation.plain(), device="cpu"
        )
        result = run_training(task, folder, resume=(folder / "last.state").exists(), progress=False)
        table, scale = load_table(config.table), load_scale("tiny")
        facts = {"table": table.name, "row": config.row, "scale": scale.name, "seed": config.seed, "data": config.data,
                 "recipe": folder.parent.name.rpartition("-")[2], "ap": result.score, "steps": result.steps}  # fmt: skip
        return dict.fromkeys(COLUMNS, 0) | facts

    missing = Trainings.missing
    Trainings.missing = lambda self, tables: [job for job in missing(self, tables) if job.row.name in QUEUED_ROWS]
    train_row.train_row = tiny_row
    queue_run.subprocess = type("Started", (), {"Popen": Forked, "STDOUT": subprocess.STDOUT})


def queue(folder: Path) -> None:
    from experiments.command import run

    sys.argv = ["experiments.run", QUEUED, "scale=tiny", f"output={folder}"]
    run(queue_run.main)


def queue_files(folder: Path) -> Mapping[str, bytes]:
    results = files(folder, "results/*.csv", "*/*/*/*/seed*/best.safetensors")
    results |= {name: b"\n".join(sorted(data.splitlines())) for name, data in results.items() if name.endswith("csv")}
    return results | {
        str(path.relative_to(folder)): json.dumps(json.loads(path.read_text())).encode()
        for path in folder.glob("*/*/*/*/seed*/result.json")
    }


SCENES = (
    Scene("search", prepare_search, started("search", search_words), (resumed("search"), started("search", search_words)),
          search_files),
    Scene("train", prepared, started("train", train_words), (resumed("train"), started("train", train_words)),
          partial(training_files, place="")),
    Scene("export", prepare_export, started("export", export_words), (started("export", export_words),),
          export_files),
    Scene("select", prepare_select, started("select", select_words), (resumed("select"), started("select", select_words)),
          select_files),
    Scene("queue", prepare_queue, queue, (queue,), queue_files),
)  # fmt: skip
