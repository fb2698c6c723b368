"""python -m nas.train model=damo-yolo-t data=bccd: train, fine-tune or distil a detector.

Several GPUs or processes: torchrun --nproc-per-node 8 -m nas.train model=...
Distillation: distill.teacher=CHECKPOINT. Going on after an interruption: resume=FOLDER.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.config import launch
from nas.errors import UserError
from nas.files import read_yaml
from nas.options import check_fields
from nas.training.cores import wait_briefly


def main() -> None:
    """Entry point of `python -m nas.train`."""
    wait_briefly()
    from nas.config.train import TrainConfig  # brings torch

    if int(os.environ.get("RANK", 0)) > 0:  # the first process's run folder holds for all
        sys.argv += ["hydra.run.dir=."]
    launch("train", TrainConfig, _run)


def _run(config: Any) -> None:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from nas.commands.train import train_from_config
    from nas.config.train import TrainConfig

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if config.resume is not None:
        folder = Path(config.resume)
        config = _continued(config, folder / "config.yaml", hydra.overrides.task)
    settings = OmegaConf.to_object(config)
    assert isinstance(settings, TrainConfig)
    train_from_config(settings, folder, OmegaConf.to_container(config, resolve=True))


def _continued(config: Any, stored: Path, overrides: Sequence[str]) -> Any:
    """The settings of the run to resume, with what was given of those that may differ."""
    from omegaconf import OmegaConf

    from nas.config.train import FREE, TrainConfig

    given = {text.lstrip("+").split("=", 1)[0]: text for text in overrides}
    changed = [text for name, text in given.items() if name not in FREE]
    if changed:
        raise UserError(f"resume={config.resume} goes on with its own settings; take away {', '.join(changed)}")
    if not stored.is_file():
        raise UserError(f"nothing to resume in {config.resume}: config.yaml is missing")
    settings = read_yaml(stored)
    if not isinstance(settings, dict):
        raise UserError(f"{stored} is not the configuration of a training")
    try:
        check_fields(TrainConfig, settings)
    except UserError as error:
        raise UserError(f"{stored}: {error}") from None
    continued = OmegaConf.merge(OmegaConf.structured(TrainConfig), settings)
    for name in given:
        OmegaConf.update(continued, name, OmegaConf.select(config, name))
    return continued


if __name__ == "__main__":
    main()
