"""python -m experiments.results_page: write docs/results.md and the results of README from the committed evidence.

Every number of these pages is a finding's (`experiments.findings`): to change one, run its command again. A test holds the
pages against the files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from experiments.command import run
from experiments.findings import ROOT, Result, results
from nas.files import write_atomic

PAGE, README = ROOT / "docs/results.md", ROOT / "README.md"
BEGIN, END = "<!-- results: python -m experiments.results_page -->", "<!-- end of results -->"
#: How many of them README shows.
SHOWN = 5


def shown(found: Sequence[Result]) -> str:
    """The block of README: a table of the first results with links to their evidence."""
    lines = [BEGIN, "| asked | found | compared with | evidence |", "|---|---|---|---|"]
    for result in found[:SHOWN]:
        links = ", ".join(f"[{Path(path).name}]({path})" for path in result.evidence)
        lines.append(f"| {result.question} | {result.answer} | {result.compared} | {links}: `{result.command}` |")
    return "\n".join([*lines, END])


def page(found: Sequence[Result]) -> str:
    """docs/results.md."""
    lines = [
        "# Results",
        "",
        "Each number is read from the linked file, which the command beside it wrote, by `python -m experiments.results_page`;",
        "a test holds this page against the files. What did not work is in [limits](limits.md), how to repeat it in",
        "[reproducing](reproducing.md).",
        "",
    ]
    for result in found:
        links = ", ".join(f"[{path}](../{path})" for path in result.evidence)
        lines += [f"## {result.question}", "", f"{result.answer[0].upper()}{result.answer[1:]}.", "",
                  f"Compared with: {result.compared}.", "", f"`{result.command}` · {links}"]  # fmt: skip
        lines += [f"· {result.conditions}"] if result.conditions else []
        lines.append("")
    return "\n".join(lines)


def with_block(text: str, block: str) -> str:
    """README with its block of results exchanged."""
    before, _, rest = text.partition(BEGIN)
    return before + block + rest.partition(END)[2]


def main(words: list[str]) -> None:
    """Write both pages."""
    found = results()
    write_atomic(PAGE, page(found))
    write_atomic(README, with_block(README.read_text(encoding="utf-8"), shown(found)))
    print(json.dumps([result.question for result in found], indent=1))


if __name__ == "__main__":
    run(main)
