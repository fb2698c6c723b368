from __future__ import annotations

import random
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.official_problems import PROBLEMS
from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.frame import Frame
from nas.scorers.counts import PARAMS, LevelBalance
from nas.scorers.deepmad import DeepMad
from nas.scorers.entropy import Entropy
from nas.scorers.formula import Formula
from nas.scorers.residual import ResidualEntropy
from nas.searchers.exact.labels import LabelSearch
from nas.searchers.exact.parts import chain_of
from nas.searchers.exact.search import exact_search
from nas.searchers.problem import Objective
from nas.searchers.problem.vectorized import GeneProblem
from search_spaces.tinynas import SPACES, TinyNASSpace

TABLE = LatencyTable.load("t4_tensorrt_fp16")
RATIOS = ("k1dwk1", "k1dwsek1")


def small_space(seed: int) -> TinyNASSpace:
    """A random space of a few tens of thousands of members."""
    rng = random.Random(seed)
    kind = ("k1kx", "kxkx", "k1kxk1", "k1dwk1", "k1kx")[seed % 5]
    base = SPACES[f"tinynas_{kind}"]
    step = rng.choice((16, 32))
    lows = [32, 64, rng.choice((64, 96)), 128, rng.choice((160, 192))]
    ratio = 1.5 if kind in RATIOS else 0.5
    return replace(
        base,
        name=f"small{seed}",
        channels=tuple((low, low + step) for low in lows),
        step=step,
        stem_channels=(16 if step == 16 else 32, 32),
        start_stem=32,
        start=tuple((low, max(round(low * ratio / step), 1) * step) for low in lows),
        bottleneck=(0.5, rng.choice((0.7, 0.8))),
        ratios=(1.5, 2.0) if kind in RATIOS else (),
        kernels=(3,),
        depths=(1, 2, 1, 2, 2),
        max_layers=24,
    )


@cache
def members(seed: int) -> np.ndarray:
    """Every member of a small space as genes, by recursion over its limits."""
    space = small_space(seed)
    rows: list[list[int]] = [[width] for width in space.stem_widths()]
    for index in range(5):
        longer = []
        for row in rows:
            before = row[-4] if index else row[0]
            low, high = space.width_interval(index, before, None)
            for out in range(low, high + 1, space.step):
                for mid, kernel in product(space.bottlenecks(out), space.block_kernels(index)):
                    longer += [[*row, out, mid, kernel, depth] for depth in range(1, space.depths[index] + 1)]
        rows = longer
    units = (space.max_layers - 1) // space.unit_layers
    genes = np.array(rows)
    return genes[genes[:, 4::4].sum(axis=1) <= units]


def problem_of(seed: int, limits: dict[str, Any], frame: Frame | None = None, formula=None) -> GeneProblem:  # type: ignore[no-untyped-def]
    budget = Budget.of(limits)
    return GeneProblem(small_space(seed), Objective(formula or Entropy(), TABLE, frame, limited=budget.metrics), budget)


def brute_force(problem: GeneProblem, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and budgeted metrics of all members inside the budget."""
    evaluation = problem.evaluate(members(seed))
    costs = evaluation.metrics[:, [problem.metrics.index(metric) for metric in problem.budget.metrics]]
    _, low, high = zip(*problem.budget.ranges, strict=True)
    inside = ((costs <= high) & (costs >= low)).all(axis=1)
    return evaluation.score[inside], costs[inside]


@pytest.mark.parametrize("seed", range(5))
def test_equals_brute_force_on_random_spaces(seed: int) -> None:
    genes = members(seed)
    assert len(genes) == small_space(seed).size()
    frame = Frame() if seed % 2 == 0 else None
    free = problem_of(seed, {"latency_ms": 100.0}, frame).evaluate(genes).metrics
    rng = np.random.default_rng(seed)
    quantile = {name: float(np.quantile(free[:, i], rng.uniform(0.1, 0.6))) for i, name in enumerate(
        ("latency_ms", "params_m", "flops_g", "activations_m"))}  # fmt: skip
    for names in (
        ("latency_ms",),
        ("params_m",),
        ("latency_ms", "flops_g"),
        ("latency_ms", "params_m", "activations_m"),
    ):
        layers = {"layers": float(rng.choice([13, 15, 17]))} if seed in (0, 3) else {}
        problem = problem_of(seed, {name: quantile[name] for name in names} | layers, frame)
        scores, costs = brute_force(problem, seed)
        result = exact_search(problem, levels=6, near=4)
        if len(scores) == 0:
            assert result.best is None
            continue
        assert result.best is not None and result.certificate is not None
        assert result.best.score == pytest.approx(scores.max(), abs=1e-6)
        assert result.certificate.upper >= scores.max() - 1e-9 and result.certificate.gap <= 0.05
        assert result.certificate.architectures == len(genes)
        columns = [name for name in problem.budget.metrics]
        for candidate in result.front if len(problem.budget.limits) == 1 else result.front[:1]:
            point = np.array([candidate.metrics[name] for name in columns])
            assert not ((costs <= point).all(axis=1) & (scores > candidate.score + 1e-5)).any()
        for candidate in result.near:
            assert candidate.score >= 0.99 * scores.max() and problem.budget.admits(candidate.metrics)


def test_impossible_limits_give_no_network() -> None:
    result = exact_search(problem_of(0, {"latency_ms": 0.01}))
    assert result.best is None and result.front == [] and result.certificate is None


def test_layers_alone_are_a_budget() -> None:
    problem = problem_of(1, {"layers": 15.0}, Frame())
    scores, _ = brute_force(problem, 1)
    result = exact_search(problem)
    assert result.best is not None and result.best.score == pytest.approx(scores.max(), abs=1e-6)
    assert [c.metrics["layers"] for c in result.front] == [15.0, 13.0, 11.0]


@pytest.mark.parametrize(
    ("seed", "formula"),
    [(2, PARAMS), (0, LevelBalance()), (3, LevelBalance()), (0, ResidualEntropy()), (1, ResidualEntropy())],
)
def test_any_sum_over_blocks_can_be_the_score(seed: int, formula: Formula) -> None:
    every = problem_of(seed, {"latency_ms": 100.0}, Frame()).evaluate(members(seed)).metrics[:, 0]
    problem = problem_of(seed, {"latency_ms": float(np.quantile(every, 0.4))}, Frame(), formula)
    scores, _ = brute_force(problem, seed)
    result = exact_search(problem, levels=3)
    assert 100 < len(scores) < len(members(seed))
    assert result.best is not None and result.best.score == pytest.approx(scores.max(), abs=1e-6)
    direct = formula.score(Frame().detector(result.best.spec))  # type: ignore[arg-type]
    assert result.best.score == pytest.approx(direct, rel=1e-11)


def test_a_score_that_is_no_sum_is_refused() -> None:
    with pytest.raises(UserError, match="sum over blocks"):
        exact_search(problem_of(2, {"latency_ms": 2.0}, None, DeepMad()))
    with pytest.raises(UserError, match="rho"):
        exact_search(problem_of(2, {"rho": 0.3}))


def test_a_space_that_is_too_wide_is_refused_where_groups_of_widths_are_no_help() -> None:
    space = SPACES["tinynas_k1kxk1"]
    measured = LatencyTable.load("cpu_onnxruntime_fp32_1thread")  # may fall with widths
    problem = GeneProblem(space, Objective(Entropy(), measured), Budget.of({"latency_ms": 10.0}))
    with pytest.raises(UserError, match="narrow its channels"):
        exact_search(problem)


def test_a_count_is_no_more_than_its_own_limit() -> None:
    """Many networks come to nearly ten million parameters: a search that ends early knows that none comes to more."""
    problem = GeneProblem(SPACES["tinynas_k1kx"], Objective(PARAMS, TABLE), Budget.of({"params_m": 10.0}))
    found = exact_search(problem, levels=1, near=0, steps=1_000_000)
    assert found.unproven and found.upper == 10.0 and found.certificate is None


def test_too_many_networks_near_their_own_limit_end_the_search_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finer or wider looks would not tell them apart either; the best that is known stays, below the limit as its bound."""
    monkeypatch.setattr("nas.searchers.exact.optimum.LabelSearch", partial(LabelSearch, most=1_000))
    problem = GeneProblem(SPACES["tinynas_kxkx"], Objective(PARAMS, TABLE), Budget.of({"params_m": 10.0}))
    start = problem.encode([problem.space.initial()])
    found = exact_search(problem, levels=1, near=0, bins=16, start=start)
    assert found.unproven.startswith("networks that nearly use up what is both score and limit are too many")
    assert found.best is not None and found.best.score < found.upper == 10.0


def test_equals_integer_programming() -> None:
    """The same choice as a flow of binary variables through the widths, solved by scipy's branch and bound."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import lil_matrix

    problem = problem_of(1, {"latency_ms": 1.4, "flops_g": 13.0, "layers": 15.0})
    parts = chain_of(problem)
    behind_cost, behind_score = parts.behind_costs, parts.behind_score
    sizes = [len(options) for options in parts.options]
    first = np.concatenate([[0], np.cumsum(sizes)])
    nodes = [(p, w) for p in range(len(sizes)) for w in range(len(parts.widths[p]))]
    score = np.concatenate([options.score for options in parts.options])
    score[first[-2] :] += behind_score[parts.options[-1].after]
    flow = lil_matrix((len(nodes), first[-1]))
    for row, (p, width) in enumerate(nodes):
        flow[row, first[p] + np.flatnonzero(parts.options[p].after == width)] = 1
        if p + 1 < len(sizes):
            flow[row, first[p + 1] + np.flatnonzero(parts.options[p + 1].before == width)] = -1
    inner = np.array([p + 1 < len(sizes) for p, _ in nodes])
    matrix = flow.tocsr()
    start = np.zeros(first[-1])
    start[: sizes[0]] = 1
    costs = np.concatenate([options.costs for options in parts.options])
    costs[first[-2] :] += behind_cost[parts.options[-1].after]
    units = np.concatenate([options.units for options in parts.options])
    result = milp(
        -score,
        integrality=np.ones(len(score)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(matrix[inner], 0, 0),
            LinearConstraint(start[None], 1, 1),
            LinearConstraint(costs.T, -np.inf, np.ones(len(parts.limits))),
            LinearConstraint(units[None], 0, parts.units),
        ],
        options={"mip_rel_gap": 0.0},
    )
    exact = exact_search(problem, levels=2)
    assert result.success and exact.best is not None
    assert exact.best.score == pytest.approx(-result.fun, abs=1e-5)


def test_the_default_space_is_solved_with_its_detector() -> None:
    space = replace(SPACES["tinynas_k1kx"], step=32, stem_channels=(32, 32), start_stem=32,
                    channels=((32, 128), (64, 128), (64, 256), (128, 256), (256, 512)))  # fmt: skip
    problem = GeneProblem(space, Objective(Entropy(), TABLE, Frame()), Budget.of({"latency_ms": 3.0}))
    result = exact_search(problem, levels=8)
    assert result.best is not None and result.certificate is not None and result.certificate.gap < 1e-4
    space.check(result.best.spec)  # type: ignore[arg-type]
    assert 2.8 <= result.best.metrics["latency_ms"] <= 3.0
    shapes = {tuple(block.depth for block in c.spec.blocks) for c in result.near}  # type: ignore[union-attr]
    assert len(shapes) >= 3 and result.certificate.gap_of(result.best.score - 2) == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize(("name", "least"), [("tiny", 1040.22), ("small", 1400.19), ("medium", 2332.2)])
def test_the_official_problems_are_solved(name: str, least: float, shared: Path) -> None:
    problem = PROBLEMS[name].build(LatencyTable.load(shared / "data/latency/v100_fp16_damoyolo.txt"))
    result = exact_search(problem, levels=2, near=2)
    assert result.best is not None and result.certificate is not None
    assert result.best.score >= least and result.certificate.gap <= 0.05
    assert problem.budget.admits(problem.objective.evaluate(result.best.spec))


def test_exact_is_a_searcher_like_the_others() -> None:
    from nas.searchers.catalog import check_searcher, search_with

    problem = problem_of(0, {"latency_ms": 2.0}, Frame())
    outcome = search_with("exact", {"levels": 3, "near": 2}, problem, 1)
    assert outcome.best == outcome.front[0] and outcome.certificate is not None and outcome.exhausted
    assert len(outcome.history) == outcome.evaluated >= len(outcome.front)
    with pytest.raises(UserError, match="levels"):
        check_searcher("exact", {"population": 3})
