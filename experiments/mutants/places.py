"""Where the source can be changed by one operator of cosmic-ray, and a seeded sample of these changes."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from random import Random

from nas.errors import UserError

#: What is mutated, and the tests that have to notice: those of the mirrored place alone.
MIRRORS = {
    "nas/spec.py": "tests/test_spec_properties.py",
    "nas/blocks": "tests/blocks",
    "nas/lowering": "tests/lowering",
    "nas/cost": "tests/cost",
    "nas/searchers": "tests/searchers",
}
#: From where to where (line, column) something goes.
Spans = list[tuple[tuple[int, int], tuple[int, int]]]


@dataclass(frozen=True, order=True)
class Mutant:
    """One change: cosmic-ray's operator at its n-th place in a file; `line` and `column` are where that is."""

    file: str
    line: int
    column: int
    operator: str
    occurrence: int

    @property
    def place(self) -> tuple[str, int, int, str]:
        """What is changed, whatever it is changed to: an operator that has twelve others counts as one place."""
        return self.file, self.line, self.column, self.operator.split("_")[0]


def mirror_of(file: str) -> str:
    """The tests of a file; raises UserError for one outside what is mutated."""
    for source, tests in MIRRORS.items():
        if file == source or file.startswith(f"{source}/"):
            return tests
    raise UserError(f"{file} has no mirrored tests; known: {', '.join(MIRRORS)}")


def sources(root: Path, only: str = "") -> list[str]:
    """Files that are mutated, `only` those of one key of MIRRORS. Raises UserError if there are none."""
    paths = [root / source for source in MIRRORS if not only or source == only]
    files = [path for each in paths for path in ([each] if each.is_file() else sorted(each.rglob("*.py")))]
    if not files:
        raise UserError(f"only={only}: take one of {', '.join(MIRRORS)}")
    return [path.relative_to(root).as_posix() for path in files]


def mutants(root: Path, files: Iterable[str]) -> Iterator[Mutant]:
    """Every change that cosmic-ray knows, but those of what never runs. Raises UserError where it is not installed."""
    try:
        from cosmic_ray import plugins
        from cosmic_ray.ast import ast_nodes, get_ast_from_path
    except ImportError:
        raise UserError("cosmic-ray is not installed: pip install cosmic-ray==8.7.0 coverage==7.17.5") from None
    operators = {name: plugins.get_operator(name) for name in plugins.operator_names()}
    ready = {name: kind() for name, kind in sorted(operators.items()) if not kind.arguments()}
    for file in files:
        tree, idle = get_ast_from_path(root / file), idle_spans((root / file).read_text())
        nodes = list(ast_nodes(tree))
        for name, operator in ready.items():
            positions = (start for node in nodes for start, _ in operator.mutation_positions(node))
            for occurrence, (line, column) in enumerate(positions):
                if not any(first <= (line, column) < last for first, last in idle):
                    yield Mutant(file, line, column, name.removeprefix("core/"), occurrence)


def idle_spans(text: str) -> Spans:
    """What no test can tell apart: annotations, which `from __future__ import annotations` leaves alone, and TYPE_CHECKING."""
    spans: Spans = []
    for node in ast.walk(ast.parse(text)):
        held = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            held.append(node.test)
        for part in held:
            if isinstance(part, ast.expr) and part.end_lineno is not None and part.end_col_offset is not None:
                spans.append(((part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)))
    return spans


def statement_lines(text: str, line: int) -> range:
    """Lines of the innermost statement around a line; of one that holds others (if, for, def) those of its head."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(text)):  # outer statements come first
        if not isinstance(node, ast.stmt) or node.end_lineno is None:
            continue
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if body else node.end_lineno
        if first <= line <= max(first, last):
            found = range(first, max(first, last) + 1)
    return found


def sample(found: Iterable[Mutant], seed: int, size: int = 0) -> Sequence[Mutant]:
    """One change of every place, in random order, so that any beginning is a fair sample; `size` of them (0: all)."""
    rng = Random(seed)
    drawn = [rng.choice(list(group)) for _, group in groupby(sorted(found, key=_by_place), key=lambda each: each.place)]
    rng.shuffle(drawn)
    return drawn[: size or None]


def _by_place(mutant: Mutant) -> tuple[tuple[str, int, int, str], Mutant]:
    return mutant.place, mutant
