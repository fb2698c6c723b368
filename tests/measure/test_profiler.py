"""Planning, fitting, resuming and validating, on a device whose law is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from nas.cost.kernel_model import Hardware, KernelModel, Parameters
from nas.cost.latency import LatencyTable
from nas.cost.measured_table import Kernels, Row
from nas.cost.postprocess import FinalRows, PostProcess, Suppression
from nas.cost.table_file import read_table
from nas.errors import UserError
from nas.frame import Frame, NeckOptions
from nas.lowering import operations
from nas.measure import open_runtime
from nas.measure.fit import fit_line
from nas.measure.measurement import Measurement, merge_rows, spread, time_repeated, typical
from nas.measure.profiler import ProfileSettings, informative_order, kernels_of, measure_table, random_detectors
from nas.measure.validate import Validation, validate_table
from nas.options import check_fields
from nas.profile import next_commands
from nas.spec import DetectorSpec
from search_spaces import find_space

LAW = KernelModel(Parameters(0.08, 4, 1.1, 9, 0.5, 4, 0.1, 1, 1, 2.5, 0), Hardware(1, 4, 4))


class Desk:
    """A device that takes what LAW says, with a little noise, and 3 ms for every network."""

    name, precision, batch = "desk", "fp32", 1
    kernels, hardware = Kernels(16, ("none", "relu"), True), Hardware(1, 4, 4)

    def __init__(self, tells_kernels: bool = True, fail_after: int | None = None) -> None:
        self.tells_kernels, self.fail_after, self.timed = tells_kernels, fail_after, 0
        self.rng = np.random.default_rng(0)

    def provenance(self) -> dict[str, Any]:
        return {"date": "2026-01-01", "threads": 1}

    def device(self) -> str:
        return "a desk"

    def after_network(self, repetitions: int) -> PostProcess:
        return PostProcess(Suppression((30,), (80,), ((2.5,),), 0.0), FinalRows(0.1, 0.0), 8, 0.0)

    def measure(self, spec: DetectorSpec, repetitions: int, kernels: bool = True) -> Measurement:
        if self.fail_after is not None and self.timed >= self.fail_after:
            raise KeyboardInterrupt
        self.timed += 1
        parts = [kernel for op in operations(spec, "folded") for kernel in self.kernels.of(op)]
        times = [price.ms * (1 + 0.02 * self.rng.normal()) for price in LAW.price_many(parts)]
        rows = merge_rows([(part, [ms]) for part, ms in zip(parts, times, strict=True)])
        return Measurement(spec, 3.0 + sum(times), 1.0, rows if kernels and self.tells_kernels else ())


def small(folder: Path, **more: Any) -> ProfileSettings:
    more = {"space": {"name": "tinynas_k1kx"}} | more
    return ProfileSettings("desk", folder, networks=12, validation_networks=20, **more)


def silent(line: str) -> None:
    """Progress of no interest."""


def test_a_measured_table_predicts_networks_that_it_has_not_seen(tmp_path: Path) -> None:
    settings = small(tmp_path)
    path = measure_table(settings, silent, Desk())
    header, body = read_table(path)
    assert header.kind == "measured" and header.provenance["networks"] == 12 and len(body["rows"]) > 200
    result = validate_table(settings, path, silent, Desk())
    after = LatencyTable.load(path)  # kept by the validation, which writes the file anew
    assert after.after_ms(80, False, 640) == pytest.approx(2.5) and after.after_ms(80, True, 640) == 0.1
    assert result.mape_percent < 2 and result.spearman > 0.99 and result.within_5_percent == 100
    assert LatencyTable.load(path).header.error_percent == result.mape_percent
    assert (tmp_path / "desk_validation.png").stat().st_size > 10_000
    assert len((tmp_path / "desk_validation.csv").read_text().splitlines()) == 21


def test_a_runtime_that_tells_no_kernels_gets_a_calibrated_model(tmp_path: Path) -> None:
    settings = small(tmp_path, mode="quick")
    path = measure_table(settings, silent, Desk(tells_kernels=False))
    assert read_table(path)[0].kind == "kernel_model"
    assert validate_table(settings, path, silent, Desk()).mape_percent < 10


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    settings = small(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        measure_table(settings, silent, Desk(fail_after=5))
    stored = tmp_path / "measurements.jsonl"
    assert len(stored.read_text().splitlines()) == 5
    stored.write_text(stored.read_text() + '{"spec": {"torn')
    desk = Desk()
    measure_table(settings, silent, desk)
    assert desk.timed == 7
    specs = [json.dumps(json.loads(line)["spec"]) for line in stored.read_text().splitlines()]
    assert len(specs) == len(set(specs)) == 12


def test_another_device_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    settings = small(tmp_path)
    path = measure_table(settings, silent, Desk())
    other = Desk()
    other.precision = "int8"  # type: ignore[misc]
    with pytest.raises(UserError, match="precision 'fp32', not 'int8'"):
        measure_table(settings, silent, other)
    with pytest.raises(UserError, match="precision fp32, not int8"):
        validate_table(settings, path, silent, other)


def test_a_table_gets_the_networks_that_it_needs_whatever_the_time(tmp_path: Path) -> None:
    told: list[str] = []
    measure_table(small(tmp_path, time_limit_s=1e-6), told.append, Desk())
    assert any("4 networks" in line for line in told)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "fast"}, "mode must be"),
        ({"networks": 1}, "networks must be a whole number from 4"),
        ({"time_limit_s": 0.0}, "time_limit_s must be a number above 0"),
        ({"hardware": "../x"}, "hardware must be a file name"),
        ({"space": {"name": "nowhere"}}, "nowhere"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure_table(replace(small(tmp_path), **change), silent, Desk())
    with pytest.raises(UserError, match="runtime must be one of"):
        open_runtime("abacus")


def test_a_space_of_detectors_takes_head_and_image_size_of_the_frame(tmp_path: Path) -> None:
    settings = small(tmp_path, space={"name": "giraffe"}, neck=NeckOptions(num_classes=3), image_size=320)
    for spec in (spec for group in settings.random_detectors(4, 0) for spec in group):
        assert spec.image_size == 320 and spec.head.num_classes == 3


def test_the_plan_begins_with_what_covers_most() -> None:

    space = find_space("tinynas_k1kx")
    pool = random_detectors(space, Frame(), 30, seed=1)
    assert pool == random_detectors(space, Frame(), 30, seed=1)
    order = informative_order(pool, Desk.kernels)
    assert sorted(map(id, order)) == sorted(map(id, pool))

    def covered(specs: list[DetectorSpec]) -> int:
        return len(set().union(*(kernels_of(spec, Desk.kernels) for spec in specs)))

    assert covered(order[:8]) > covered(pool[:8])
    assert not set(map(id, pool)) & set(map(id, random_detectors(space, Frame(), 5, seed=2)))


def test_statistics() -> None:
    assert typical([5.0, 1.0, 9.0, 1.2]) == pytest.approx(1.1)
    assert spread([1.0, 1.0, 1.0]) == 0 and spread([2.0]) == 0
    sums = np.linspace(1.0, 9.0, 400)
    offset, factor = fit_line(sums.tolist(), (2.0 + 1.5 * sums).tolist())
    assert (offset, factor) == (pytest.approx(2.0, rel=0.05), pytest.approx(1.5, rel=0.05))
    assert fit_line([1.0, 2.0, 4.0], [3.5, 5.0, 8.0])[0] < 2.0  # three networks are little evidence for an offset
    assert fit_line([1.0, 2.0], [1.0, 3.0])[0] == 0.0
    ticks = iter(range(100))
    ms, _ = time_repeated(lambda: None, 6, clock=lambda: float(next(ticks)), warm_up=0, pause=0.0)
    assert ms == 1000.0
    result = Validation.of([1.0, 2.0, 3.3], [1.0, 2.0, 3.0])
    assert (result.mape_percent, result.within_5_percent, result.spearman) == (3.33, 66.7, 1.0)
    row = merge_rows(
        [(Desk.kernels.key(operations_sample()), [1.0, 3.0]), (Desk.kernels.key(operations_sample()), [2.0])]
    )
    assert [type(one) for one in row] == [Row] and row[0].ms == 1.5


def test_a_table_of_several_sizes_holds_for_all_between(tmp_path: Path) -> None:
    settings = small(tmp_path, image_size=(160, 640))
    path = measure_table(settings, silent, Desk())
    header, _ = read_table(path)
    assert (header.image_sizes, header.map_sizes, header.processor) == ((160, 640), (5, 320), "a desk")
    spec = Frame(image_size=320).detector(find_space("tinynas_k1kx").initial())
    law = sum(p.ms for op in operations(spec, "folded") for p in LAW.price_many(Desk.kernels.of(op)))
    assert float(LatencyTable.load(path).total(operations(spec, "folded"))) == pytest.approx(3 + law, rel=0.05)
    result = validate_table(replace(settings, image_size=None), path, silent, Desk())
    validation = read_table(path)[0].validation
    assert result.mape_percent < 3 and set(validation["mape_percent_by_image_size"]) == {"160", "640"}


def test_a_size_is_added_to_a_table_later(tmp_path: Path) -> None:
    measure_table(small(tmp_path, image_size=(160,)), silent, Desk())
    path = measure_table(small(tmp_path, image_size=(320,)), silent, Desk())
    header, _ = read_table(path)
    assert (header.image_sizes, header.map_sizes, header.provenance["networks"]) == ((160, 320), (5, 160), 24)


def test_the_next_commands_carry_what_the_table_was_made_with(tmp_path: Path) -> None:
    path = measure_table(small(tmp_path, image_size=(160,)), silent, Desk())
    stored = [json.loads(line)["ms"] for line in (tmp_path / "measurements.jsonl").read_text().splitlines()]
    overrides = ["hardware=desk", "mode=quick", "image_size=160", "threads=2", "space=tinynas_kxkx", "neck.out=[8,8,8]"]
    validate, search = next_commands(path, overrides)
    assert validate == (
        "validate it:  python -m nas.profile hardware=desk image_size=160 threads=2 space=tinynas_kxkx "
        "'neck.out=[8,8,8]' mode=validate"
    )
    limit = float(f"{np.median(stored):.3g}")
    assert search == (
        f"search with it:  python -m nas.search +budget.mine.latency_ms={limit:g} hardware={path} image_size=160 "
        "space=tinynas_kxkx 'neck.out=[8,8,8]'"
    )


@pytest.mark.parametrize(
    ("given", "mode", "sides"),
    [(None, "measure", ()), (None, "validate", ()), (160, "quick", (160,)), ([160, 640], "validate", (160, 640))],
)
def test_image_sizes_of_the_command(given: Any, mode: str, sides: tuple[int, ...]) -> None:
    values = {"hardware": "desk", "output": "x", "space": {"name": "gelan"}, "image_size": given, "mode": mode}
    assert ProfileSettings(**check_fields(ProfileSettings, values)).image_sizes == sides
    for wrong in (0, 100, [], [320, -1], "large"):
        with pytest.raises(UserError, match="image_size"):
            check_fields(ProfileSettings, values | {"image_size": wrong})


def operations_sample() -> Any:
    from nas.blocks.operation import Operation

    return Operation("conv", 16, 16, 8, 8, 8, 8, 3)


@pytest.mark.slow
def test_what_is_timed_is_what_is_exported(tmp_path: Path) -> None:
    from nas.deploy import ExportSettings
    from nas.deploy.export import export_model
    from nas.measure.measurement import build_subject, subject_graph

    backbone = find_space("tinynas_k1kx").smallest()
    spec = Frame(depth=1, out=(16, 16, 16), num_classes=3, image_size=64).detector(backbone)
    exported = export_model(build_subject(spec), tmp_path / "model", ExportSettings(batch=1)).path
    timed = subject_graph(spec, batch=1)
    assert timed.graph == onnx.load(exported).graph
