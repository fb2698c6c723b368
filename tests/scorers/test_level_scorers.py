"""Our scores for equal latency: closed forms, and what each must prefer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from nas.blocks.operation import main_convolutions
from nas.errors import UserError
from nas.lowering import backbone_operations
from nas.scorers import SCORERS, score_spec
from nas.scorers.counts import level_balance
from nas.scorers.entropy import mae
from nas.scorers.residual import effective_rank, mae_residual, variance_shares
from nas.spec import Backbone, Residual, Stem


def backbone(depths: tuple[int, ...] = (1, 1, 1, 1), width: int = 32, bottleneck: int = 16) -> Backbone:
    blocks = tuple(Residual("k1kx", width, bottleneck, depth, 2) for depth in depths)
    return Backbone(Stem("conv", 32), blocks, (1, 2, 3))


def test_variance_shares_are_harmonic_and_reset_without_shortcut() -> None:
    group = backbone_operations(backbone((4, 1, 1, 1)), 64)[1]
    assert [share for share, _ in variance_shares(group)] == [1, 1 / 2, 1 / 3, 1 / 4]
    pooled = Residual("k1kx", 64, 16, 3, 2, shortcut="pooled")
    group = backbone_operations(Backbone(Stem("conv", 32), (pooled,), (0,)), 64)[1]
    assert [share for share, _ in variance_shares(group)] == [1 / 2, 1 / 3, 1 / 4]


def test_residual_entropy_by_hand_and_equal_to_mae_without_shortcuts() -> None:
    weights = (0, 0, 1, 1, 1)
    assert mae_residual(backbone()) == pytest.approx(mae(backbone(), weights))
    unit = 0.5 * (math.log(32) + math.log(16 * 9))
    deeper = mae_residual(backbone((1, 1, 1, 3))) - mae_residual(backbone())
    assert deeper == pytest.approx(unit * (1 / 2 + 1 / 3))
    assert mae(backbone((1, 1, 1, 3)), weights) - mae(backbone(), weights) == pytest.approx(2 * unit)


def test_effective_rank_by_hand() -> None:
    level = 1 / 16 + 1 / 32
    expected = sum(-math.log(1 / 32 + count * level) for count in (2, 3, 4))
    assert effective_rank(backbone()) == pytest.approx(expected)
    assert effective_rank(backbone((1, 1, 1, 4))) < effective_rank(backbone()) < effective_rank(backbone(width=64))


def test_level_balance_by_hand_and_what_a_starved_block_costs() -> None:
    groups = backbone_operations(backbone(), 640)
    work = [sum(op.macs for op in main_convolutions(group)) / 1e6 for group in groups]
    logs = sum(weight * math.log(macs) for weight, macs in zip((3, 3, 3, 2, 1), work, strict=True))
    assert level_balance(backbone()) == pytest.approx(logs + 3 * math.log(32))
    lean, rich = Residual("k1kx", 64, 8, 1, 1), Residual("k1kx", 64, 56, 3, 1)
    start = backbone().blocks[:3]

    def level_16(first: Residual, second: Residual) -> float:
        entry = replace(start[2], out=64)  # type: ignore[type-var]
        return level_balance(Backbone(Stem("conv", 32), (*start[:2], entry, first, second), (1, 3, 4)), (0, 0, 1, 2))

    middle = Residual("k1kx", 64, 32, 2, 1)
    assert level_16(middle, middle) > level_16(lean, rich)


def test_a_tower_in_one_level_does_not_pay_as_it_does_with_mae() -> None:
    even, tower = backbone((3, 3, 3, 3)), backbone((1, 1, 1, 9))
    assert mae(tower) == pytest.approx(mae(even), rel=0.05)
    assert level_balance(even) > level_balance(tower)
    assert mae_residual(even) > mae_residual(tower)


@pytest.mark.parametrize("name", ["mae_residual", "effective_rank", "level_balance"])
def test_they_are_listed_take_weights_and_ignore_activation(name: str) -> None:
    spec = backbone()
    assert SCORERS[name].source.startswith("ours")
    assert score_spec(spec, name, level_weights=(0, 0, 0, 0, 1)) < score_spec(spec, name)
    assert score_spec(replace(spec, activation="silu", reparam=True), name) == score_spec(spec, name)
    with pytest.raises(UserError, match="5 levels"):
        score_spec(spec, name, level_weights=(1, 1))
