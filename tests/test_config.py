"""The YAML file of a command and its settings say the same, so that Python and the command line have one set of defaults."""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace
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
from nas.config import compose_config, continuation, continued, hydra_schema, offer_schema, store_settings
from nas.data.actions import DataCommand
from nas.deploy import ExportCommand
from nas.errors import UserError
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


def test_a_run_goes_on_with_its_settings_and_what_may_differ(tmp_path: Path) -> None:
    free = ("resume", "progress", "neck.depth")
    stored = compose_config("search", SearchCommand, {"seed": 3, "neck.num_classes": 4})
    store_settings(stored, tmp_path, free)
    asked = replace(compose_config("search", SearchCommand, {"neck.depth": 2}), resume=str(tmp_path), progress=False)
    again = continued(asked, ["neck.depth=2", f"resume={tmp_path}", "progress=false"], free)
    assert again == replace(stored, resume=str(tmp_path), progress=False, neck=replace(stored.neck, depth=2))
    assert continued(asked, ["use=[mine]"], free).neck == stored.neck
    with pytest.raises(UserError, match="take away seed=4$"):
        continued(asked, ["seed=4", "neck.depth=2"], free)
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    with pytest.raises(UserError, match="config.yaml lacks space, scorer, searcher$"):
        continued(asked, [], free)


def test_a_stopped_run_goes_on_with_what_its_files_do_not_hold() -> None:
    given = ["+space=mine.rooms:Few", "scorer=mae", "++searcher.name='yours:Walk'", "seed=3", "resume=old", "workers=2",
             "+storage=sqlite:///a b.db", "use=[mine.blocks, mine.rooms]"]  # fmt: skip
    assert continuation(Path("runs/first"), given, ("resume", "workers", "storage")) == (
        "resume=runs/first workers=2 '+storage=sqlite:///a b.db' 'use=[mine.blocks,mine.rooms,yours]'"
    )
    assert continuation(Path("runs/first"), ["seed=3"], ("resume",)) == "resume=runs/first"


@pytest.mark.parametrize("path", sorted((Path(config_folder()) / "scorer").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_file_of_a_score_repeats_its_defaults(path: Path) -> None:
    """But for the penalty of the published DeepMAD searches, which the score itself leaves out."""
    told = yaml.safe_load(path.read_text())
    usual = inspect.signature(find_scorer(told.pop("name")).function).parameters
    for key in told.keys() - {"depth_penalty"}:
        default = usual[key].default
        assert (list(default) if isinstance(default, tuple) else default) == told[key], key
