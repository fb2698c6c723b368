"""What a search space is: a set of architectures with moves inside it.

A space is an immutable value whose limits are plain fields; it draws, changes and judges specs, and knows nothing of
scores, budgets or searchers. All randomness comes from the `random.Random` that the caller hands in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from annotated_types import Ge, Le, MinLen

from nas.errors import SpecError, UserError
from nas.frame import Frame
from nas.lowering import Operation
from nas.options import DISTINCT, LOWEST_FIRST, Kernel, Rule, Width, check_fields
from nas.spec import Backbone, Spec

if TYPE_CHECKING:
    from search_spaces.streams import Words

Cost = Callable[[Sequence[Operation]], float]
"""A price of some operations."""


def parameters(operations: Sequence[Operation]) -> float:
    """Learnable numbers: what the smallest member has the fewest of unless another cost is asked for."""
    return sum(operation.params for operation in operations)


Mode = Literal["coarse", "minor"]
Value = TypeVar("Value")
#: What a space holds. A space is handed only what it made itself, so that one of backbones is one of specs.
Member = TypeVar("Member", bound=Spec, covariant=True)

#: Types of limits, with the ranges in which they make sense.
Step = Annotated[int, Ge(1), Le(1024)]
Range = Annotated[tuple[Width, Width], LOWEST_FIRST]
Depth = Annotated[int, Ge(1), Le(100)]
Depths = Annotated[tuple[Depth, ...], MinLen(1)]
DepthChoices = Annotated[tuple[Depth, ...], MinLen(1), DISTINCT]
Factor = Annotated[float, Ge(0.01), Le(100)]
Factors = Annotated[tuple[Factor, ...], MinLen(1), DISTINCT]
Kernels = Annotated[tuple[Kernel, ...], MinLen(1), DISTINCT]
Move = Annotated[int, Ge(-100), Le(100), Rule("not 0", bool)]
Moves = Annotated[tuple[Move, ...], MinLen(1), DISTINCT]


def require_on_grid(what: str, ranges: Iterable[tuple[tuple[int, int], int]]) -> None:
    """Raise UserError unless both ends of every ((lowest, highest), step) are multiples of its step."""
    for (low, high), step in ranges:
        if low % step or high % step or not step <= low <= high:
            raise UserError(f"{what} range [{low}, {high}] must be multiples of {step}")


def differing_fields(spec: Backbone, frame: Backbone) -> list[str]:
    """One line for each field of stem and backbone in which a spec differs from what all members of a space share."""
    broken = []
    for name in ("kind", "kernel", "stride"):
        mine, its = getattr(frame.stem, name), getattr(spec.stem, name)
        if mine != its:
            broken.append(f"stem {name} {its} differs from {mine}")
    for name in ("out_blocks", "spp", "activation", "reparam"):
        mine, its = _plain(getattr(frame, name)), _plain(getattr(spec, name))
        if mine != its:
            broken.append(f"{name} {its} differs from {mine}")
    return broken


def round_to(value: float, step: int = 8) -> int:
    """TinyNAS's channel rounding: the multiple of `step` nearest to `value` (ties to even), at least one step."""
    return max(step, step * round(value / step))


def draw(options: Sequence[Value], rng: Random) -> Value:
    """A uniform choice by one `random()` call, several times faster than `Random.choice`."""
    return options[int(rng.random() * len(options))]


@dataclass(frozen=True, kw_only=True)
class SearchSpace(ABC, Generic[Member]):
    """A set of architectures: how to start, draw, change and combine them, and what its limits are.

    Every spec that `initial`, `sample`, `mutate` (of a member) and `crossover` (of two members) return is a member.
    """

    name: str

    @abstractmethod
    def initial(self) -> Member:
        """The small member that a search starts from."""

    @abstractmethod
    def sample(self, rng: Random) -> Member:
        """A random member."""

    @abstractmethod
    def mutate(self, spec: Member, rng: Random, mode: Mode = "coarse") -> Member:  # type: ignore[misc]
        """A member near the member `spec`: `coarse` changes anything by large steps, `minor` widths by small ones."""

    @abstractmethod
    def crossover(self, a: Member, b: Member, rng: Random) -> Member:  # type: ignore[misc]
        """A member with parts of the members `a` and `b`."""

    def samples(self, keys: Words) -> list[Member]:
        """One random member per key, which is all that it depends on."""
        return [self.sample(Random(key)) for key in keys.tolist()]

    def mutants(self, parents: Sequence[Member], keys: Words, mode: Mode = "coarse") -> list[Member]:
        """One changed member per parent and key."""
        return [self.mutate(parent, Random(key), mode) for parent, key in zip(parents, keys.tolist(), strict=True)]

    def children(self, first: Sequence[Member], second: Sequence[Member], keys: Words) -> list[Member]:
        """One crossing per pair and key."""
        return [self.crossover(a, b, Random(key)) for a, b, key in zip(first, second, keys.tolist(), strict=True)]

    @abstractmethod
    def violations(self, spec: Member) -> list[str]:  # type: ignore[misc]
        """One line for each limit that `spec` breaks, naming the limit; empty for a member."""

    @abstractmethod
    def size(self) -> int:
        """How many architectures the space holds (a subclass says if it is an upper bound)."""

    def smallest(self, cost: Cost = parameters, image_size: int | None = None) -> Member | None:
        """A member that no other undercuts, up to shortcuts of residual blocks; None where the space knows none.

        cost: of some operations, anything that grows with them and with their widths, depths and kernels; image_size:
        pixels at which it is asked. Tells whether a budget is possible at all (`nas.searchers.limits`).
        """
        return None

    def in_frame(self, frame: Frame) -> SearchSpace[Member]:
        """The space of detectors with whatever it does not search taken from `frame`; one of backbones is itself.

        Raises UserError where the frame says what the space searches, or contradicts what it holds fixed.
        """
        frame.require_agreement(self.initial(), self.name)
        return self

    def limits(self) -> dict[str, object]:
        """Every limit as plain data that `override` takes: lists, numbers, words, and mappings for spaces inside."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {key: _plain(value) for key, value in values.items() if key != "name" and not isinstance(value, Frame)}

    def reached(self, spec: Member) -> list[str]:  # type: ignore[misc]
        """The limits of the space that a member uses up, as readable lines: what stops it from growing."""
        return []

    def contains(self, spec: Member) -> bool:  # type: ignore[misc]
        """Whether `spec` breaks no limit."""
        return not self.violations(spec)

    def check(self, spec: Member) -> None:  # type: ignore[misc]
        """Raise SpecError that names the first broken limit, unless `spec` is a member."""
        broken = self.violations(spec)
        if broken:
            raise SpecError(f"not in space {self.name}: {broken[0]}")

    def override(self, **limits: object) -> SearchSpace[Member]:
        """The same space with other limits; lists become tuples. Raises UserError for a limit that it does not have."""
        return self._overridden("space", limits)

    def _overridden(self, where: str, limits: Mapping[str, object]) -> SearchSpace[Member]:
        """`override`; a space inside a space takes a mapping of its limits."""
        values = dict(limits)
        fixed = [item.name for item in fields(self) if isinstance(getattr(self, item.name), Frame)]
        for item in fields(self):
            inner, given = getattr(self, item.name), values.get(item.name)
            if isinstance(inner, SearchSpace) and isinstance(given, Mapping):
                values[item.name] = inner._overridden(f"{where}.{item.name}", given)
        changes: dict[str, Any] = check_fields(type(self), values, where, fixed)
        return replace(self, **changes)


def _plain(value: Any) -> Any:
    if isinstance(value, SearchSpace):
        return value.limits()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
