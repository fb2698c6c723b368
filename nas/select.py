"""python -m nas.select budget=latency_3ms data=FOLDER minutes=60: train the finalists of several searches, keep the best."""

from __future__ import annotations

from nas.commands.select import SelectCommand
from nas.config import Job, launch
from nas.training.cores import wait_briefly


def main() -> None:
    """Entry point of `python -m nas.select`."""
    wait_briefly()
    launch("select", SelectCommand, run)


def run(command: SelectCommand, job: Job) -> None:
    """One selection; what it needs is imported once it is known what to do."""
    from nas.commands.select_screen import select_in

    select_in(command, job.folder, job.given)


if __name__ == "__main__":
    main()
