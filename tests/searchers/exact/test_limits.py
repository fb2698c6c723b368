"""Exact search where labels, memory or steps run out, and at limits that are odd: what is proven, and what is not."""

from __future__ import annotations

import itertools
import signal
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nas
from nas.cost.budget import Budget
from nas.errors import InternalError, UserError
from nas.frame import Frame
from nas.scorers.entropy import Entropy
from nas.searchers.base import Candidate, Certificate
from nas.searchers.catalog import check_searcher, make_problem, search_with
from nas.searchers.exact import optimum as exact_optimum
from nas.searchers.exact import search as exact
from nas.searchers.exact.effort import Effort, Halt
from nas.searchers.exact.labels import LabelSearch, TooManyLabels
from nas.searchers.exact.search import exact_search
from nas.searchers.loop import Progress
from nas.searchers.problem import Objective
from nas.searchers.problem.vectorized import GeneProblem
from search_spaces import find_space
from tests.searchers.exact.test_search import TABLE, brute_force, members, problem_of

SUMS = ("latency_ms", "params_m", "flops_g", "activations_m")


@st.composite
def odd_limits(draw: st.DrawFn) -> tuple[int, dict[str, float], int]:
    """A small space, one to four limits at or a hair beside the costs of members, and bins."""
    seed = draw(st.sampled_from((0, 1, 3)))
    free = problem_of(seed, {"latency_ms": 1e3}).evaluate(members(seed)).metrics
    limits = {}
    for name in draw(st.lists(st.sampled_from(SUMS), min_size=1, max_size=4, unique=True)):
        column = free[:, SUMS.index(name)] if name in SUMS[:1] else free[:, METRICS.index(name)]
        share = draw(st.sampled_from((0.0, 0.001, 0.02, 0.1, 0.3, 0.6, 1.0)))
        hair = draw(st.sampled_from((1.0, 1 - 1e-15, 1 + 1e-15, 0.999, 1.001)))
        limits[name] = float(np.quantile(column, share, method="lower")) * hair
    if draw(st.booleans()):
        limits["layers"] = draw(st.sampled_from((10.5, 11.0, 13.7, 16.0)))
    return seed, limits, draw(st.sampled_from((1, 3, 4, 8, 100, 256)))


METRICS = ("latency_ms", "params_m", "flops_g", "activations_m", "layers", "rho")


@settings(max_examples=25, deadline=None, derandomize=True)
@given(odd_limits())
def test_equals_brute_force_at_odd_limits_whatever_the_bins(case: tuple[int, dict[str, float], int]) -> None:
    seed, limits, bins = case
    problem = problem_of(seed, limits)
    scores, _ = brute_force(problem, seed)
    result = exact_search(problem, levels=2, near=1, bins=bins)
    assert result.unproven == "" and result.impossible == (len(scores) == 0)
    if len(scores):
        assert result.best is not None and result.certificate is not None
        assert result.best.score == pytest.approx(scores.max(), abs=1e-5)
        assert problem.budget.admits(result.best.metrics) and result.certificate.upper >= scores.max()


CPU = "latency_ms@cpu_onnxruntime_fp32_1thread"


@st.composite
def several_ends(draw: st.DrawFn) -> tuple[int, bool, dict[str, Any]]:
    """A small space, bare or in a detector, and one to three ranges of costs, parts of them and of a second device."""
    seed, framed = draw(st.sampled_from((0, 1, 3))), draw(st.booleans())
    parts = ("params_m.stride16", "flops_g.stride8", "latency_ms.stem", "layers.stride16", CPU)
    parts += ("params_m.neck", "flops_g.head") if framed else ()
    known = problem_of(seed, dict.fromkeys(parts, 1e6), Frame() if framed else None)
    free = known.evaluate(members(seed)).metrics
    limits: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from((*SUMS, "layers", *parts)), min_size=1, max_size=3, unique=True)):
        column = free[:, known.metrics.index(name)]
        low, high = sorted(draw(st.tuples(*[st.sampled_from((0.0, 0.01, 0.2, 0.5, 0.9, 1.0))] * 2)))
        least, most = (float(np.quantile(column, share, method="lower")) for share in (low, high))
        limits[name] = draw(st.sampled_from(([least, most], [least, None], most)))
    return seed, framed, limits


@pytest.mark.parametrize("hair", [1.0, 1 + 1e-15, 1 - 1e-15])
def test_a_lower_limit_at_the_most_of_all_is_kept_by_its_member(hair: float) -> None:
    for seed, part in itertools.product((0, 1, 3), ("params_m.stride16", "flops_g.stride8", "params_m")):
        free = problem_of(seed, {part: 1e6})
        most = float(free.evaluate(members(seed)).metrics[:, free.metrics.index(part)].max()) * hair
        problem = problem_of(seed, {part: [most, None]})
        scores, _ = brute_force(problem, seed)
        result = exact_search(problem, levels=1, near=0)
        assert result.impossible == (len(scores) == 0) and (result.best is not None) == (len(scores) > 0)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(several_ends())
def test_equals_brute_force_in_ranges_of_parts_and_devices(case: tuple[int, bool, dict[str, Any]]) -> None:
    seed, framed, limits = case
    problem = problem_of(seed, limits, Frame() if framed else None)
    scores, _ = brute_force(problem, seed)
    result = exact_search(problem, levels=2, near=1)
    assert result.unproven == "" and result.impossible == (len(scores) == 0)
    if len(scores):
        assert result.best is not None and result.certificate is not None
        assert result.best.score == pytest.approx(scores.max(), abs=1e-5)
        assert problem.budget.admits(result.best.metrics) and result.certificate.upper >= scores.max()
        for found in (*result.front, *result.near):
            assert problem.budget.admits(found.metrics)


def test_a_limit_that_is_no_sum_is_refused_before_any_work() -> None:
    with pytest.raises(UserError, match="rho is not a sum over blocks"):
        search_with("exact", {}, problem_of(0, {"latency_ms": 2.0, "rho": [0.01, None]}), 64, on_progress=pytest.fail)


@pytest.mark.parametrize("limits", [{"latency_ms": 1.6}, {"latency_ms": 1.6, "flops_g": 15.0, "params_m": 4.0}])
def test_too_many_labels_are_their_own_outcome(limits: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(1, limits)
    scores, _ = brute_force(problem, 1)
    start = members(1)[problem.evaluate(members(1)).metrics[:, 0] <= 1.0]
    start = start[problem.evaluate(start).score.argmax()][None]
    known = float(problem.evaluate(start).score[0])
    for module in (exact, exact_optimum):
        monkeypatch.setattr(module, "LabelSearch", partial(LabelSearch, most=0))
    monkeypatch.setattr(exact, "_NEAR_LABELS", 0)
    result = exact_search(problem, levels=2, start=start)
    assert result.best is not None and known <= result.best.score <= scores.max() <= result.upper + 1e-9
    assert result.certificate is None and result.unproven == "too many labels are needed" and not result.impossible
    alone = exact_search(problem, levels=2)
    assert not alone.impossible and alone.upper >= scores.max() - 1e-9 and alone.open_levels >= 0


def test_labels_that_are_too_many_are_no_empty_answer() -> None:
    problem = problem_of(1, {"latency_ms": 2.0})
    parts = exact.chain_of(problem)
    relaxation = exact_optimum.Relaxation(parts, np.ones(1), 4)
    with pytest.raises(TooManyLabels):
        LabelSearch(parts, [relaxation], relaxation, most=1).run(1e-6)
    assert len(LabelSearch(parts, [relaxation], relaxation).run(1e-6)[-1]) > 0


def test_a_bound_below_a_found_score_is_an_error() -> None:
    with pytest.raises(InternalError, match="is proven to be the most"):
        Certificate(2.0, 1.0, 0.0, 1, (), (), 0.0)
    problem = problem_of(1, {"latency_ms": 2.0})
    optimum = exact_optimum.Optimum(problem, exact.chain_of(problem), 8, Effort(), members(1)[:1])
    optimum.upper = 0.0
    with pytest.raises(InternalError, match="seemed possible"):
        exact._above(optimum)


def test_weights_stay_weights_where_a_limit_is_missed_by_far() -> None:
    problem = problem_of(1, {"latency_ms": 2.0, "params_m": 8.0, "flops_g": 20.0})
    optimum = exact_optimum.Optimum(problem, exact.chain_of(problem), 8, Effort(), members(1)[:0])
    optimum._surplus = np.array([900.0, -0.5, -0.9])
    weightings = list(optimum._weightings(3))
    assert len(weightings) > 3 and all(weights.sum() == pytest.approx(1.0) for weights in weightings)


def test_the_last_digit_of_a_score_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = exact.candidates_of

    def a_digit_higher(problem: Any, rows: np.ndarray) -> list[Candidate]:
        found = alone(problem, rows)
        return [replace(c, metrics=dict(c.metrics) | {"score": c.score * (1 + 1e-12)}) for c in found]

    monkeypatch.setattr(exact, "candidates_of", a_digit_higher)
    outcome = search_with("exact", {"levels": 1, "near": 0}, problem_of(1, {"params_m": 8.0}), 1)
    assert outcome.best is not None and outcome.certificate is not None
    assert outcome.best.score <= outcome.certificate.upper <= outcome.best.score * (1 + 1e-6)


def test_bins_change_nothing_on_a_detector() -> None:
    space = find_space("tinynas_k1kx", channels=((32, 64), (64, 96), (64, 128), (128, 192), (256, 320)), step=16,
                       stem_channels=(32, 32), start_stem=32)  # fmt: skip
    problem = GeneProblem(space, Objective(Entropy(), TABLE, Frame()), Budget.of({"latency_ms": 2.3}))  # type: ignore[arg-type]
    results = [exact_search(problem, levels=2, near=1, bins=bins) for bins in (1, 4, 64, 256)]
    assert len({result.best.digest for result in results if result.best}) == 1
    assert all(result.certificate is not None and result.certificate.gap < 1e-4 for result in results)


def test_a_wider_share_never_gives_fewer_networks() -> None:
    problem = problem_of(0, {"latency_ms": 2.0})
    found = [exact_search(problem, levels=2, share=share) for share in (0.01, 0.03, 0.05, 0.2)]
    assert len(found[0].near) > 0 and all(0.01 <= result.share <= 0.2 for result in found)
    for few, many in zip(found[:-1], found[1:], strict=True):
        assert {c.digest for c in few.near} <= {c.digest for c in many.near}


def test_near_networks_that_take_too_long_leave_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_NEAR_STEPS", 1)
    result = exact_search(problem_of(0, {"latency_ms": 2.0}), levels=2, share=0.2)
    assert result.certificate is not None and result.near == [] and result.share == 0.0 and not result.unproven


# ------------------------------------------------------------------ steps, progress, Ctrl-C


def test_a_limit_of_steps_ends_with_what_is_known() -> None:
    problem = problem_of(0, {"latency_ms": 2.0}, Frame())
    start = problem.encode([problem.space.smallest()])
    early = exact_search(problem, steps=5000, start=start)
    assert early.unproven.startswith("the limit of 5,000 steps (searcher option steps) ended it while pricing")
    assert early.best is not None and early.best.spec == problem.space.smallest() and early.upper == np.inf
    full = exact_search(problem, levels=2)
    assert full.certificate is not None
    bounded = exact_search(problem_of(0, {"latency_ms": 2.0}), levels=2, steps=500, start=start)
    again = exact_search(problem_of(0, {"latency_ms": 2.0}), levels=2, steps=500, start=start)
    assert bounded.unproven and (bounded.upper, bounded.best) == (again.upper, again.best)


def test_the_first_bound_is_told_where_labels_are_never_reached() -> None:
    problem = problem_of(0, {"latency_ms": 2.0})
    scores, _ = brute_force(problem, 0)
    pricing = Effort()
    parts = exact.chain_of(problem, pricing)
    exact_optimum.Relaxation(parts, np.ones(1), 256, pricing)
    found = exact_search(problem, levels=1, near=0, steps=pricing.steps)
    assert "ended it while proving the optimum" in found.unproven and found.certificate is None
    assert scores.max() <= found.upper < np.inf


@pytest.mark.parametrize("searcher", ["auto", "exact"])
def test_seconds_end_with_what_is_known(searcher: str) -> None:
    problem = problem_of(0, {"latency_ms": 2.0}, Frame())
    options = {"population": 16, "batch": 32, "seconds": 1e-9} if searcher == "auto" else {"seconds": 1e-9}
    outcome = search_with(searcher, options, problem, 64, start=[problem.space.smallest()])
    assert outcome.best is not None and outcome.certificate is None and not outcome.interrupted
    assert "the limit of 1e-09 CPU seconds (searcher option seconds) ended it" in outcome.unproven
    with pytest.raises(UserError, match="seconds"):
        check_searcher("auto", {"seconds": 0})
    assert search_with("exact", {"seconds": 600.0, "levels": 1}, problem, 1).certificate is not None


def test_the_default_searcher_takes_the_limit_of_its_proof() -> None:
    problem = problem_of(0, {"latency_ms": 2.0}, Frame())
    check_searcher("auto", {"steps": 3})
    outcome = search_with("auto", {"population": 16, "batch": 32, "steps": 3}, problem, 64)
    assert outcome.best is not None and outcome.certificate is None and not outcome.interrupted
    assert "the limit of 3 steps" in outcome.unproven and "no bound is known" in outcome.unproven


def test_an_effort_tells_how_far_it_has_come() -> None:
    told: list[str] = []
    effort = Effort(100_000_000, told.append)
    effort.tell("pricing")
    for row in range(9):
        effort.spend(10_000_000, f"row {row}")
    assert told == ["pricing", *(f"pricing, row {row} ({row + 1}0 M steps)" for row in (2, 5, 8))]
    with pytest.raises(Halt, match="the limit of 100,000,000 steps"):
        effort.spend(20_000_000)


@pytest.mark.parametrize("searcher", ["auto", "exact"])
def test_ctrl_c_while_proving_keeps_what_is_found(searcher: str) -> None:
    stages: list[str] = []

    def press(progress: Progress) -> None:
        stages.append(progress.stage)
        if progress.stage == "front":
            signal.raise_signal(signal.SIGINT)

    options = {"population": 16, "batch": 32} if searcher == "auto" else {}
    outcome = search_with(searcher, options, problem_of(0, {"latency_ms": 2.0}), 64, on_progress=press)
    assert outcome.interrupted and outcome.best is not None and outcome.certificate is not None
    assert stages.index("pricing every block") < stages.index("proving the optimum") < stages.index("front")


@pytest.mark.slow
def test_a_space_of_too_many_states_ends_with_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GeneProblem, "monotone", False)  # else its widths are grouped
    problem = make_problem(find_space("tinynas_k1dwk1"), Budget.of({"latency_ms": 3.0}), "mae", {}, TABLE, Frame(), 640)
    assert isinstance(problem, GeneProblem)
    start = problem.encode([problem.space.smallest()])
    result = exact_search(problem, start=start)
    assert result.best is not None and "states with up to 17 units each do not fit into memory" in result.unproven
    assert 2234.0 < result.upper < 2500  # evolution finds 2234.06


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_the_bound_without_neck_is_one(seed: int) -> None:
    problem = problem_of(seed, {"latency_ms": 2.0, "params_m": 8.0})
    proven = exact_search(problem, levels=2, near=0)
    assert proven.certificate is not None and proven.upper <= exact._open_bound(problem, Effort()) < 2 * proven.upper


# ------------------------------------------------------------------ the whole default problem


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "options", "best"),
    [
        ({"latency_ms": 3}, {"bins": 4, "near": 0}, 1411.325963),
        ({"latency_ms": 3, "params_m": 9}, {"bins": 64, "near": 0}, 1396.761543),
    ],
)
def test_the_default_space_whatever_the_options(
    limits: dict[str, float], options: dict[str, float], best: float
) -> None:
    found = nas.find(limits, searcher="exact", searcher_options={"levels": 2, "steps": 1_000_000_000, **options})
    assert found.best.score == pytest.approx(best, abs=1e-5) and found.proof
