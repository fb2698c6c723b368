"""Fixtures of the whole suite, and what makes its tests independent of their order, the load and the day."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from absl import logging as absl_logging
from hypothesis import HealthCheck, settings

from nas.training.cores import wait_briefly

wait_briefly(os.environ)  # as trainings do; beside other work OpenMP's threads would spin the suite's time away
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # workers share the cores; set before any of them imports torch
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
# OpenVINO imports absl, whose handler keeps the stderr of that moment, pytest's, and closes it when Hydra sets up logging.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    """What a fixture draws does not depend on the tests before it."""
    start_anew()


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """What a test draws does not depend on the tests before it."""
    start_anew()


def start_anew() -> None:
    """Seed every generator that the whole process shares (torch where a test has imported it)."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with goldens and real data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("MAENAS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: set MAENAS_SHARED to the folder of goldens and data")
    return folder


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module of tiny trainings, training/tiny_training.py."""
    path = Path(__file__).with_name("training") / "tiny_training.py"
    description = importlib.util.spec_from_file_location("tiny_training", path)
    assert description is not None and description.loader is not None
    module = importlib.util.module_from_spec(description)
    sys.modules["tiny_training"] = module
    description.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden() -> Path:
    """Small goldens that travel with the repository."""
    return Path(__file__).resolve().parent / "golden"


@pytest.fixture(scope="session")
def wheel_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel that was built from a copy of the sources, unpacked as pip would install it."""
    folder, root = tmp_path_factory.mktemp("wheel"), Path(__file__).resolve().parents[1]
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "nas", "search_spaces", "conf"):
        (source / name).symlink_to(root / name)
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*wheel, str(source)], check=True, capture_output=True)
    (built,) = folder.glob("maenas-*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="session")
def drawn_bccd() -> Callable[[Path], Path]:
    """Draws shapes into a folder, in the form of BCCD."""
    from nas.data.shapes import draw_shapes

    def draw(folder: Path) -> Path:
        data = draw_shapes(folder, counts={"train": 8, "val": 4, "test": 4}, size=96)
        for path in (data / "annotations").glob("*.json"):
            content = json.loads(path.read_text())
            for image in content["images"]:
                image["file_name"] = f"{path.stem}/{Path(image['file_name']).name}"
            path.write_text(json.dumps(content))
        return data

    return draw
