"""Fixtures of the detection tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the drawn data of a file's tests lie."""
    return tmp_path_factory.mktemp("shapes")
