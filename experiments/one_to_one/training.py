"""The two detectors of a data set, their exported files, and the milliseconds of these from pixels to boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from experiments.data import data_config
from experiments.detector_bench.measuring import class_count
from experiments.detector_bench.networks import read_networks
from experiments.detector_bench.training import RECIPES
from experiments.selection.contestants import Contestant
from nas.commands.benchmark import BenchmarkCommand
from nas.errors import UserError
from nas.inference import PredictOptions
from nas.measure.artefact import ArtefactJob, measured_apart

TABLE = Path(__file__).with_name("runs.jsonl.gz")
TIMES = TABLE.with_name("times.json")
#: The network of the bench of trained detectors around which both heads are put.
NETWORK = "best-effective_rank-tinynas_k1kx@20"
#: The two ways to a picture's boxes, by the name of the detector that takes it.
WITH_NMS, WITHOUT = "NMS", "one-to-one"
#: Turns of a session; of each stage the median over turns counts.
TURNS = 3
#: Of the AP and of the timed frames alike: that of `python -m nas.benchmark`, at which NMS has most to do, and that of a
#: prediction.
SCORE_THRESHOLDS = (BenchmarkCommand.score_threshold, PredictOptions().score_threshold)


def pair(data: str) -> list[Contestant]:
    """The detector with NMS and the one without, as they are trained on a data set; they differ in nothing else."""
    if data not in RECIPES:
        raise UserError(f"no recipe for data={data}; known: {', '.join(RECIPES)}")
    spec = next(network.spec for network in read_networks() if network.name == NETWORK)
    size, _ = RECIPES[data]
    heads = (replace(spec.head, num_classes=class_count(data), one_to_one=lonely) for lonely in (False, True))
    models = (replace(spec, head=head, image_size=size) for head in heads)
    return [
        Contestant(data, name, name, model, size, 0.0) for name, model in zip((WITH_NMS, WITHOUT), models, strict=True)
    ]


def file_of(work: Path, data: str, name: str) -> Path:
    """Where the exported file of a data set's first seed lies."""
    return work / "files" / f"{data}-{name}.onnx"


def keep_file(work: Path) -> Callable[[Contestant, int, Path], None]:
    """Exports the best weights of every detector's first seed, checked against torch, before its folder goes."""

    def keep(one: Contestant, seed: int, folder: Path) -> None:
        from nas.deploy import ExportSettings
        from nas.deploy.export import export_model
        from nas.models.checkpoint import load_checkpoint

        if seed == 0:
            path = file_of(work, one.data, one.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            export_model(load_checkpoint(folder / "best.safetensors"), path, ExportSettings())

    return keep


def measure(data: str, work: Path) -> dict[str, Any]:
    """Stages and AP of both files of a data set, in turns on one thread; UserError where a file is missing."""
    files = {name: file_of(work, data, name) for name in (WITH_NMS, WITHOUT)}
    for path in files.values():
        if not path.is_file():
            raise UserError(f"{path} is missing: python -m experiments.one_to_one train data={data} work={work}")
    job = {"format": "onnx", "precision": "fp32", "data": data_config(data), "split": "test"}

    def measured(path: Path, threshold: float) -> dict[str, Any]:
        options = PredictOptions(score_threshold=threshold)
        return asdict(measured_apart(ArtefactJob(file=path.resolve(), options=options, **job)))  # type: ignore[arg-type]

    found = {
        f"{threshold:g}": [{name: measured(path, threshold) for name, path in files.items()} for _ in range(TURNS)]
        for threshold in SCORE_THRESHOLDS
    }
    return {"threads": 1, "runtime": "ONNX Runtime, float32", "turns": found}
