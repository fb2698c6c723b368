"""What is deployed and what it is worth there: AP and milliseconds of one exported file, network beside network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from nas.cost.latency import LatencyTable
from nas.data.dataset import DetectionData
from nas.deploy import ExportSettings, load_runtime
from nas.deploy.export import export_model
from nas.inference.evaluator import evaluate, time_model
from nas.models.checkpoint import load_checkpoint
from nas.selection.portfolio import Finalist

#: Turns in which the files are timed one after the other, so that a drift of the machine meets all alike.
TURNS, RUNS = 5, 12
#: Runtimes of latency tables that are timed here, with the format of their files; others need their own machine.
TIMED = {"onnxruntime": "onnx", "openvino": "openvino"}


@dataclass(frozen=True, slots=True)
class Deployed:
    """An exported finalist: AP of that very file on the test split (the validation split where there is none), its
    milliseconds here (None: the table's device is another), and the quartiles of the turns."""

    finalist: Finalist
    seed: int
    file: Path
    split: str
    ap: float
    ap50: float
    ms: float | None
    spread: tuple[float, float] | None


def deploy(
    chosen: Sequence[tuple[Finalist, int, Path]], folder: Path, table: LatencyTable, data: DetectionData
) -> list[Deployed]:
    """Export the checkpoints of (finalist, seed, checkpoint), then score and time the files in one session."""
    runtime = next((name for name in TIMED if table.header.runtime.lower().replace(" ", "").startswith(name)), "")
    threads = int(table.header.provenance.get("threads", 1))
    settings = ExportSettings(format=TIMED.get(runtime, "onnx"), images=str(data.records[0].path.parent))
    files = []
    for finalist, seed, checkpoint in chosen:
        model = load_checkpoint(checkpoint)
        files.append(export_model(model, folder / f"{finalist.name}-seed{seed}.onnx", settings).path)
    times = time_in_turns(files, threads) if runtime else [[] for _ in files]
    found = []
    for (finalist, seed, _), file, own in zip(chosen, files, times, strict=True):
        network = load_runtime(file)
        scores = evaluate(network, data, network.image_size)
        ms = median(own) if own else None
        spread = (sorted(own)[TURNS // 4], sorted(own)[-1 - TURNS // 4]) if own else None
        found.append(Deployed(finalist, seed, file, data.split, float(scores.ap), float(scores.ap50), ms, spread))
    return found


def time_in_turns(files: Sequence[Path], threads: int = 1) -> list[list[float]]:
    """Milliseconds of exported files in one session: each one's median of every turn, so that a drift meets all alike."""
    networks = [load_runtime(file, threads=threads) for file in files]
    times: list[list[float]] = [[] for _ in files]
    for _ in range(TURNS):
        for own, network in zip(times, networks, strict=True):
            own.append(time_model(network, network.image_size, runs=RUNS)["median"])
    return times
