"""A worker process of the tests of shared studies: python shared_worker.py STORAGE TASKS LOG [hang].

One that is told to hang never finishes its task; the others finish none before two workers hang.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import optuna
from optuna.trial import Trial

from nas.searchers.optuna import open_storage
from nas.searchers.shared import SharedStudy


def main() -> None:
    storage, tasks, log, hang = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), "hang" in sys.argv
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=open_storage(storage), study_name="tasks", load_if_exists=True)

    def evaluate(trial: Trial) -> tuple[list[float], dict[str, int]]:
        x = trial.suggest_float("x", 0.0, 1.0)
        if hang:
            with log.open("a") as stream:
                stream.write(f"{os.getpid()} {trial.number}\n")
        while hang or not log.exists() or len(log.read_text().splitlines()) < 2:
            time.sleep(0.05)
        return [x], {"worker": os.getpid()}

    SharedStudy(study, tasks, lease=2.0).work(evaluate, poll=0.1)


if __name__ == "__main__":
    main()
