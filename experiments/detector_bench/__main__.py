"""An open table of trained detectors: whole learning curves of networks that are predicted to be equally fast.

    python -m experiments.detector_bench plan    [bands=20,24,29 hardware=cpu_onnxruntime_fp32_1thread randoms=2 seed=0]
    python -m experiments.detector_bench train   [data=cards,bccd,aquarium jobs=1 seeds=3 names=A,B most=0 shard=0/1
                                                  work=FOLDER]
    python -m experiments.detector_bench merge   source=TABLE
    python -m experiments.detector_bench measure [most=0 repetitions=30]
    python -m experiments.detector_bench report
    python -m experiments.detector_bench simulate [candidates=36 draws=100]
    python -m experiments.detector_bench proxies [most=0 batch=16 image_size=320]
    python -m experiments.detector_bench judge   [score=FILE folds=10 resamples=1000]

`plan` draws networks.jsonl.gz (twenty minutes). `train` adds to bench.jsonl.gz, run by run, what it lacks, at most `most` runs
(0: all): run it again to go on, on as many machines as you like with shard=0/3, 1/3, 2/3; `jobs` workers share one
machine; `names` trains these networks alone, with all the seeds. `merge` takes over the runs of another machine's table.
`measure` times the exported files, on an idle machine. `report` writes results.md and pictures, also from an unfinished
training. `simulate` replays selections on the curves. `judge` writes judged.md and judged.json: the learned score
(`python -m nas.rank action=fit table=TABLE output=FILE`) on networks, data sets and spaces left out, beside its rivals, and
the coverage of the intervals of score=FILE (the shipped one unless told); `proxies` adds to proxies.jsonl the rivals that
need a built network, network by network. `networks=`, `table=` and `scores=` are the three files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.command import options_of, run, run_workers, shard_of
from experiments.detector_bench.networks import PATH as NETWORKS
from experiments.detector_bench.networks import draw_networks, read_networks, write_networks
from experiments.detector_bench.proxies import PATH as SCORES
from experiments.detector_bench.table import PATH as TABLE
from experiments.detector_bench.table import add_runs, load
from nas.errors import UserError

FILES: dict[str, Any] = {"networks": str(NETWORKS), "table": str(TABLE), "scores": str(SCORES)}
OPTIONS: dict[str, dict[str, Any]] = {
    "plan": {
        "bands": "20,24,29",
        "hardware": "cpu_onnxruntime_fp32_1thread",
        "tolerance": 0.015,
        "evaluations": 20_000,
        "randoms": 2,
        "seed": 0,
    },
    "train": {
        "data": "cards,bccd,aquarium",
        "jobs": 1,
        "seeds": 3,
        "names": "",
        "most": 0,
        "shard": "0/1",
        "work": "outputs/detector_bench",
    },
    "merge": {"source": ""},
    "measure": {"most": 0, "repetitions": 30},
    "report": {},
    "simulate": {"candidates": 36, "draws": 100},
    "proxies": {"most": 0, "batch": 16, "image_size": 320},
    "judge": {"score": "", "folds": 10, "resamples": 1000},
}
#: Data sets on which every network is trained; the others get the shared ones.
WHOLE = ("bccd",)


def main(arguments: list[str]) -> None:
    """Run one action; UserError for anything unknown."""
    action, options = parse(arguments)
    networks, table = Path(options["networks"]), Path(options["table"])
    if action == "plan":
        given = {name: options[name] for name in OPTIONS["plan"] if name != "bands"}
        drawn = draw_networks([float(band) for band in options["bands"].split(",")], **given)
        print(
            f"{len(drawn)} networks, {sum(n.shared for n in drawn)} on all data sets: {write_networks(drawn, networks)}"
        )
    elif action == "train":
        train(arguments, options, networks, table)
    elif action == "merge":
        if not options["source"]:
            raise UserError("source=TABLE is needed: the bench.jsonl.gz of another machine")
        print(f"{add_runs(table, load(options['source']))} runs are new in {table}")
    elif action == "measure":
        from experiments.detector_bench.measuring import measure_missing
        from nas.measure import open_runtime

        left = measure_missing(table, open_runtime("onnxruntime"), options["repetitions"], options["most"])
        print(f"{left} networks are not measured yet" if left else "all runs are measured")
    elif action == "simulate":
        from experiments.detector_bench.simulator import write_simulation

        print(write_simulation(load(table), options["candidates"], options["draws"], table.parent))
    elif action == "proxies":
        from experiments.detector_bench.proxies import measure_proxies

        given = {name: options[name] for name in OPTIONS["proxies"]}
        left = measure_proxies(read_networks(networks), Path(options["scores"]), **given)
        print(f"{left} networks are left; the same command goes on" if left else "all networks are scored")
    elif action == "judge":
        print(judge(options, table))
    else:
        from experiments.detector_bench.report import write_report

        print(write_report(load(table), table.parent))


def judge(options: dict[str, Any], table: Path) -> str:
    """Judge the learned score by what the table holds now."""
    from experiments.detector_bench.judging import write_judgement
    from experiments.detector_bench.proxies import read_proxies
    from nas.scorers.learned import SHIPPED, read_learned

    fitted = (
        read_learned(Path(options["score"]) if options["score"] else None)
        if options["score"] or SHIPPED.is_file()
        else None
    )
    proxies = read_proxies(Path(options["scores"]))
    return write_judgement(load(table), table.parent, proxies, fitted, options["folds"], options["resamples"])


def parse(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The action and its options, with defaults and the type of the default."""
    if not arguments or arguments[0] not in OPTIONS:
        raise UserError(f"say what to do: {', '.join(OPTIONS)}")
    return arguments[0], options_of(arguments[1:], FILES | OPTIONS[arguments[0]])


def train(arguments: list[str], options: dict[str, Any], networks: Path, table: Path) -> None:
    """Train the missing runs of the wanted data sets, here or in `jobs` workers."""
    from experiments.detector_bench.training import RECIPES, dealt, train_missing, wanted

    sets = options["data"].split(",")
    unknown = [data for data in sets if data not in RECIPES]
    if unknown:
        raise UserError(f"data={unknown[0]}: one of {', '.join(RECIPES)}, or several with commas")
    every = read_networks(networks)
    if options["jobs"] > 1:
        run_workers("experiments.detector_bench", arguments, options["jobs"], options["shard"], options["most"])
        return
    names = [name for name in options["names"].split(",") if name]
    if unknown := sorted(set(names) - {network.name for network in every}):
        raise UserError(f"names={unknown[0]}: no network of the bench has this name")
    jobs = [job for data in sets for job in wanted(every, data, options["seeds"], data in WHOLE, names)]
    left = train_missing(dealt(jobs, shard_of(options["shard"])), table, Path(options["work"]), options["most"])
    print(f"{left} runs are left; the same command goes on" if left else "no run is missing")


if __name__ == "__main__":
    run(main)
