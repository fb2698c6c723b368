"""A detector without NMS is compared with its twin: same network, recipe and seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from experiments.detector_bench.training import RECIPES
from experiments.evidence import save_result
from experiments.one_to_one.__main__ import main
from experiments.one_to_one.report import paired, write_report
from experiments.one_to_one.training import file_of, keep_file, measure, pair
from experiments.packed import read_packed, write_packed
from experiments.selection.training import train_missing
from nas.errors import UserError
from nas.spec import DetectorSpec


def test_the_two_differ_in_how_the_head_is_deployed_alone() -> None:
    with_nms, without = (one.model for one in pair("cards"))
    assert isinstance(with_nms, DetectorSpec) and isinstance(without, DetectorSpec)
    assert (with_nms.head.one_to_one, without.head.one_to_one) == (False, True)
    assert replace(without, head=with_nms.head) == with_nms
    assert (with_nms.image_size, with_nms.head.num_classes) == (RECIPES["cards"][0], 6)
    with pytest.raises(UserError, match="no recipe for data=mine"):
        pair("mine")


@pytest.mark.slow
def test_both_are_trained_exported_and_timed(tmp_path: Path, short: dict[str, Any]) -> None:
    two_epochs = short | {"trainer.epochs": 2}
    table, work = tmp_path / "runs.jsonl.gz", tmp_path / "work"
    assert train_missing(pair("bccd"), ["bccd"], table, work, most=2, finished=keep_file(work), **two_epochs) == 4
    assert [(row["name"], row["seed"]) for row in read_packed(table)] == [("NMS", 0), ("one-to-one", 0)]
    assert len({row["digest"] for row in read_packed(table)}) == 2
    session = measure("bccd", work)
    assert list(session["turns"]) == ["0.001", "0.3"]
    for turn in [turn for turns in session["turns"].values() for turn in turns]:
        assert set(turn) == {"NMS", "one-to-one"} and all(0 <= one["ap"] <= 1 for one in turn.values())
    save_result(tmp_path / "times.json", "bccd", session)
    text = write_report(table, tmp_path / "times.json")
    assert "| bccd | 1 |" in text and "| bccd | 0.3 | one-to-one |" in text
    file_of(work, "bccd", "NMS").unlink()
    with pytest.raises(UserError, match="NMS.onnx is missing"):
        measure("bccd", work)


def test_the_loss_is_paired_by_seed_and_has_its_interval(tmp_path: Path) -> None:
    table = tmp_path / "runs.jsonl.gz"
    with pytest.raises(UserError, match="holds no run yet"):
        write_report(table, tmp_path / "times.json")
    aps = {"cards": [(0.45, 0.44), (0.43, 0.43), (0.47, 0.45)], "bccd": [(0.50, 0.51)]}
    rows = [
        {"data": data, "seed": seed, "name": name, "test_ap": ap, "digest": name, "recipe": "r"}
        for data, found in aps.items()
        for seed, both in enumerate(found)
        for name, ap in zip(("NMS", "one-to-one"), both, strict=True)
    ]
    write_packed(table, [*rows, rows[0] | {"seed": 9}])  # the seed without a partner is left out
    assert paired(read_packed(table)) == aps
    text = write_report(table, tmp_path / "times.json")
    lost = [0.01, 0.0, 0.02]
    interval = stats.t.interval(0.95, 2, sum(lost) / 3, stats.sem(lost))
    assert f"| cards | 3 | 0.450 | 0.440 | +0.010 ({interval[0]:+.3f} to {interval[1]:+.3f}) |" in text
    assert "| bccd | 1 | 0.500 | 0.510 | -0.010 |" in text and "Mean paired loss over 4 pairs: +0.005 (" in text


def test_words_of_the_command_are_checked_before_anything_long(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="say what to do: train, measure, report"):
        main([])
    with pytest.raises(UserError, match="unknown option"):
        main(["train", "epochs=3"])
    with pytest.raises(UserError, match="is missing: python -m experiments.one_to_one train"):
        main(["measure", "data=cards", f"work={tmp_path}", f"times={tmp_path}/times.json"])
