"""A detector without NMS against the same one with it: the same network, recipe and seeds, on three data sets.

    python -m experiments.one_to_one train   [data=cards,bccd,aquarium jobs=1 most=0 shard=0/1 work=FOLDER]
    python -m experiments.one_to_one measure [data=cards,bccd,aquarium work=FOLDER]
    python -m experiments.one_to_one report

`train` adds to runs.jsonl.gz, run by run, what it lacks (at most `most` runs, 0: all) and keeps the exported file of seed 0 in
`work`: run it again to go on, on as many machines as you like with shard=0/3, 1/3, 2/3. `measure` times both files of a data
set, from pixels to boxes, in one session on an idle machine. `report` writes results.md. `table=` and `times=` are the files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.command import options_of, run, run_workers, shard_of
from experiments.evidence import save_result
from experiments.one_to_one.training import TABLE, TIMES, keep_file, measure, pair
from experiments.selection.training import train_missing
from nas.errors import UserError

FILES = {"table": str(TABLE), "times": str(TIMES)}
SETS, WORK = "cards,bccd,aquarium", "outputs/one_to_one"
OPTIONS: dict[str, dict[str, Any]] = {
    "train": {"data": SETS, "jobs": 1, "most": 0, "shard": "0/1", "work": WORK},
    "measure": {"data": SETS, "work": WORK},
    "report": {},
}


def main(arguments: list[str]) -> None:
    """Run one action; UserError for anything unknown."""
    if not arguments or arguments[0] not in OPTIONS:
        raise UserError(f"say what to do: {', '.join(OPTIONS)}")
    action, options = arguments[0], options_of(arguments[1:], FILES | OPTIONS[arguments[0]])
    table, times = Path(options["table"]), Path(options["times"])
    if action == "train":
        train(arguments, options, table)
    elif action == "measure":
        for data in options["data"].split(","):
            save_result(times, data, measure(data, Path(options["work"])))
            print(f"{data}: both files in one session")
    else:
        from experiments.one_to_one.report import write_report

        print(write_report(table, times))


def train(arguments: list[str], options: dict[str, Any], table: Path) -> None:
    """Train the missing runs of the wanted data sets, here or in `jobs` workers."""
    if options["jobs"] > 1:
        run_workers("experiments.one_to_one", arguments, options["jobs"], options["shard"], options["most"])
        return
    sets, work = options["data"].split(","), Path(options["work"])
    everybody = [one for data in sets for one in pair(data)]
    left = train_missing(
        everybody, sets, table, work, options["most"], shard_of(options["shard"]), finished=keep_file(work)
    )
    print(f"{left} runs are left; the same command goes on" if left else "no run is missing")


if __name__ == "__main__":
    run(main)
