"""The bench of trained detectors: its networks, its bookkeeping across interruptions and machines, its report."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import experiments.detector_bench as bench
import experiments.detector_bench.networks as networks_module
from experiments.costs import Latencies
from experiments.detector_bench.__main__ import main, parse
from experiments.detector_bench.measuring import exported_spec, measure_missing
from experiments.detector_bench.networks import (
    FIRST,
    FRAME,
    REPEATED,
    SHARED,
    Network,
    block_family,
    counts_of,
    draw_networks,
    ordered,
    read_networks,
    scores_of,
    write_networks,
)
from experiments.detector_bench.report import write_report
from experiments.detector_bench.table import Run, add_runs, load
from experiments.detector_bench.training import RECIPES, Job, bench_config, dealt, recipe_of, train_missing, wanted
from experiments.packed import read_packed, write_packed
from nas.errors import UserError
from nas.measure.measurement import Measurement
from nas.spec import DetectorSpec, digest
from search_spaces.drawings import hand_drawn, scaled

HARDWARE = "cpu_onnxruntime_fp32_1thread"


def network(number: int, band: float = 18.0, family: str = "random") -> Network:
    """A detector of the frame, unlike the others."""
    backbone = replace(scaled(hand_drawn()["even-1"], 0.3), activation="silu")
    block = replace(backbone.blocks[-1], out=96 + 8 * number)
    spec = FRAME.detector(replace(backbone, blocks=(*backbone.blocks[:-1], block)))
    facts = (scores_of(spec), counts_of(spec))
    shared, repeated = number < 4, number < 2
    name = f"random-{number}@{band:g}"
    return Network(name, family, "tinynas_k1kx", "", band, digest(spec), spec, band, "h", "t", shared, repeated, *facts)


def run_of(item: Network, seed: int = 0, data: str = "cards", ap: float = 0.4) -> Run:
    known = {name: getattr(item, name) for name in Run.__dataclass_fields__ if hasattr(item, name)}
    curve = ((2, ap / 2, ap / 1.5), (4, ap, ap + 0.1))
    return Run(
        data=data, seed=seed, recipe="r", image_size=64, epochs=4, curve=curve, test_ap=ap, test_ap50=ap + 0.1, seconds=9.0,
        cpu_seconds=8.5, sittings=1, machine={"processor": "any"}, **known,
    )  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> Iterator[list[Network]]:
    """A bench of two bands, with one search a space."""
    with pytest.MonkeyPatch.context() as patch:
        searched = {space: scores[:1] for space, scores in networks_module.SEARCHED.items()}
        patch.setattr(networks_module, "SEARCHED", searched)
        patch.setattr(networks_module, "DRAWINGS", ("damo-t", "damo-m", "yolo11-n", "yolov9-t", "resnet18"))
        patch.setattr(networks_module, "SHARED", 6)
        yield draw(20.0, 26.0)


def draw(*bands: float) -> list[Network]:
    return draw_networks(bands, HARDWARE, tolerance=0.05, evaluations=200, randoms=1, say=lambda text: None)


@pytest.mark.slow
def test_networks_are_many_different_and_equally_fast(drawn: list[Network]) -> None:
    latency = Latencies(HARDWARE, FRAME)
    assert len({item.digest for item in drawn}) == len({item.name for item in drawn}) == len(drawn) >= 23
    for item in drawn:
        assert item.latency_ms == pytest.approx(latency(item.spec), abs=1e-3)
        assert abs(item.latency_ms / item.band_ms - 1) <= 0.1 and item.table == latency.table.digest
        assert item.digest == digest(item.spec) and item.counts["params"] > 1e5 and "effective_rank" in item.scores
    assert {item.family for item in drawn} == {"optimal", "scaled", "random"}
    assert {item.space for item in drawn} == set(networks_module.SEARCHED)
    assert sum(item.shared for item in drawn) == 12 and sum(item.repeated for item in drawn) == 3
    assert [item.band_ms for item in drawn[:6]] == [20.0, 26.0] * 3  # early results say something of every band
    assert len({item.spec.neck for item in drawn if item.space != "giraffe"}) == 1


@pytest.mark.slow
def test_the_list_is_stored_whole_and_drawn_the_same_again(drawn: list[Network], tmp_path: Path) -> None:
    path = write_networks(drawn, tmp_path / "networks.jsonl.gz")
    assert read_networks(path) == drawn
    assert {n.name: n.digest for n in draw(26.0)} == {n.name: n.digest for n in drawn if n.band_ms == 26.0}


def test_families_of_drawings_and_the_order_of_a_band() -> None:
    drawings = hand_drawn()
    names = ("damo-t", "damo-m", "yolo11-n", "yolov9-t")
    assert [block_family(drawings[name]) for name in names] == ["tinynas_k1kx", "tinynas_kxkx", "c3k2", "gelan"]
    rows = [(label, "scaled", "s") for label in ("x", "y")] + [("z", "random", "s"), (FIRST[1], "scaled", "s")]
    assert [row[0] for row in ordered(rows)] == [FIRST[1], "x", "z", "y"]
    assert set(REPEATED) <= set(range(3 * SHARED)) and len(FIRST) == SHARED


def test_a_table_is_the_same_bytes_in_any_order_and_refuses_damage(tmp_path: Path) -> None:
    runs = [run_of(network(number), seed) for number in range(3) for seed in range(2)]
    for name, order in (("a", runs), ("b", runs[::-1])):
        for run in order:
            assert add_runs(tmp_path / name, [run]) == 1
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert gzip.decompress((tmp_path / "a").read_bytes()).count(b"\n") == 6
    assert (tmp_path / "a").read_bytes()[4:8] == b"\0\0\0\0"  # no time of writing
    found = load(tmp_path / "a")
    assert sorted(found, key=lambda run: (run.name, run.seed)) == sorted(runs, key=lambda run: (run.name, run.seed))
    assert isinstance(found[0].spec, DetectorSpec) and found[0].val_ap == 0.4 and load(tmp_path / "a", "bccd") == ()
    assert bench.load is load
    rows = read_packed(tmp_path / "a")
    write_packed(tmp_path / "changed", [rows[0] | {"digest": "0" * 16}])
    with pytest.raises(UserError, match="the digest does not belong to its spec"):
        load(tmp_path / "changed")
    write_packed(tmp_path / "changed", [{name: value for name, value in rows[0].items() if name != "curve"}])
    with pytest.raises(UserError, match="not a run of the bench: 'curve'"):
        load(tmp_path / "changed")
    (tmp_path / "torn").write_bytes((tmp_path / "a").read_bytes()[:100])
    with pytest.raises(UserError, match="torn is not a packed table"):
        load(tmp_path / "torn")
    with pytest.raises(UserError, match="missing does not exist: python -m experiments.detector_bench train"):
        load(tmp_path / "missing")


def test_tables_of_two_machines_are_merged_and_measurements_kept(tmp_path: Path) -> None:
    first, second = run_of(network(0), ap=0.3), run_of(network(1))
    ours, theirs = tmp_path / "ours.gz", tmp_path / "theirs.gz"
    add_runs(ours, [first])
    add_runs(theirs, [replace(first, test_ap=0.9, measured_ms=7.5, measured_on={"threads": 1}), second])
    main(["merge", f"table={ours}", f"source={theirs}"])
    found = {run.digest: run for run in load(ours)}
    assert found[first.digest] == replace(
        first, measured_ms=7.5, measured_on={"threads": 1}
    )  # ours stays, and is timed
    assert found[second.digest] == second and len(found) == 2
    before = ours.read_bytes()
    main(["merge", f"table={ours}", f"source={theirs}"])
    assert ours.read_bytes() == before


def test_runs_are_dealt_whole_and_in_the_order_of_the_networks() -> None:
    networks = [network(number) for number in range(12)]
    every, shared = wanted(networks, "bccd", 3, True), wanted(networks, "cards", 3, False)
    named = wanted(networks, "cards", 3, False, [networks[1].name])
    assert [(job.network.name, job.seed) for job in named] == [(networks[1].name, seed) for seed in range(3)]
    assert len(every) == 12 + 2 * 2 and len(shared) == 4 + 2 * 2
    assert [(job.network.name, job.seed) for job in shared[:4]] == [
        ("random-0@18", 0),
        ("random-0@18", 1),
        ("random-0@18", 2),
        ("random-1@18", 0),
    ]
    shares = [dealt(every, (index, 3)) for index in range(3)]
    assert sorted(job.key for share in shares for job in share) == sorted(job.key for job in every)
    assert all(shares) and dealt(every[::-1], (0, 3)) == shares[0][::-1]
    assert len({Job(networks[0], data, seed).key for data in RECIPES for seed in range(3)}) == 9


def test_a_recipe_is_known_by_what_decides_the_result() -> None:
    config = bench_config("cards", 0)
    assert config.image_size == RECIPES["cards"][0] and config.trainer.epochs == RECIPES["cards"][1]
    assert config.trainer.evaluate_every == 2 and config.augmentation.mosaic == 0.5
    others: tuple[dict[str, Any], ...] = (
        {"device": "auto"},
        {"trainer.precision": "fp32"},
        {"trainer.precision": "bf16"},
    )
    assert {recipe_of(bench_config("cards", 1, **other)) for other in others} == {recipe_of(config)}
    assert recipe_of(config) != recipe_of(bench_config("cards", 0, **{"trainer.epochs": 31}))


@pytest.mark.parametrize(
    ("flags", "precision"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx512_bf16": False, "avx2": True}, "fp32"), ({}, "fp32")],
)  # fmt: skip
def test_a_run_takes_the_precision_in_which_its_processor_is_fast(
    flags: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: flags)
    assert bench_config("cards", 0).trainer.precision == precision


@pytest.fixture(scope="module")
def trained(short: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with the first of two runs, and the folder that its training worked in."""
    folder = tmp_path_factory.mktemp("trained")
    jobs = wanted([network(0), network(1)], "bccd", 1, True)
    assert train_missing(jobs, folder / "bench.jsonl.gz", folder / "work", most=1, **short) == 1
    return folder


@pytest.mark.slow
def test_a_run_is_trained_recorded_and_never_repeated(short: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    jobs = wanted([network(0), network(1)], "bccd", 1, True)
    work = trained / "work"
    table = Path(shutil.copy(trained / "bench.jsonl.gz", tmp_path))
    (run,) = load(table)
    assert (run.data, run.digest, run.seed, run.epochs, run.image_size) == ("bccd", network(0).digest, 0, 4, 64)
    assert [epoch for epoch, _, _ in run.curve] == [2, 4] and run.sittings == 1
    assert 0 <= run.test_ap <= run.test_ap50 <= 1 and run.cpu_seconds > 0 and run.seconds > 0
    assert run.scores == network(0).scores and run.machine["threads"] >= 1 and not list(work.iterdir())
    assert train_missing(jobs, table, work, **short) == 0
    assert len(load(table)) == 2 and [r for r in load(table) if r.digest == run.digest] == [run]
    before = table.read_bytes()
    assert train_missing(jobs, table, work, **short) == 0 and table.read_bytes() == before


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_curve(
    short: dict[str, Any], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = wanted([network(0)], "bccd", 1, True)
    from nas.training.trainer import Trainer

    ends, end = [], Trainer._end_epoch

    def cut(self: Trainer, interrupt: Any) -> None:
        end(self, interrupt)
        ends.append(1)
        if len(ends) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_end_epoch", cut)
    cut_short = short | {"trainer.save_seconds": 0.0}
    with pytest.raises(KeyboardInterrupt):
        train_missing(jobs, tmp_path / "cut.gz", tmp_path / "work", **cut_short)
    assert not (tmp_path / "cut.gz").exists() and len(list((tmp_path / "work").iterdir())) == 1
    train_missing(jobs, tmp_path / "cut.gz", tmp_path / "work", **cut_short)
    (whole,), (resumed,) = load(trained / "bench.jsonl.gz"), load(tmp_path / "cut.gz")
    assert len(ends) == 4 and resumed.sittings == 2
    assert (resumed.curve, resumed.test_ap, resumed.recipe) == (whole.curve, whole.test_ap, whole.recipe)


class Clock:
    """A runtime that times by the number of parameters."""

    batch = 1

    def provenance(self) -> dict[str, Any]:
        return {"threads": 1}

    def measure(self, spec: DetectorSpec, repetitions: int, kernels: bool = True) -> Measurement:
        return Measurement(spec, counts_of(spec)["params"] / 1e6 + spec.image_size + spec.head.num_classes, 1.25)


def test_what_is_timed_is_what_is_exported(tmp_path: Path) -> None:
    table = tmp_path / "bench.gz"
    add_runs(table, [run_of(network(0), seed) for seed in range(2)] + [run_of(network(1), data="aquarium")])
    spec = exported_spec(load(table)[0], 7)
    assert spec.image_size == 64 and spec.head.num_classes == 7 and spec.backbone == load(table)[0].spec.backbone
    assert measure_missing(table, Clock(), 5, most=1) == 1  # type: ignore[arg-type]
    assert measure_missing(table, Clock(), 5) == 0  # type: ignore[arg-type]
    cards, sea = load(table, "cards"), load(table, "aquarium")
    assert len({run.measured_ms for run in cards}) == 1 and 70 < cards[0].measured_ms < sea[0].measured_ms < 73  # type: ignore[operator]
    assert cards[0].measured_on == {"threads": 1, "spread_percent": 1.25, "repetitions": 5}


def test_the_report_tells_noise_first_and_draws(tmp_path: Path) -> None:
    rng, runs = np.random.default_rng(0), []
    for number in range(12):
        for seed in range(3 if number < 3 else 1):
            ap = float(0.3 + 0.02 * number + 0.001 * rng.normal())
            runs.append(run_of(network(number, 18.0 if number % 2 else 25.0), seed, ap=ap))
    text = write_report(runs[:1], tmp_path)
    assert "not known yet" in text and "too few networks" in text
    text = write_report(runs, tmp_path)
    assert "12 networks, 18 runs of 4 epochs at 64 pixels" in text and (tmp_path / "results.md").read_text() == text
    ratio = float(text.split("variance ratio ")[1].split(";")[0])
    assert ratio > 100 and text.index("Noise") < text.index("Rank correlation")
    assert "| 18 ms | random-11@18 |" in text
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("curves.png", "latency.png"))
    with pytest.raises(UserError, match="no run yet"):
        write_report([], tmp_path)


def test_words_of_the_command_are_checked_before_anything_long(tmp_path: Path) -> None:
    assert parse(["train", "most=20", "data=cards"])[1]["most"] == 20
    write_networks([network(0)], tmp_path / "n.gz")
    for words, message in (
        ([], "say what to do: plan, train, merge, measure, report, simulate, proxies, judge"),
        (["train", "mots=3"], "unknown option 'mots=3'"),
        (["train", "data=cats", f"networks={tmp_path / 'n.gz'}"], "data=cats: one of cards, bccd, aquarium"),
        (["train", "names=nope", f"networks={tmp_path / 'n.gz'}"], "names=nope: no network of the bench has this name"),
        (["train", "shard=3/3", f"networks={tmp_path / 'n.gz'}"], "shard=3/3: i/n"),
        (["train", f"networks={tmp_path / 'none.gz'}"], "run `python -m experiments.detector_bench plan` first"),
        (["merge"], "source=TABLE is needed"),
        (["report", f"table={tmp_path / 'none.gz'}"], "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            main(words)


def test_the_committed_bench_is_whole() -> None:
    """What is committed is read, belongs together and is drawn by nobody's hand."""
    from experiments.detector_bench.networks import PATH as NETWORKS
    from experiments.detector_bench.table import PATH as TABLE

    if not NETWORKS.is_file():
        pytest.skip("the networks are not drawn yet")
    networks = {item.digest: item for item in read_networks()}
    assert len(networks) >= 90 and len({item.band_ms for item in networks.values()}) == 3
    assert sum(item.shared for item in networks.values()) == 36
    assert sum(item.repeated for item in networks.values()) == 5
    assert {item.space for item in networks.values()} == {"tinynas_k1kx", "tinynas_kxkx", "giraffe", "gelan", "c3k2"}
    if TABLE.is_file():
        for run in load():
            assert run.digest in networks and networks[run.digest].spec == run.spec
            assert json.dumps(run.scores) and len(run.curve) == run.epochs // 2 and run.curve[-1][0] == run.epochs
