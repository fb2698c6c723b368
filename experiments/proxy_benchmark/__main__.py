"""Training-free scorers on NAS-Bench-201 and NAS-Bench-Macro, beside the published correlations.

    python -m experiments.proxy_benchmark tables=FOLDER [parts=all,sample,grasp,macro]
        [sample=1000] [folder=outputs/proxy_benchmark] [publish=experiments/proxy_benchmark]

Parts: `all` SynFlow and the counts over all 15,625 cells; `sample` the other scorers over `sample` seeded cells, 40 of
them with five seeds; `grasp` the same for GraSP, whose double backward pass gets smaller batches; `macro` on
NAS-Bench-Macro. Every part goes on where it stopped; with all scores in place the command only judges them, in a
minute or two. `publish` copies the small results there. `equal_latency` judges where latency is the same.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np

from experiments.command import options_of, run
from experiments.proxy_benchmark.equal_latency import equal_latency_table
from nas.commands.rank import RankSettings, run_ranking
from nas.errors import UserError
from nas.files import write_atomic
from nas.scorers.agreement import spearman
from nas.scorers.measuring import read_table

HERE = Path(__file__).parent
_OTHERS = (
    "snip",
    "grad_norm",
    "fisher",
    "jacov",
    "naswot",
    "zico",
    "zico_bc",
    "swap",
    "zen",
    "meco",
    "synflow",
    "aznas",
    "vote",
)


def parts(tables: str, folder: Path, count: int = 1000) -> dict[str, RankSettings]:
    """The settings of every part; `count` cells for the scorers that are too dear for all."""
    common = {"tables": tables, "published": str(HERE / "published.csv")}
    sample = {"sample": count, "spread_networks": 40, "spread_seeds": 5}
    bench = {"benchmark": "nasbench201"} | common
    return {
        "all": RankSettings(**bench, scorers=("synflow",), batch=1, folder=folder / "all"),  # type: ignore[arg-type]
        "sample": RankSettings(**bench, **sample, scorers=_OTHERS, folder=folder / "sample"),  # type: ignore[arg-type]
        "grasp": RankSettings(
            **bench,  # type: ignore[arg-type]
            **sample,  # type: ignore[arg-type]
            scorers=("grasp",),
            batch=4,
            folder=folder / "grasp",
        ),
        "macro": RankSettings(
            **common,  # type: ignore[arg-type]
            benchmark="nasbench_macro",
            sample=300,
            spread_networks=20,
            spread_seeds=3,
            scorers=("synflow", "naswot", "zico", "zen", "meco", "aznas"),
            batch=8,
            folder=folder / "macro",
        ),
    }


def compare_with_freerea(scores: Path, tables: Path) -> str:
    """Rank agreement of our scores with those that FreeREA stored for the same cells."""
    columns = ("arch", "c10_synflow", "c10_naswot")
    theirs = {row["arch"]: row for row in read_table(tables / "nb201_zerocost.csv.gz", columns)}
    with scores.open(encoding="utf-8", newline="") as file:
        ours = list(csv.DictReader(file))
    lines = []
    for name in ("synflow", "naswot"):
        if name in ours[0]:
            pairs = np.array([(float(row[name]), float(theirs[row["network"]][f"c10_{name}"])) for row in ours])
            lines.append(f"{name}: Spearman {spearman(*pairs.T):.4f} with FreeREA's scores on {len(pairs)} cells")
    return "\n".join(lines)


def publish(source: Path, target: Path) -> None:
    """Copy the small results of a part, its scores packed, to where they are kept with the code."""
    for path in sorted(source.iterdir()):
        if path.name == "scores.csv":
            write_atomic(target / "scores.csv.gz", gzip.compress(path.read_bytes(), mtime=0))
        elif path.suffix in (".md", ".csv", ".png"):
            write_atomic(target / path.name, path.read_bytes())


def main(words: list[str]) -> None:
    """Run the wanted parts and print their reports. Raises UserError for an unknown option or part."""
    options = options_of(
        words,
        {
            "tables": "",
            "parts": "all,sample,grasp,macro",
            "folder": "outputs/proxy_benchmark",
            "publish": "",
            "sample": 1000,
        },
    )
    if not options["tables"]:
        raise UserError("tables=FOLDER is needed: the folder with nb201_accuracy.csv.gz")
    folder = Path(options["folder"])
    known = parts(options["tables"], folder, options["sample"])
    for part in options["parts"].split(","):
        if part not in known:
            raise UserError(f"unknown part {part!r}; known: {', '.join(known)}")
        print(f"# {part}\n\n{run_ranking(known[part])}")
        if part in ("all", "sample"):
            scores, tables = folder / part / "scores.csv", Path(options["tables"])
            text = f"{compare_with_freerea(scores, tables)}\n\n{equal_latency_table(scores, tables)}\n"
            write_atomic(folder / part / "more.md", text)
            print(text)
        if options["publish"]:
            publish(folder / part, Path(options["publish"]) / part)


if __name__ == "__main__":
    run(main)
