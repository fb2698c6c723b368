from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

import nas
from nas.cost.budget import PARTS, Budget
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.frame import Frame
from nas.scorers import find_scorer
from nas.scorers.entropy import Entropy
from nas.scorers.formula import formula_of
from nas.searchers.problem import METRICS, Objective
from nas.searchers.problem.block_table import Inseparable
from nas.searchers.problem.vectorized import GeneProblem
from search_spaces import find_space
from search_spaces.streams import candidate_keys
from search_spaces.tinynas import SPACES

BUDGET = Budget.of({"layers": 25})
CPU = "latency_ms@cpu_onnxruntime_fp32_1thread"


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return LatencyTable.load("t4_tensorrt_fp16")


@pytest.mark.parametrize("space", ["tinynas_k1kx", "tinynas_kxkx", "gelan", "c3k2"])
def test_sums_of_parts_equal_the_public_functions(space: str, table: LatencyTable) -> None:
    frame = Frame()
    objective = Objective(Entropy(), table, frame)
    found = find_space(space)
    for seed in range(3):
        spec = frame.detector(found.sample(random.Random(seed)))
        values, counts = objective.evaluate(spec.backbone), nas.count(spec)
        assert {name: values[name] for name in METRICS[1:-1]} == {
            "params_m": counts.params / 1e6,
            "flops_g": counts.flops / 1e9,
            "activations_m": counts.activations / 1e6,
            "layers": counts.layers,
        }
        assert values["rho"] == pytest.approx(counts.rho, rel=1e-12)
        assert values["latency_ms"] == pytest.approx(nas.latency(spec).ms, rel=1e-12)
        if space.startswith("tinynas"):
            assert values["score"] == pytest.approx(nas.score(spec, "mae"), rel=1e-12)


def test_a_detector_with_its_own_neck_is_priced_with_it(table: LatencyTable) -> None:
    spec = nas.load("damo-yolo-t")
    values = Objective(None, table, Frame()).evaluate(spec)
    assert values["latency_ms"] == pytest.approx(nas.latency(spec).ms, rel=1e-12)
    assert values["params_m"] == nas.count(spec).params / 1e6


@pytest.mark.parametrize(
    "name", ["tinynas_k1kx", "official_small", "tinynas_k1kxk1", "tinynas_k1dwk1", "tinynas_k1dwsek1", "official_mbv2"]
)
def test_gene_tables_equal_the_objective(name: str, table: LatencyTable) -> None:
    space = SPACES[name]
    frame = Frame() if name.startswith("tinynas") else None
    problem = GeneProblem(space, Objective(Entropy(), table, frame, space.image_size), BUDGET)
    genes = problem.sample(candidate_keys(3, 0, 40))
    result = problem.evaluate(genes)
    for row, score, metrics in zip(genes[:12], result.score, result.metrics, strict=False):
        spec = problem.spec(row)
        space.check(spec)
        expected = problem.objective.evaluate(spec)
        assert score == pytest.approx(expected["score"], rel=1e-11)
        assert metrics == pytest.approx([expected[metric] for metric in METRICS], rel=1e-9)
        assert (problem.encode([spec])[0] == row).all()


@pytest.mark.parametrize(
    ("scorer", "options"),
    [
        ("deepmad", {"depth_penalty": 10.0}),
        ("deepmad", {"level_weights": [1, 2, 3, 4, 5], "alpha1": 0.5}),
        ("mae", {"level_weights": [1, 0, 2, 1, 3]}),
        ("params", {}),
        ("macs", {}),
        ("layers", {}),
        ("level_balance", {}),
        ("mae_residual", {"level_weights": [1, 0, 2, 1, 3]}),
        ("effective_rank", {}),
        ("mae_neck", {}),
        ("mae_neck", {"level_weights": [1, 0, 3]}),
    ],
)
def test_formulas_equal_the_scorers(scorer: str, options: dict, table: LatencyTable) -> None:
    for name in ("tinynas_k1kx", "tinynas_k1kxk1", "tinynas_kxkx"):
        space, frame = SPACES[name], Frame()
        formula = formula_of(find_scorer(scorer), options)
        problem = GeneProblem(space, Objective(formula, table, frame), BUDGET)
        genes = problem.sample(candidate_keys(0, 0, 5))
        for row, score in zip(genes, problem.evaluate(genes).score, strict=True):
            assert score == pytest.approx(nas.score(frame.detector(problem.spec(row)), scorer, **options), rel=1e-11)


@pytest.mark.parametrize("scorer", ["level_balance", "mae_residual", "effective_rank"])
def test_a_shortcut_at_equal_widths_alone_is_counted_or_refused(scorer: str, table: LatencyTable) -> None:
    """Depthwise units of TinyNAS add their input where the widths are equal: shares of variance then depend on widths."""
    space = SPACES["official_mbv2"]
    objective = Objective(formula_of(find_scorer(scorer), {}), table, None, space.image_size)
    if scorer != "level_balance":
        with pytest.raises(Inseparable, match="the shortcuts of this block family depend on its widths"):
            GeneProblem(space, objective, BUDGET)
        return
    problem = GeneProblem(space, objective, BUDGET)
    genes = problem.sample(candidate_keys(5, 0, 20))
    for row, score in zip(genes, problem.evaluate(genes).score, strict=True):
        assert score == pytest.approx(nas.score(problem.spec(row), scorer, image_size=space.image_size), rel=1e-11)


@pytest.mark.parametrize("name", sorted(SPACES))
def test_every_move_stays_in_the_space(name: str) -> None:
    space = SPACES[name]
    problem = GeneProblem(space, Objective(None, image_size=space.image_size), BUDGET)
    genes = problem.sample(candidate_keys(1, 0, 60))
    for turn in range(12):
        keys = candidate_keys(turn, 0, len(genes))
        genes = problem.mutate(genes, keys, minor=turn % 3 == 2)
        if turn % 2:
            genes = problem.crossover(genes, genes[::-1], keys)
        for row in genes[:: 3 if turn > 9 else 20]:
            space.check(problem.spec(row))


def test_mutation_reaches_every_field_of_every_block() -> None:
    space = SPACES["tinynas_k1kx"]
    problem = GeneProblem(space, Objective(None), BUDGET)
    parent = np.repeat(problem.encode([nas.load("damo-yolo-t").backbone]), 2000, axis=0)
    moved = (problem.mutate(parent, candidate_keys(0, 0, 2000), False) != parent).mean(axis=0)
    kernels = [3 + 4 * i for i in range(5)]
    assert (np.delete(moved, kernels) > 0.02).all() and (moved[kernels] == 0).all()
    minor = problem.mutate(parent, candidate_keys(0, 0, 2000), True) - parent
    depths = [4 + 4 * i for i in range(5)]
    assert (minor[:, depths] == 0).all() and np.abs(minor).max() <= 16 and (minor != 0).any()


def test_unknown_metrics_are_refused() -> None:
    space = SPACES["tinynas_k1kx"]
    with pytest.raises(UserError, match="peak_memory_mb"):
        GeneProblem(space, Objective(None), Budget.of({"peak_memory_mb": 3}))
    with pytest.raises(UserError, match="rho"):
        Objective(None).additive("rho")


def test_level_weights_must_match_the_levels(table: LatencyTable) -> None:
    problem = GeneProblem(SPACES["tinynas_k1kx"], Objective(Entropy((1, 2)), table), BUDGET)
    with pytest.raises(UserError, match="5 levels"):
        problem.evaluate(problem.initial())


def test_a_narrower_space_gives_narrower_tables(table: LatencyTable) -> None:
    space = replace(SPACES["tinynas_k1kx"], channels=((32, 64), (64, 64), (64, 96), (128, 128), (256, 264)))
    problem = GeneProblem(space, Objective(Entropy(), table), BUDGET)
    genes = problem.sample(candidate_keys(0, 0, 50))
    assert set(genes[:, 5].tolist()) == {64} and np.isfinite(problem.evaluate(genes).metrics).all()


@pytest.mark.parametrize("name", ["tinynas_k1kx", "gelan", "giraffe"])
@pytest.mark.parametrize("metric", ["params_m", "flops_g", "latency_ms", "layers", CPU])
def test_parts_add_up_to_the_whole_on_every_device(name: str, metric: str) -> None:
    known, _, hardware = metric.partition("@")
    limited = [f"{known}.{part}" + f"@{hardware}" * bool(hardware) for part in PARTS]
    table = LatencyTable.load(hardware or "t4_tensorrt_fp16")
    frame = None if name == "giraffe" else Frame()
    objective = Objective(None, LatencyTable.load("t4_tensorrt_fp16"), frame, 640, (*limited, metric))
    space = find_space(name)
    for spec in (space.initial(), space.sample(random.Random(3))):
        costs = objective.evaluate(spec)
        offset = table.offset_ms if known == "latency_ms" else 0.0
        assert sum(costs[part] for part in limited) + offset == pytest.approx(costs[metric], rel=1e-9)
        assert costs[limited[0]] > 0 and costs[limited[4]] > 0 and costs[limited[1]] == 0
