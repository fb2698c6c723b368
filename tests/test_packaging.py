"""The wheel holds everything that the commands need, and works from another folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from nas.data.actions import convert_splits
from nas.data.by_path import find_data
from nas.data.shapes import draw_shapes
from nas.data.sources import load_splits

ROOT = Path(__file__).resolve().parents[1]


def test_every_package_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for folder in ("nas", "search_spaces")
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert listed == found | {"nas.conf"}


def test_hooks_and_ci_format_with_one_ruff() -> None:
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ruff==")]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = [repository for repository in hooks if repository["repo"].endswith("/ruff-pre-commit")]
    assert pinned == [f"ruff=={hook['rev'].removeprefix('v')}"]
    assert {"ruff-check", "ruff-format"} <= {each["id"] for each in hook["hooks"]}
    assert {"ruff check .", "ruff format --check ."} <= set((ROOT / ".ci" / "run").read_text().splitlines())


def test_ci_runs_the_command_of_the_readme_and_then_what_it_leaves_out() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    fast, slow = [line for line in lines if "pytest" in line]
    assert (
        f"&& {fast}\n" in (ROOT / "README.md").read_text() and f"\n{fast}\n" in (ROOT / "CONTRIBUTING.md").read_text()
    )
    assert fast.endswith('-m "not benchmark and not slow"') and slow.endswith('-m "slow and not benchmark"')
    assert "set -euo pipefail" in lines and lines[-2:] == [fast, slow]  # the first failure is the status


def test_the_wheel_carries_its_data(wheel_site: Path) -> None:
    for path in ("nas/conf/search.yaml", "nas/conf/budget/latency_3ms.yaml", "nas/conf/scorer/mae.yaml",
                 "search_spaces/published/damo-yolo-s.yaml", "nas/cost/tables/t4_tensorrt_fp16.json"):  # fmt: skip
        assert (wheel_site / path).is_file(), path
    assert not list(wheel_site.glob("tests*")) and not list(wheel_site.glob("experiments*"))


#: A COCO set of drawn shapes as other people's folders, by name.
LAYOUTS = {
    "coco": lambda shapes, folder: shutil.copytree(shapes, folder / "photos"),
    "yolo": lambda shapes, folder: convert_splits(load_splits(find_data(shapes)[0])[0], "yolo", folder / "photos"),
    "voc": lambda shapes, folder: as_voc(shapes, folder / "photos"),
    "roboflow": lambda shapes, folder: as_roboflow(shapes, folder / "photos"),
}


def as_voc(shapes: Path, folder: Path) -> None:
    """The training images alone, with an XML file beside each."""
    data = load_splits(find_data(shapes)[0], ("train",))[0]["train"]
    folder.mkdir()
    for record in data.records:
        shutil.copy(record.path, folder)
        objects = "".join(
            f"<object><name>{data.classes[label]}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax>"
            f"<ymax>{y2}</ymax></bndbox></object>"
            for label, (x1, y1, x2, y2) in zip(record.labels, record.boxes, strict=True)
        )
        (folder / f"{record.path.stem}.xml").write_text(f"<annotation>{objects}</annotation>")


def as_roboflow(shapes: Path, folder: Path) -> None:
    """A zip with train/images, train/labels, and so on."""
    convert_splits(load_splits(find_data(shapes)[0])[0], "yolo", folder / "whole")
    names = yaml.safe_load((folder / "whole/data.yaml").read_text())["names"]
    for split, called in (("train", "train"), ("val", "valid"), ("test", "test")):
        for kind in ("images", "labels"):
            shutil.copytree(folder / f"whole/{kind}/{split}", folder / f"export/{called}/{kind}")
    document = {"train": "../train/images", "val": "../valid/images", "nc": len(names), "names": list(names.values())}
    (folder / "export/data.yaml").write_text(yaml.safe_dump(document))
    shutil.make_archive(str(folder), "zip", folder / "export")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def installed(wheel_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as pip installs it, with its console command."""
    (wheel,) = wheel_site.parent.glob("maenas-*.whl")
    target = tmp_path_factory.mktemp("installed")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def maenas(installed: Path) -> Callable[[Path, str], str]:
    """Runs a command of the console in a folder and returns what it printed; what follows | only shortens it."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}

    def run(folder: Path, line: str) -> str:
        command = [str(installed / "bin/maenas"), *line.replace(" |", "").split()]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}: {done.stderr[-1500:]}"
        return done.stdout

    return run


@pytest.fixture(scope="module")
def searched(maenas: Callable[[Path, str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first of the five commands, the same for all data."""
    folder = tmp_path_factory.mktemp("searched")
    maenas(folder, "search +budget=latency_3ms hydra.run.dir=found | evaluations=200 progress=false searcher=random")
    return folder / "found"


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_from_a_folder_of_photos_to_an_exported_detector(
    layout: str, maenas: Callable[[Path, str], str], searched: Path, tmp_path: Path
) -> None:
    """Five commands in an empty folder, without a configuration of one's own."""
    shapes = draw_shapes(tmp_path / "drawn", counts={"train": 8, "val": 4, "test": 4}, size=96)
    work = tmp_path / "empty"
    work.mkdir()
    LAYOUTS[layout](shapes, work)
    shutil.copytree(shapes / "images/test", work / "seen")
    shutil.copytree(searched, work / "found")
    data = "photos.zip" if layout == "roboflow" else "photos"
    told = maenas(work, f"data data={data}")
    told += maenas(
        work,
        f"train model=found/best.yaml data={data} trainer=cpu_small hydra.run.dir=trained | device=cpu trainer.epochs=1 "
        "trainer.batch_size=4 trainer.workers=0 trainer.schedule.warmup_epochs=0 augmentation.closing_epochs=0 image_size=64",
    )
    kind = {"coco": "COCO", "yolo": "YOLO", "voc": "Pascal VOC", "roboflow": "YOLO (data.yaml)"}[layout]
    assert told.count(f"is {kind}") == 2 and "5 classes" in told
    assert told.count("no val split: 20% of train are drawn") == 2 * (layout == "voc")
    assert yaml.safe_load((work / "trained/config.yaml").read_text())["data"]["root"].startswith(str(work))
    maenas(work, f"export model=trained/best.safetensors data={data} output=trained/best.onnx | check_images=2")
    assert "4 pictures, 0 skipped" in maenas(work, "predict model=trained/best.onnx source=seen")


@pytest.mark.slow
def test_the_search_runs_from_the_wheel_in_another_folder(wheel_site: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nas.search", "+budget=latency_3ms", "evaluations=1500", "progress=false"]
    environment = {**os.environ, "PYTHONPATH": str(wheel_site)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (best,) = tmp_path.glob("outputs/search/*/best.yaml")
    assert "maenas-spec/1" in best.read_text()
