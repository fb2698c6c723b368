"""python -m nas.search +budget=latency_3ms: find the best detector for a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from nas.config import launch
from nas.config.search import FREE, SearchConfig, offer_spaces, override_names, settings_of, stored_config
from nas.errors import UserError
from nas.files import dump_yaml, write_atomic


def run(config: Any) -> None:
    """Search with a composed configuration, in Hydra's run folder, or that of the run to resume."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from nas.commands.search.screen import search_with_screen

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    if config.resume is not None:
        changed = [name for name in override_names(hydra.overrides.task) if name not in FREE]
        if changed:
            raise UserError(f"resume={config.resume} goes on with its own settings; take away {', '.join(changed)}")
        folder = Path(config.resume)
        plain = stored_config(config.resume) | {name: plain[name] for name in FREE}
    settings = settings_of(plain)
    write_atomic(folder / "config.yaml", dump_yaml({key: value for key, value in plain.items() if key not in FREE}))
    search_with_screen(settings, folder, bool(plain["progress"]))


if __name__ == "__main__":
    offer_spaces()
    launch("search", SearchConfig, run)
