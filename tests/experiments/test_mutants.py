"""Changes of the source and who notices: where they are, which are drawn, which tests have to run, how a run ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.mutants.__main__ import changed_line, reaching
from experiments.mutants.places import MIRRORS, Mutant, idle_spans, mirror_of, mutants, sample, sources, statement_lines
from experiments.mutants.table import Outcome, rate_lines, read_outcomes, write_outcomes
from nas.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SOURCE = """from __future__ import annotations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os


@staticmethod
def least(values: list[int | None],
          start: int = 3) -> int | None:
    for value in values:
        if value is not None and (
            value < start
        ):
            start = value
    return start
"""


def test_every_room_is_mutated_and_has_its_tests() -> None:
    assert all((ROOT / path).exists() for pair in MIRRORS.items() for path in pair)
    files = sources(ROOT)
    assert {"nas/spec.py", "nas/blocks/base.py", "nas/searchers/exact/labels.py"} <= set(files) and len(files) > 40
    assert all(mirror_of(file).startswith("tests/") for file in files)
    assert sources(ROOT, "nas/spec.py") == ["nas/spec.py"] and mirror_of("nas/cost/count.py") == "tests/cost"
    with pytest.raises(UserError, match="only=nas/data: take one of nas/spec.py"):
        sources(ROOT, "nas/data")
    with pytest.raises(UserError, match="nas/files.py has no mirrored tests"):
        mirror_of("nas/files.py")


def test_what_never_runs_is_left_alone_and_a_statement_is_one_place() -> None:
    lines = SOURCE.splitlines()
    idle = [lines[first[0] - 1][first[1] : last[1]] for first, last in idle_spans(SOURCE)]
    assert sorted(idle) == ["TYPE_CHECKING", "int", "int | None", "list[int | None]"]
    assert [statement_lines(SOURCE, line) for line in (4, 8, 9, 10, 11, 13, 15, 16)] == [
        range(4, 5), range(8, 11), range(8, 11), range(8, 11), range(11, 12), range(12, 15), range(15, 16), range(16, 17),
    ]  # fmt: skip


def test_the_changes_are_those_of_cosmic_ray(tmp_path: Path) -> None:
    pytest.importorskip("cosmic_ray")
    (tmp_path / "least.py").write_text(SOURCE)
    found = list(mutants(tmp_path, ["least.py"]))
    assert {(each.line, each.operator.split("_")[0]) for each in found} == {
        (8, "RemoveDecorator"), (10, "NumberReplacer"), (11, "ZeroIterationForLoop"), (12, "AddNot"),
        (12, "ReplaceAndWithOr"), (12, "ReplaceComparisonOperator"), (13, "ReplaceComparisonOperator"),
    }  # fmt: skip


def place(line: int, operator: str, occurrence: int = 0, file: str = "nas/cost/count.py") -> Mutant:
    return Mutant(file, line, 4, operator, occurrence)


def test_a_sample_has_one_change_a_place_and_any_beginning_of_it_is_fair() -> None:
    signs = [
        place(line, f"ReplaceBinaryOperator_Add_{other}", line) for line in range(40) for other in ("Sub", "Mul", "Div")
    ]
    numbers = [place(line, "NumberReplacer", line) for line in range(40)]
    drawn = sample([*signs, *numbers], seed=3)
    assert len(drawn) == 80 == len({each.place for each in drawn})
    assert sample([*numbers, *signs[::-1]], 3, 20) == drawn[:20] and list(sample(signs, 4)) != list(sample(signs, 3))
    assert {each.operator for each in drawn if "Add" in each.operator} == {each.operator for each in signs}
    assert 5 < sum(each.operator == "NumberReplacer" for each in drawn[:20]) < 15


def test_tests_that_run_the_line_are_run_the_quickest_first() -> None:
    seconds = {"tests/a.py::slow": 5.0, "tests/a.py::quick": 0.1, "tests/b.py::one": 1.0, "tests/b.py::two": 0.5}
    lines = {"nas/x.py": {"1": [""], "7": ["tests/a.py::slow"], "8": ["tests/b.py::one", "tests/b.py"], "9": []}}
    known = {"seconds": seconds, "lines": lines}
    two_files = ["tests/b.py::two", "tests/b.py::one", "tests/a.py::quick", "tests/a.py::slow"]
    assert reaching(known, "nas/x.py", range(1, 2)) == two_files  # an import runs it, and with it every test
    assert reaching(known, "nas/x.py", range(7, 8)) == ["tests/a.py::slow"]
    assert reaching(known, "nas/x.py", range(8, 9)) == two_files[:2]  # a fixture of that file runs it
    assert reaching(known, "nas/x.py", range(7, 9)) == [*two_files[:2], "tests/a.py::slow"]
    assert reaching(known, "nas/x.py", range(9, 12)) == reaching(known, "nas/y.py", range(1, 3)) == []


def test_the_table_comes_back_and_says_what_was_noticed(tmp_path: Path) -> None:
    ends = ("killed", "survived", "timeout", "no test reaches it")
    outcomes = [
        Outcome(place(9 - i, "AddNot"), "if a:", "if not a:", end, "t", 1.5, "abc", "AMD, one")
        for i, end in enumerate(ends)
    ]
    outcomes.append(
        Outcome(place(1, "AddNot", file="nas/spec.py"), 'x = ",\n"', "", "killed", "", 0.2, "abc", "AMD, one")
    )
    write_outcomes(tmp_path / "table.csv", outcomes)
    assert read_outcomes(tmp_path / "table.csv") == sorted(outcomes, key=lambda each: each.mutant)
    assert rate_lines(outcomes, 500) == [
        "3 of 5 changes were noticed (60.0 %); 500 are drawn", "   1 of    1  nas/spec.py", "   2 of    4  nas/cost",
    ]  # fmt: skip
    assert changed_line("a\n  b = 1\nc\n", "a\n  b = 2\nc\n") == ("b = 1", "b = 2")
    assert changed_line("a\nb", "a") == ("b", "")


TESTS = """
import time
from source import double

def test_reached():
    assert double(2) == 4

def test_apart():
    assert True
"""
ENDS = {
    "return 2 * x": 0,
    "return 3 * x": 1,
    "return 2 *": 2,
    "while True: pass": "timeout",
    "import os; os._exit(7)": "died",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "test_source.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\n    benchmark\npythonpath = .\n")
    return folder


def answers(project: Path, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What forks of a process answer, each after its own change of source.py; without the heavy libraries."""
    code = "import json, sys\nfrom experiments.mutants.nursery import answered\nfor line in sys.stdin:\n"
    code += "    job = json.loads(line)\n    open('source.py', 'w').write(job['text'])\n    print(json.dumps(answered(job)))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    lines = "\n".join(json.dumps(job) for job in jobs)
    done = subprocess.run(
        [sys.executable, "-c", code], input=lines, cwd=project, env=environment, capture_output=True, text=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
def test_every_run_of_tests_sees_the_source_of_its_moment(project: Path) -> None:
    tests = ["test_source.py::test_apart", "test_source.py::test_reached"]
    plain = {"tests": tests, "files": ["test_source.py"]}
    texts = [f"def double(x):\n    {line}\n" for line in ENDS]
    jobs = [plain | {"text": text, "seconds": 2 if "while" in text else 60} for text in texts]
    jobs.append(jobs[1] | {"tests": tests[:1]})
    told = answers(project, jobs)
    assert [each["status"] for each in told] == [*ENDS.values(), 0]
    assert [each.get("failed", "") for each in told] == ["", tests[1], "", "", "", ""]


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
def test_which_test_runs_which_line_is_measured(project: Path) -> None:
    pytest.importorskip("coverage")
    text = "def double(x):\n    return 2 * x\n"
    (told,) = answers(project, [{"reach": ["source.py"], "files": ["test_source.py"], "text": text}])
    apart, reached = "test_source.py::test_apart", "test_source.py::test_reached"
    assert told["status"] == 0 and set(told["seconds"]) == {apart, reached}
    assert told["lines"] == {"source.py": {"1": [""], "2": [reached]}}
