"""The YAML file of a command and its settings say the same, so that Python and the command line have one set of defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nas.commands.compare import CompareSettings
from nas.commands.evaluate import EvaluateCommand
from nas.commands.rank import RankSettings
from nas.commands.search import SearchCommand
from nas.commands.select import SelectCommand
from nas.commands.train import TrainCommand
from nas.config import compose_config, config_folder, hydra_schema
from nas.data.actions import DataCommand
from nas.deploy.pipeline import ExportCommand
from nas.frame import NeckOptions
from nas.inference.run import PredictCommand
from nas.measure.profiler import ProfileSettings

SCHEMAS: dict[str, Any] = {
    "compare": CompareSettings,
    "data": DataCommand,
    "evaluate": EvaluateCommand,
    "export": ExportCommand,
    "predict": PredictCommand,
    "profile": ProfileSettings,
    "rank": RankSettings,
    "search": SearchCommand,
    "select": SelectCommand,
    "train": TrainCommand,
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_file_of_a_command_repeats_the_defaults_of_its_settings(name: str) -> None:
    """But for what it changes in a group (a map), which is the command's own."""
    told = yaml.safe_load((Path(config_folder()) / f"{name}.yaml").read_text())
    known = hydra_schema(SCHEMAS[name])()
    for key in told.keys() - {"defaults", "hydra"} - {key for key, value in told.items() if isinstance(value, dict)}:
        default = getattr(known, key)
        assert default == "???" or default == told[key], key


def test_the_default_neck_is_that_of_python() -> None:
    assert compose_config("search", SearchCommand, {}).neck == NeckOptions()
