"""The comparison of two commits: what is compared, and that a difference is found."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from experiments.same_results.__main__ import contents, main
from nas.errors import UserError
from nas.files import read_yaml

PLAN = read_yaml(Path(__file__).resolve().parents[2] / "experiments/same_results/runs.yaml")


def test_twenty_runs_each_of_known_commands_in_a_folder_of_its_own() -> None:
    assert len(PLAN["runs"]) == 20
    for entry in PLAN["runs"].values():
        assert entry["files"]
        for command in entry["commands"]:
            module = shlex.split(command)[0]
            assert module in (
                "nas.search",
                "nas.rank",
                "nas.compare",
                "nas.train",
                "nas.evaluate",
                "nas.export",
                "nas.predict",
            )
            assert "{out}" in command


def test_only_what_may_differ_is_left_out(tmp_path: Path) -> None:
    for side, seconds, ap in (("a", 1.5, 0.5), ("b", 9.0, 0.5), ("c", 1.5, 0.51)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "log.jsonl").write_text(f'{{"ap": {ap}, "seconds": {seconds}}}\n')
        (tmp_path / side / "table.csv").write_text(f"ap,seconds\n{ap},{seconds}\n")
        (tmp_path / side / "best.yaml").write_text(f"ap: {ap}\n")
    a, b, c = (contents(tmp_path / side, ["*.jsonl", "*.csv", "*.yaml"], {"seconds"}) for side in "abc")
    assert list(a) == ["log.jsonl", "table.csv", "best.yaml"]
    assert a == b
    assert not set(a.values()) & set(c.values())


def test_a_commit_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="before=REV"):
        main([])
    with pytest.raises(UserError, match="no commit"):
        main(["before=nonsense", f"folder={tmp_path}"])
