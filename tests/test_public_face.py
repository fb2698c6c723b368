"""The types of the public face say something: no public function takes or gives `Any`, under no other name either."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for room in ("nas", "search_spaces") for path in (ROOT / room).rglob("*.py"))
#: "module.function" -> why `Any` is right there. Nothing so far.
ALLOWED: dict[str, str] = {}


def signatures(body: list[ast.stmt], owner: str) -> Iterator[tuple[str, list[ast.expr | None]]]:
    """Name and annotations of every public function, and of the methods of every public class."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from signatures(node.body, f"{owner}.{node.name}")
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name.endswith("__")):
            rest = [item for item in (node.args.vararg, node.args.kwarg) if item is not None]
            taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, *rest]
            yield f"{owner}.{node.name}", [*(item.annotation for item in taken), node.returns]


def aliases(body: list[ast.stmt]) -> Iterator[tuple[str, list[ast.expr | None]]]:
    """Names of a module that stand for a type: `Pixels = NDArray[np.uint8]`."""
    for node in body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Subscript)
        ):
            if node.targets[0].id[0].isupper():
                yield node.targets[0].id, [node.value]


def says_any(annotations: list[ast.expr | None]) -> bool:
    parts = (part for annotation in annotations if annotation is not None for part in ast.walk(annotation))
    return any(isinstance(part, ast.Name) and part.id == "Any" for part in parts)


def unsaid(source: str, owner: str) -> list[str]:
    body = ast.parse(source).body
    return [name for name, found in (*signatures(body, owner), *aliases(body)) if says_any(found)]


def test_no_public_signature_says_any() -> None:
    found = {name: path for path in MODULES for name in unsaid(path.read_text(), path.stem)}
    assert found.keys() == ALLOWED.keys(), {name: str(path) for name, path in found.items() if name not in ALLOWED}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(x: Any) -> int: ...", ["m.f"]),
        ("def f(*x: Any) -> int: ...", ["m.f"]),
        ("def f(**x: int) -> list[Any]: ...", ["m.f"]),
        ("class A:\n    def __call__(self, x: dict[str, Any]) -> int: ...", ["m.A.__call__"]),
        ("Rows = list[Any]", ["Rows"]),
        ("def _f(x: Any) -> int: ...\nclass _A:\n    def f(self, x: Any) -> int: ...\n_ROWS = list[Any]", []),
        ("def f(x: object) -> int:\n    y: Any = x\n    return y", []),
    ],
)
def test_what_is_found(source: str, expected: list[str]) -> None:
    assert unsaid(source, "m") == expected
