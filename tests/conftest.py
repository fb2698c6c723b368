"""Fixtures of the whole suite."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
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


@pytest.fixture(scope="session")
def drawn_bccd() -> Callable[[Path], Path]:
    """Draws shapes into a folder, in the form of BCCD."""
    from nas.detection.shapes import draw_shapes

    def draw(folder: Path) -> Path:
        data = draw_shapes(folder, counts={"train": 8, "val": 4, "test": 4}, size=96)
        for path in (data / "annotations").glob("*.json"):
            content = json.loads(path.read_text())
            for image in content["images"]:
                image["file_name"] = f"{path.stem}/{Path(image['file_name']).name}"
            path.write_text(json.dumps(content))
        return data

    return draw
