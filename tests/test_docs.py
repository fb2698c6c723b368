"""What the documentation says works: links lead somewhere, commands compose, snippets compile, the front door opens."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import nas

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
LINKED = PAGES + sorted((ROOT / "experiments").rglob("README.md"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fenced(text: str, language: str) -> list[str]:
    """Contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """A page without fenced blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(path: Path) -> set[str]:
    """Anchors that GitHub gives to the headings of a page."""
    found = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


def commands(text: str) -> Iterator[list[str]]:
    """The words after `python -m` of every `python -m nas...` (or `maenas ...`) and `python -m experiments...` of a page.

    Inline commands count where they can be run as they stand, without a placeholder.
    """
    lines = [line for block in fenced(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(
        r"`((?:python -m|maenas) [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    )
    lines += [line for line in inline if "..." not in line and not re.search(r"=[A-Z]+\b|\b[A-Z]{4,}\b", line)]
    for line in lines:
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words[:1] == ["maenas"] and "--help" not in words and words[1] not in ("list", "completion"):
                words = ["python", "-m", f"nas.{words[1]}", *words[2:]]
            if words[:2] == ["python", "-m"] and words[2].split(".")[0] in ("nas", "experiments"):
                yield words[2:]


def all_commands() -> list[Any]:
    found = {" ".join(words): words for page in LINKED for words in commands(page.read_text())}
    return [pytest.param(words, id=text[:70]) for text, words in found.items()]


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        assert file.exists(), f"{name_of(page)} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(file), f"{name_of(page)} links to {target}: there is no such heading"


@pytest.mark.parametrize("words", all_commands())
def test_command_is_understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert importlib.util.find_spec(words[0]) is not None, f"there is no module {words[0]}"
    if len(words) > 1 and (words[0].startswith("nas.") or words[0] == "experiments.train_row"):
        compose(words, monkeypatch)
    elif words[0].startswith("experiments."):
        understood_by_experiment(words)


def own_modules() -> dict[str, ModuleType]:
    """The modules that docs/extending.md has one write."""
    found = {}
    for path, text in own_files((ROOT / "docs/extending.md").read_text()).items():
        name = path.removesuffix(".py").replace("/", ".")
        module = sys.modules[name] = found[name] = ModuleType(name)  # dataclasses look it up
        exec(text, vars(module))
    return found


def own_files(page: str) -> dict[str, str]:
    """The Python files that a page has one write: its blocks that begin with a comment of their path."""
    blocks = (re.match(r"# (\S+\.py)\n(.*)", block, re.DOTALL) for block in fenced(page, "python"))
    return {block[1]: block[2] for block in blocks if block}


def compose(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a main up to the point where its configuration is composed and has the types of its schema."""
    import hydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    from nas.commands.search import SearchCommand
    from nas.config import offer_own, offer_schema, settings_of
    from nas.files import config_folder

    composed = []
    for name, module in own_modules().items():
        monkeypatch.setitem(sys.modules, name, module)

    def launch(name: str, schema: type, run: Any, folder: str | None = None) -> None:
        offer_schema(name, schema)
        given = [word for word in words[1:] if not word.startswith(("-", "use=")) and word != "job"]
        parsed = OverridesParser.create().parse_overrides(given)
        sweep = [override for override in parsed if override.is_sweep_override()]
        assert not sweep or "-m" in words, "several values need -m"
        single = [
            f"{o.input_line.partition('=')[0]}={next(iter(o.sweep_string_iterator()))}" if o in sweep else o.input_line
            for o in parsed
        ]
        offer_own(given)
        with hydra.initialize_config_dir(folder or config_folder(), version_base="1.3"):
            config = hydra.compose(name, overrides=single, return_hydra_config=True)
        del config.hydra
        settings = settings_of(schema, config)
        if isinstance(settings, SearchCommand) and settings.resume is None:
            assert settings.settings.space
        composed.append(settings)

    monkeypatch.setattr(sys.modules["nas.config"], "launch", launch)
    monkeypatch.setattr(sys, "argv", words)
    OmegaConf.register_new_resolver("first", lambda *values: next((v for v in values if v), None), replace=True)
    runpy.run_module(words[0], run_name="__main__", alter_sys=False)
    assert composed


def understood_by_experiment(words: list[str]) -> None:
    """Tables and scales exist, and the package reads every option that is given."""
    from experiments.scales import load_scale
    from experiments.tables import load_table

    spec = importlib.util.find_spec(words[0])
    assert spec is not None and spec.origin is not None
    files = sorted(Path(spec.origin).parent.glob("*.py")) if spec.submodule_search_locations else [Path(spec.origin)]
    source = "".join(file.read_text() for file in [*files, ROOT / "experiments/official_problems.py"])
    for word in words[1:]:
        option, equals, value = word.partition("=")
        if words[0] in ("experiments.run", "experiments.report") and not equals and word != "all":
            load_table(word)
        if option == "scale":
            load_scale(value)
        known = re.search(rf"(?<![\w]){re.escape(option.lstrip('-'))}\b", source)
        assert not equals or known, f"{words[0]} knows no {option}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_compiles(page: Path) -> None:
    for number, block in enumerate(fenced(page.read_text(), "python")):
        compile(block, f"{page.name}, python block {number + 1}", "exec")


@pytest.mark.parametrize("page", ["README.md", "docs/extending.md"])
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas, "find", functools.partial(nas.find, evaluations=60), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (ROOT / page).read_text()
    files = own_files(text)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    for block in fenced(text, "python"):
        (tmp_path / "snippet.py").write_text(block.replace(", evaluations=500", ""))
        runpy.run_path(str(tmp_path / "snippet.py"), run_name="snippet")
    for name in files:
        sys.modules.pop(name.removesuffix(".py").replace("/", "."), None)


def test_citation_is_valid() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["title"] == "maenas"
    assert citation["version"] == nas.__version__ and citation["authors"]
    assert all(reference["title"] and reference["url"].startswith("https://") for reference in citation["references"])


#: What makes each command of the front door short; the commands themselves stay as they are printed.
SHORT = {
    "nas.profile": "image_size=64 networks=4 repetitions=3",
    "nas.search": "image_size=64 evaluations=150",
    "nas.train": (
        "device=cpu progress=false trainer.epochs=2 trainer.batch_size=4 trainer.workers=0 trainer.schedule.warmup_epochs=1"
        " augmentation.closing_epochs=1"
    ),
    "nas.export": "check_images=2",
    "nas.predict": "",
}


@pytest.mark.slow
def test_front_door(tmp_path: Path, drawn_bccd: Callable[[Path], Path]) -> None:
    """The five lines from a budget to a deployed detector, as printed, on drawn data in place of BCCD."""
    (block,) = [b for b in fenced((ROOT / "README.md").read_text(), "bash") if "maenas train" in b]
    data = drawn_bccd(tmp_path / "data/bccd")
    (tmp_path / "photos").symlink_to(data / "images/test")
    known = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment = {name: value for name, value in known.items() if name != "MAENAS_BCCD"}
    lines = [words for words in commands(f"```bash\n{block}```") if words]
    assert [words[0] for words in lines] == list(SHORT)
    for words in lines:
        command = [sys.executable, "-m", *words, *SHORT[words[0]].split()]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr[-1000:]}"
    assert (tmp_path / "outputs/trained/best.onnx").is_file()
