"""A training of seconds that the tests of several experiments share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.detector_bench.training import RECIPES


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, drawn_bccd: Callable[[Path], Path]) -> Iterator[dict[str, Any]]:
    """Settings of a training of seconds, on drawn shapes in the place of BCCD."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAENAS_BCCD", str(drawn_bccd(tmp_path_factory.mktemp("bccd") / "bccd")))
        patch.setitem(RECIPES, "bccd", (64, 4))
        yield {
            "trainer.batch_size": 4,
            "trainer.schedule.warmup_epochs": 1,
            "trainer.ema.norm_images": 8,
            "augmentation.closing_epochs": 1,
        }
