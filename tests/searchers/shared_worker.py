"""A worker process of the tests of shared studies: python shared_worker.py STORAGE TASKS LOG."""

from __future__ import annotations

import os
import sys
import time

import optuna
from optuna.trial import Trial

from nas.searchers.optuna_search import open_storage
from nas.searchers.shared import SharedStudy


def main() -> None:
    storage, tasks, log = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=open_storage(storage), study_name="tasks", load_if_exists=True)

    def evaluate(trial: Trial) -> tuple[list[float], dict[str, int]]:
        x = trial.suggest_float("x", 0.0, 1.0)
        with open(log, "a") as stream:
            stream.write(f"{os.getpid()} {trial.number}\n")
        time.sleep(0.25)
        return [x], {"worker": os.getpid()}

    SharedStudy(study, tasks, lease=2.0).work(evaluate, poll=0.1)


if __name__ == "__main__":
    main()
