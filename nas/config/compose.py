"""The configuration of a command, composed from Python as the command line would."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nas.config.launch import check_config, config_folder, one_line
from nas.errors import UserError


def compose_config(name: str, schema: type, options: Mapping[str, Any]) -> Any:
    """conf/`name`.yaml on `schema` with overrides, as an object of the schema.

    options: values by dotted or nested key ({"data": "bccd", "trainer": {"epochs": 3}}). Raises UserError, in one line,
    for a key or a type that the command would refuse.
    """
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    overrides = [f"{key}={json.dumps(value, default=str)}" for key, value in _flat(options)]
    try:
        with hydra.initialize_config_dir(config_folder(), version_base="1.3"):
            try:
                config = hydra.compose(name, overrides=overrides)
            except (ValueError, TypeError) as error:  # a group that is set to a number
                raise UserError(one_line(error)) from None
        check_config(schema, config)
        return OmegaConf.to_object(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error)) from None


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
