"""python -m nas.export model=best.safetensors format=onnx: a checked file for ONNX Runtime, OpenVINO or TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from nas.config import Job, launch
from nas.deploy import ExportCommand
from nas.files import write_json

if TYPE_CHECKING:
    from nas.deploy.export import ExportReport


def run(command: ExportCommand, job: Job) -> None:
    """Export into Hydra's run folder (or to `output`) and print how the file compares with torch."""
    from nas.deploy.export import export_model
    from nas.detector import Detector

    console = Console()
    detector = Detector.load(command.model)
    if hasattr(detector.network, "origin"):
        console.print(str(detector.network.origin), soft_wrap=True, highlight=False, markup=False)
    else:
        console.print(f"{command.model} is an architecture: the file will have random weights", style="yellow")
    target = command.output or job.folder / f"{Path(command.model).stem}-{command.precision}"
    with console.status("exporting") as status:
        report = export_model(detector.model, target, command, lambda text: status.update(text))
    write_json(job.folder / "export.json", report.to_dict())
    _show(console, report)


def _show(console: Console, report: ExportReport) -> None:
    found = report.agreement
    table = Table(str(report.path.name), f"{report.format} {report.precision}")
    for name, value in (
        ("size", f"{report.megabytes:.2f} MB"),
        ("one image, this processor", f"{report.milliseconds:.2f} ms (torch {report.torch_milliseconds:.2f} ms)"),
        ("checked on", f"{found.images} pictures ({report.pictures})"),
        ("detections found again", f"{100 * found.matched:.1f} % of {found.detections}"),
        ("largest score difference", f"{found.score_difference:.2g}"),
        ("largest box difference", f"{found.box_difference:.2g} px"),
    ):
        table.add_row(name, value)
    console.print(table, markup=False)
    console.print(str(report.path), soft_wrap=True, highlight=False)


if __name__ == "__main__":
    launch("export", ExportCommand, run)
