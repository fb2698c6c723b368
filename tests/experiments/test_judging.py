"""How the learned score is judged: figures by hand, left-out parts, intervals, and what is said of too little."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.detector_bench import judging, proxies
from experiments.detector_bench.__main__ import main
from experiments.detector_bench.judging import (
    POOL,
    covered,
    folds_of,
    judge,
    left_out_scores,
    trained,
    write_judgement,
)
from experiments.detector_bench.networks import FRAME, Network, counts_of, scores_of, space_of, write_networks
from experiments.detector_bench.proxies import measure_proxies, read_proxies
from experiments.detector_bench.table import Run, add_runs
from nas.errors import UserError
from nas.scorers.fitting import fit
from nas.scorers.learned import FEATURES, features_of, network_of
from nas.spec import digest
from tests.experiments.test_detector_bench import network, run_of

SPACES = ("tinynas_k1kx", "gelan", "c3k2")


def planted(item: Network) -> float:
    known = dict(zip(FEATURES, features_of(item.spec.backbone), strict=True))
    return known["width@16"] + known["width@32"] - 12 - 0.05 * known["depth@32"] + 0.02 * known["work@8"]


@pytest.fixture(scope="module")
def networks() -> list[Network]:
    rng, found = random.Random(0), []
    for number in range(45):
        space = SPACES[number % 3]
        spec = FRAME.detector(space_of(space).sample(rng))
        facts = (scores_of(spec), counts_of(spec))
        band = (20.0, 24.0)[number % 2]
        name = f"random-{number}@{band:g}"
        found.append(
            Network(name, "random", space, "", band, digest(spec), spec, band, "h", "t", True, number < 4, *facts)
        )
    return found


@pytest.fixture(scope="module")
def runs(networks: list[Network]) -> list[Run]:
    rng, found = np.random.default_rng(0), []
    for item in networks:
        for data, level, scale in (("cards", 0.45, 0.03), ("bccd", 0.6, 0.01)):
            for seed in range(3 if item.repeated else 1):
                ap = level + 0.05 * (item.band_ms == 24) + scale * (planted(item) + 0.1 * float(rng.normal()))
                found.append(run_of(item, seed, data, ap))
    return found


def test_figures_by_hand(runs: list[Run]) -> None:
    rows = [run for run in runs if run.seed == 0 and run.data == "cards"]
    aps = np.array([run.test_ap for run in rows])
    bands = np.array([run.band_ms for run in rows])
    columns = {"truth": aps, "band": bands, "effective_rank": -aps}
    table = judge(rows, columns, {"cards": 0.9}, resamples=50)
    assert table.networks == len(rows) == 45 and table.ceiling == 0.9
    truth, band, worst = (table.figures[name] for name in columns)
    assert (truth.within, truth.pooled, truth.low, truth.high) == (1, 1, 1, 1)
    assert (truth.lead, truth.lead_low, truth.lead_high) == (2, 2, 2) and truth.share == pytest.approx(
        1 / 0.9, abs=1e-4
    )
    assert band.pooled == 0 and band.within == 0  # what a band gives is taken out
    assert worst.pooled == -1 and worst.lead == 0
    assert judge(rows, columns, {}, 5).figures["truth"].share is None


def test_parts_are_left_out_whole(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(judging, "fit", lambda rows, intervals: seen.append(rows) or fit(rows, intervals))
    fold = folds_of(runs, 5)
    assert folds_of(runs[::-1], 5) == fold and sorted(set(fold.values())) == list("01234")
    rows = [run for run in runs if run.seed == 0]
    scores, notes = left_out_scores(runs, rows, lambda run: fold[network_of(run.spec)])
    assert not np.isnan(scores).any() and notes == [] and len(seen) == 5
    for number, given in enumerate(seen):
        known = {digest(row.spec) for row in given}
        assert known and not known & {run.digest for run in runs if fold[network_of(run.spec)] == str(number)}
    seen.clear()
    left_out_scores(runs, rows, lambda run: run.data)
    assert [{row.data for row in given} for given in seen] == [{"cards"}, {"bccd"}]


def test_the_learned_score_finds_what_is_planted_and_the_bytes_repeat(runs: list[Run], tmp_path: Path) -> None:
    early = [run for run in runs if int(run.name.split("-")[1].split("@")[0]) < 33]
    fitted = fit(trained(early))
    text = write_judgement(runs, tmp_path, fitted=fitted, folds=5, resamples=30)
    found = json.loads((tmp_path / "judged.json").read_text())
    for what in ("networks", "data", "spaces"):
        tables = found["left_out"][what]["tables"]
        assert set(tables) == {"cards", "bccd", POOL}
        best = tables[POOL]["figures"]["learned"]
        assert best["pooled"] > 0.8 and best["lead_low"] > 0 and best["share"] > 0.8, what
        assert tables["cards"]["ceiling"] > 0.9 and tables[POOL]["networks"] == 45
        assert "swap" not in tables[POOL]["figures"]
    assert text.index("| learned |") < text.index("| effective_rank |")
    assert found["coverage"]["rows"] == 24 and found["coverage"]["networks"] == 12
    assert 18 <= found["coverage"]["inside"] <= 24 and "not rejected" in text and "fewer than 30" in text
    before = (tmp_path / "judged.json").read_bytes()
    write_judgement(runs[::-1], tmp_path, fitted=fitted, folds=5, resamples=30)
    assert (tmp_path / "judged.json").read_bytes() == before


def test_too_narrow_intervals_are_rejected(runs: list[Run]) -> None:
    fitted = fit(trained([run for run in runs if run.band_ms == 20]))
    narrow = replace(fitted, data=[replace(term, half_width=1e-6) for term in fitted.data], networks=())
    rows = [run for run in runs if run.seed == 0 and run.band_ms == 20]
    found = covered(narrow, rows)
    assert found is not None and found.inside < 3 and found.p < 1e-6
    assert covered(fitted, rows) is None  # all were in the fit
    assert covered(narrow, [run for run in runs if run.band_ms == 24]) is None  # a band that the file does not know


def test_what_cannot_be_known_is_said(runs: list[Run], tmp_path: Path) -> None:
    text = write_judgement(runs[:8], tmp_path, resamples=5)
    assert "Too few networks for any figure" in text and "train at least 20" in text
    assert (
        "There is no fitted score yet" in text
        and json.loads((tmp_path / "judged.json").read_text())["coverage"] is None
    )
    one = write_judgement([run for run in runs if run.data == "cards" and run.seed == 0], tmp_path, resamples=5)
    assert "the ceiling of seed noise is not known yet" in one and POOL not in one
    assert "Not known without cards: 0 networks" in one
    with pytest.raises(UserError, match="no run yet"):
        write_judgement([], tmp_path)
    with pytest.raises(UserError, match="at least 2 folds"):
        write_judgement(runs, tmp_path, folds=1)


def test_proxies_are_measured_once_and_take_part_when_all_are_known(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two, path = [network(0), network(1)], tmp_path / "proxies.jsonl"
    write_networks(two, tmp_path / "n.gz")
    words = ["proxies", f"networks={tmp_path / 'n.gz'}", f"scores={path}", "batch=4", "image_size=32"]
    main([*words, "most=1"])
    assert "1 networks are left" in capsys.readouterr().out and list(read_proxies(path)) == [two[0].digest]
    main(words)
    known = read_proxies(path)
    assert set(known) == {item.digest for item in two} and all(
        set(found) == set(proxies.PROXIES) for found in known.values()
    )
    assert all(1 < found["swap"] <= 16 and np.isfinite(found["zico_bc"]) for found in known.values())
    before = path.read_bytes()
    assert measure_proxies(two, path, batch=4, image_size=32) == 0 and path.read_bytes() == before
    with pytest.raises(UserError, match="image_size"):
        measure_proxies(two, path, batch=4, image_size=64)
    rows = [run_of(item) for item in two]
    assert {"swap", "zico_bc"} <= set(judging.columns_of(rows, known))
    assert (
        "swap" not in judging.columns_of([*rows, run_of(network(2))], known) and read_proxies(tmp_path / "none") == {}
    )


def test_the_command_judges_a_table(runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "bench.jsonl.gz"
    add_runs(table, [run for run in runs if run.data == "cards"])
    score = tmp_path / "score.json"
    score.write_text(fit(trained(runs)).to_json())
    main(["judge", f"table={table}", f"score={score}", f"scores={tmp_path / 'none'}", "folds=3", "resamples=5"])
    assert (tmp_path / "judged.md").read_text() in capsys.readouterr().out
    assert "No network was trained after the fit to 45 networks" in (tmp_path / "judged.md").read_text()
