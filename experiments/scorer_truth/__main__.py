"""Does a training-free score say which of equally fast backbones will be more accurate?

    python -m experiments.scorer_truth plan   [count=48 latency=2.6 tolerance=0.01 hardware=t4_tensorrt_fp16 seed=0]
    python -m experiments.scorer_truth train  [minutes=0 jobs=1 device=auto repeated=5 seeds=3 data=PATH epochs=30 ...]
    python -m experiments.scorer_truth report [data and recipe as in train]

`plan` writes networks.csv, `train` appends to results.csv what is missing (any option of the recipe can be given;
other recipes do not mix), `report` writes results.md, scores.csv and a picture, also from an unfinished training.
`jobs` workers share one device; each trains its share of the missing runs. `folder=` moves all files.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from experiments.command import options_of, run, run_workers, shard_of
from experiments.scorer_truth.judging import write_report
from experiments.scorer_truth.networks import draw_networks, read_networks, write_networks
from experiments.scorer_truth.training import Recipe, read_results, train_missing, wanted
from nas.errors import UserError

PLAN: dict[str, Any] = {"count": 48, "latency": 2.6, "tolerance": 0.01, "hardware": "t4_tensorrt_fp16", "seed": 0}
TRAIN: dict[str, Any] = {
    "minutes": 0.0,
    "jobs": 1,
    "device": "auto",
    "repeated": 5,
    "seeds": 3,
    "shard": "0/1",
    "workers": 0,
}
RECIPE: dict[str, Any] = {item.name: item.default for item in fields(Recipe)}


def main(arguments: list[str]) -> None:
    """Run one action; UserError for anything unknown."""
    action, options = parse(arguments)
    folder = Path(options["folder"])
    networks_path, results_path = folder / "networks.csv", folder / "results.csv"
    if action == "plan":
        drawn = {name: options[name] for name in ("count", "tolerance", "hardware", "seed")}
        networks = draw_networks(target=options["latency"], **drawn)
        write_networks(networks, networks_path)
        print(f"{len(networks)} networks in {networks_path}")
        return
    networks = read_networks(networks_path)
    recipe = Recipe(**{name: options[name] for name in RECIPE})
    if action == "report":
        results = read_results(results_path, recipe)
        print_missing(networks, results, options)
        print(write_report(networks, results, folder, recipe))
    elif options["jobs"] > 1:
        jobs = options["jobs"]
        run_workers("experiments.scorer_truth", arguments, jobs)
        print_missing(networks, read_results(results_path, recipe), options)
    else:
        given = {name: options[name] for name in ("repeated", "seeds", "minutes", "device", "workers")}
        train_missing(networks, recipe, results_path, shard=shard_of(options["shard"]), **given)
        print_missing(networks, read_results(results_path, recipe), options)


def parse(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The action and its options, with defaults and the type of the default."""
    known = {"plan": PLAN, "train": TRAIN | RECIPE, "report": TRAIN | RECIPE}
    if not arguments or arguments[0] not in known:
        raise UserError("say what to do: plan, train or report")
    options = {"folder": str(Path(__file__).parent)} | known[arguments[0]]
    return arguments[0], options_of(arguments[1:], options)


def print_missing(networks: list[Any], results: list[Any], options: dict[str, Any]) -> None:
    """Say which runs have no row yet."""
    done = {(row.name, row.seed) for row in results}
    plan = wanted(networks, options["repeated"], options["seeds"])
    missing = [f"{network.name}/{seed}" for network, seed in plan if (network.name, seed) not in done]
    some = ", ".join(missing[:12]) + (" ..." if len(missing) > 12 else "")
    print(f"{len(plan) - len(missing)} of {len(plan)} runs are done" + (f"; missing: {some}" if missing else ""))


if __name__ == "__main__":
    run(main)
