"""Spaces of backbones and necks as a chain for exact search: a row of genes, a backbone, stands for its detector with one neck.

Under a score that the neck does not change, of all detectors of one backbone that with the cheapest neck scores as much as
any and keeps a limit if any does. Under a score that sees the neck, it is the best one at a price of what is limited.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace

import numpy as np

from nas.errors import UserError
from nas.scorers.entropy import Entropy
from nas.scorers.formula import Formula
from nas.scorers.neck_entropy import NeckEntropy
from nas.scorers.neck_gains import NeckGains
from nas.searchers.base import Evaluation
from nas.searchers.problem import AMOUNT, Array, Objective
from nas.searchers.problem.cheapest_neck import Choices, Necks
from nas.searchers.problem.specs import SpecProblem
from nas.searchers.problem.vectorized import GeneProblem
from nas.spec import DetectorSpec, NeckSpec
from search_spaces.genes import FIELDS, OUT, Genes
from search_spaces.giraffe import GiraffeSpace
from search_spaces.streams import Integers

#: Share of a limit by which sums of the same costs may differ.
_HAIR = 1e-12


class GiraffeProblem(GeneProblem):
    """A `SpecProblem` of a giraffe space under a closed form, as exact search asks for it.

    Rows are those of the backbone's space; their detectors have the neck that costs the least of what has an upper limit
    and the most of what has a lower one, less what it adds to the score at `price` (of the score, for a whole limit;
    infinite: the score does not count). Under `mae_neck` the chain's score is an upper bound, more than a detector's by
    as little as `NeckGains` says. Evaluations are those of the problem itself. weighs_necks: whether the score sees the
    neck. Raises Inseparable as GeneProblem.
    """

    def __init__(self, problem: SpecProblem, whole: GiraffeSpace, formula: Formula, weighs_necks: bool) -> None:
        self._problem, self._whole, self.weighs_necks, self.price = problem, whole, weighs_necks, np.inf
        self.above = True
        own, (smallest, largest) = problem.objective, whole.necks
        frame = replace(
            whole.frame,
            out=smallest.out,
            depth=smallest.depth,
            hidden_ratio=smallest.hidden_ratio,
            image_size=own.image_size,
        )
        self._gains: NeckGains | None = None
        if weighs_necks and isinstance(formula, NeckEntropy):
            self._gains = NeckGains(formula.level_weights, smallest, largest)
            formula = Entropy((0.0, 0.0, 0.0, 0.0, self._gains.deepest))
        objective = Objective(formula, own.table, frame, own.image_size, problem.budget.metrics)
        super().__init__(whole.backbone, objective, problem.budget)
        self.metrics = problem.metrics
        self._all_necks: Necks | None = None
        self._necks: dict[tuple[int, ...], NeckSpec] = {}
        self._smallest: dict[bytes, Array] = {}  # closings with the smallest neck, at every price the same

    def at(self, price: float, above: bool = True) -> GiraffeProblem:
        """The same with the necks that are the best at a price, scored from above, or (nearer to most) from below."""
        self._priced_necks  # noqa: B018 - priced once for all
        other = copy(self)
        other.price, other.above, other._necks = price, above, {}
        return other

    @property
    def name(self) -> str:
        return self._whole.name

    def size(self) -> int:
        return self._whole.size()

    def closings(self, channels: Integers, spend: Callable[[int, str], None]) -> Array:
        """(n, width) vectors of the chosen neck and its head for widths C3, C4, C5 (n, 3).

        Raises UserError if different necks are the cheapest for different limits, where the score has no say.
        """
        choices = self._cheapest(channels, spend)
        differences, directed = self._priced_necks.differences(channels, choices), self._directed()
        for name, weights in directed if len(directed) > 1 and not self.weighs_necks else ():
            alone = self._priced_necks.cheapest(channels, weights, spend)
            surplus = (differences - self._priced_necks.differences(channels, alone)) @ weights
            if surplus.max(initial=0.0) > _HAIR:
                worst = int(surplus.argmax())
                raise UserError(
                    f"on maps C3, C4, C5 of widths {channels[worst].tolist()} no neck of space {self.name} is the best for "
                    f"all limits ({self.budget}), {name} wants another one: exact search serves each limit alone, "
                    "evolution all together"
                )
        key = channels.tobytes()
        if key not in self._smallest:
            self._smallest[key] = super().closings(channels, spend)
        vectors: Array = self._smallest[key] + differences
        if self._gains is not None:
            vectors[:, AMOUNT] += self._gains.sums(self._priced_necks.smallest, channels)
            if self.above:
                vectors[:, AMOUNT] += self._gains.slack(channels, *self._rises(channels))
            vectors[:, AMOUNT] -= self._gains.deepest * np.log(channels[:, -1])  # which a sum over levels counts
        return vectors

    def evaluate(self, individuals: Genes, stop: Callable[[], bool] = lambda: False) -> Evaluation:
        """Scores and metrics of rows; the score of what is outside the budget is nan."""
        self._find_necks(individuals)
        return self._problem.evaluate(self._problem.encode([self.spec(row) for row in individuals]), stop)

    def spec(self, individual: Genes) -> DetectorSpec:  # type: ignore[override]
        """The detector that a row stands for."""
        backbone, whole = super().spec(individual), self._whole
        if backbone.out_channels not in self._necks:
            self._find_necks(individual[None])
        neck, image_size = self._necks[backbone.out_channels], whole.frame.image_size
        return DetectorSpec(backbone, neck, whole.frame.head, image_size)

    # ------------------------------------------------------------------ inside

    @property
    def _priced_necks(self) -> Necks:
        """All necks, priced when they are first asked for."""
        if self._all_necks is None:
            self._all_necks = Necks(self._whole, self.objective, self.maps, self._gains)
        return self._all_necks

    def _directed(self) -> list[tuple[str, Array]]:
        """Every end of a limit, with the weights of a vector by which it wants to be low."""
        found = []
        for name, low, high in self.budget.ranges:
            column, unit = self.objective.additive(name)
            for sign, limit in ((1.0, high), (-1.0, low)):
                if 0 < limit < np.inf:
                    weights = np.zeros(self.objective.width)
                    weights[column] = sign / (limit * unit)
                    found.append((name, weights))
        return found

    def _scored(self) -> Array:
        """The weights of a vector by which the score counts a neck."""
        weights = np.zeros(self.objective.width)
        weights[AMOUNT] = self._gains is not None
        linear = self.objective.formula.linear() if self.objective.formula is not None else None
        if linear is not None and linear.metric:
            column, unit = self.objective.additive(linear.metric)
            weights[column] = linear.factor / unit
        return weights

    def _rises(self, channels: Integers) -> tuple[Array, Array]:
        """The least (n,) that gains rise by from C3 to C4, and from there to C5, where these have widths (n, 3)."""
        c3, c4, c5 = self.template.out_blocks
        return self._rise(range(c3 + 1, c4 + 1), *channels.T[:2]), self._rise(range(c4 + 1, c5 + 1), *channels.T[1:])

    def _rise(self, blocks: range, before: Integers, after: Integers) -> Array:
        """The least (n,) that some blocks add to the gains between maps of these widths; a fixed last one counts as none."""
        rise, nothing = np.zeros(len(before)), np.zeros(len(before), dtype=np.int64)
        for index in blocks[: self.blocks - blocks.start]:
            outs = np.array(self.space.widths(index))
            low = np.array([self.mid_index[index][self.space.bottlenecks(out)[0]] for out in outs.tolist()])
            enters = self.in_index[index][before] if index == blocks[0] else nothing
            leaves = self.out_index[index][after] if index == blocks[-1] else nothing
            rise += np.min(
                [
                    self.block_vectors(index, nothing + kernel, enters, low[leaves], leaves, nothing + 1)[:, AMOUNT]
                    for kernel in self.space.block_kernels(index)
                ],
                axis=0,
            )
        return rise

    def _cheapest(self, channels: Integers, spend: Callable[[int, str], None]) -> Choices:
        weights = sum((weights for _, weights in self._directed()), np.zeros(self.objective.width))
        if self.price < np.inf:
            weights = self.price * weights - self._scored()
        return self._priced_necks.cheapest(channels, weights, spend)

    def _find_necks(self, rows: Genes) -> None:
        """Remember the necks of rows' pyramids."""
        fixed = np.full(len(rows), self.template.blocks[-1].out)
        taps = [rows[:, FIELDS * i + OUT] if i < self.blocks else fixed for i in self.template.out_blocks]
        channels = np.unique(np.stack(taps, axis=1), axis=0)
        new = np.array([c not in self._necks for c in map(tuple, channels.tolist())], dtype=bool)
        choices = self._cheapest(channels[new], lambda steps, doing: None)
        for place, widths in enumerate(channels[new].tolist()):
            self._necks[tuple(widths)] = self._priced_necks.spec(choices, place)
