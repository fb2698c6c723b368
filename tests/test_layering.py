"""The house rules of who may import whom, read off the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: What every package but the innermost may import: errors, and the check of options.
CHECKED = {"nas.errors", "nas.options"}
#: Beside, for what shows itself in notebooks.
SHOWN = {"nas.report.canvas"}
#: What each package may import of the project, beside itself.
MAY_IMPORT = {
    "nas.errors": set(),
    "nas.memory": set(),
    "nas.extensions": {"nas.errors"},
    "nas.provenance": set(),
    "nas.blocks": {"nas.errors"},
    "nas.options": {"nas.errors"},
    "nas.spec": {"nas.errors", "nas.extensions", "nas.blocks"},
    "nas.files": {"nas.errors", "nas.spec"},
    "nas.frame": CHECKED | {"nas.spec"},
    "nas.lowering": {"nas.errors", "nas.spec", "nas.blocks"},
    "nas.report.canvas": {"nas.errors", "nas.files"},
    "nas.cost": CHECKED | SHOWN | {"nas.blocks", "nas.spec", "nas.files", "nas.lowering"},
    "search_spaces": CHECKED | {"nas.extensions", "nas.blocks", "nas.spec", "nas.files", "nas.frame", "nas.lowering"},
    "nas.scorers": CHECKED | {"nas.extensions", "nas.blocks", "nas.spec", "nas.files", "nas.lowering",
                    "nas.cost", "nas.models", "search_spaces"},
    "nas.searchers": CHECKED | SHOWN | {"nas.extensions", "nas.blocks", "nas.spec", "nas.files", "nas.frame", "nas.lowering",
                      "nas.cost", "nas.scorers",
                      "search_spaces"},
    "nas.models": CHECKED | {"nas.provenance", "nas.blocks", "nas.spec", "nas.files", "nas.lowering", "search_spaces"},
    "nas.augment": CHECKED | {"nas.data"},
    "nas.data": CHECKED | SHOWN | {"nas.memory", "nas.files", "nas.augment", "nas.report"},
    "nas.loss": CHECKED | {"nas.models"},
    "nas.inference": CHECKED | SHOWN | {"nas.memory", "nas.files", "nas.models", "nas.data"},
    "nas.training": CHECKED | SHOWN | {"nas.memory", "nas.spec", "nas.files", "nas.models", "nas.data", "nas.augment", "nas.loss",
                     "nas.inference"},
    "nas.deploy": CHECKED | {"nas.provenance", "nas.spec", "nas.files", "nas.models", "nas.loss", "nas.inference"},
    "nas.measure": CHECKED | SHOWN | {"nas.memory", "nas.provenance", "nas.blocks", "nas.spec", "nas.files", "nas.frame",
                    "nas.lowering", "nas.cost", "nas.extensions", "nas.models", "nas.data", "nas.deploy", "nas.inference",
                    "nas.report", "search_spaces"},
    "nas.selection": CHECKED | {"nas.blocks", "nas.spec", "nas.files", "nas.frame", "nas.lowering", "nas.cost", "nas.searchers",
                      "search_spaces", "nas.training", "nas.data", "nas.inference", "nas.models", "nas.deploy", "nas.measure"},
    "nas.report": SHOWN | {"nas.errors", "nas.spec", "nas.files", "nas.lowering", "nas.cost", "nas.scorers"},
}  # fmt: skip

TORCH_FREE = ("nas.errors", "nas.memory", "nas.options", "nas.spec", "nas.files", "nas.frame", "nas.lowering", "nas.cost",
              "search_spaces", "nas.searchers", "nas.report", "nas.api", "nas.search", "nas.commands.search",
              "nas.config")  # fmt: skip
TORCH_SCORERS = ("activation", "gradient", "aznas", "probe", "subjects", "measuring")


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@lru_cache(maxsize=1)
def _sources() -> dict[str, Path]:
    files = [*ROOT.glob("nas/**/*.py"), *ROOT.glob("search_spaces/**/*.py")]
    return {_module(path): path for path in files}


def _imports(path: Path, top_level_only: bool = False, types: bool = False) -> set[str]:
    """Modules that a file imports; those under `if TYPE_CHECKING` only with `types`."""
    found: set[str] = set()

    def visit(nodes: list[ast.stmt], inside: bool) -> None:
        for node in nodes:
            if not types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            for name in ("body", "orelse", "finalbody"):
                if not (top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
                    visit(getattr(node, name, []), inside)
            for handler in getattr(node, "handlers", []):
                visit(handler.body, inside)

    visit(ast.parse(path.read_text()).body, False)
    return found


def _package(module: str) -> str:
    """The row of MAY_IMPORT that a module belongs to, or its own name."""
    return next((name for name in MAY_IMPORT if module == name or module.startswith(name + ".")), module)


def _is_main(module: str) -> bool:
    """Whether `python -m` of it is a command: a module of nas itself, or a package's __main__."""
    return module.count(".") == 1 or module.endswith(".__main__")


def test_no_package_imports_upward() -> None:
    wrong = []
    for module, path in _sources().items():
        package = _package(module)
        if package not in MAY_IMPORT or _is_main(module):
            continue
        for target in _imports(path):
            if target.split(".")[0] in ("nas", "search_spaces"):
                other = _package(target)
                if other != package and other not in MAY_IMPORT[package]:
                    wrong.append(f"{module} imports {target}")
            if target.split(".")[0] in ("experiments", "tests"):
                wrong.append(f"{module} imports {target}")
    assert not wrong, "\n".join(sorted(wrong))


def test_no_circles_between_modules_lazy_and_type_imports_counted() -> None:
    sources = _sources()
    edges = {}
    for module, path in sources.items():
        targets = set()
        for target in _imports(path, types=True):
            while target and target not in sources:
                target = target.rpartition(".")[0]
            if target and target != module and not module.startswith(target + "."):
                targets.add(target)
        edges[module] = targets
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for target in edges[module]:
                walk(target, (*trail, module))
            done.add(module)

    for module in edges:
        walk(module, ())


def test_hydra_lives_in_mains_and_config_only() -> None:
    for module, path in _sources().items():
        names = {target.split(".")[0] for target in _imports(path)}
        if names & {"hydra", "omegaconf"}:
            assert _is_main(module), module


def test_spec_imports_the_standard_library_only() -> None:
    allowed = set(sys.stdlib_module_names) | {"nas"}
    assert {name.split(".")[0] for name in _imports(ROOT / "nas/spec.py")} <= allowed


@pytest.mark.parametrize("package", TORCH_FREE)
def test_torch_is_not_imported(package: str) -> None:
    for module, path in _sources().items():
        if module == package or module.startswith(package + "."):
            heavy = {target.split(".")[0] for target in _imports(path, top_level_only=True)} & {
                "torch",
                "lightning_fabric",
            }
            assert not heavy, f"{module} imports torch"


def test_analytic_scorers_are_torch_free() -> None:
    for module, path in _sources().items():
        if module.startswith("nas.scorers") and module.rpartition(".")[2] not in TORCH_SCORERS:
            assert "torch" not in {target.split(".")[0] for target in _imports(path, top_level_only=True)}, module


def test_public_import_brings_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import nas, search_spaces, nas.api, nas.searchers.run, nas.scorers\n"
        "spec = nas.load('tinynas_l25_k1kx'); print(nas.count(spec, image_size=640).layers, nas.score(spec, 'mae'))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    layers, score = result.stdout.split()
    assert int(layers) == 25 and abs(float(score) - 1380.5875) < 1e-3


def test_no_drawer_modules() -> None:
    banned = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
    assert not [module for module in _sources() if module.rpartition(".")[2] in banned]


def test_no_command_needs_torch_before_it_runs() -> None:
    mains = [path.stem for path in ROOT.glob("nas/*.py") if "__main__" in path.read_text()]
    assert {"search", "select", "train", "evaluate", "predict", "export", "profile", "rank", "compare"} <= {*mains}
    code = f"import sys\nfor name in {mains}: __import__(f'nas.{{name}}')\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
