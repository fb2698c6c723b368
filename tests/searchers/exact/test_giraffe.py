"""Exact search of backbone and neck together: equal to brute force, whatever prices the necks, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest

from experiments.exact_search.small_spaces import members, small_space
from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.frame import Frame
from nas.searchers.base import Evaluation, admitted
from nas.searchers.catalog import make_problem, search_with
from nas.searchers.exact import proof
from nas.searchers.exact.lagrange import exact_search_of
from nas.searchers.exact.proof import chain_problem, search_exactly
from nas.searchers.problem import Objective
from nas.searchers.problem.cheapest_neck import Choices, Necks
from nas.searchers.problem.giraffe_chain import GiraffeProblem
from nas.searchers.problem.specs import SpecProblem
from nas.spec import DetectorSpec
from search_spaces import find_space
from search_spaces.giraffe import GiraffeSpace
from search_spaces.tinynas import TinyNASSpace

TABLE = LatencyTable.load("t4_tensorrt_fp16")
SUMS = ("latency_ms", "params_m", "flops_g", "activations_m")


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The evolution before a proof looks at a few networks of such small spaces."""
    monkeypatch.setattr(proof, "_SLOW_WARM_UP", 64)


@cache
def space_of(seed: int) -> GiraffeSpace:
    """A random space of up to 2,500 detectors with several backbones and necks, in a frame of its own."""
    for turn in range(100):
        space = small_space("giraffe_light" if seed % 2 else "giraffe", Random(f"{seed} {turn}"))
        assert isinstance(space, GiraffeSpace)
        backbones = space.backbone.size()
        if backbones > 8 and space.size() // backbones > 8:
            return space.in_frame(Frame(extra_down=seed > 0, extra_up=seed == 1, num_classes=1 + 79 * (seed % 2)))
    raise AssertionError("no such space was drawn")


def problem_of(seed: int, limits: dict[str, Any], scorer: str = "mae") -> SpecProblem:
    space = space_of(seed)
    problem = make_problem(space, Budget.of(limits), scorer, {}, TABLE, space.frame, 640)
    assert isinstance(problem, SpecProblem)
    return problem


@cache
def every(seed: int, scorer: str) -> tuple[Evaluation, SpecProblem]:
    free = problem_of(seed, {"params_m": 1e6}, scorer)
    return free.evaluate(members(free.space, free)), free


@pytest.mark.parametrize(("seed", "scorer"), [(0, "mae"), (1, "level_balance"), (2, "effective_rank"), (1, "layers")])
def test_equals_brute_force_at_odd_limits(seed: int, scorer: str) -> None:
    evaluation, free = every(seed, scorer)
    column = {name: evaluation.metrics[:, free.metrics.index(name)] for name in free.metrics}

    def at(name: str, share: float, hair: float = 1.0) -> float:
        return float(np.quantile(column[name], share, method="lower")) * hair

    for limits in (
        {"latency_ms": at("latency_ms", 0.3)}, {"params_m": at("params_m", 0.02, 1 - 1e-15)},
        {"flops_g": at("flops_g", 0.1), "params_m": at("params_m", 0.2), "layers": at("layers", 0.5)},
        {"activations_m": [at("activations_m", 0.9), None]},
    ):  # fmt: skip
        problem = problem_of(seed, limits, scorer)
        inside = admitted(problem.budget, free.metrics, evaluation)
        found = search_exactly(problem, levels=3, near=2)
        assert found.best is not None and found.certificate is not None and not found.unproven
        best, spec = evaluation.score[inside].max(), found.best.spec
        assert found.best.score == pytest.approx(best, abs=1e-6) and found.certificate.upper >= best - 1e-9
        assert found.certificate.architectures == len(evaluation) == problem.space.size()
        assert isinstance(spec, DetectorSpec) and problem.space.contains(spec)
        again = problem.evaluate(problem.encode([spec]))
        assert again.score[0] == found.best.score and admitted(problem.budget, problem.metrics, again).all()
        assert [found.best.metrics[name] for name in problem.metrics] == again.metrics[0].tolist()


@pytest.mark.parametrize("scorer", ["mae", "mae_neck", "params"])
def test_nothing_fits_is_proved(scorer: str) -> None:
    assert search_exactly(problem_of(0, {"params_m": 0.01}, scorer)).impossible


@pytest.mark.parametrize(
    ("seed", "scorer"), [(0, "mae_neck"), (1, "mae_neck"), (2, "mae_neck"), (1, "params"), (2, "macs")]
)
def test_scores_that_see_the_neck_are_bounded(seed: int, scorer: str) -> None:
    """No member scores more than the bound, what is found is a member, and without a price it is the best of all."""
    evaluation, free = every(seed, scorer)
    column = {name: evaluation.metrics[:, free.metrics.index(name)] for name in free.metrics}
    gaps = []
    for limits in (
        *(
            {"latency_ms": float(np.quantile(column["latency_ms"], share, method="lower"))}
            for share in (0.05, 0.3, 0.7)
        ),
        {name: float(np.quantile(column[name], 0.4, method="lower")) for name in ("flops_g", "activations_m")},
        {
            "params_m": float(np.quantile(column["params_m"], 0.5, method="lower")),
            "layers": float(column["layers"].max()),
        },
        {"latency_ms": float(column["latency_ms"].max()) * 2},
        {"layers": float(column["layers"].max())},
    ):
        problem = problem_of(seed, limits, scorer)
        inside = admitted(problem.budget, free.metrics, evaluation)
        chain = chain_problem(problem)
        assert isinstance(chain, GiraffeProblem) and chain.weighs_necks
        bound, best = exact_search_of(chain)(chain).upper, float(evaluation.score[inside].max())
        found = search_exactly(problem)
        assert found.best is not None and found.best.score <= best * (1 + 1e-12) <= bound * (1 + 2e-12)
        assert problem.space.contains(found.best.spec) and problem.budget.admits(found.best.metrics)
        again = problem.evaluate(problem.encode([found.best.spec]))
        assert again.score[0] == found.best.score and bool(found.unproven) == (found.certificate is None)
        assert found.certificate is not None or f"scores more than {bound:.6f} (gap " in found.unproven
        gaps.append(1 - found.best.score / best)
        if inside.all():  # nothing has a price, or next to none
            assert found.best.score == pytest.approx(best, rel=2e-4) and bound == pytest.approx(best, rel=2e-4)
    assert np.median(gaps) < 0.1  # among a few necks the best one is often the best at no price


@pytest.mark.slow
def test_a_bound_by_prices_is_near() -> None:
    """Whole giraffe, 1.5e21 detectors: no detector within 3 ms scores more than a 3,000th above the one found."""
    space = find_space("giraffe")
    assert isinstance(space, GiraffeSpace)
    problem = make_problem(space, Budget.of({"latency_ms": 3.0}), "mae_neck", {}, TABLE, space.frame, 640)
    chain = chain_problem(problem)
    assert chain is not None
    found = exact_search_of(chain)(chain, bins=64)
    assert found.best is not None and 5450 < found.best.score < found.upper < found.best.score * (1 + 1 / 3000)
    assert "whose neck is the best at no price of the limits" in found.unproven


def test_a_search_that_is_stopped_or_late_keeps_its_bound() -> None:
    space = find_space("giraffe")
    assert isinstance(space, GiraffeSpace)
    chain = chain_problem(make_problem(space, Budget.of({"latency_ms": 3.0}), "params", {}, TABLE, space.frame, 640))
    assert chain is not None
    told: list[str] = []
    late = exact_search_of(chain)(chain, bins=4, steps=10_000_000, on_step=told.append)
    assert late.best is None and "the limit of 10,000,000 steps" in late.unproven and not late.interrupted
    told.clear()
    stopped = exact_search_of(chain)(
        chain, bins=4, on_step=told.append, stop=lambda: any("price of 1" in line for line in told)
    )
    assert stopped.interrupted and stopped.best is None and 27.1 <= stopped.upper < 40


def test_rows_are_detectors_with_the_cheapest_neck() -> None:
    evaluation, free = every(0, "mae")
    problem = problem_of(0, {"latency_ms": 1e3})
    chain = chain_problem(problem)
    assert isinstance(chain, GiraffeProblem) and chain.name == problem.space.name
    specs, latency = members(free.space, free), evaluation.metrics[:, free.metrics.index("latency_ms")]
    rows = chain.encode(specs.tolist())
    found = chain.evaluate(rows)
    assert np.array_equal(found.score, evaluation.score)
    for row in np.unique(rows, axis=0):
        same = (rows == row).all(axis=1)
        least = found.metrics[same, chain.metrics.index("latency_ms")]
        assert np.allclose(least, latency[same].min(), rtol=1e-12, atol=0)
        assert chain.encode([chain.spec(row)]).tolist() == [row.tolist()]


@pytest.mark.parametrize(
    "frame",
    [Frame(), Frame(extra_down=True), Frame(extra_up=True, depthwise=True), Frame(extra_down=True, extra_up=True),
     Frame(fusion="conv", head_stacked=1), Frame(fusion="csp", activation="silu")],
)  # fmt: skip
def test_the_cheapest_neck_is_so_whatever_the_prices(frame: Frame) -> None:
    """Weights of any sign, under which costs are as little monotone as those of any table."""
    usual = find_space("giraffe")
    assert isinstance(usual, GiraffeSpace)
    space = replace(
        usual, neck_depth=(0, 2), neck_channels=((32, 48), (40, 56), (32, 56)), hidden_ratios=(0.75, 0.5),
        start_neck=(32, 40, 40),
    ).in_frame(frame)  # fmt: skip
    objective, sizes = Objective(None, TABLE, frame, 640), ((80, 80), (40, 40), (20, 20))
    necks = Necks(space, objective, sizes)
    shapes = [(a, b, c) for a, b, c in product(*(range(len(w)) for w in necks.widths))
              if necks.widths[0][a] <= necks.widths[1][b] <= necks.widths[2][c]]  # fmt: skip
    choices = [Choices(np.array([d]), np.array([out]), np.array([ratio]))
               for d, out, ratio in product(range(3), shapes, product(range(2), repeat=3))]  # fmt: skip
    assert len({necks.spec(choice, 0) for choice in choices}) == len(choices)
    assert all(not space.violations(replace(space.initial(), neck=necks.spec(choice, 0))) for choice in choices[::50])
    together = Choices(*(np.concatenate([getattr(c, name) for c in choices]) for name in ("depth", "out", "ratio")))
    rng, pyramids = np.random.default_rng(0), np.array([[64, 128, 256], [72, 136, 256], [72, 128, 512]])
    scale = np.array([1, 1e6, 1e9, 1e6, 1, 1, 1.0])
    vectors = [necks.differences(np.tile(pyramid, (len(choices), 1)), together) for pyramid in pyramids]
    direct = [objective._closing_cost(necks.spec(c, 0), frame.head, (72, 136, 256), sizes) for c in choices[::37]]
    assert np.allclose(np.array(direct) - direct[0], (vectors[1] - vectors[1][0])[::37], rtol=1e-9, atol=1e-6)
    for weights in (scale**-1, -(scale**-1), *(rng.normal(size=(12, 7)) / scale)):
        found = necks.differences(pyramids, necks.cheapest(pyramids, weights, lambda steps, doing: None)) @ weights
        assert found == pytest.approx([float((v @ weights).min()) for v in vectors], rel=1e-9, abs=1e-12)


def test_the_default_searcher_proves_from_what_evolution_finds() -> None:
    limit = float(np.quantile(every(0, "mae")[0].metrics[:, 0], 0.3))
    problem = problem_of(0, {"latency_ms": limit})
    options = {"population": 8, "batch": 16}
    few, both = (search_with(name, options, problem, 32) for name in ("evolution", "auto"))
    exact = search_exactly(problem)
    assert few.best is not None and both.best is not None and exact.best is not None
    assert few.best.score <= both.best.score == pytest.approx(exact.best.score)
    assert both.certificate is not None and both.best.digest == both.front[0].digest and not both.unproven
    assert all(problem.space.contains(candidate.spec) for candidate in both.front)


def test_what_it_refuses_says_why() -> None:
    for scorer in ("params", "macs", "mae_neck"):
        with pytest.raises(
            UserError, match="under a score that sees the neck serves upper limits alone, not a least latency_ms"
        ):
            search_exactly(problem_of(0, {"latency_ms": [2.0, 9.0]}, scorer))
    with pytest.raises(UserError, match="deepmad is none of the sums"):
        search_exactly(problem_of(0, {"latency_ms": 2.0}, "deepmad"))
    with pytest.raises(UserError, match="peak_memory_mb is a maximum"):
        search_exactly(problem_of(0, {"peak_memory_mb": 20.0}))
    with pytest.raises(UserError, match="rho is not a sum over blocks"):
        search_exactly(problem_of(0, {"rho": 2.0}))
    outcome = search_with("auto", {"population": 8, "batch": 16}, problem_of(0, {"latency_ms": [0.1, 50.0]}), 32)
    assert "is the best for all limits" in outcome.unproven and outcome.best is not None
    with pytest.raises(UserError, match="shortcuts depend on widths, so scorer mae_residual is no sum"):
        depthwise = find_space("official_mbv2")
        assert isinstance(depthwise, TinyNASSpace)
        space = replace(space_of(0), backbone=depthwise)
        search_exactly(make_problem(space, Budget.of({"params_m": 3.0}), "mae_residual", {}, TABLE, space.frame, 640))


def test_one_neck_is_chosen_by_nobody() -> None:
    """Counts are served where the space has a single neck, which no score can tell from others."""
    space = space_of(0)
    neck = space.necks[0]
    o3, o4, o5 = neck.out
    space = replace(
        space, neck_depth=(neck.depth, neck.depth), neck_channels=((o3, o3), (o4, o4), (o5, o5)),
        hidden_ratios=neck.hidden_ratio[:1], start_neck=neck.out,
    )  # fmt: skip
    problem = make_problem(space, Budget.of({"layers": 100}), "params", {}, TABLE, space.frame, 640)
    found, all_of_it = search_exactly(problem), problem.evaluate(members(space, problem))
    assert found.best is not None and found.best.score == pytest.approx(all_of_it.score.max(), rel=1e-9)
