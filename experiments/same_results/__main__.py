"""Do two commits give the same results? Runs the same twenty commands of both and compares the files byte by byte.

python -m experiments.same_results before=REV [after=HEAD] [only=search,train] [without=KEY,KEY] [folder=outputs/same_results]

without: settings that one of the commits writes down and the other does not know, and what follows from them; they are left
out of YAML files. README.md holds what was compared.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from experiments.command import options_of, run
from experiments.evidence import read_record
from nas.errors import UserError
from nas.files import read_yaml

DEFAULTS = {"before": "", "after": "HEAD", "only": "", "without": "", "folder": "outputs/same_results"}
ROOT = Path(__file__).resolve().parents[2]


def main(words: list[str]) -> None:
    """Run, compare, print a line for each run; raises UserError if any differs."""
    options = options_of(words, DEFAULTS)
    if not options["before"]:
        raise UserError("same_results needs before=REV, the commit to compare with")
    plan = read_record(Path(__file__).with_name("runs.yaml"))
    wanted = [
        name for name in plan["runs"] if not options["only"] or name.startswith(tuple(options["only"].split(",")))
    ]
    folder = Path(options["folder"]).resolve()
    sides = [checked_out(options[side], folder) for side in ("before", "after")]
    different = []
    for name in wanted:
        entry, volatile = plan["runs"][name], {*plan["volatile"], *options["without"].split(",")}
        found = [contents(result_of(side, name, entry["commands"]), entry["files"], volatile) for side in sides]
        changed = sorted(file for file in {*found[0], *found[1]} if found[0].get(file) != found[1].get(file))
        print(
            f"{name}: " + (f"differs in {', '.join(changed)}" if changed else f"{len(found[0])} files equal"),
            flush=True,
        )
        if changed or not found[0]:
            different.append(name)
    if different:
        raise UserError(f"{len(different)} of {len(wanted)} runs differ: {', '.join(different)}")


def checked_out(revision: str, folder: Path) -> Path:
    """A folder named after the commit, with its files in `code`."""
    asked = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    commit = subprocess.run(asked, capture_output=True, text=True)
    if commit.returncode:
        raise UserError(f"{revision} is no commit of this repository")
    place = folder / commit.stdout.strip()[:12]
    if not (place / "code").is_dir():
        packed = subprocess.run(["git", "-C", str(ROOT), "archive", revision], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(place / "code", filter="data")
    return place


def result_of(side: Path, name: str, commands: list[str]) -> Path:
    """The folder that the commands of one run left; they run in the folder of their commit, on one thread."""
    out = side / "runs" / name
    if not (out / "done").is_file():
        known = os.environ | {"PYTHONPATH": str(side / "code"), "OMP_NUM_THREADS": "1"}
        for command in commands:
            line = [sys.executable, "-m", *shlex.split(command.format(out=out.relative_to(side)))]
            ended = subprocess.run(line, cwd=side, env=known, capture_output=True, text=True)
            if ended.returncode:
                raise UserError(
                    f"{name} failed at {side.name}: {(ended.stderr or ended.stdout).strip().splitlines()[-1]}"
                )
        (out / "done").touch()
    return out


def contents(folder: Path, patterns: list[str], volatile: set[str]) -> dict[str, str]:
    """Digest of every file that is compared, without what may differ between two runs of one commit."""
    files = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.name != "summary.json"]
    return {str(path.relative_to(folder)): hashlib.sha256(_lasting(path, volatile)).hexdigest()[:16] for path in files}


def _lasting(path: Path, volatile: set[str]) -> bytes:
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text()
        values = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        return json.dumps(_without(values, volatile), sort_keys=True).encode()
    if path.suffix == ".yaml":
        return json.dumps(_without(read_yaml(path), volatile), sort_keys=True).encode()
    if path.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        return json.dumps(_without(rows, volatile), sort_keys=True).encode()
    return path.read_bytes()


def _without(value: Any, volatile: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(entry, volatile) for key, entry in value.items() if key not in volatile}
    return [_without(entry, volatile) for entry in value] if isinstance(value, list) else value


if __name__ == "__main__":
    run(main)
