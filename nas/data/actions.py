"""What `python -m nas.data` does: check, convert, fetch."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from nas.data.coco import write_coco
from nas.data.dataset import DetectionData
from nas.data.fetch import fetch_data
from nas.data.report import require_sound
from nas.data.sources import DataConfig, load_splits
from nas.data.yolo_text import write_yolo
from nas.errors import UserError
from nas.files import dump_yaml, write_atomic
from nas.options import Name, OneOf


@dataclass
class DataCommand:
    """action: check, convert or fetch; `to` and `output` belong to convert, `output` also to fetch."""

    data: DataConfig = field(default_factory=DataConfig)
    action: Annotated[str, OneOf("check", "convert", "fetch")] = "check"
    to: Annotated[str, OneOf("coco", "yolo")] = "yolo"
    output: Name | None = None


def run_data_action(command: DataCommand, output: Path | None) -> list[str]:
    """Do it and return the lines to print; UserError if the data is not sound (check) or an option is missing."""
    if command.action == "check":
        return _check(command, output)
    if command.action == "fetch":
        folder = output or Path("data") / command.data.name
        return [*fetch_data(command.data, folder), f"{command.data.name} is in {folder}"]
    if command.action == "convert":
        if output is None:
            raise UserError("action=convert needs output=FOLDER")
        if output.exists() and any(output.iterdir()):
            raise UserError(f"output={output} is not empty; give another folder")
        splits, _ = load_splits(command.data)
        return convert_splits(splits, command.to, output)
    raise UserError(f"action={command.action}: check, convert or fetch")


def convert_splits(splits: dict[str, DetectionData], to: str, output: Path) -> list[str]:
    """Copy the images to output/images/SPLIT and write the labels beside them as COCO JSON or YOLO text files."""
    if to not in ("coco", "yolo"):
        raise UserError(f"to={to}: coco or yolo")
    lines = []
    for split, data in splits.items():
        folder = output / "images" / split
        folder.mkdir(parents=True, exist_ok=True)
        # YOLO's label file has the image's name without its ending.
        names = [record.path.stem if to == "yolo" else record.path.name for record in data.records]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{data.name} {split}: two images are called {twice}; rename one")
        for record in data.records:
            shutil.copyfile(record.path, folder / record.path.name)
        moved = replace(data, records=tuple(replace(r, path=folder / r.path.name) for r in data.records))
        if to == "coco":
            write_coco(moved, output / "annotations" / f"{split}.json", folder)
        else:
            write_yolo(moved, output / "labels" / split)
        lines.append(f"{split}: {len(data)} images, {data.num_boxes} boxes")
    if to == "yolo":
        names = list(next(iter(splits.values())).classes)
        document = {"path": ".", **{s: f"images/{s}" for s in splits}, "names": dict(enumerate(names))}
        write_atomic(output / "data.yaml", dump_yaml(document))
    return [*lines, f"written to {output}"]


def _check(command: DataCommand, output: Path | None) -> list[str]:
    """The report; strict mode ends with an error after printing nothing else than what is wrong."""
    lenient = replace(command.data, mode="repair") if command.data.mode == "strict" else command.data
    _, report = load_splits(lenient)
    if output is not None:
        from nas.report.evaluation_plots import save_histogram

        save_histogram(output / "classes.png", report.histograms, report.classes)
    lines = report.summary()
    if command.data.mode == "strict" and report.errors:
        print("\n".join(lines))
        require_sound(report)
    return lines
