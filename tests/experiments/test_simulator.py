"""Selections replayed on curves: the decisions of `nas.select`, what they cost, and what they miss."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from experiments.detector_bench.simulator import (
    FACTORS,
    FIRSTS,
    by_chance,
    by_score,
    finalist_of,
    replay,
    simulate,
    write_simulation,
)
from experiments.detector_bench.table import Run
from nas.errors import UserError
from nas.selection.halving import Halving
from nas.selection.rungs import Plan, Rung, make_plan
from tests.experiments.test_detector_bench import network, run_of

EPOCHS = 12


def bench(count: int, seeds: int = 1, noise: float = 0.0) -> list[Run]:
    """Networks whose height rises with their number; every fourth is drawn, and slow to learn the better it is."""
    template, rng, runs = run_of(network(0)), Random(0), []
    for number in range(count):
        for seed in range(seeds):
            height = 0.3 + 0.01 * number + rng.gauss(0, noise)
            curve = tuple((epoch, height * epoch / (epoch + number / 8), 0.5) for epoch in range(2, EPOCHS + 1, 2))
            runs.append(
                replace(
                    template,
                    digest=f"{number:016x}",
                    name=f"n{number}",
                    seed=seed,
                    family="random" if number % 4 else "scaled",
                    epochs=EPOCHS,
                    curve=curve,
                    test_ap=curve[-1][1] - 0.1,
                    band_ms=20.0 + number % 2,
                    scores={name: number % 7 for name in ("effective_rank", "mae", "level_balance")},
                    counts={"params": float(number)},
                )
            )
    return runs


def test_a_replay_decides_as_a_selection_does() -> None:
    runs = bench(17)
    for plan in (make_plan(17, EPOCHS), make_plan(17, EPOCHS, 2.0, first=0.3), make_plan(17, EPOCHS, 4.0)):
        even = Plan(tuple(Rung(rung.epochs + rung.epochs % 2, rung.entrants) for rung in plan.rungs))
        by_digest = {run.digest: {epoch: ap for epoch, ap, _ in run.curve} for run in runs}

        def train(finalist, seed, epochs, curves=by_digest):  # type: ignore[no-untyped-def]
            curve = curves[finalist.digest]
            return curve[epochs], max(ap for epoch, ap in curve.items() if epoch <= epochs)

        selected = Halving(even, None, "test", 0, 30.0, train).run([finalist_of(run) for run in runs])
        again = replay(runs, runs, plan)
        assert again.chosen == selected[-1].kept[0].name
        trained = {s.finalist.digest: result.epochs for result in selected for s in result.standings}
        assert again.epochs == pytest.approx(sum(trained.values()) / (17 * EPOCHS))


def test_training_all_to_the_end_regrets_nothing() -> None:
    runs = bench(12)
    all_of_it = replay(runs, runs, Plan((Rung(EPOCHS, 12),)))
    assert all_of_it.found and all_of_it.val_regret == 0 and all_of_it.test_regret == 0 and all_of_it.epochs == 1
    best = max(runs, key=lambda run: run.val_ap)
    assert all_of_it.chosen == best.name and all_of_it.drawn_lead == best.val_ap - max(r.val_ap for r in runs[::4])
    entrants = [run for run in runs if run is not best]
    missed = replay(runs, entrants, Plan((Rung(EPOCHS, 11),)))
    assert missed.val_regret == pytest.approx(best.val_ap - sorted(r.val_ap for r in runs)[-2])


def test_proposals_are_members_of_the_pool_and_a_score_has_its_say() -> None:
    runs, rng = bench(40), Random(1)
    assert len({run.digest for run in by_chance(runs, 12, rng)}) == 12
    high = by_score("mae")(runs, 12, rng)
    assert len({run.digest for run in high}) == 12
    assert np.mean([run.scores["mae"] for run in high]) > np.mean([run.scores["mae"] for run in runs]) + 0.5
    assert {run.band_ms for run in high} == {20.0, 21.0}
    assert by_score("params")(runs, 3, Random(2)) == by_score("params")(runs, 3, Random(2))


def test_a_table_of_settings_is_written_and_repeats(tmp_path: Path) -> None:
    runs = bench(20, seeds=2, noise=0.01)
    text = write_simulation(runs, 16, 4, tmp_path)
    rows = json.loads((tmp_path / "simulated.json").read_text())["rows"]
    plans = {make_plan(16, EPOCHS, factor, 1, first) for factor in FACTORS for first in FIRSTS}
    assert len(rows) == 5 * len(plans) < 5 * 3 * 6 and {row["networks"] for row in rows} == {20}
    assert all(0 < row["epochs"] <= 1 and 0 <= row["found"] <= 1 and row["val_regret"] >= 0 for row in rows)
    assert "## cards: 16 of 20 networks, 4 draws" in text and (tmp_path / "simulated.md").read_text() == text
    assert write_simulation(runs[::-1], 16, 4, tmp_path) == text
    with pytest.raises(UserError, match="no data set of the bench holds 36 networks yet"):
        simulate(runs, 36, 1)


@pytest.mark.benchmark
def test_a_thousand_selections_take_less_than_a_minute() -> None:
    runs, began = bench(90), time.process_time()
    for seed in range(1000):
        entrants = by_chance(runs, 36, Random(seed))
        replay(entrants, entrants, make_plan(36, EPOCHS))
    assert time.process_time() - began < 60
