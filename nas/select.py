"""python -m nas.select budget=latency_3ms data=FOLDER minutes=60: train the finalists of several searches, keep the best."""

from __future__ import annotations

from nas.commands.select import SelectCommand, select_in
from nas.config import launch
from nas.training.cores import wait_briefly


def main() -> None:
    """Entry point of `python -m nas.select`."""
    wait_briefly()
    launch("select", SelectCommand, lambda command, job: select_in(command, job.folder, job.given))


if __name__ == "__main__":
    main()
