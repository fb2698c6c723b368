"""What nas.select chose, against the optima of scores and what people drew: equally fast, trained alike, three seeds.

    python -m experiments.selection plan    data=cards selected=outputs/select/DATE [learned=score.json]
    python -m experiments.selection train   [data=cards,bccd,aquarium jobs=1 most=0 shard=0/1 work=FOLDER pair_seeds=3]
    python -m experiments.selection measure [data=cards,bccd,aquarium]
    python -m experiments.selection report

`plan` takes over the network of a finished selection and scales everybody else to its measured milliseconds, on an idle
machine. `train` adds to runs.jsonl.gz, run by run, what it lacks; with pair_seeds=6, once everybody has three seeds, three
more of the chosen network and of the drawn one that is best on val. `measure` times all exported files of a data set in one
session. `report` writes results.md. `contestants=`, `table=` and `times=` are the three files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.command import options_of, run, run_workers, shard_of
from experiments.detector_bench.measuring import class_count
from experiments.evidence import save_result
from experiments.selection.contestants import (
    PATH,
    add_contestants,
    draw_contestants,
    read_contestants,
    selected_of,
)
from experiments.selection.standings import SEEDS
from experiments.selection.training import PATH as TABLE
from experiments.selection.training import measure, session_of, train_missing
from nas.commands.select import SelectCommand
from nas.errors import UserError
from nas.files import read_yaml
from nas.options import read_object

FILES = {"contestants": str(PATH), "table": str(TABLE), "times": str(TABLE.with_name("times.json"))}
SETS = "cards,bccd,aquarium"
OPTIONS: dict[str, dict[str, Any]] = {
    "plan": {"data": "", "selected": "", "learned": ""},
    "train": {"data": SETS, "jobs": 1, "most": 0, "shard": "0/1", "work": "outputs/selection", "pair_seeds": SEEDS},
    "measure": {"data": SETS},
    "report": {},
}


def main(arguments: list[str]) -> None:
    """Run one action; UserError for anything unknown."""
    if not arguments or arguments[0] not in OPTIONS:
        raise UserError(f"say what to do: {', '.join(OPTIONS)}")
    action, options = arguments[0], options_of(arguments[1:], FILES | OPTIONS[arguments[0]])
    people, table, times = (Path(options[name]) for name in FILES)
    if action == "plan":
        plan(options["data"], options["selected"], options["learned"], people)
    elif action == "train":
        train(arguments[1:], options, people, table)
    elif action == "measure":
        for data in options["data"].split(","):
            chosen = [one for one in read_contestants(people) if one.data == data]
            if chosen:
                save_result(times, data, measure(chosen, class_count(data)))
                print(f"{data}: {len(chosen)} networks in one session")
    else:
        from experiments.selection.report import write_report

        print(write_report(read_contestants(people), table, times))


def train(arguments: list[str], options: dict[str, Any], people: Path, table: Path) -> None:
    """Train the missing runs of the wanted data sets, here or in `jobs` workers."""
    if options["jobs"] > 1:
        run_workers("experiments.selection", ["train", *arguments], options["jobs"], options["shard"], options["most"])
        return
    work, shard = Path(options["work"]), shard_of(options["shard"])
    sets, most, seeds = options["data"].split(","), options["most"], options["pair_seeds"]
    left = train_missing(read_contestants(people), sets, table, work, most, shard, seeds)
    print(f"{left} runs are left; the same command goes on" if left else "no run is missing")


def plan(data: str, selected: str, learned: str, people: Path) -> None:
    """Draw the contestants of a data set from a finished selection on it."""
    if not data or not selected:
        raise UserError(
            "data=NAME selected=FOLDER are needed: the data set and the folder of a finished selection on it"
        )
    network = selected_of(Path(selected))
    command = read_object(SelectCommand, read_yaml(Path(selected) / "config.yaml"), f"{selected}/config.yaml:")
    if command.data.name != data:
        raise UserError(f"{selected} is a selection on {command.data.name}, not on {data}")
    session = session_of(network.head.num_classes, network.image_size)
    drawn = draw_contestants(data, command, network, session, learned)
    add_contestants(people, drawn)
    for one in drawn:
        print(f"{one.name}: {one.ms:.2f} ms")


if __name__ == "__main__":
    run(main)
