"""python -m experiments.mutants: small changes of the source, one at a time, and whether the tests of the same room notice.

Options: sample (so many of the changes, drawn by seed; 0: all), seed, minutes (after which no new one begins; 0: no limit), only
(of the sample those of nas/spec.py, nas/blocks, nas/lowering, nas/cost or nas/searchers), table. The same command goes on
where it ended. It works in a clone of the last commit, and needs `pip install cosmic-ray==8.7.0 coverage==7.17.5`. The table
is experiments/mutants/mutants.csv, one row a change, with the test that noticed it; survivors have none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from experiments.command import options_of, run
from experiments.mutants.places import MIRRORS, Mutant, mirror_of, mutants, sample, sources, statement_lines
from experiments.mutants.table import Outcome, rate_lines, read_outcomes, write_outcomes
from nas.cost.table_file import cpu_name
from nas.errors import UserError
from nas.files import write_atomic
from nas.measure import commit

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = {"sample": 500, "seed": 0, "minutes": 0.0, "only": "", "table": str(Path(__file__).with_name("mutants.csv"))}
#: CPU seconds for loading what is tested, and what is granted above the seconds that the tests take without a change.
START, FACTOR = 20, 4


def main(words: list[str]) -> None:
    """Judge the changes of the sample that the table lacks. Raises UserError for a wrong option, or a test that fails anyway."""
    options = options_of(words, DEFAULTS)
    table, began = Path(options["table"]), time.monotonic()
    chosen = sources(ROOT, options["only"])
    drawn = sample(mutants(ROOT, sources(ROOT)), options["seed"], options["sample"])
    known = {outcome.mutant: outcome for outcome in read_outcomes(table)} if table.is_file() else {}
    if strange := [mutant for mutant in known if mutant not in set(drawn)]:
        raise UserError(
            f"{table.name} has changes of another source or seed ({strange[0].file}:{strange[0].line}); move it away"
        )
    print(f"{len(drawn)} changes, {len(known)} of them known", flush=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        judge = Judge(Path(place).resolve() / "clone")
        for mutant in (each for each in drawn if each.file in chosen and each not in known):
            if time.monotonic() - began > 60 * options["minutes"] > 0:
                break
            known[mutant] = judge.outcome(mutant)
            write_outcomes(table, known.values())
            print(f"{len(known)}: {known[mutant].told()}", flush=True)
    print(*rate_lines(known.values(), len(drawn)), sep="\n")


class Judge:
    """A clone of the last commit, and for every room what its tests run; the tests run in forks of one process (nursery.py)."""

    def __init__(self, clone: Path) -> None:
        subprocess.run(["git", "clone", "-q", "--shared", str(ROOT), str(clone)], check=True)
        self.clone, self.facts = clone, {"commit": commit()[:12], "processor": cpu_name()}
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(clone), os.environ.get("PYTHONPATH", "")]),
            "MAENAS_SHARED": os.environ.get("MAENAS_SHARED", str(ROOT.parent / "shared")),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-c", "from experiments.mutants.nursery import serve; serve()"]
        self.nursery = subprocess.Popen(
            command, cwd=clone, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.reaches: dict[str, Mapping[str, Any]] = {}

    def ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """What the nursery answers. Raises UserError if it is gone."""
        asked, answers = _pipes(self.nursery)
        asked.write(json.dumps(job) + "\n")
        asked.flush()
        line = answers.readline()
        if not line:
            raise UserError("the process that runs the tests is gone")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def reach(self, tests: str) -> Mapping[str, Any]:
        """Lines and seconds of the unchanged tests of a room; measured once a commit and kept beside the clone's source."""
        if tests not in self.reaches:
            kept = ROOT / "outputs" / "mutants" / f"{self.facts['commit']}-{tests.replace('/', '-')}.json"
            if not kept.is_file():
                print(f"{tests}: which test runs which line", flush=True)
                (source,) = [source for source, mirror in MIRRORS.items() if mirror == tests]
                answer = self.ask({"reach": sources(self.clone, source), "files": [tests]})
                if answer["status"] != 0:
                    raise UserError(f"{tests} fails without any change (status {answer['status']})")
                write_atomic(kept, json.dumps(answer))
            self.reaches[tests] = json.loads(kept.read_text())
        return self.reaches[tests]

    def outcome(self, mutant: Mutant) -> Outcome:
        """Change the clone, run the tests that reach the line (the quickest first), change it back."""
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator

        known = self.reach(mirror_of(mutant.file))
        path = self.clone / mutant.file
        text = path.read_bytes()
        tests = reaching(known, mutant.file, statement_lines(text.decode(), mutant.line))
        changed = mutate_code(text.decode(), get_operator(f"core/{mutant.operator}")(), mutant.occurrence)
        before, after = changed_line(text.decode(), changed)
        if not tests:
            return Outcome(mutant, before, after, "no test reaches it", "", 0.0, **self.facts)
        seconds = START + round(FACTOR * sum(known["seconds"][test] for test in tests))
        path.write_text(changed)
        for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            stale.unlink()
        try:
            files = sorted({test.partition("::")[0] for test in tests})
            answer = self.ask({"tests": tests, "files": files, "seconds": seconds})
        finally:
            path.write_bytes(text)
        ended = {0: "survived", 1: "killed", 2: "killed", "timeout": "timeout", "died": "killed"}.get(answer["status"])
        if ended is None:
            raise UserError(f"pytest ended with status {answer['status']} under {mutant}")
        by = answer.get("failed") or {2: "import", "timeout": "timeout", "died": "crash"}.get(answer["status"], "")
        return Outcome(mutant, before, after, ended, by, answer["cpu"], **self.facts)


def reaching(known: Mapping[str, Any], file: str, lines: range) -> list[str]:
    """The tests that run one of the lines, the quickest files and tests first; all tests, where an import runs it."""
    measured = known["lines"].get(file, {})
    contexts = {context for line in lines for context in measured.get(str(line), [])}
    seconds: Mapping[str, float] = known["seconds"]
    files: dict[str, float] = {}
    for test, used in seconds.items():
        files[test.partition("::")[0]] = files.get(test.partition("::")[0], 0.0) + used
    chosen = [test for test in seconds if "" in contexts or {test, test.partition("::")[0]} & contexts]
    return sorted(chosen, key=lambda test: (files[test.partition("::")[0]], test.partition("::")[0], seconds[test]))


def changed_line(before: str, after: str) -> Sequence[str]:
    """The first line that differs, before and after."""
    pairs = zip(before.splitlines(), [*after.splitlines(), ""], strict=False)
    return next(((one.strip(), two.strip()) for one, two in pairs if one != two), ("", ""))


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None and process.stdout is not None
    return process.stdin, process.stdout


if __name__ == "__main__":
    run(main)
