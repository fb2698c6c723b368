"""What no member of a space stays below: bounds hold for every draw, and only the impossible is refused."""

from __future__ import annotations

import random
from functools import cache

import pytest

import nas
from nas.cost.count import count_spec, peak_memory_mb
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.frame import Frame
from nas.searchers.limits import least_cost
from nas.searchers.problem import METRICS, Objective
from nas.searchers.run import check_possible
from nas.searchers.settings import SearchSettings
from search_spaces import find_space, space_names

FRAME = Frame(image_size=320)
TABLES = ("t4_tensorrt_fp16", "cpu_onnxruntime_fp32_1thread")
#: Not activations: a block as wide as its input has no projection, which may save more than the width costs.
COUNTS = ("params", "macs", "layers")


@cache
def table_of(name: str) -> LatencyTable:
    return LatencyTable.load(name)


@pytest.mark.parametrize("name", space_names())
def test_no_member_undercuts_the_smallest_in_parameters_work_or_layers(name: str) -> None:
    space, rng = find_space(name), random.Random(1)
    least = space.smallest()
    assert least is not None and space.violations(least) == []
    floor = count_spec(least, image_size=320)
    members = [space.initial(), *(space.sample(rng) for _ in range(20))]
    members += [
        space.mutate(member, rng, mode) for member in (*[least] * 8, *members[:6]) for mode in ("minor", "coarse")
    ]
    for member in members:
        counts = count_spec(member, image_size=320)
        assert all(getattr(counts, count) >= getattr(floor, count) for count in COUNTS)


@pytest.mark.parametrize("hardware", TABLES)
@pytest.mark.parametrize("name", space_names())
def test_no_member_costs_less_than_the_bound(name: str, hardware: str) -> None:
    table, rng, space = table_of(hardware), random.Random(2), find_space(name)
    framed = len(space.initial().out_blocks if hasattr(space.initial(), "out_blocks") else (0, 0, 0)) == 3  # type: ignore[attr-defined]
    frame = FRAME if framed and not name.startswith(("giraffe", "official")) else None
    space = space.in_frame(FRAME)
    bounds = {m: least_cost(m, space, frame, 320, table) for m in (*METRICS, "peak_memory_mb")}
    assert all(bounds[metric] > 0 for metric in bounds if metric != "rho")
    objective = Objective(None, table, frame, 320)
    members = [space.smallest(), space.initial(), *(space.sample(rng) for _ in range(12))]
    members += [space.mutate(members[0], rng) for _ in range(6)]
    for member in members:
        costs = objective.evaluate(member)
        costs["peak_memory_mb"] = peak_memory_mb(frame.detector(member) if frame else member, 320)
        for metric, bound in bounds.items():
            assert costs[metric] >= bound * (1 - 1e-9), (metric, bound, costs[metric])


def test_the_bound_of_a_plain_chain_is_what_its_smallest_member_costs() -> None:
    space, table = find_space("tinynas_k1kx"), table_of("t4_tensorrt_fp16")
    spec = Frame().detector(space.smallest())
    counts = nas.count(spec)
    assert least_cost("layers", space, Frame(), 640) == counts.layers
    assert least_cost("flops_g", space, Frame(), 640) == pytest.approx(counts.flops / 1e9, rel=0.05)
    assert least_cost("latency_ms", space, Frame(), 640, table) == pytest.approx(nas.latency(spec).ms, rel=0.05)


def test_gelan_begins_at_58_336_parameters() -> None:
    assert nas.count(find_space("gelan").smallest()).params == 58_336


def test_rho_falls_with_width_and_is_no_reason_to_refuse_a_narrow_space() -> None:
    found = nas.find({"rho": 0.3, "latency_ms": 4}, "tinynas_k1kxk1", scorer="deepmad", searcher="evolution",
                     searcher_options={"population": 64}, evaluations=1500)  # fmt: skip
    assert found.best.metrics["rho"] <= 0.3
    smallest = nas.count(find_space("tinynas_k1kxk1").smallest()).rho
    assert smallest > 0.45, "the smallest member is beyond the limit, and half as much again"


@pytest.mark.parametrize(
    ("limits", "space"),
    [
        ({"rho": 0.03}, "tinynas_k1kxk1"),
        ({"layers": 9}, "tinynas_k1kx"),
        ({"latency_ms": 0.3}, "gelan"),
        ({"params_m": 0.05}, "c3k2"),
        ({"peak_memory_mb": 0.5}, "giraffe"),
    ],
)
def test_the_impossible_is_refused_before_the_search(limits: dict[str, float], space: str) -> None:
    settings = SearchSettings.of(limits, space)
    with pytest.raises(
        UserError, match=r"impossible budget: .* but no network of space .* has less than .*; loosen it"
    ) as caught:
        check_possible(settings, table_of(settings.hardware))
    assert ("neck" in str(caught.value)) == (space != "giraffe" and not {"rho", "layers"} & set(limits))
