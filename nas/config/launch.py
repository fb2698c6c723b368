"""Runs a plain function under Hydra, with typos refused and every failure told in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nas.errors import UserError


def config_folder() -> str:
    """The folder of the YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if folder.is_dir():
            return str(folder)
    raise UserError("the folder conf/ is missing; reinstall maenas")


def launch(name: str, schema: type, run: Callable[[Any], Any]) -> None:
    """Compose conf/`name`.yaml on `schema` with the command line, call run(config), exit 1 with one line on failure.

    `schema` is a dataclass; conf/`name`.yaml lists it first in its defaults as `<name>_schema`, so that a misspelt
    key or a wrong type is an error before anything runs.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    try:
        hydra.main(version_base="1.3", config_path=config_folder(), config_name=name)(run)()
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        message = _first_line(error)
        sys.exit(f"error: {message}")
    except KeyboardInterrupt:
        sys.exit(130)


def _first_line(error: BaseException) -> str:
    """The line of an error that names the thing: Hydra hides it in the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    if cause is not None and lines and lines[0].startswith(("Error merging", "In '")):
        return _first_line(cause)
    return lines[0] if lines else type(error).__name__
