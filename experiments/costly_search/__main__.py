"""python -m experiments.costly_search [evaluations=2000] [kills=3] [scorers=zico,own] [seed=0] [runs=PATH] [folder=PATH]

Do costly searches repeat? `python -m nas.search` with ZiCo and with a function of one's own (`own_score.py`): on one worker, on
two, and on two with its process group killed by SIGKILL at moments that the seed draws, each time resumed. A run is a row of
runs.csv with the digests of its files; a finished row is kept at once and the same command goes on. runs: where the searches lie
(outputs/costly_search); folder: where runs.csv and README.md lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from experiments.command import options_of, run
from experiments.costly_search.runs import FILES, SCORERS, digests, evaluated, scored, search
from experiments.page import write_part
from nas.cost.table_file import cpu_name
from nas.errors import UserError
from nas.files import csv_text, read_rows, write_atomic
from nas.measure import commit

HERE = Path(__file__).parent
COLUMNS = ("scorer", "workers", "kills", "evaluations", "seed", "evaluated", "scored", "killed_at", "saved",
           "cpu_seconds", "wall_seconds", *FILES, "equal", "commit", "machine")  # fmt: skip

Row = dict[str, str]


def found(rows: Sequence[Row], scorer: str, workers: int, kills: int, evaluations: int, seed: int) -> Row | None:
    """The row of a run; None where it is not finished."""
    asked = [scorer, *map(str, (workers, kills, evaluations, seed))]
    return next((row for row in rows if [row[name] for name in COLUMNS[:5]] == asked), None)


def moments(scorer: str, scores: int, kills: int, seed: int) -> list[int]:
    """After how many of the scores a search is killed, rising; raises UserError for more kills than scores lie between."""
    if not 0 < kills < scores:
        raise UserError(f"kills must be from 1 to {scores - 1} in a search of {scores} scores, got {kills}")
    return sorted(Random(f"{seed} {scorer}").sample(range(1, scores), kills))


def made(runs: Path, scorer: str, workers: int, kills: int, evaluations: int, seed: int, first: Row | None) -> Row:
    """The row of a run that is done now. first: the run with one worker and no kill, with which the others are compared."""
    folder = runs / f"{scorer}-{evaluations}-seed{seed}-workers{workers}-kills{kills}"
    when = moments(scorer, int(first["scored"]), kills, seed) if first and kills else ()
    spent = search(folder, scorer, evaluations, seed, workers, when)
    left = digests(folder)
    differ = [name for name in FILES if first and left[name] != first[name]]
    equal = f"not {' '.join(differ)}" if differ else "yes" if first else "first"
    values = (scorer, workers, kills, evaluations, seed, evaluated(folder), scored(folder),
              *(" ".join(map(str, counts)) for counts in (spent.killed_at, spent.saved)), f"{spent.cpu:.1f}",
              f"{spent.wall:.1f}", *left.values(), equal, commit()[:12], cpu_name())  # fmt: skip
    return {name: str(value) for name, value in zip(COLUMNS, values, strict=True)}


def report(rows: Sequence[Row]) -> str:
    """The part of the page: how many runs left other bytes than the first of their scorer, and a row for each."""
    others = [row for row in rows if row["workers"] != "1"]
    equal, kills = sum(row["equal"] == "yes" for row in others), sum(int(row["kills"]) for row in rows)
    shown = {"scorer": "scorer", "workers": "workers", "evaluated": "candidates", "scored": "scored", "killed_at": "killed at",
             "saved": "evaluations saved", "cpu_seconds": "CPU s", "wall_seconds": "s", "pareto.csv": "pareto.csv",
             "state.npz": "state.npz", "equal": "equal"}  # fmt: skip
    where = sorted({f"{row['machine']}, commit {row['commit']}" for row in rows})
    lines = [
        f"{equal} of {len(others)} searches on two workers, {kills} kills among them, left the bytes of the one on one worker.",
        "",
        f"| {' | '.join(shown.values())} |",
        "|---" * len(shown) + "|",
        *(f"| {' | '.join(row[name] for name in shown)} |" for row in rows),
        "",
        f"{'; '.join(where)}.",
    ]
    return "\n".join(lines)


def main(words: list[str]) -> None:
    """Add the missing runs; UserError for an unknown scorer, for a run that fails, and in the end for bytes that differ."""
    defaults = {"evaluations": 2000, "kills": 3, "scorers": ",".join(SCORERS), "seed": 0, "runs": "outputs/costly_search",
                "folder": str(HERE)}  # fmt: skip
    given = options_of(words, defaults)
    evaluations, seed, folder = given["evaluations"], given["seed"], Path(given["folder"])
    path, scorers = folder / "runs.csv", given["scorers"].split(",")
    for scorer in scorers:
        if scorer not in SCORERS:
            raise UserError(f"scorers={scorer}: known are {', '.join(SCORERS)}")
    rows = read_rows(path)
    for scorer in scorers:
        for workers, kills in ((1, 0), (2, 0), (2, given["kills"])):
            if found(rows, scorer, workers, kills, evaluations, seed):
                continue
            first = found(rows, scorer, 1, 0, evaluations, seed)
            rows.append(made(Path(given["runs"]).resolve(), scorer, workers, kills, evaluations, seed, first))
            write_atomic(path, csv_text([COLUMNS, *([row[name] for name in COLUMNS] for row in rows)]))
            print("  ".join(f"{name} {rows[-1][name]}" for name in COLUMNS if rows[-1][name]), flush=True)
    write_part(folder / "README.md", "runs", report(rows))
    if bad := [row for row in rows if row["equal"] not in ("yes", "first")]:
        told = "; ".join(
            f"{row['scorer']} workers={row['workers']} kills={row['kills']}: {row['equal']}" for row in bad
        )
        raise UserError(f"{len(bad)} of {len(rows)} runs left other bytes: {told}")
    print(f"{path}: {len(rows)} runs, all equal")


if __name__ == "__main__":
    run(main)
