"""The command lines of the experiments: typed options, bare words, one line for what is wrong."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from experiments.command import options_of, run, run_workers, split_words
from nas.errors import UserError

DEFAULTS: dict[str, Any] = {"seed": 0, "minutes": 20.0, "scale": "cpu", "measure": False}


def test_options_take_the_type_of_their_default() -> None:
    names, options = split_words(["a", "seed=3", "minutes=1", "measure=true", "b", "scale=a=b"], DEFAULTS)
    assert names == ["a", "b"]
    assert options == {"seed": 3, "minutes": 1.0, "scale": "a=b", "measure": True}
    assert isinstance(options["minutes"], float) and DEFAULTS["seed"] == 0


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sed=3", "unknown option 'sed=3'; known: seed, minutes, scale, measure"),
        ("all", "unknown option 'all'"),
        ("seed=1.5", "seed must be a int, got '1.5'"),
        ("measure=yes", "measure must be true or false, got 'yes'"),
    ],
)
def test_wrong_words_are_told(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        options_of([word], DEFAULTS)


@pytest.mark.parametrize(
    ("error", "status"), [(UserError("no table"), "error: no table"), (KeyboardInterrupt(), 130), (None, None)]
)
def test_a_command_ends_in_one_line(error: BaseException | None, status: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["command", "seed=1"])
    heard: list[list[str]] = []

    def main(words: list[str]) -> None:
        heard.append(words)
        if error is not None:
            raise error

    if error is None:
        run(main)
    else:
        with pytest.raises(SystemExit) as ended:
            run(main)
        assert ended.value.code == status
    assert heard == [["seed=1"]]


def test_workers_share_the_runs_of_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[list[str]] = []

    class Worker:
        def __init__(self, command: list[str]) -> None:
            begun.append(command[2:])

        def wait(self) -> int:
            return 0

    monkeypatch.setattr("subprocess.Popen", Worker)
    words = ["train", "data=cards", "jobs=3", "shard=1/2", "most=7"]
    run_workers("experiments.x", words, 3, "1/2", 7)
    rest = ["experiments.x", "train", "data=cards", "most=3"]
    assert begun == [[*rest, "shard=1/6"], [*rest, "shard=3/6"], [*rest, "shard=5/6"]]
    dealt = sorted(number for share in (1, 3, 5) for number in range(60)[share::6])
    assert dealt == list(range(60)[1::2])  # together what the shard 1/2 has
    monkeypatch.setattr(Worker, "wait", lambda self: 1)
    with pytest.raises(UserError, match=r"2 of 2 workers failed; run the same command again"):
        run_workers("experiments.x", ["train"], 2)
    assert begun[-1] == ["experiments.x", "train", "shard=1/2"]
