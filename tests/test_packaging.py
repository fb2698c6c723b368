"""The wheel holds everything that the commands need, and works from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

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


def test_the_wheel_carries_its_data(wheel_site: Path) -> None:
    for path in ("nas/conf/search.yaml", "nas/conf/budget/latency_3ms.yaml", "nas/conf/scorer/mae.yaml",
                 "search_spaces/published/damo-yolo-s.yaml", "nas/cost/tables/t4_tensorrt_fp16.json"):  # fmt: skip
        assert (wheel_site / path).is_file(), path
    assert not list(wheel_site.glob("tests*")) and not list(wheel_site.glob("experiments*"))


def test_the_search_runs_from_the_wheel_in_another_folder(wheel_site: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nas.search", "+budget=latency_3ms", "evaluations=1500", "progress=false"]
    environment = {**os.environ, "PYTHONPATH": str(wheel_site)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (best,) = tmp_path.glob("outputs/search/*/best.yaml")
    assert "maenas-spec/1" in best.read_text()
