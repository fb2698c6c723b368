"""Groups of widths: bounds that hold at every halving, optima that every member confirms, and real spaces of 1e26 members."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from experiments.exact_search import brute_force
from experiments.exact_search.brute_force import check_space
from experiments.exact_search.cell import PROVED, problem_of, prove
from experiments.exact_search.small_spaces import members, small_space
from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.cost.table_file import DEFAULT_TABLE
from nas.searchers.catalog import make_problem
from nas.searchers.exact import groups as module
from nas.searchers.exact.effort import Effort
from nas.searchers.exact.grids import Axis
from nas.searchers.exact.groups import Groups, groups_of
from nas.searchers.exact.search import exact_search
from nas.searchers.problem.vectorized import GeneProblem
from search_spaces import find_space

FAMILIES = ("tinynas_k1kx", "tinynas_kxkx", "official_r50", "official_mbv2", "official_29m_224", "tinynas_k1dwk1")


def small_problem(name: str, seed: int, score: str, limit: str, share: float) -> tuple[GeneProblem, float]:
    """A random part of a space with one limit at a share of its members' costs, and its best score by looking at all."""
    space, table = small_space(name, Random(f"{name} {seed}")), LatencyTable.load(DEFAULT_TABLE)
    free = make_problem(space, Budget.of({limit: 1e9}), score, {}, table, None, 320)
    every = free.evaluate(members(space, free))
    costs = every.metrics[:, free.metrics.index(limit)]
    most = float(np.quantile(costs, share, method="lower"))
    problem = make_problem(space, Budget.of({limit: most}), score, {}, table, None, 320)
    assert isinstance(problem, GeneProblem)
    return problem, float(every.score[costs <= most].max())


@pytest.mark.parametrize("name", FAMILIES)
def test_groups_and_brute_force_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges, parts of the network, several limits, with and without neck and head."""
    monkeypatch.setattr(module, "_MOST_BLOCKS", 0)
    row = check_space(name, 1, seed=2, problems=6)
    assert row["wrong"] == 0 and row["unproved"] == 0, row["cases"]


@pytest.mark.parametrize("name", ["tinynas_k1kx", "tinynas_kxkx", "official_r50", "official_29m_224"])
@pytest.mark.parametrize("score", ["effective_rank", "mae_neck"])
def test_groups_under_planes_and_brute_force_agree(name: str, score: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BLOCKS", 0)
    monkeypatch.setattr(brute_force, "SCORES", (score,))
    row = check_space(name, 2, seed=2, problems=6)
    assert row["wrong"] == 0 and row["unproved"] == 0, row["cases"]


@pytest.mark.parametrize(
    ("name", "score", "limit"),
    [
        (name, score, limit)
        for name in FAMILIES
        for score, limit in (("mae", "latency_ms"), ("level_balance", "params_m"), ("params", "flops_g"))
    ]
    + [(name, "effective_rank", "latency_ms") for name in ("tinynas_k1kx", "official_r50", "tinynas_k1dwk1")],
)
def test_every_halving_has_a_bound(name: str, score: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, best = small_problem(name, 3, score, limit, 0.6)
    uppers: list[float] = []
    halve = Groups._halve

    def told(groups: Groups) -> None:
        uppers.append(groups.upper)
        halve(groups)

    monkeypatch.setattr(Groups, "_halve", told)
    groups = Groups(problem, Effort(), np.zeros((0, problem.width), dtype=np.int64))
    groups.solve()
    slack = 1e-9 * max(abs(best), 1.0)
    assert all(upper >= best - slack for upper in (*uppers, groups.upper))
    assert uppers == sorted(uppers, reverse=True) and groups.lower <= best + slack
    monkeypatch.setattr(module, "_MOST_BLOCKS", 0)
    found = exact_search(problem, levels=1, near=0)
    assert found.certificate is not None and found.best is not None
    assert found.best.score == pytest.approx(best, rel=1e-9) and found.upper >= best - slack


def test_boxes_that_are_too_many_leave_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BLOCKS", 0)
    monkeypatch.setattr(module, "MOST_BOXES", 1)
    for seed in range(6):
        problem, best = small_problem("official_r50", seed, "mae", "flops_g", 0.5)
        found = exact_search(problem, levels=1, near=0)
        assert found.upper >= best - 1e-9 * best
        assert found.best is None or found.best.score <= best * (1 + 1e-9)
        assert found.certificate is None or found.best is not None and found.best.score == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize(("name", "score"), [("tinynas_k1kx", "mae_residual"), ("official_r50", "effective_rank"),
                                             ("tinynas_k1dwsek1", "mae"), ("official_mbv2", "level_balance")])  # fmt: skip
def test_costs_and_amounts_between_corners_lie_between_theirs(name: str, score: str) -> None:
    """What `monotone` says: of random boxes and random blocks in them, whose input and output widths differ."""
    limits = Budget.of({"latency_ms": 1.0})
    problem = make_problem(find_space(name), limits, score, {}, LatencyTable.load(DEFAULT_TABLE), None, 320)
    assert isinstance(problem, GeneProblem) and problem.monotone
    rng = np.random.default_rng(0)
    for index in (1, 4):
        ins, mids, outs = problem.outs(index - 1), problem.mids(index), problem.outs(index)
        sizes = len(ins), len(mids), len(outs)
        # Low, inside, high of 40 boxes.
        ends = [np.sort(rng.integers(0, size, (3, 40)), axis=0) for size in sizes]
        variant = problem.variants(index)[rng.integers(0, len(problem.variants(index)), 40)]
        differ = [np.array(ins)[ends[0][row]] != np.array(outs)[ends[2][row]] for row in range(3)]
        keep = np.logical_and.reduce(differ)
        low, inside, high = (
            problem.block_vectors(index, variant[:, 0], *(end[row] for end in ends), variant[:, 1])[keep]
            for row in range(3)
        )
        columns = [column for column in range(low.shape[1]) if column != 5]  # the logarithm that rho needs is no cost
        least, most = np.minimum(low, high)[:, columns], np.maximum(low, high)[:, columns]
        slack = 1e-9 * np.abs(most) + 1e-12
        assert (least - slack <= inside[:, columns]).all() and (inside[:, columns] <= most + slack).all()


def test_halved_groups_hold_every_width_once() -> None:
    axis = Axis.of(np.array([8, 16, 24, 64, 512, 520]))
    while not axis.single:
        halved, first = axis.halved()
        assert (halved.low[first] == axis.low).all()
        assert [n for a, b in zip(halved.low, halved.high, strict=True) for n in range(a, b + 1)] == list(range(6))
        axis = halved


def test_only_what_is_monotone_and_too_fine_is_grouped() -> None:
    nothing, limits = np.zeros((0, 21), dtype=np.int64), Budget.of({"latency_ms": 3.0})
    t4, cpu = (LatencyTable.load(name) for name in (DEFAULT_TABLE, "cpu_onnxruntime_fp32_1thread"))

    def grouped(space: str, score: str, table: LatencyTable) -> bool:
        problem = make_problem(find_space(space), limits, score, {}, table, None, 640)
        assert isinstance(problem, GeneProblem)
        return groups_of(problem, Effort(), nothing) is not None

    assert grouped("tinynas_k1kxk1", "mae", t4) and not grouped("tinynas_k1kx", "mae", t4)
    assert not grouped("tinynas_k1kxk1", "mae", cpu)  # measured milliseconds may fall with widths
    assert grouped("tinynas_k1kxk1", "effective_rank", t4)  # under planes


@pytest.mark.parametrize(
    ("space", "score", "budget", "best"),
    [
        ("tinynas_k1kxk1", "mae_residual", "layers_25", 204.228417),  # 1.8e26 networks
        pytest.param("official_r50", "params", "latency_2ms", 16.825204, marks=pytest.mark.slow),  # 1.2e28
        ("tinynas_k1kxk1", "effective_rank", "latency_3ms", 7.112308751),
        pytest.param("official_50m", "mae_neck", "latency_7ms", 4656.259823445, marks=pytest.mark.slow),
        pytest.param("official_r50", "mae", "flops_10g", 10086.662304, marks=pytest.mark.slow),
    ],
)
def test_whole_detectors_of_the_finest_spaces_are_proved(space: str, score: str, budget: str, best: float) -> None:
    found = prove(problem_of(space, score, budget))
    assert found.state == PROVED and found.value == pytest.approx(best, rel=1e-8)
    assert found.bound is not None and found.bound <= best * (1 + 1e-7)
