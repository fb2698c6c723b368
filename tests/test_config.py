"""The YAML file of a command and its settings say the same, so that Python and the command line have one set of defaults."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.config_store import ConfigStore

from nas.commands.benchmark import BenchmarkCommand
from nas.commands.compare import CompareSettings
from nas.commands.evaluate import EvaluateCommand
from nas.commands.rank import RankSettings
from nas.commands.search import SearchCommand
from nas.commands.select import SelectCommand
from nas.commands.train import TrainCommand
from nas.config import compose_config, hydra_schema, offer_schema
from nas.data.actions import DataCommand
from nas.deploy import ExportCommand
from nas.files import config_folder
from nas.frame import NeckOptions
from nas.inference import PredictCommand
from nas.measure.profiler import ProfileSettings
from nas.scorers import find_scorer

SCHEMAS: dict[str, Any] = {
    "benchmark": BenchmarkCommand,
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


def test_hydra_does_not_copy_all_that_it_is_offered() -> None:
    offer_schema("search", SearchCommand)
    store = ConfigStore.instance()
    assert copy.deepcopy(store) is store
    read = store.load("search_schema.yaml").node
    read.seed = 7
    assert store.load("search_schema.yaml").node.seed == 0


@pytest.mark.parametrize("path", sorted((Path(config_folder()) / "scorer").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_file_of_a_score_repeats_its_defaults(path: Path) -> None:
    """But for the penalty of the published DeepMAD searches, which the score itself leaves out."""
    told = yaml.safe_load(path.read_text())
    usual = inspect.signature(find_scorer(told.pop("name")).function).parameters
    for key in told.keys() - {"depth_penalty"}:
        default = usual[key].default
        assert (list(default) if isinstance(default, tuple) else default) == told[key], key
