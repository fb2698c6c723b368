"""python -m nas.list models: what there is to choose from, a sentence each."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nas.command_line import show
from nas.cost.budget import METRICS
from nas.errors import UserError
from nas.extensions import CHOSEN, installed
from nas.files import config_folder, read_text, read_yaml


def models() -> dict[str, str]:
    """Published architectures, then the detectors drawn by hand, by family."""
    from nas.models import baselines
    from search_spaces.published import published_document, published_names

    found = {name: str(published_document(name)[1]["description"]) for name in published_names()}
    for name in baselines.BASELINES:
        path = Path(baselines.__file__).with_name(f"{baselines.family(name)}.py")
        first = (ast.get_docstring(ast.parse(read_text(path))) or "").splitlines()[0]
        found[name] = f"drawn by hand: {first.partition(': ')[2] or first}".rstrip(".")
    return found


def spaces() -> dict[str, str]:
    """Search spaces."""
    from search_spaces import FAMILIES

    return {name: text for names in FAMILIES.values() for name, text in names.items()}


def scorers() -> dict[str, str]:
    """Scores: what their file of conf/scorer says, else their source and what they need."""
    from nas.scorers import SCORERS

    written = _files("scorer")
    return {
        name: written.get(name) or f"{scorer.source}; takes {scorer.needs}, one {scorer.cost} pass"
        for name, scorer in SCORERS.items()
    }


def hardware() -> dict[str, str]:
    """Latency tables that are shipped."""
    from nas.cost.table_file import find_table, read_table, shipped

    headers = (read_table(find_table(name))[0] for name in shipped())
    return {h.name: f"{h.device}, {h.runtime}, {h.precision}, {h.error_percent:g} % mean error" for h in headers}


def budgets() -> dict[str, str]:
    """Limits with a name."""
    found = {}
    for path in sorted((Path(config_folder()) / "budget").glob("*.yaml")):
        document: Any = read_yaml(path)
        limits = document[path.stem]
        found[path.stem] = ", ".join(f"at most {limit:g} {METRICS[metric]}" for metric, limit in limits.items())
    return found


def _files(group: str) -> dict[str, str]:
    """The files of a group of conf/ with the first sentence of the comment that they begin with."""
    found = {}
    for path in sorted((Path(config_folder()) / group).glob("*.yaml")):
        comment = ""
        for line in read_text(path).splitlines():
            if not line.startswith("#"):
                break
            comment += f" {line.lstrip('# ')}"
        found[path.stem] = f"{comment.strip()} ".partition(". ")[0].strip(" .:")
    return found


#: What can be listed, with the setting that takes the names.
KINDS: dict[str, tuple[str, Callable[[], dict[str, str]]]] = {
    "models": ("model=", models),
    "spaces": ("space=", spaces),
    "scorers": ("scorer=", scorers),
    "searchers": ("searcher=", lambda: _files("searcher")),
    "hardware": ("hardware=", hardware),
    "budgets": ("+budget=", budgets),
    "data": ("data=", lambda: _files("data")),
    "trainers": ("trainer=", lambda: _files("trainer")),
    "augmentations": ("augmentation=", lambda: _files("augmentation")),
    "necks": ("neck=", lambda: _files("neck")),
    "distillations": ("distill=", lambda: _files("distill")),
}
#: What else the setting of a kind takes.
OWN = {
    "models": "a spec file (best.yaml), a checkpoint (.safetensors), or an exported file",
    "hardware": "the path of a table that maenas profile made",
    "budgets": "any limit of one's own: +budget.mine.latency_ms=2.5",
    "data": "the path of a folder, a data.yaml, a COCO JSON or a zip of one's own",
}


def lines(kind: str) -> Iterator[str]:
    """What is printed for a kind; raises UserError for an unknown one."""
    if kind not in KINDS:
        raise UserError(f"there is no list of {kind!r}; there are {', '.join(KINDS)}")
    setting, made = KINDS[kind]
    rows = made()
    own = next((kind for kind in CHOSEN if setting == f"{kind}="), None)
    if own is not None:
        rows |= {name: f"installed: {point.value}" for name, point in installed(own).items()}
    width = max(map(len, rows))
    yield from (f"  {name:{width}}  {text}".rstrip() for name, text in rows.items())
    more = OWN.get(kind) or (f"{setting}my_package.module:attribute of one's own (docs/extending.md)" if own else "")
    yield from (f"\n  also {more}",) if more else ()


def main() -> None:
    """Entry point of `python -m nas.list`: the kinds, or what there is of those that are named."""
    kinds = sys.argv[1:]
    if not kinds or {"-h", "--help"} & set(kinds):
        print("maenas list KIND: what a setting can be, a sentence each")
        print("\n".join(f"  {kind:15}{setting}" for kind, (setting, _) in KINDS.items()))
        return
    try:
        for kind in kinds:
            show("\n".join(lines(kind)))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
