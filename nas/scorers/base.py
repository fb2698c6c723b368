"""What a scorer is: a function from an architecture to a number, and what one must know before using it."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from nas.errors import UserError, shown
from nas.extensions import reference_to
from nas.options import Name, Pixels, check_keywords, check_value, unknown

Needs = Literal["spec", "module", "module and images"]
Weights = Sequence[Annotated[float, Ge(-1e6), Le(1e6)]]
"""Level weights: one per resolution."""
Cost = Literal["microseconds", "forward", "backward"]
#: What a scorer of modules sees, beside its own options: how many images, noise ("gaussian") or pictures of a folder, and
#: the side that a search gives them.
SEEN: dict[str, Any] = {"batch": Annotated[int, Ge(1), Le(65_536)], "inputs": Name, "image_size": Pixels}
OWN = "one's own"
"""The source of a scorer that is not shipped."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """One score, always read as higher is better.

    path: "module:function", imported on first use, so that listing scorers imports nothing; or the function itself.
    needs: "spec" scorers take (spec, **options); the others (module, **options), and whichever of `images` (B, 3, H, W)
    and `seed` they name.
    cost: the order of one evaluation; random: whether two evaluations of one network may differ.
    source: paper, or "ours"; closed_form: the `Formula` beside the function, if there is one: made, or what makes it.
    shared: the function answers several scorers by name, in one pass.
    """

    name: str
    path: str | Callable[..., object]
    source: str
    needs: Needs = "spec"
    cost: Cost = "microseconds"
    random: bool = False
    closed_form: str = ""
    shared: bool = False

    @property
    def function(self) -> Callable[..., object]:
        """The function itself."""
        if not isinstance(self.path, str):
            return self.path
        module, _, attribute = self.path.partition(":")
        return getattr(importlib.import_module(module), attribute)

    @property
    def takes(self) -> tuple[str, ...]:
        """Names of what the function takes after its first argument."""
        return tuple(inspect.signature(self.function).parameters)[1:]

    @property
    def options(self) -> tuple[str, ...]:
        """Names of those of its keywords that are the user's, and of what a scorer of modules sees."""
        if self.needs == "spec":
            return self.takes
        return tuple(dict.fromkeys([*(name for name in self.takes if name not in ("images", "seed")), *SEEN]))

    def __call__(self, network: object, **keywords: object) -> object:
        """The answer of the function; an error of one's own code is told in one line, with its place."""
        try:
            answer = self.function(network, **keywords)
            return answer[self.name] if self.shared and isinstance(answer, dict) else answer
        except UserError:
            raise
        except Exception as error:
            if self.source != OWN:
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"scorer {self.name} failed with {type(error).__name__}: {reason} ({place.filename}, line {place.lineno})"
            ) from error

    def check_options(self, options: Mapping[str, object]) -> None:
        """Raise UserError for an option that the scorer does not have, or a value outside its annotation (null is as
        good as not given)."""
        for key in options:
            if key not in self.options:
                raise unknown(f"scorer {self.name}", key, self.options)
        given = {key: value for key, value in options.items() if value is not None}
        seen = given.keys() - set(self.takes)
        check_keywords(self.function, {key: given[key] for key in given if key not in seen}, "scorer")
        for key in sorted(seen):
            check_value(f"scorer.{key}", given[key], SEEN[key])


def own_scorer(function: Callable[..., object], name: str = "") -> Scorer:
    """A function of one's own as a scorer; a `Scorer` is taken as it is.

    It scores torch modules if its first parameter is annotated as one or called `module` or `model`, else specs. Raises
    UserError for what is no function of a network.
    """
    if isinstance(function, Scorer):
        return function
    name = name or reference_to(function if hasattr(function, "__qualname__") else type(function))
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    if not parameters:
        raise UserError(f"scorer {name} must be a function of a spec or of a module, got {shown(function)}")
    first = parameters[0]
    annotation = first.annotation if isinstance(first.annotation, str) else getattr(first.annotation, "__name__", "")
    module = first.name in ("module", "model") or annotation.rpartition(".")[2] == "Module"
    needs: Needs = "spec"
    if module:
        needs = "module and images" if any(parameter.name == "images" for parameter in parameters) else "module"
    return Scorer(name, function, OWN, needs, "forward" if module else "microseconds")


def number(scorer: str, answer: object) -> float:
    """What a scorer answered, as a number; raises UserError for anything else."""
    try:
        return float(answer)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UserError(f"scorer {scorer} must return a number, got {shown(answer)}") from None
