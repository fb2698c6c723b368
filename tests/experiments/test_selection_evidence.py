"""The evidence of nas.select: equally fast contestants, trained once each, and a lead with its interval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from experiments.packed import read_packed, write_packed
from experiments.selection.__main__ import main
from experiments.selection.contestants import (
    CLOSE,
    Contestant,
    add_contestants,
    as_fast,
    read_contestants,
    selected_of,
)
from experiments.selection.report import lead, write_report
from experiments.selection.standings import standings
from experiments.selection.training import measure, session_of, train_missing, wanted
from nas.api import count, latency
from nas.errors import UserError
from nas.files import save_spec
from nas.frame import Frame
from nas.models.baselines import build_baseline
from nas.spec import DetectorSpec
from search_spaces.drawings import hand_drawn, scaled
from tests.training.tiny_training import tiny_spec

HARDWARE = "t4_tensorrt_fp16"
FRAME = Frame(out=(64, 128, 256), depth=2, hidden_ratio=(0.5, 0.5, 0.5), num_classes=6, image_size=320)


def clock(models: Sequence[DetectorSpec | str]) -> list[float]:
    """A machine on which time follows from the prediction, or from the parameters, and is never equal to it; its load changes
    from session to session, not within one."""
    load = 1.0 + 0.5 * (len(SESSIONS) % 3)
    SESSIONS.append(len(models))
    return [
        load * (count(build_baseline(m, 6, 320)).params / 1e6 if isinstance(m, str) else 1.7 * predicted(m) + 0.3)
        for m in models
    ]


#: How many networks every session timed.
SESSIONS: list[int] = []


def predicted(model: DetectorSpec) -> float:
    return float(latency(model, HARDWARE))


def test_everybody_is_made_as_fast_by_measurement_whatever_the_load() -> None:
    spec = FRAME.detector(scaled(hand_drawn()["damo-t"], 0.8))
    selected = FRAME.detector(scaled(hand_drawn()["even-1"], 0.9))
    assert isinstance(spec, DetectorSpec) and isinstance(selected, DetectorSpec)
    found, ratio = as_fast(spec, selected, HARDWARE, clock)
    assert isinstance(found, DetectorSpec) and found != spec and found.neck == spec.neck and found.head == spec.head
    exact = (1.7 * predicted(found) + 0.3) / (1.7 * predicted(selected) + 0.3)
    assert ratio == pytest.approx(exact) and abs(ratio - 1) <= CLOSE
    name, ratio = as_fast("yolo11n@0.25", selected, HARDWARE, clock)
    assert isinstance(name, str) and name.startswith("yolo11n@0.") and abs(ratio - 1) <= 0.05
    assert set(SESSIONS) == {2}


def people() -> list[Contestant]:
    spec = tiny_spec()
    wider = replace(spec, head=replace(spec.head, kernel=1))
    return [
        Contestant("bccd", "nas.select", "selected", spec, 64, 2.0),
        Contestant("bccd", "damo-t scaled", "drawn", wider, 64, 2.01),
        Contestant("cards", "yolo11n whole, scaled", "drawn", "yolo11n@0.0625", 64, 2.0),
    ]


def test_contestants_are_stored_by_data_set(tmp_path: Path) -> None:
    path = tmp_path / "contestants.jsonl.gz"
    with pytest.raises(UserError, match="holds nobody: run `python -m experiments.selection plan"):
        read_contestants(path)
    add_contestants(path, people())
    assert read_contestants(path) == people()
    add_contestants(path, people()[:1])
    assert read_contestants(path) == [people()[2], people()[0]]


def test_runs_are_trained_once_and_the_rest_later(tmp_path: Path, short: dict[str, Any]) -> None:
    two_epochs = short | {"trainer.epochs": 2}
    everybody = [*people()[:2], replace(people()[2], data="bccd")]
    again = replace(people()[0], name="optimum of mae", family="optimal")  # the chosen network under another name
    table, work = tmp_path / "runs.jsonl.gz", tmp_path / "work"
    assert [(one.name, seed) for one, seed, _ in wanted(everybody, ["bccd"])[:4]] == [
        ("nas.select", 0), ("damo-t scaled", 0), ("yolo11n whole, scaled", 0), ("nas.select", 1),
    ]  # fmt: skip
    assert train_missing(everybody, ["bccd"], table, work, most=1, shard=(1, 3), **two_epochs) == 2
    assert [row["name"] for row in read_packed(table)] == ["damo-t scaled"]
    assert train_missing([*everybody, again], ["bccd"], table, work, most=2, **two_epochs) == 6
    rows = read_packed(table)
    assert {row["name"] for row in rows} == {one.name for one in everybody} and not list(work.iterdir())
    assert all(row["curve"][-1][0] == row["epochs"] == 2 and 0 <= row["test_ap"] <= 1 for row in rows)
    assert len({row["recipe"] for row in rows}) == 1 and train_missing(everybody, ["cards"], table, work) == 0
    text = write_report(everybody, table, tmp_path / "times.json")
    assert "## bccd" in text and "one seed: no interval" in text and "2.00 when drawn" in text


def test_the_report_orders_by_val_and_gives_the_lead_with_its_interval(tmp_path: Path) -> None:
    table, times = tmp_path / "runs.jsonl.gz", tmp_path / "times.json"
    with pytest.raises(UserError, match="holds no run yet"):
        write_report(people(), table, times)
    ours, theirs, rows = [0.41, 0.43, 0.42], [0.36, 0.38, 0.37], []
    for one, aps in zip(people(), (ours, theirs, [0.3]), strict=True):
        for seed, ap in enumerate(aps):
            row = {"data": one.data, "name": one.name, "digest": one.digest, "seed": seed, "recipe": "r"}
            rows.append(row | {"curve": [[30, ap + 0.05, 0.6]], "test_ap": ap})
    write_packed(table, rows)
    times.write_text(json.dumps({"bccd": {"ms": {people()[0].digest: 1.987}}}))
    text = write_report(people(), table, times)
    assert text.index("| nas.select | selected | 1.99 | 3 | 0.470 | 0.420 | 0.410 to 0.430 |") < text.index(
        "damo-t scaled"
    )
    interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert lead(ours, theirs) == f"+0.050 (95 % interval {interval.low:+.3f} to {interval.high:+.3f}, 3 and 3 seeds)"
    assert f"nas.select leads damo-t scaled, the best drawn network on val, by {lead(ours, theirs)}" in text


def test_more_seeds_of_the_two_that_are_compared_follow_when_everybody_is_trained() -> None:
    everybody = people()
    rows = [
        {
            "data": one.data,
            "digest": one.digest,
            "seed": seed,
            "recipe": recipe,
            "curve": [[30, 0.4 if seed < 3 else 0.9, 0.6]],
        }
        for one, seed, recipe in wanted(everybody, ["bccd"])
    ]
    pair = [("nas.select", 3), ("damo-t scaled", 3), ("nas.select", 4), ("damo-t scaled", 4)]
    assert [(one.name, seed) for one, seed, _ in wanted(everybody, ["bccd"], rows, 5)[6:]] == pair
    assert len(wanted(everybody, ["bccd"], rows)) == 6
    assert len(wanted(everybody, ["bccd"], rows[:-1], 5)) == 6
    more = {**rows[0], "seed": 3, "curve": [[30, 0.9, 0.6]]}
    assert standings(everybody, [*rows, more])["bccd"][0].val_ap == pytest.approx(0.4)  # of the seeds that all have


@pytest.mark.slow
def test_a_session_times_deployed_files_of_all_kinds() -> None:
    pytest.importorskip("onnxruntime")
    found = measure([people()[0], replace(people()[2], data="bccd")], 5)
    assert found["data"] == "bccd" and set(found["ms"]) == {people()[0].digest, "yolo11n@0.0625"}
    assert all(ms > 0 for ms in found["ms"].values())
    assert len(session_of(5, 64)([tiny_spec(), tiny_spec()])) == 2


def test_words_of_the_command_are_checked_before_anything_long(tmp_path: Path) -> None:
    save_spec(tmp_path / "selected.yaml", tiny_spec().backbone)
    with pytest.raises(UserError, match="is no detector"):
        selected_of(tmp_path)
    for words, message in (
        ([], "say what to do: plan, train, measure, report"),
        (["plan", "data=cards"], "data=NAME selected=FOLDER are needed"),
        (["plan", "data=cards", f"selected={tmp_path / 'none'}"], "none"),
        (["train", f"contestants={tmp_path / 'none.gz'}"], "holds nobody"),
        (["report", "tables=3"], "unknown option"),
    ):
        with pytest.raises(UserError, match=message):
            main(words)
