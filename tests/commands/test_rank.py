"""Ranking from end to end: benchmarks, lists of networks, resumption, and refusals in one line."""

from __future__ import annotations

import csv
import gc
import gzip
import json
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nas.commands.rank import RankSettings, run_ranking
from nas.errors import UserError
from nas.files import save_spec
from nas.scorers import SCORERS, ZERO_COST
from nas.scorers.measuring import (
    ENSEMBLES,
    Protocol,
    Subject,
    measure,
    measure_all,
    passes_for,
    read_table,
)
from nas.scorers.probe import scorer_images
from nas.scorers.score_log import ScoreLog, read_scores
from search_spaces import load_published

CELLS = (
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "|skip_connect~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|",
    "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|",
    "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A made-up NAS-Bench-201 table of four light cells."""
    folder = tmp_path / "tables"
    folder.mkdir()
    with gzip.open(folder / "nb201_accuracy.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "arch", "c10_test_e200", "c100_test_e200"])
        for index, cell in enumerate(CELLS):
            writer.writerow([index, cell, 10 + 20 * index, 1 + 15 * index])
    return folder


def settings(table_folder: Path, folder: Path, **changes: object) -> RankSettings:
    base = {
        "benchmark": "nasbench201",
        "tables": str(table_folder),
        "folder": str(folder),
        "batch": 2,
        "progress": False,
    }
    return RankSettings(**{**base, "scorers": ["synflow"], "resamples": 20, "progress": False, **changes})  # type: ignore[arg-type]


def test_a_benchmark_is_scored_judged_and_reported(tables: Path, tmp_path: Path) -> None:
    published = tmp_path / "published.csv"
    published.write_text("scorer,target,statistic,value,source\nsynflow,c10_test_e200,Spearman,.737,notebook\n")
    folder = tmp_path / "out"
    chosen = settings(tables, folder, scorers=["synflow", "snip", "vote"], published=str(published), spread_networks=4)
    text = run_ranking(chosen)
    assert "Gaussian noise, batch 2" in text and "## c100_test_e200: 4 networks, best 0.4600" in text
    assert "Spearman .737 (notebook)" in text and "| random | 0.000 [0.000, 0.000]" in text
    with (folder / "agreement.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["scorer"] for row in rows} >= {"synflow", "snip", "jacov", "vote", "macs", "layers", "depth", "random"}
    assert next(row for row in rows if row["scorer"] == "synflow")["seeds"] == "5"
    assert (folder / "agreement_c10_test_e200.png").read_bytes().startswith(b"\x89PNG")
    lines = (folder / "scores.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[0].startswith("network,c10_test_e200,c100_test_e200,params,macs,layers")
    assert any(",-inf" in line for line in lines)


def test_resuming_gives_the_same_scores_and_computes_nothing_twice(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.report.scorer_table.draw_agreement", lambda *arguments: None)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_ranking(settings(tables, whole, seeds=2))
    run_ranking(settings(tables, broken, seeds=2, sample=2))
    log = broken / "scores.jsonl"
    with log.open("a") as file:
        file.write('{"network": "|none~0|+|no')
    run_ranking(settings(tables, broken, seeds=2))

    def scores(path: Path) -> list[tuple[str, int, dict[str, float]]]:
        return [(network, seed, values) for network, seed, values, _ in read_scores(path)]

    assert scores(log) == scores(whole / "scores.jsonl") and len(scores(log)) == 8
    assert (broken / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
    size = log.stat().st_size
    run_ranking(settings(tables, broken, seeds=2))
    assert log.stat().st_size == size
    run_ranking(settings(tables, broken, scorers=["synflow", "naswot"]))
    assert len(scores(log)) == 12
    with pytest.raises(UserError, match="batch=2, now batch=3"):
        run_ranking(settings(tables, broken, batch=3))


def test_published_networks_with_accuracies_from_a_list(tmp_path: Path) -> None:
    names = ("tinynas_l20_k1kx", "tinynas_l25_k1kx", "tinynas_l35_kxkx", "tinynas_l45_kxkx")
    entries = [f"- {{model: {name}, ap: 0.4{index}}}" for index, name in enumerate(names)]
    path = tmp_path / "networks.yaml"
    path.write_text("\n".join(entries))
    config = RankSettings(networks=str(path), scorers=["mae"], folder=str(tmp_path), resamples=20, image_size=64)
    text = run_ranking(config)
    assert "## ap: 4 networks" in text and "| mae | 1.000" in text and not (tmp_path / "scores.jsonl").exists()


def test_scores_of_specs_are_taken_at_the_size_that_is_asked_for(tmp_path: Path) -> None:
    config = RankSettings(
        networks="damo-yolo-t", scorers=["deepmad", "level_balance"], folder=str(tmp_path), image_size=320
    )
    run_ranking(config)
    with (tmp_path / "scores.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    spec = load_published("damo-yolo-t")
    for name in config.scorers:
        assert float(row[name]) == pytest.approx(SCORERS[name].function(spec, image_size=320))
        assert float(row[name]) != pytest.approx(SCORERS[name].function(spec))
    with pytest.raises(UserError, match="positive multiple of 32, got 33"):
        run_ranking(replace(config, image_size=33))


@pytest.mark.slow
def test_an_edited_file_is_another_network_and_one_listed_twice_keeps_its_scores(tmp_path: Path) -> None:
    mine, entries = tmp_path / "mine.yaml", tmp_path / "networks.yaml"
    rows = [(mine, 0.3), ("tinynas_l20_k1kx", 0.4), ("tinynas_l20_k1kx", 0.46), ("tinynas_l25_k1kx", 0.5)]
    entries.write_text("".join(f"- {{model: {name}, ap: {ap}}}\n" for name, ap in rows))
    config = RankSettings(
        networks=str(entries), scorers=["meco"], folder=str(tmp_path / "out"), batch=2, image_size=32, progress=False
    )

    def scores() -> list[float]:
        run_ranking(config)
        with (tmp_path / "out/scores.csv").open(newline="") as file:
            return [float(row["meco"]) for row in csv.DictReader(file)]

    save_spec(mine, load_published("tinynas_l35_kxkx"))
    first = scores()
    save_spec(mine, load_published("tinynas_l45_kxkx"))
    second = scores()
    assert first[0] != second[0] and first[1:] == second[1:]
    assert first[1] == first[2] and all(np.isfinite(first + second))


def test_accuracies_in_percent_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "networks.yaml"
    path.write_text("- {model: tinynas_l20_k1kx, ap: 46.0}\n")
    with pytest.raises(UserError, match="accuracies are fractions from 0 to 1"):
        run_ranking(RankSettings(networks=str(path), scorers=["mae"], folder=str(tmp_path)))


def test_a_truncated_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"arch,acc\n" + b"a,1\n" * 1000)[:-12])
    with pytest.raises(UserError, match="table.csv.gz is damaged"):
        read_table(path, ("arch",))
    path.write_bytes(gzip.compress(b"arch,acc\na,1\n"))
    assert read_table(path, ("arch", "acc")) == [{"arch": "a", "acc": "1"}]
    with pytest.raises(UserError, match="lacks the column c10"):
        read_table(path, ("arch", "c10"))


def test_a_hand_drawn_baseline_is_scored_by_its_name(tmp_path: Path) -> None:
    config = RankSettings(
        networks="yolov5n", scorers=["meco"], folder=str(tmp_path), batch=2, image_size=32, progress=False
    )
    text = run_ranking(config)
    assert "| network | params | macs | meco |" in text and "| yolov5n | 2.6492e+06 |" in text


def test_one_network_reports_mean_and_spread(tmp_path: Path) -> None:
    config = RankSettings(
        networks="tinynas_l20_k1kx",
        scorers=["mae", "meco", "aznas"],
        folder=str(tmp_path),
        seeds=2,
        batch=2,
        image_size=32,
        progress=False,
    )
    text = run_ranking(config)
    assert "| tinynas_l20_k1kx |" in text and "1015.14" in text and " ± " in text and "| aznas" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": "damo-yolo-t"}, "give networks="),
        ({"tables": None}, "needs tables="),
        ({"benchmark": "nasbench301"}, "benchmark must be one of nasbench201, nasbench_macro"),
        ({"benchmark": "nasbench_macro"}, "nasbench_macro_cifar10.csv.gz is missing"),
        ({"scorers": ["zenith"]}, "unknown scorer 'zenith'"),
        ({"benchmark": None, "networks": "damo-yolo-q"}, "'damo-yolo-q'"),
        ({"batch": 0}, "batch must be a whole number from 1"),
        ({"inputs": "nowhere"}, "inputs must be"),
        ({"published": "nowhere.csv"}, "cannot read nowhere.csv"),
    ],
)
def test_contradictions_are_refused_before_work(
    tables: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_ranking(settings(tables, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_damaged_and_foreign_logs_are_named(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text("hello\n")
    with pytest.raises(UserError, match="not a file of scores"):
        ScoreLog(path, {})
    path.unlink()
    ScoreLog(path, {"batch": 1}).add("net", 0, {"a": float("-inf")}, {"a": 0.1})
    assert json.loads(path.read_text().splitlines()[1])["scores"] == {"a": "-inf"}
    with path.open("a") as file:
        file.write('{"network": 1}\n')
    with pytest.raises(UserError, match="line 3 is damaged"):
        list(read_scores(path))


def test_passes_are_shared_and_cover_every_scorer() -> None:
    every = passes_for([scorer.name for scorer in ZERO_COST])
    assert sorted(answer for step in every for answer in step.answers) == sorted(scorer.name for scorer in ZERO_COST)
    assert [step.name for step in passes_for(["aznas", "snip", "fisher"])] == ["first_order", "aznas"]
    assert {answer for step in passes_for(["vote"]) for answer in step.answers} >= set(ENSEMBLES["vote"])
    for scorer in ZERO_COST:
        assert callable(scorer.function)


def test_one_network_is_alive_at_a_time(tmp_path: Path) -> None:
    alive: list[weakref.ref[nn.Module]] = []

    def build() -> nn.Module:
        gc.collect()
        assert all(reference() is None for reference in alive)
        model = nn.Sequential(nn.Conv2d(3, 2, 1))
        alive.append(weakref.ref(model))
        return model

    subjects = (Subject(f"net{index}", {}, build, 8) for index in range(2))
    log = ScoreLog(tmp_path / "scores.jsonl", {})
    assert measure_all(subjects, passes_for(["synflow", "meco"]), Protocol(2), log, lambda position: 1) == 2
    assert len(alive) == 4


def test_a_failing_network_is_named(tmp_path: Path) -> None:
    subject = Subject("odd", {}, lambda: nn.Sequential(nn.Conv2d(4, 2, 1)), 8)
    with pytest.raises(UserError, match="scorer synflow failed on odd: "):
        measure(subject, passes_for(["synflow"])[0], Protocol(2), 0)


def test_inputs_are_noise_or_crops_and_repeat_with_the_seed(tmp_path: Path) -> None:
    import cv2

    rng = np.random.default_rng(0)
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    for inputs in ("gaussian", str(tmp_path)):
        first, second, other = (scorer_images(inputs, 4, 16, seed) for seed in (0, 0, 1))
        assert first.shape == (4, 3, 16, 16) and torch.equal(first, second) and not torch.equal(first, other)
        assert abs(float(first.mean())) < 0.5
    with pytest.raises(UserError, match="folder with .jpg"):
        scorer_images(str(tmp_path / "empty"), 1, 8, 0)
