"""The data sets that experiments train on: real ones where they are at hand, the drawn one everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from experiments.evidence import read_record
from experiments.tables import FOLDER
from nas.config import hydra_schema, settings_of
from nas.errors import UserError
from nas.files import config_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nas.data.sources import DataConfig

#: Where the lines, cards and pictures of trainings on real data lie.
RESULTS = FOLDER / "results"


def data_config(name: str) -> DataConfig:
    """conf/data/NAME.yaml as its schema, with the environment variables resolved."""
    from omegaconf import OmegaConf

    from nas.data.sources import DataConfig

    file = OmegaConf.create(read_record(Path(config_folder(), "data", f"{name}.yaml")))
    merged = OmegaConf.merge(OmegaConf.structured(hydra_schema(DataConfig)), file)
    return settings_of(DataConfig, cast("DictConfig", merged))


def is_drawn(name: str) -> bool:
    """Whether a data set is drawn, and so stands for no result; False for one that conf/data does not know."""
    return Path(config_folder(), "data", f"{name}.yaml").is_file() and data_config(name).format == "shapes"


def keep_drawn_out(name: str, folder: Path) -> None:
    """Raise UserError if results on drawn data would be written among those on real data."""
    if is_drawn(name) and folder.resolve().is_relative_to(RESULTS):
        raise UserError(f"{folder} is for results on real data and {name} is drawn: give output= another folder")


def results_place(name: str, output: Path) -> Path:
    """The folder of the lines of trainings on a data set: experiments/results, or one in `output` where it is drawn."""
    place = output / "results" if is_drawn(name) else RESULTS
    keep_drawn_out(name, place)
    return place


def available(name: str) -> bool:
    """Whether the data set lies where its configuration looks for it (the drawn one always does)."""
    from nas.data.sources import data_root

    if is_drawn(name):
        return True
    try:
        return data_root(data_config(name)).is_dir()
    except UserError:
        return False


def experiment_splits(name: str) -> tuple[Any, Any, Any]:
    """(train, val, test or val) of a data set, checked in repair mode without decoding every image."""
    from nas.data.sources import load_splits

    config = data_config(name)
    config.mode, config.check = "repair", "labels"
    splits, _ = load_splits(config, ("train", "val", "test"))
    return splits["train"], splits["val"], splits.get("test") or splits["val"]
