"""The fourteen best practices of Lindauer and Hutter (arXiv 1909.02453) in our words, with what answers each, and its check.

A check reads the files and returns what is missing, a line each; nothing where the practice is kept. Paths are relative to
the root of the repository.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.errors import UserError
from nas.files import read_json, read_rows, read_text, read_yaml

#: Seeds that a number of a table and a curve of a searcher needs.
SEEDS, RUNS = 3, 20
#: Tables of the experiments that change one part of the detector and leave the others.
ABLATIONS = ("report_fusion", "report_neck_size", "report_neck_or_head", "report_queen_fusion", "report_assigner",
             "report_distillation")  # fmt: skip
#: What is to be reported of every training, and of every run of a searcher.
TRAINING = ("seed", "recipe", "device", "torch", "commit", "date", "seconds")
RUN = ("seed", "commit", "machine", "seconds")
#: Scales that smoke-test the path and are no evidence (docs/reproducing.md).
NO_EVIDENCE = ("tiny", "cpu")
SEARCHERS = "experiments/searchers/runs.csv"
SWEEP, TUNED = "experiments/tuning/sweep.csv", "experiments/tuning/README.md"
#: The settings of evolution that were swept, and the seeds that each needs.
SETTINGS, SWEPT = ("population", "crossover", "minor_from"), 5
BENCH = "experiments/detector_bench/bench.jsonl.gz"

Check = Callable[[Path], list[str]]


@dataclass(frozen=True)
class Item:
    """A practice: its number in the paper, what it asks, what answers it here, the files that do, and its check."""

    number: int
    asks: str
    answer: str
    files: tuple[str, ...]
    check: Check

    def missing(self, root: Path) -> list[str]:
        """What keeps the item open: files that are not there, else what the check finds; nothing where it is kept."""
        absent = [f"{name} is not there" for name in self.files if not (root / name).exists()]
        return absent or self.check(root)


def trainings(root: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(table, row) of every training under experiments/results that is evidence."""
    for path in sorted((root / "experiments/results").glob("*.csv")):
        for row in read_rows(path):
            if row.get("scale", NO_EVIDENCE[0]) not in NO_EVIDENCE:
                yield path.stem, row


def lacking(what: str, row: Mapping[str, str], columns: tuple[str, ...]) -> list[str]:
    """A line if a row leaves columns empty."""
    empty = [name for name in columns if not row.get(name)]
    return [f"{what} does not say its {', '.join(empty)}"] if empty else []


# ---------------------------------------------------------------------------------------------------- checks, one a practice


def training_code(root: Path) -> list[str]:
    rows = list(trainings(root))
    problems = [line for table, row in rows for line in lacking(f"{table}: {row['row']}", row, ("recipe", "seed"))]
    return problems or ([] if rows else ["no training is recorded"])


def method_code(root: Path) -> list[str]:
    from search_spaces import find_space, space_names

    problems = [f"space {name} states no limits" for name in space_names() if not find_space(name).limits()]
    settings = read_yaml(root / "conf/search.yaml")
    if not isinstance(settings, dict) or "seed" not in settings:
        problems.append("conf/search.yaml sets no seed")
    return problems


def public(root: Path) -> list[str]:
    known = read_yaml(root / "CITATION.cff")
    assert isinstance(known, dict)
    if known.get("license") and known.get("repository-code"):
        return []
    return ["CITATION.cff names no public address (repository-code): nothing here shows that the code is released"]


def same_benchmark(root: Path) -> list[str]:
    kinds: dict[str, set[tuple[object, ...]]] = defaultdict(set)
    for row in bench(root):
        kinds[str(row["data"])].add((row["recipe"], row["epochs"], row["image_size"]))
    return [f"{BENCH}: {len(found)} ways of training on {data}" for data, found in kinds.items() if len(found) > 1]


def ablations(root: Path) -> list[str]:
    problems = []
    for name in ABLATIONS:
        path = root / f"experiments/{name}/table.yaml"
        table = read_yaml(path)
        assert isinstance(table, dict)
        seeds: dict[tuple[str, str], set[str]] = defaultdict(set)
        for found, row in trainings(root):
            if found == name:
                seeds[row["row"], row["scale"]].add(row["seed"])
        rows = [str(row["name"]) for row in table["rows"]]
        done = [row for row in rows if max((len(s) for (r, _), s in seeds.items() if r == row), default=0) >= SEEDS]
        if len(done) < len(rows):
            problems.append(f"{name}: {len(done)} of {len(rows)} rows have {SEEDS} seeds")
    return problems


def same_protocol(root: Path) -> list[str]:
    data: dict[tuple[str, str], set[str]] = defaultdict(set)
    for table, row in trainings(root):
        data[table, row["scale"]].add(row["data"])
    return [
        f"{table} at scale {scale} mixes {', '.join(sorted(names))}"
        for (table, scale), names in data.items()
        if len(names) > 1
    ]


def over_time(root: Path) -> list[str]:
    rows = [row for row in read_rows(root / SEARCHERS) if row["searcher"] != "exact"]
    return [
        f"{row['case']}, {row['searcher']}, seed {row['seed']}: no curve" for row in rows if not row["curve"]
    ] or _all_cases(root)


def against_random(root: Path) -> list[str]:
    return _all_cases(root, ("random",))


def several_runs(root: Path) -> list[str]:
    seeds: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in read_rows(root / SEARCHERS):
        if row["searcher"] != "exact":
            seeds[row["case"], row["searcher"]].add(row["seed"])
    fewest = min((len(found) for found in seeds.values()), default=0)
    problems = [] if fewest >= RUNS else [f"{SEARCHERS}: {fewest} of {RUNS} seeds of every searcher"]
    once = {table for table, row in trainings(root)} - {
        table for table in {table for table, _ in trainings(root)} if _most_seeds(root, table) >= SEEDS
    }
    return problems + [f"experiments/results/{table}.csv: no row has {SEEDS} seeds" for table in sorted(once)]


def tabular(root: Path) -> list[str]:
    problems = [] if read_rows(root / "experiments/proxy_benchmark/all/agreement.csv") else ["agreement.csv is empty"]
    return problems + ([] if bench(root) else [f"{BENCH} is empty"])


def confounders(root: Path) -> list[str]:
    kinds: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for table, row in trainings(root):
        kinds[table, row["scale"]].add((row["device"], row["torch"]))
    problems = [
        f"{table} at scale {scale} mixes {len(found)} devices or versions of torch"
        for (table, scale), found in kinds.items()
        if len(found) > 1
    ]
    machines: dict[str, set[str]] = defaultdict(set)
    for row in read_rows(root / SEARCHERS):
        machines[row["case"]].add(row["machine"])
    return problems + [f"{SEARCHERS}: {case} ran on {len(m)} machines" for case, m in machines.items() if len(m) > 1]


def tuning(root: Path) -> list[str]:
    seeds: dict[tuple[str, ...], set[str]] = defaultdict(set)
    problems = []
    for row in read_rows(root / SWEEP):
        seeds[tuple(row[name] for name in ("case", *SETTINGS, "evaluations"))].add(row["seed"])
        problems += lacking(f"{SWEEP}: {row['case']}, seed {row['seed']}", row, (*RUN, "evaluations"))
    few = sum(len(found) < SWEPT for found in seeds.values())
    problems += [f"{SWEEP}: {few} settings have fewer than {SWEPT} seeds"] * bool(few)
    shipped: Any = read_yaml(root / "conf/searcher/evolution.yaml")
    if tuple(str(shipped[name]) for name in SETTINGS) not in {key[1:-1] for key in seeds}:
        problems.append(f"{SWEEP} does not hold the settings of conf/searcher/evolution.yaml")
    told = [line for line in read_text(root / TUNED).splitlines() if line.startswith("| `")]
    names = [path.stem for group in ("searcher", "trainer") for path in sorted((root / "conf" / group).glob("*.yaml"))]
    problems += [f"{TUNED} does not name {name}" for name in names if not any(f"`{name}`" in line for line in told)]
    unknown = [[cell.strip() for cell in line.split("|")[1:3]] for line in told if "not recorded" in line]
    return problems + [f"{TUNED}: {name}, {settings}: not (wholly) recorded" for name, settings in unknown]


def end_to_end(root: Path) -> list[str]:
    problems = [f"{table}: {row['row']} has no seconds" for table, row in trainings(root) if not row["seconds"]]
    for name in sorted((root / "experiments/selection").glob("*/summary.json")):
        told = read_json(name)
        if not isinstance(told, dict) or not {"seconds", "cpu_seconds"} <= told.keys():
            problems.append(
                f"{name.relative_to(root)} does not say how long the whole selection took, search and trainings together"
            )
    return problems


def all_details(root: Path) -> list[str]:
    problems = [line for table, row in trainings(root) for line in lacking(f"{table}: {row['row']}", row, TRAINING)]
    problems += [
        line for row in read_rows(root / SEARCHERS) for line in lacking(f"{row['case']}, {row['searcher']}", row, RUN)
    ]
    pages = read_text(root / "docs/reproducing.md")
    for path in sorted((root / "experiments").glob("*/__main__.py")):
        if f"experiments.{path.parent.name}" not in pages and not (path.parent / "table.yaml").exists():
            problems.append(f"docs/reproducing.md does not name experiments.{path.parent.name}")
    return problems


# ---------------------------------------------------------------------------------------------------- inside


def bench(root: Path) -> list[dict[str, Any]]:
    """The runs of the detector bench."""
    with gzip.open(root / BENCH, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _all_cases(root: Path, wanted: tuple[str, ...] = ()) -> list[str]:
    """Problems on which a searcher that serves them (or one of those wanted) has no run."""
    from experiments.searchers.problems import CASES

    done = {(row["case"], row["searcher"]) for row in read_rows(root / SEARCHERS)}
    lacks = {
        name: [each for each in wanted or case.searchers if (name, each) not in done] for name, case in CASES.items()
    }
    return [f"{name}: no run of {', '.join(names)}" for name, names in lacks.items() if names]


def _most_seeds(root: Path, table: str) -> int:
    seeds: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name, row in trainings(root):
        if name == table:
            seeds[row["row"], row["scale"]].add(row["seed"])
    return max((len(found) for found in seeds.values()), default=0)


ITEMS: tuple[Item, ...] = (
    Item(1, "Is the code that trains the final architectures released, with hyperparameters and seeds?",
         "trainer, recipes and scales; every row of results names recipe and seed",
         ("nas/training/trainer.py", "conf/trainer/damo.yaml", "experiments/scale/coco.yaml"), training_code),
    Item(2, "Is the code of the search method released, with its search spaces, hyperparameters and seeds?",
         "searchers, their options in conf/, and spaces whose limits are data",
         ("nas/searchers/evolution.py", "nas/searchers/exact/search.py", "search_spaces/tinynas.py", "conf/search.yaml",
          "conf/searcher/evolution.yaml"), method_code),
    Item(3, "Is the code out as it is, rather than waiting to be cleaned up?",
         "licence and citation", ("LICENSE", "CITATION.cff"), public),
    Item(4, "Do compared methods share the whole benchmark (data, split, space, training), not the data set's name alone?",
         "one recipe for all networks of the bench", (BENCH,), same_benchmark),
    Item(5, "Are there ablations that show which part brings what?", "six tables that change one part each",
         tuple(f"experiments/{name}/table.yaml" for name in ABLATIONS), ablations),
    Item(6, "Is everything that is compared judged by one evaluation protocol?",
         "one evaluator, one data set a table and scale", ("nas/inference/scoring.py",), same_protocol),
    Item(7, "Is performance compared over time, not only at the end?", "curves of the best so far",
         (SEARCHERS,), over_time),
    Item(8, "Is there a comparison with random search?", "random search on every problem",
         (SEARCHERS,), against_random),
    Item(9, "Was everything run several times, with the seeds reported?",
         f"{RUNS} seeds of every searcher, {SEEDS} of every table's rows", (SEARCHERS,), several_runs),
    Item(10, "Are tabular or surrogate benchmarks used for studies in depth?",
         "NAS-Bench-201 and NAS-Bench-Macro for scores, a bench of trained detectors of our own",
         ("experiments/proxy_benchmark/all/agreement.csv", BENCH), tabular),
    Item(11, "Are confounding factors under control: hardware, versions of libraries, running time?",
         "device and versions in every row, one of each a table and scale", (SEARCHERS,), confounders),
    Item(12, "Is it reported how the method's own hyperparameters were tuned, and at which cost?",
         "a sweep of evolution's settings on other problems; where those of the others come from", (SWEEP, TUNED), tuning),
    Item(13, "Is the time of the whole method reported, from beginning to end?",
         "seconds of every training; summaries of selections", ("experiments/selection",), end_to_end),
    Item(14, "Are all details of the experimental setup reported?",
         "machine, versions, seed, commit and date in every row; the command of each experiment",
         ("docs/reproducing.md", "constraints.txt", SEARCHERS), all_details),
)  # fmt: skip


def states(root: Path) -> dict[int, list[str]]:
    """What is missing of each item, by number; an unreadable file is missing too."""
    found: dict[int, list[str]] = {}
    for item in ITEMS:
        try:
            found[item.number] = item.missing(root)
        except (UserError, OSError, ValueError, KeyError) as error:
            found[item.number] = [str(error)]
    return found
