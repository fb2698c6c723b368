"""python -m experiments.checklist [all=false]

The checklist of best practices for NAS research (Lindauer and Hutter, arXiv 1909.02453), answered from the files of this
repository: a line an item, with the files that answer it and a check of what they hold. It ends with status 1 while an
item is open, and says why. all: every reason, not the first three of an item.
"""

from __future__ import annotations

from pathlib import Path

from experiments.checklist.items import ITEMS, states
from experiments.command import options_of, run
from nas.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
#: Reasons of an item that are told unless all are asked for.
SOME = 3


def lines(root: Path, every: bool = False) -> tuple[list[str], list[int]]:
    """The lines of the table, and the numbers of the items that are open."""
    found, told = states(root), list[str]()
    for item in ITEMS:
        reasons = found[item.number]
        told.append(f"{item.number:2}  {'OPEN' if reasons else 'kept'}  {item.asks}")
        if item.answer:
            told.append(f"          {item.answer}: {', '.join(item.files) or 'experiments/results'}")
        shown = reasons if every else reasons[:SOME]
        told += [f"          - {reason}" for reason in shown]
        if len(shown) < len(reasons):
            told.append(f"          - and {len(reasons) - len(shown)} more (all=true)")
    return told, [number for number, reasons in found.items() if reasons]


def main(words: list[str]) -> None:
    """Print the table; UserError, which ends the command with status 1, names the open items."""
    given = options_of(words, {"all": False})
    told, still = lines(ROOT, given["all"])
    print("\n".join(told))
    if still:
        raise UserError(f"{len(still)} of {len(ITEMS)} items are open: {', '.join(map(str, still))}")
    print(f"all {len(ITEMS)} items are kept")


if __name__ == "__main__":
    run(main)
