"""Spaces of hand-drawn stages as a chain for exact search: every block of every position, priced without building them all.

A block sees its input's width in few of its operations (the down-sampler, a first convolution), and many blocks share
these. So all blocks of a position are priced behind one input; for every kind of first operations one block is priced
behind every input, and the difference holds for all that share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from nas.blocks.operation import halved
from nas.errors import UserError
from nas.lowering import Operation, block_operations
from nas.lowering.network import pyramid_block
from nas.scorers.formula import Formula
from nas.searchers.base import Evaluation
from nas.searchers.problem import Array, Objective, Size
from nas.searchers.problem.specs import SpecProblem
from nas.spec import Backbone, Block, Spec
from search_spaces.genes import FIELDS, MID, OUT
from search_spaces.stages import StageSpace
from search_spaces.streams import Integers

#: Blocks at which differences are compared with direct prices.
_PROBES = 24


class StageProblem:
    """A `SpecProblem` of a stage space under a closed form, as exact search asks for it.

    A gene row holds the stem's width, then (out, number of the block among those of its width, 1, 1) of every position,
    a closing block included. Evaluations are those of the problem itself.
    """

    counts_layers = False
    most_units = 0

    def __init__(self, problem: SpecProblem, space: StageSpace, formula: Formula) -> None:
        own = problem.objective
        self._problem, self._space = problem, space
        self.objective = Objective(formula, own.table, own.frame, own.image_size, problem.budget.metrics)
        self.budget, self.metrics, self.template = problem.budget, problem.metrics, space.initial()
        self.levels = (0, *self.template.levels)
        self.blocks = len(self.template.blocks)
        self.width = 1 + FIELDS * self.blocks
        self.stem_widths = space.stem_widths()
        size: Size = (self.objective.image_size, self.objective.image_size)
        self._sizes = [halved(size, self.template.stem.stride)]
        for block in self.template.blocks:
            self._sizes.append(halved(self._sizes[-1], block.stride))
        self._pyramid = pyramid_block(self.template)

    # ------------------------------------------------------------------ the space

    @property
    def name(self) -> str:
        return self._space.name

    def size(self) -> int:
        return self._space.size()

    def outs(self, index: int) -> tuple[int, ...]:
        return self._space.widths(min(index, len(self._space.channels) - 1))

    def options(self, index: int, out: int) -> tuple[Block, ...]:
        """Every block of a position with that width."""
        if index < len(self._space.channels):
            return self._space.blocks(index, out)
        return tuple(self._space.closing(out, depth)[0] for depth in self._space.closing_depths())

    def check_size(self, most: int) -> None:
        before = self.stem_widths
        for index in range(self.blocks):
            outs = self.outs(index)
            count = sum(len(self.options(index, out)) * sum(width <= out for width in before) for out in outs)
            if count > most:
                raise UserError(
                    f"exact search of space {self.name} would price up to {count:,} blocks at position {index}; narrow its "
                    "channels or options, raise its steps, or use searcher=evolution"
                )
            before = outs

    # ------------------------------------------------------------------ prices

    def priced(
        self, index: int, ins: Integers, outs: Integers
    ) -> Iterable[tuple[Integers, Integers, Integers, Integers, Array]]:
        """Every block of a position behind every input that is not wider (a closing block: as wide)."""
        closing = index >= len(self._space.channels)
        rows = [(o, number, block) for o, out in enumerate(outs.tolist())
                for number, block in enumerate(self.options(index, out))]  # fmt: skip
        blocks = [block for _, _, block in rows]
        first, heads, shares = self._behind_one(index, blocks, ins.tolist())
        after, number = np.array([(o, n) for o, n, _ in rows]).T
        for place, width in enumerate(ins.tolist()):
            chosen = np.flatnonzero(outs[after] == width if closing else outs[after] >= width)
            ones = np.ones(len(chosen), dtype=np.int64)
            choice = np.stack([number[chosen], ones, ones], axis=1)
            vectors = first[chosen] + shares[place][heads[chosen]]
            yield np.full(len(chosen), place), after[chosen], choice, 0 * ones, vectors

    def _behind_one(
        self, index: int, blocks: Sequence[Block], ins: Sequence[int]
    ) -> tuple[Array, Integers, list[Array]]:
        """Vectors of blocks behind the narrowest input, the kind of each, and what each kind adds behind every input."""
        low, high = ([self._lowered(index, block, width) for block in blocks] for width in (ins[0], ins[-1]))
        kinds: dict[tuple[Operation, ...], int] = {}
        heads = np.array(
            [
                kinds.setdefault(tuple(a for a, b in zip(one, other, strict=True) if a != b), len(kinds))
                for one, other in zip(low, high, strict=True)
            ]
        )
        samples = np.unique(heads, return_index=True)[1]
        first = self._vectors(index, blocks, low)
        shares = [np.zeros((len(samples), self.objective.width))]
        for width in ins[1:]:
            chosen = [blocks[place] for place in samples]
            behind = self._vectors(index, chosen, [self._lowered(index, block, width) for block in chosen])
            shares.append(behind - first[samples])
        self._probe(index, blocks, ins, lambda b, i: first[b] + np.stack(shares)[i, heads[b]])
        return first, heads, shares

    def _lowered(self, index: int, block: Block, channels: int) -> tuple[Operation, ...]:
        template, spp = self.template, self.template.spp if index == self._pyramid else "none"
        size = self._sizes[index]
        return block_operations.__wrapped__(block, channels, *size, template.activation, template.reparam, spp)

    def _vectors(self, index: int, blocks: Sequence[Block], lowered: Sequence[Sequence[Operation]]) -> Array:
        return self.objective.vectors(lowered, [halved(self._sizes[index], block.stride) for block in blocks])

    def _probe(
        self, index: int, blocks: Sequence[Block], ins: Sequence[int], reckoned: Callable[[Integers, Integers], Array]
    ) -> None:
        """Raise UserError if differences and direct prices disagree at random blocks."""
        rng = np.random.default_rng(0)
        some, inputs = rng.integers(len(blocks), size=_PROBES), rng.integers(len(ins), size=_PROBES)
        chosen = [blocks[place] for place in some]
        lowered = [self._lowered(index, block, ins[i]) for block, i in zip(chosen, inputs, strict=True)]
        direct = self._vectors(index, chosen, lowered)
        if not np.allclose(reckoned(some, inputs), direct, rtol=1e-9, atol=1e-9 * np.abs(direct).max()):
            raise UserError(f"the blocks of space {self.name} do not split into first operations and the rest")

    def stem_vectors(self, widths: Integers) -> Array:
        """(n, width) vectors of stems."""
        template = self.template
        stems = [type(template.stem)(template.stem.kind, width) for width in widths.tolist()]
        return np.stack([self.objective.stem(stem, template.activation) for stem in stems])

    def tail_vectors(self, widths: Integers) -> Array:
        raise AssertionError("a stage space has no fixed closing block")

    def closings(self, channels: Integers, spend: Callable[[int, str], None]) -> Array:
        """(n, width) vectors of neck and head."""
        maps = tuple(self._sizes[index + 1] for index in self.template.out_blocks)
        return self.objective.closings(channels, maps, spend)

    # ------------------------------------------------------------------ rows

    def evaluate(self, individuals: Integers) -> Evaluation:
        """Scores and metrics of rows; the score of what is outside the budget is nan."""
        return self._problem.evaluate(self._problem.encode([self.spec(row) for row in individuals]))

    def spec(self, individual: Integers) -> Backbone:
        values = individual.tolist()
        blocks = [
            self.options(index, values[FIELDS * index + OUT])[values[FIELDS * index + MID]]
            for index in range(self.blocks)
        ]
        return self._space.assembled(values[0], blocks)

    def shapes(self, rows: Integers) -> tuple[Integers, Array]:
        """Numbers of the blocks among those of their width, and logarithms of widths."""
        return rows[:, MID::FIELDS], np.log(rows[:, OUT::FIELDS])

    def encode(self, specs: Sequence[Spec]) -> Integers:
        """Rows of members."""
        rows = np.ones((len(specs), self.width), dtype=np.int64)
        for row, spec in zip(rows, specs, strict=True):
            assert isinstance(spec, Backbone)
            row[0] = spec.stem.out
            for index, block in enumerate(spec.blocks):
                row[FIELDS * index + OUT] = block.out
                row[FIELDS * index + MID] = self.options(index, block.out).index(block)
        return rows
