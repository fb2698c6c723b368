"""Exact search of GELAN and C3k2 spaces: equal to brute force, every block and pyramid priced as if built."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest

from nas.cost.latency import LatencyTable
from nas.frame import Frame
from nas.searchers.base import Problem, admitted
from nas.searchers.catalog import make_problem
from nas.searchers.exact.proof import chain_problem, search_exactly
from nas.searchers.problem.specs import SpecProblem
from nas.searchers.problem.stage_chain import StageProblem
from nas.spec import Backbone
from search_spaces import find_space
from search_spaces.c3k2 import C3k2Space
from search_spaces.gelan import GELANSpace
from search_spaces.stages import StageSpace

TABLE = LatencyTable.load("t4_tensorrt_fp16")


def small_space(seed: int) -> StageSpace:
    """A random space of some thousands of members, gelan with an even seed, c3k2 with an odd one."""
    rng = random.Random(seed)
    step, low = rng.choice((8, 16)), rng.choice((32, 48))
    shared: dict[str, Any] = {"step": step, "stem_channels": (16, 16 + step), "start_stem": 16}
    if seed % 2:
        space = find_space("c3k2")
        assert isinstance(space, C3k2Space)
        ranges = ((low, low), (64, 64 + step), (96, 96 + step), (128, 128))
        return replace(
            space, name=f"small{seed}", channels=ranges, steps=(step, step, step, 128), start=(low, 64, 96, 128),
            depths=(1, 2), kinds=(rng.random() < 0.5,), entries=(0.5,), hiddens=(0.25,), **shared,
        )  # fmt: skip
    gelan = find_space("gelan")
    assert isinstance(gelan, GELANSpace)
    ranges = ((low, low), (64, 64 + step), (64, 64 + step), (96, 96))
    return replace(
        gelan, name=f"small{seed}", channels=ranges, steps=(step,) * 4, start=(low, 64, 64, 96), first_depths=(0,),
        depths=(rng.choice((1, 2)),), entries=(1.0,), hiddens=(1.0, 0.5), inners=(0.5,), downs=("adown",), **shared,
    )  # fmt: skip


@cache
def members(seed: int) -> tuple[Backbone, ...]:
    """Every member, from the definition of the space."""
    space, found = small_space(seed), list[Backbone]()
    for stem in space.stem_widths():
        for widths in product(*(space.widths(stage) for stage in range(4))):
            if list((stem, *widths)) != sorted((stem, *widths)):
                continue
            stages = [space.blocks(stage, out) for stage, out in enumerate(widths)]
            closings = [space.closing(widths[-1], depth) for depth in space.closing_depths()]
            found += [space.assembled(stem, (*blocks, *end)) for blocks in product(*stages) for end in closings]
    return tuple(found)


def problem_of(seed: int, limits: dict[str, Any], frame: Frame | None, scorer: str = "mae") -> SpecProblem:
    from nas.cost.budget import Budget

    problem = make_problem(small_space(seed), Budget.of(limits), scorer, {}, TABLE, frame, 320)
    assert isinstance(problem, SpecProblem)
    return problem


def chain_of(problem: Problem) -> StageProblem:
    chain = chain_problem(problem)
    assert isinstance(chain, StageProblem)
    return chain


@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force(seed: int) -> None:
    space, frame = small_space(seed), Frame(image_size=320) if seed < 2 else None
    every = members(seed)
    assert len(every) == space.size() and not space.violations(every[-1])
    free = problem_of(seed, {"params_m": 1e6}, frame)
    every_score = free.evaluate(free.encode(every))
    column = {name: every_score.metrics[:, free.metrics.index(name)] for name in free.metrics}
    latency, params, layers = (float(np.quantile(column[name], 0.3)) for name in ("latency_ms", "params_m", "layers"))
    for limits in (
        {"latency_ms": latency}, {"params_m": params, "layers": layers}, {"flops_g": 1e6, "params_m": [params, 1e6]},
    ):  # fmt: skip
        problem = problem_of(seed, limits, frame)
        inside = admitted(problem.budget, free.metrics, every_score)
        outcome = search_exactly(problem, levels=3, near=2)
        assert outcome.best is not None and outcome.certificate is not None and not outcome.unproven
        best = every_score.score[inside].max()
        assert outcome.best.score == pytest.approx(best, abs=1e-6) and problem.budget.admits(outcome.best.metrics)
        assert outcome.certificate.upper >= best - 1e-9 and outcome.certificate.gap <= 0.05
        assert outcome.certificate.architectures == len(every)


def test_impossible_limits_are_proved_impossible() -> None:
    assert search_exactly(problem_of(0, {"params_m": 0.01}, None)).impossible


@pytest.mark.parametrize("name", ["gelan", "c3k2", "mixed"])
def test_blocks_cost_what_they_cost_one_by_one(name: str) -> None:
    space = find_space(name)
    assert isinstance(space, StageSpace)
    if isinstance(space, GELANSpace):
        space = replace(space, channels=((16, 64), (32, 128), (64, 160), (96, 160)), steps=(16, 16, 16, 16))
    from nas.cost.budget import Budget

    chain = chain_of(make_problem(space, Budget.of({"latency_ms": 3}), "mae", {}, TABLE, Frame(), 640))
    rng, before = np.random.default_rng(0), np.array(chain.stem_widths)
    size = (320, 320)
    for index in range(chain.blocks):
        outs = np.array(chain.outs(index))
        pieces = list(chain.priced(index, before, outs))
        ins, after, choice, units, vectors = (np.concatenate(column) for column in zip(*pieces, strict=True))
        assert not units.any()
        spp = chain.template.spp if index == 3 else "none"
        for row in rng.integers(len(ins), size=20):
            out = int(outs[after[row]])
            block = chain.options(index, out)[int(choice[row, 0])]
            direct = chain.objective.block(block, int(before[ins[row]]), size, "silu", chain.template.reparam, spp)
            assert block.out == out and np.allclose(vectors[row], direct, rtol=1e-9, atol=1e-9)
        before, size = outs, (size[0] // chain.template.blocks[index].stride,) * 2


@pytest.mark.parametrize(
    "frame",
    [
        Frame(), Frame(out=(64, 96, 128)), Frame(extra_down=True), Frame(extra_up=True),
        Frame(extra_down=True, extra_up=True, head_stacked=1), Frame(depthwise=True, activation="silu"),
        Frame(fusion="conv"), Frame(head_one_to_one=True, num_classes=7),
    ],
)  # fmt: skip
def test_pyramids_cost_what_they_cost_one_by_one(frame: Frame) -> None:
    spent: list[int] = []
    chain = chain_of(problem_of(1, {"latency_ms": 3}, replace(frame, image_size=320)))
    channels = np.random.default_rng(0).integers(2, 40, size=(12, 3)) * 8
    maps = ((40, 40), (20, 20), (10, 10))
    together = chain.objective.closings(channels, maps, lambda steps, doing: spent.append(steps))
    single = np.stack([chain.objective.closing(tuple(row), maps) for row in channels.tolist()])
    assert np.allclose(together, single, rtol=1e-12, atol=1e-12) and sum(spent) > 0
    assert len(chain.objective.closings(channels[:0], maps, lambda steps, doing: None)) == 0


def test_rows_are_members_and_back() -> None:
    chain = chain_of(problem_of(1, {"latency_ms": 3}, None))
    some = members(1)[::97]
    assert [chain.spec(row) for row in chain.encode(some)] == list(some)
    chain.check_size(10_000)
    with pytest.raises(Exception, match="narrow its channels or options"):
        chain.check_size(1)


@pytest.mark.parametrize("scorer", ["params", "macs", "level_balance"])
def test_other_scores(scorer: str) -> None:
    problem = problem_of(1, {"latency_ms": 1.2}, None, scorer)
    chain = chain_problem(problem)
    if scorer == "level_balance" and chain is None:
        assert "is none of the sums" in search_message(problem)
        return
    evaluation = problem.evaluate(problem.encode(members(1)))
    outcome = search_exactly(problem, levels=1, near=0)
    inside = admitted(problem.budget, problem.metrics, evaluation)
    assert outcome.best is not None and outcome.certificate is not None
    assert outcome.best.score == pytest.approx(evaluation.score[inside].max(), rel=1e-9)


def search_message(problem: Problem) -> str:
    with pytest.raises(Exception) as caught:
        search_exactly(problem)
    return str(caught.value)
