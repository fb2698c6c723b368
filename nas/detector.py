"""Detector: one object from a file to boxes on a picture, and on to training, evaluation and export."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from nas.deploy import EXPORTED, load_runtime
from nas.errors import UserError
from nas.inference import PredictOptions
from nas.inference.pictures import Source, open_pictures
from nas.inference.predictor import Network, Prediction, Predictor
from nas.models.base import DetectorModule
from nas.models.build import build_model
from nas.models.checkpoint import require_finite
from nas.options import check_keywords, read_object
from nas.report.canvas import ACCENT, Shown, canvas, label
from nas.spec import Backbone, Spec, require_side

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nas.commands.benchmark_files import Benchmark
    from nas.deploy.export import ExportReport
    from nas.deploy.runtime import Runtime
    from nas.inference.scoring import Evaluation
    from nas.training.hooks import Hook
    from nas.training.run import TrainingResult


class Detector(Shown):
    """A detector of any family, as a torch module or as an exported file.

    The picture has the parameters of its parts; there is none of an exported file.
    """

    def __init__(self, network: nn.Module | Runtime, source: str = "") -> None:
        self.network = cast(Network, network)
        self.source = source
        self._fused: dict[str, Network] = {}

    @classmethod
    def load(
        cls, source: str | Path | Spec, num_classes: int | None = None, classes: Sequence[str] | None = None
    ) -> Detector:
        """A detector from a checkpoint (.safetensors), an exported file (.onnx, .xml, .engine), a spec, or a name.

        Only checkpoints and exported files bring trained weights. Raises UserError naming what is wrong.
        """
        if isinstance(source, str | Path) and str(source).endswith(EXPORTED):
            return cls(load_runtime(source), str(source))
        model = build_model(source, num_classes, classes)
        if isinstance(source, Backbone) or not hasattr(model, "num_classes"):
            raise UserError(
                "this is a backbone, not a detector: put a neck and a head on it (python -m nas.search does)"
            )
        return cls(model.eval(), source if isinstance(source, str) else "")

    @property
    def model(self) -> DetectorModule:
        """The torch module; raises UserError for an exported file."""
        if not isinstance(self.network, nn.Module):
            raise UserError(
                f"{self.source} is an exported file: it can predict and be evaluated, not trained or exported"
            )
        return cast(DetectorModule, self.network)

    def __repr__(self) -> str:
        names = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
        size = f", {sum(self._parameters().values()) / 1e6:.2f} M parameters" if self._parameters() else ""
        source = self.source or type(self.network).__name__
        return f"Detector({source}: {len(self.classes)} classes ({names}), {self.image_size} pixels{size})"

    def _parameters(self) -> dict[str, int]:
        """How many of each part of the module; none of an exported file."""
        if not isinstance(self.network, nn.Module):
            return {}
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in self.network.named_children()}
        return {name: count for name, count in counts.items() if count}

    def to_dict(self) -> dict[str, object]:
        known = {"source": self.source, "classes": list(self.classes), "image_size": self.image_size}
        return {**known, "parameters": self._parameters()}

    def plot(self) -> Figure:
        parts = self._parameters()
        if not parts:
            raise UserError(f"{self.source} is an exported file: its parts are not known")
        figure, ((axes,),) = canvas(1, 1, 6, 1 + 0.25 * len(parts))
        axes.barh(list(parts), [count / 1e6 for count in parts.values()], color=ACCENT)
        axes.invert_yaxis()
        label(axes, self.source or type(self.network).__name__, "parameters (M)", "")
        return figure

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.network.classes)

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self.network.image_size

    def predict(
        self, source: Source, device: str | None = None, image_size: int | None = None, **options: object
    ) -> list[Prediction]:
        """Detections of every picture of a source (path, folder, glob, video, array, tensor, or a list of these).

        device: cpu, cuda, cuda:1 ...; None is the CPU, and the GPU for an .engine file.
        options: the fields of PredictOptions. One picture that cannot be read raises UserError; of several, the broken
        ones come back with their `error`.
        """
        found = list(self.stream(source, device, image_size, **options))
        if len(found) == 1 and found[0].error:
            raise UserError(found[0].error)
        return found

    def stream(
        self, source: Source, device: str | None = None, image_size: int | None = None, **options: object
    ) -> Iterator[Prediction]:
        """As `predict`, one prediction after the other: for videos and large folders."""
        settings = read_object(PredictOptions, options, "predict")
        self.input_side(image_size)
        return Predictor(self.deployed(device), settings, image_size)(open_pictures(source))

    def input_side(self, image_size: int | None) -> int:
        """The side to run at, given or its own; raises UserError for one that this network cannot take."""
        side = require_side(self.image_size if image_size is None else image_size)
        if side != self.image_size and not isinstance(self.network, nn.Module):
            raise UserError(f"{self.source} was exported for {self.image_size} pixels; export again for {side}")
        return side

    def deployed(self, device: str | None = None) -> Network:
        """What predicts on a device: a fused copy of the module, or the exported file's runtime; made once.

        Raises UserError for a device that is not there or on which the file does not run.
        """
        if not isinstance(self.network, nn.Module):
            if device in (None, cast("Runtime", self.network).device):
                return self.network
            if device not in self._fused:
                self._fused = {device: load_runtime(self.source, device)}
            return self._fused[device]
        device = device or "cpu"
        if device not in self._fused:
            try:
                require_finite(self.model.state_dict(), self.source or "the model")
                copied: Any = copy.deepcopy(self.model).to(device)
                self._fused = {device: copied.fuse().eval()}
            except (RuntimeError, AssertionError) as error:
                raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
        return self._fused[device]

    def train(
        self, data: str, folder: str | Path, progress: bool = True, hooks: Sequence[Hook] = (), **options: object
    ) -> TrainingResult:
        """Train, fine-tune or distil as `python -m nas.train data=...` does; this detector then has the best weights.

        options: settings of that command, nested by group: trainer={"epochs": 30}, distill={"teacher": "..."},
        image_size=..., seed=...; a group's file by name: trainer="cpu_small", or both: **{"trainer": "cpu_small",
        "trainer.epochs": 30}. resume=FOLDER, the same as `folder`, goes on with the training in it, further with more epochs.
        hooks: what watches the training (nas.training.hooks). Raises UserError for anything unusable.
        """
        from nas.commands.train import TrainCommand, leave_report, task_of, with_batch
        from nas.config import compose_config
        from nas.models.checkpoint import load_checkpoint
        from nas.training.run import run_training
        from nas.training.setup import adapt_classes, require_training_form

        require_training_form(self.model)
        config = compose_config("train", TrainCommand, {"data": data, "test": False, **options})
        resume = config.resume is not None
        if resume and Path(str(config.resume)) != Path(folder):
            raise UserError(f"resume={config.resume} goes on in that folder: give it as `folder` too, got {folder}")
        task, _, _ = task_of(config)
        task.model = adapt_classes(copy.deepcopy(self.model), task.train.classes)
        with_batch(config, task)
        result = run_training(task, folder, resume, progress, hooks)
        self.network, self.source, self._fused = load_checkpoint(result.best), str(result.best), {}
        if config.report and task.val is not None:
            leave_report(result, load_checkpoint(result.best).fuse(), task.val)
        return result

    def evaluate(
        self,
        data: str,
        split: str = "val",
        device: str | None = None,
        root: str | Path | None = None,
        image_size: int | None = None,
        **options: object,
    ) -> Evaluation:
        """AP and the rest of this detector, torch or exported, on a split of a data set: a name of conf/data or a path.

        root: the data's folder, where it is not the configured one.
        options: those of nas.inference.evaluator.evaluate (batch_size, score_threshold ...). Raises UserError if the
        data has no such split or other classes.
        """
        from nas.commands.train import TrainCommand
        from nas.config import compose_config
        from nas.data.sources import load_splits
        from nas.inference.evaluator import evaluate

        chosen = check_keywords(evaluate, options, "evaluate", given=("model", "data", "image_size"))
        config = compose_config("train", TrainCommand, {"data": data} | ({"data.root": str(root)} if root else {}))
        side = self.input_side(image_size)
        splits, _ = load_splits(config.data, (split,))
        scored: Callable[..., Evaluation] = evaluate  # its options are checked above
        return scored(self.deployed(device), splits[split], side, **chosen)

    def benchmark(self, data: str, folder: str | Path, **options: object) -> Benchmark:
        """AP and milliseconds of this detector as deployed, in every format and precision, as `python -m nas.benchmark`.

        data: a name of conf/data or a path; folder: where rows, files and report go. options: settings of that command
        (formats, precisions, split, threads ...). Raises UserError for data that does not fit the detector.
        """
        from nas.commands.benchmark import MODEL, BenchmarkCommand, benchmark_in
        from nas.config import compose_config

        model, place = self.model, Path(folder)
        given = {"data": data, "model": self.source or type(model).__name__, "progress": False, **options}
        command = compose_config("benchmark", BenchmarkCommand, given)
        if command.resume is None and not (place / "config.yaml").exists():
            self.save(place / MODEL)
        return benchmark_in(command, place, say=print if command.progress else lambda text: None)

    def save(self, path: str | Path, extra: Mapping[str, object] | None = None) -> Path:
        """Write a self-contained checkpoint that `Detector.load` reads."""
        from nas.models.checkpoint import save_checkpoint

        return save_checkpoint(path, self.model, extra)

    def export(self, path: str | Path, format: str = "onnx", **options: object) -> ExportReport:
        """Write the detector for a runtime and check it against torch; options: the fields of ExportSettings.

        Raises UserError if the file does not give torch's detections.
        """
        from nas.deploy import ExportSettings
        from nas.deploy.export import export_model

        settings = read_object(ExportSettings, {"format": format, **options}, "export")
        return export_model(self.model, path, settings)
