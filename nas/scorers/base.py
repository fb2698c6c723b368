"""What a scorer is: a function from an architecture to a number, and what one must know before using it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from nas.errors import UserError

Needs = Literal["spec", "module", "module and images"]
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

    def check_options(self, options: dict[str, Any]) -> None:
        """Raise UserError for an option that the scorer does not have."""
        for key in options:
            if key not in self.options:
                known = ", ".join(self.options) or "none"
                raise UserError(f"scorer {self.name} has no option {key!r}; it has {known}")
