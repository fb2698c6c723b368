"""The data sets that experiments train on: real ones where they are at hand, the drawn one everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nas.config.launch import config_folder
from nas.errors import UserError
from nas.files import read_yaml

if TYPE_CHECKING:
    from experiments.scales import Scale


def data_config(name: str) -> Any:
    """conf/data/NAME.yaml as its schema, with the environment variables resolved."""
    from omegaconf import OmegaConf

    from nas.detection.data_options import DataConfig

    merged = OmegaConf.merge(
        OmegaConf.structured(DataConfig), OmegaConf.create(read_yaml(f"{config_folder()}/data/{name}.yaml"))
    )
    return OmegaConf.to_object(merged)


def available(name: str) -> bool:
    """Whether the data set lies where its configuration looks for it (the drawn one always does)."""
    from nas.detection.sources import data_root

    config = data_config(name)
    if config.format == "shapes":
        return True
    try:
        return data_root(config).is_dir()
    except UserError:
        return False


def data_of(scale: Scale) -> str:
    """The scale's data set, or the drawn one where it is not at hand (COCO is never replaced)."""
    return scale.data if scale.data == "coco" or available(scale.data) else "shapes"


def experiment_splits(name: str) -> tuple[Any, Any, Any]:
    """(train, val, test or val) of a data set, checked in repair mode without decoding every image."""
    from nas.detection.sources import load_splits

    config = data_config(name)
    config.mode, config.check = "repair", "labels"
    splits, _ = load_splits(config, ("train", "val", "test"))
    return splits["train"], splits["val"], splits.get("test") or splits["val"]
