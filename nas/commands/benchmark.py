"""What `python -m nas.benchmark` is told, and the benchmark that it makes in a folder: a row for each format and precision."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import MinLen

from nas.commands.benchmark_files import Benchmark, Row, read_row, table_csv, verdict_lines, write_row
from nas.data.sources import DataConfig, load_splits
from nas.deploy import DEPLOYABLE, DEPLOYABLE_PRECISIONS, EXPORTED
from nas.errors import UserError
from nas.files import write_atomic
from nas.options import DISTINCT, Count, ImageSize, Name, OneOf, Seed, Share, Threads, check_object
from nas.resume import continuation, continued, store_settings
from nas.spec import require_side

if TYPE_CHECKING:
    from nas.data.dataset import DetectionData
    from nas.measure.artefact import ArtefactJob, Parity
    from nas.models.base import DetectorModule

#: The weights that every row is of.
MODEL = Path("files") / "model.safetensors"
#: What may differ between a run and its continuation.
FREE = ("resume", "progress")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class BenchmarkCommand:
    """model: checkpoint, name or spec; split: of the data, None for test where there is one, else val.

    formats and precisions: every pair is a row; torch in float32 always is, as what the others are compared with.
    image_size: None is the model's own; device: cpu, cuda ...; threads: of the CPU. scored_images: how many of the split
    are scored (None: all), timed_images: on how many of them stages are timed; both by the same thresholds.
    calibration_images: pictures of the training split for INT8, check_images: on which files are compared with torch,
    drawn by `seed`; keep_float: layers that INT8 leaves alone. resume: the folder of a benchmark that goes on, alone.
    """

    model: Name | None = None
    data: DataConfig = field(default_factory=DataConfig)
    split: Annotated[str, OneOf("train", "val", "test")] | None = None
    formats: Annotated[tuple[Annotated[str, OneOf(*DEPLOYABLE)], ...], MinLen(1), DISTINCT] = ("onnx", "openvino")
    precisions: Annotated[tuple[Annotated[str, OneOf(*DEPLOYABLE_PRECISIONS)], ...], MinLen(1), DISTINCT] = (
        "fp32",
        "int8",
    )
    image_size: ImageSize | None = None
    device: Name | None = None
    threads: Threads = 1
    scored_images: Count | None = None
    timed_images: Count = 50
    batch_size: Count = 8
    score_threshold: Share = 0.001
    iou_threshold: Share = 0.7
    max_detections: Count = 300
    max_candidates: Count = 3000
    check_images: Count = 8
    calibration_images: Count = 128
    calibration: Annotated[str, OneOf("minmax", "entropy", "percentile")] = "minmax"
    keep_float: tuple[Name, ...] = ()
    seed: Seed = 0
    resume: Name | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        check_object(self)

    @property
    def variants(self) -> list[tuple[str, str]]:
        """The rows: torch in float32, then what was asked for."""
        asked = [(format, precision) for format in self.formats for precision in self.precisions]
        return list(dict.fromkeys([("torch", "fp32"), *asked]))


def benchmark_in(command: BenchmarkCommand, folder: Path, given: Sequence[str] = (), say: Say = print) -> Benchmark:
    """Benchmark in `folder`, or go on in that of the run to resume; `given`: the settings of the command line.

    Raises UserError for a model or data that cannot be used, before anything is measured; what a row cannot do is in it.
    """
    from nas.inference.evaluator import class_lookup
    from nas.models.checkpoint import save_checkpoint

    if command.resume is not None:
        folder = Path(command.resume)
        command = continued(command, given, FREE)
    elif command.model is None:
        raise UserError(
            "model is not given: add model=..., as in: python -m nas.benchmark model=best.safetensors data=bccd"
        )
    elif (folder / "config.yaml").exists():
        raise UserError(f"{folder} already holds a benchmark: resume={folder} goes on with it")
    detector = _detector(command, folder)
    splits, report = load_splits(command.data)
    split = command.split or ("test" if "test" in splits else "val")
    if split not in splits:
        raise UserError(f"data {command.data.name} has no {split} split; it has {', '.join(splits)}")
    class_lookup(detector, splits[split])
    if command.resume is None:
        if command.progress:
            print(*report.summary(), sep="\n")
        store_settings(command, folder, FREE)
        save_checkpoint(folder / MODEL, detector)
    maker = _RowMaker(command, folder, splits, split, detector, say)
    try:
        rows = [_kept_or_made(maker, format, precision) for format, precision in command.variants]
    except KeyboardInterrupt:
        print(f"stopped; go on with: python -m nas.benchmark {continuation(folder, given, FREE)}", flush=True)
        raise
    shown = f"{splits[split].name} {split}"
    return write_benchmark(Benchmark(folder, str(command.model), shown, tuple(rows)))


def _kept_or_made(maker: _RowMaker, format: str, precision: str) -> Row:
    """A row that is finished already, or a new one; what could not run before may do so now."""
    path = maker.folder / "rows" / f"{format}-{precision}.json"
    row = read_row(path) if path.is_file() else None
    if row is None or row.reason:
        row = maker.row(format, precision)
        write_row(path, row)
    return row


def write_benchmark(result: Benchmark) -> Benchmark:
    """Write benchmark.csv, benchmark.png and report.html from the rows."""
    from nas.report.benchmark import benchmark_page

    write_atomic(result.folder / "benchmark.csv", table_csv(result))
    result.save(result.folder / "benchmark.png")
    write_atomic(result.folder / "report.html", benchmark_page(result, verdict_lines(result)))
    return result


def _detector(command: BenchmarkCommand, folder: Path) -> DetectorModule:
    """The detector at its image size; where its weights lie beside the rows already, those."""
    from nas.models.build import build_model

    kept, given = folder / MODEL, str(command.model)
    if given.endswith(EXPORTED):
        raise UserError(f"{given} is an exported file: give the checkpoint that it was made from")
    model: Any = build_model(kept if kept.is_file() else given)
    if not hasattr(model, "num_classes"):
        raise UserError(
            f"{given} is a backbone, not a detector: put a neck and a head on it (python -m nas.search does)"
        )
    model.image_size = require_side(command.image_size or model.image_size)
    detector: DetectorModule = model.eval()
    return detector


@dataclass(frozen=True)
class _RowMaker:
    """Makes the rows of one benchmark."""

    command: BenchmarkCommand
    folder: Path
    splits: dict[str, DetectionData]
    split: str
    detector: DetectorModule
    say: Say

    def row(self, format: str, precision: str) -> Row:
        """One row, whatever goes wrong in it."""
        row = Row(format, precision, threads=self.command.threads, device=self._device(format))
        began = time.perf_counter()
        try:
            row = self._measured(row)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            reason = first if isinstance(error, UserError) else f"{type(error).__name__}: {first}"
            self.say(f"{row.name} cannot run: {reason}")
            return replace(row, reason=reason or "unknown", seconds=round(time.perf_counter() - began, 1))
        return replace(row, seconds=round(time.perf_counter() - began, 1))

    def _device(self, format: str) -> str:
        return self.command.device or ("cuda" if format == "tensorrt" else "cpu")

    def _measured(self, row: Row) -> Row:
        from nas.deploy.variants import require_variant
        from nas.measure import cpu_facts, gpu_facts
        from nas.measure.artefact import measured_apart

        require_variant(row.format, row.precision, self.command.device)
        file, parity = self.folder / MODEL, None
        if not row.format.startswith("torch"):
            self.say(f"{row.name}: exporting")
            file, parity = self._exported(row)
        self.say(f"{row.name}: measuring")
        job = self._job(row, file)
        found = measured_apart(job)
        facts = gpu_facts() | {"gpu": True} if row.device.startswith("cuda") else {}
        files = [file, *file.parent.glob(f"{file.stem}.bin")]
        return replace(
            row,
            file=str(file.relative_to(self.folder)),
            megabytes=round(sum(one.stat().st_size for one in files) / 1e6, 3),
            ap=found.ap,
            ap50=found.ap50,
            images=found.images,
            milliseconds=found.milliseconds,
            memory_mb=found.memory_mb,
            parity=found.parity or parity,
            host=cpu_facts() | facts | _versions(row.format),
        )

    def _exported(self, row: Row) -> tuple[Path, Parity]:
        from nas.deploy import ExportSettings
        from nas.deploy.export import export_model
        from nas.measure.artefact import Parity

        command = self.command
        settings = ExportSettings(
            format=row.format,
            precision=row.precision,
            images=f"{command.data.name} train",
            check_images=command.check_images,
            calibration_images=command.calibration_images,
            calibration=command.calibration,
            keep_float=command.keep_float if row.precision == "int8" else (),
            seed=command.seed,
        )
        target = self.folder / "files" / f"{row.format}-{row.precision}"
        report = export_model(self.detector, target, settings, source=self._pictures())
        return report.path, Parity.of(report.agreement)

    def _pictures(self) -> list[Path]:
        """What files are checked and calibrated on: training pictures, where there are any."""
        return [record.path for record in self.splits.get("train", self.splits[self.split]).records]

    def _job(self, row: Row, file: Path) -> ArtefactJob:
        from nas.inference import PredictOptions
        from nas.measure.artefact import ArtefactJob

        command = self.command
        options = PredictOptions(
            command.score_threshold, command.iou_threshold, command.max_detections, command.max_candidates
        )
        own = row.format.startswith("torch") and (row.format, row.precision) != ("torch", "fp32")
        return ArtefactJob(
            file, row.format, row.precision, command.data, self.split, command.device, command.threads, command.scored_images,
            command.timed_images, command.batch_size, options, tuple(self._pictures()[: command.check_images]) if own else (),
            command.seed, _own_modules(self.detector),
        )  # fmt: skip


def _own_modules(detector: DetectorModule) -> tuple[str, ...]:
    """Modules outside the package that a detector's blocks come from."""
    spec = getattr(detector, "spec", None)
    blocks = spec.backbone.blocks if spec is not None else ()
    modules = {type(block).__module__ for block in blocks}
    return tuple(sorted(name for name in modules if name.partition(".")[0] != "nas"))


def _versions(format: str) -> dict[str, object]:
    """The version of what computes."""
    from importlib.metadata import PackageNotFoundError, version

    package = {"onnx": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt"}.get(format, "torch")
    try:
        return {package: version(package)}
    except PackageNotFoundError:
        return {}
