"""python -m nas.train model=damo-yolo-t data=bccd: train, fine-tune or distil a detector.

Several GPUs or processes: torchrun --nproc-per-node 8 -m nas.train model=...
Distillation: distill.teacher=CHECKPOINT. Going on after an interruption: resume=FOLDER.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from nas.config import launch
from nas.detection.cores import wait_asleep
from nas.errors import UserError


def main() -> None:
    """Entry point of `python -m nas.train`."""
    wait_asleep()
    from nas.config.train import TrainConfig  # brings torch

    if int(os.environ.get("RANK", 0)) > 0:  # the first process's run folder holds for all
        sys.argv += ["hydra.run.dir=."]
    launch("train", TrainConfig, _run)


def _run(config: Any) -> None:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from nas.config.train import FREE, TrainConfig
    from nas.training_command import train_from_config

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if config.resume is not None:
        changed = [text for text in hydra.overrides.task if text.lstrip("+").split("=", 1)[0] not in FREE]
        if changed:
            raise UserError(f"resume={config.resume} goes on with its own settings; take away {', '.join(changed)}")
        stored = Path(config.resume) / "config.yaml"
        if not stored.is_file():
            raise UserError(f"nothing to resume in {config.resume}: config.yaml is missing")
        free = {name: config[name] for name in FREE}
        config = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.load(stored), free)
        folder = stored.parent
    settings = OmegaConf.to_object(config)
    assert isinstance(settings, TrainConfig)
    train_from_config(settings, folder, OmegaConf.to_container(config, resolve=True))


if __name__ == "__main__":
    main()
