"""The proxy benchmark: its settings, its published figures, its committed scores."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

import experiments.proxy_benchmark
from experiments.proxy_benchmark.__main__ import compare_with_freerea, main, parts
from experiments.proxy_benchmark.equal_latency import DEVICES, equal_latency_table, windows, within_windows
from nas.errors import UserError
from nas.scorers import SCORERS
from nas.scorers.agreement import spearman
from nas.scorers.measuring import BENCHMARKS, ENSEMBLES

FOLDER = Path(experiments.proxy_benchmark.__file__).parent


def test_published_figures_name_known_scorers_and_targets() -> None:
    with (FOLDER / "published.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    targets = {column for _, columns in BENCHMARKS.values() for column in columns}
    assert {row["scorer"] for row in rows} <= {*SCORERS, *ENSEMBLES} and {row["target"] for row in rows} <= targets
    assert all(0 < float(row["value"]) < 1 and row["statistic"] and row["source"] for row in rows)


def test_every_zero_cost_scorer_takes_part(tmp_path: Path) -> None:
    known = parts("tables", tmp_path)
    wanted = {name for settings in known.values() for name in settings.scorers}
    missing = {name for name, scorer in SCORERS.items() if scorer.needs != "spec"} - wanted
    assert all(name.startswith("az_") for name in missing) and "aznas" in wanted
    assert known["all"].sample == 0 and known["sample"].sample >= 1000 and known["grasp"].sample >= 1000


def test_wrong_options_are_named() -> None:
    for arguments, message in (
        (["table=x"], "unknown option"),
        ([], "tables=FOLDER"),
        (["tables=x", "parts=y"], "'y'"),
    ):
        with pytest.raises(UserError, match=message):
            main(arguments)


def test_comparison_with_stored_scores(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("network,synflow\na,1\nb,2\nc,3\n")
    with gzip.open(tmp_path / "nb201_zerocost.csv.gz", "wt") as file:
        file.write("arch,c10_synflow,c10_naswot\na,1e9,1\nb,1e12,1\nc,1e99,1\n")
    assert "synflow: Spearman 1.0000" in compare_with_freerea(tmp_path / "scores.csv", tmp_path)
    with pytest.raises(UserError, match="is missing"):
        compare_with_freerea(tmp_path / "scores.csv", tmp_path / "nowhere")


def test_windows_hold_networks_of_one_latency() -> None:
    latency = np.array([1.0, 1.02, 1.5, 1.51, 1.52, 9.0])
    assert [list(group) for group in windows(latency, 0.03, 2)] == [[0, 1], [2, 3, 4]]
    score, accuracy = np.array([1, 2, 9, 8, 7, 0.0]), np.array([1, 2, 3, 4, 5, 0.0])
    assert within_windows(score, accuracy, windows(latency, 0.03, 2)) == pytest.approx((2 * 1 + 3 * -1) / 5)


def test_equal_latency_table_of_a_small_benchmark(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    accuracy = rng.random(60)
    rows = [f"n{i},{value},{value * 2},{rng.random()}" for i, value in enumerate(accuracy)]
    (tmp_path / "scores.csv").write_text("network,c10_test_e200,good,bad\n" + "\n".join(rows) + "\n")
    with gzip.open(tmp_path / "nb201_latency_ms.csv.gz", "wt") as file:
        file.write(",".join(["arch", *DEVICES]) + "\n")
        file.writelines(f"n{i}," + ",".join(["5.0"] * len(DEVICES)) + "\n" for i in range(60))
    text = equal_latency_table(tmp_path / "scores.csv", tmp_path)
    assert "| good | 1.000 | 1.000 |" in text and "| 1 (60) |" in text
    with pytest.raises(UserError, match="is missing"):
        equal_latency_table(tmp_path / "nothing.csv", tmp_path)


def test_committed_scores_give_the_committed_agreement() -> None:
    for part, scorer, target, least in (
        ("all", "synflow", "c10_test_e200", 15625),
        ("sample", "zico", "c10_test_e200", 1000),
        ("grasp", "grasp", "c10_test_e200", 1000),
        ("macro", "naswot", "mean_acc", 300),
    ):
        with gzip.open(FOLDER / part / "scores.csv.gz", "rt") as file:
            scores = list(csv.DictReader(file))
        with (FOLDER / part / "agreement.csv").open(newline="") as file:
            agreement = {(row["target"], row["scorer"]): row for row in csv.DictReader(file)}
        row = agreement[target, scorer]
        assert len(scores) == int(row["networks"]) >= least
        values, truth = (np.array([float(item[key]) for item in scores]) for key in (scorer, target))
        assert spearman(values, truth) == pytest.approx(float(row["spearman"]), abs=2e-4)
