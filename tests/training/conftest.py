"""Fixtures of the detection tests."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the drawn data of a file's tests lie."""
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory, tiny: ModuleType) -> Path:
    """The folder of the plain tiny training, which nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight")
    tiny.run(folder / "shapes", folder / "run")
    return folder / "run"
