"""What a scorer is: a function from an architecture to a number, and what one must know before using it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from nas.options import check_keywords, unknown

Needs = Literal["spec", "module", "module and images"]
Weights = Sequence[Annotated[float, Ge(-1e6), Le(1e6)]]
"""Level weights: one per resolution."""
Cost = Literal["microseconds", "forward", "backward"]


@dataclass(frozen=True, slots=True)
class Scorer:
    """One score, always read as higher is better.

    path: "module:function"; imported on first use, so that listing scorers imports nothing.
    needs: "spec" scorers take (spec, **options); the others take a torch module, see their package.
    cost: the order of one evaluation; random: whether two evaluations of one network may differ.
    source: paper, or "ours".
    """

    name: str
    path: str
    source: str
    needs: Needs = "spec"
    cost: Cost = "microseconds"
    random: bool = False

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself."""
        module, _, attribute = self.path.partition(":")
        return getattr(importlib.import_module(module), attribute)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the keyword options that the function takes after its first argument."""
        return tuple(inspect.signature(self.function).parameters)[1:]

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise UserError for an option that the scorer does not have, or a value outside its annotation (null is as
        good as not given)."""
        for key in options:
            if key not in self.options:
                raise unknown(f"scorer {self.name}", key, self.options)
        given = {key: value for key, value in options.items() if value is not None}
        check_keywords(self.function, given, "scorer")
