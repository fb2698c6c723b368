"""Fixtures of the detection tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module of tiny trainings, tiny_training.py beside this file."""
    path = Path(__file__).with_name("tiny_training.py")
    description = importlib.util.spec_from_file_location("tiny_training", path)
    assert description is not None and description.loader is not None
    module = importlib.util.module_from_spec(description)
    sys.modules["tiny_training"] = module
    description.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the drawn data of a file's tests lie."""
    return tmp_path_factory.mktemp("shapes")
