"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with goldens and real data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("MAENAS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: set MAENAS_SHARED to the folder of goldens and data")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Small goldens that travel with the repository."""
    return Path(__file__).resolve().parent / "golden"
