"""python -m nas.verify model=best.safetensors dataset=FOLDER: proves that a checkpoint or export is what its passport says.

`maenas verify best.onnx data=FOLDER` will do. Checked are the digests of its parts, the detections in eight drawn pictures,
with data=... that this data made it, and with key=... who signed it. It ends with 0 only if nothing differs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from nas.commands.verify import Check, VerifyCommand, require_same, sign, verified
from nas.config import Job, launch


def run(command: VerifyCommand, job: Job) -> None:
    """Sign if asked to; check the file, print what was checked, and end in one line if something differs."""
    if command.sign is not None:
        print(f"signed: {sign(command.model, command.sign)}")
    checks = verified(command.model, command.dataset, command.key)
    _show(command.model, checks)
    require_same(command.model, checks)


def _show(model: str, checks: Sequence[Check]) -> None:
    table = Table(model, "", "")
    for check in checks:
        table.add_row(check.name, check.told, check.outcome, style="red" if check.outcome == "differs" else "")
    Console(markup=False).print(table)


def main() -> None:
    """Entry point of `python -m nas.verify`: the file may come without `model=`."""
    for place, word in enumerate(sys.argv[1:2], 1):
        if "=" not in word and not word.startswith("-"):
            sys.argv[place] = f"model={word}"
    launch("verify", VerifyCommand, run)


if __name__ == "__main__":
    main()
