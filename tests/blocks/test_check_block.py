"""What is promised of blocks: every built-in family keeps it, one of one's own too, and each broken promise has its line."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from torch import nn

from nas.blocks import C2PSA, CSP, GELAN, Block, C3k2, InvertedResidual, Operation, Plain, Residual
from nas.blocks.operation import convolution
from nas.testing import check_block
from tests.blocks.shuffle import Shuffle

BUILT_IN: tuple[Block, ...] = (
    Plain(32, 3, 2),
    Residual("k1kx", 32, 16, 2, 2),
    Residual("kxkx", 32, 16, 2, 1, 5),
    Residual("k1kxk1", 64, 16, 2, 1, 3, "pooled"),
    Residual("k1dwk1", 32, 16, 2, 2),
    Residual("k1dwsek1", 32, 16, 2, 1),
    InvertedResidual(32, 48, 2, 2),
    CSP(64, 32, 2, 2),
    GELAN(64, 32, 16, 16, 2),
    GELAN(64, 32, 16, 16, 1, 2, "adown"),
    C3k2(64, 48, 16, 2, 2),
    C2PSA(256, 2),
    Shuffle(32, 2, 2),
    Shuffle(64),
)


@pytest.mark.parametrize("block", BUILT_IN, ids=lambda block: f"{type(block).__name__}{BUILT_IN.index(block)}")
def test_every_block_keeps_its_promises(block: Block) -> None:
    check_block(block, 256 if isinstance(block, C2PSA) else 64)


class _Empty(Shuffle):
    """No operations."""

    __slots__ = ()

    def operations(self, *_: object) -> list[Operation]:
        return []


class _Wrong(Shuffle):
    """Operations that its module does not have."""

    __slots__ = ()

    def operations(self, in_channels: int, size: tuple[int, int], activation: str, reparam: bool) -> list[Operation]:
        return list(convolution(in_channels, self.out, size, 3, self.stride, activation=activation))


class _Narrow(Shuffle):
    """Operations that end with another width."""

    __slots__ = ()

    def operations(self, in_channels: int, size: tuple[int, int], activation: str, reparam: bool) -> list[Operation]:
        return list(convolution(in_channels, self.out // 2, size, 3, self.stride, activation=activation))


class _Bare(Shuffle):
    """Another module than its operations, of as many parameters."""

    __slots__ = ()

    def build(self, in_channels: int, activation: str, reparam: bool, **spp: object) -> nn.Module:
        made = super().build(in_channels, activation, reparam)
        return nn.Sequential(made, nn.ReLU())


def test_each_broken_promise_is_told() -> None:
    for block, words in (
        (_Empty(32), "must not be empty"),
        (_Wrong(32), "its module has .* parameters, its operations"),
        (_Narrow(32), "operations\\(\\) end with"),
        (_Bare(32), "does not run its operations"),
    ):
        with pytest.raises(AssertionError, match=words):
            check_block(block)

    @dataclass(frozen=True, slots=True)
    class Hidden(Shuffle):
        pass

    with pytest.raises(AssertionError, match="cannot be stored and read back"):
        check_block(Hidden(32))
    assert replace(Shuffle(32), out=64) == Shuffle(64)
