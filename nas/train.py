"""python -m nas.train model=best.yaml data=FOLDER: train, fine-tune or distil a detector.

Several GPUs or processes: torchrun --nproc-per-node 8 -m nas.train model=...
Distillation: distill.teacher=CHECKPOINT. Going on after an interruption: resume=FOLDER.
"""

from __future__ import annotations

import os
import sys

from nas.commands.train import TrainCommand, train_in
from nas.config import launch
from nas.training.cores import wait_briefly


def main() -> None:
    """Entry point of `python -m nas.train`."""
    wait_briefly()
    if int(os.environ.get("RANK", 0)) > 0:  # the first process's run folder holds for all
        sys.argv += ["hydra.run.dir=."]
    launch("train", TrainCommand, lambda command, job: train_in(command, job.folder, job.given))


if __name__ == "__main__":
    main()
