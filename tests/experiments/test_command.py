"""The command lines of the experiments: typed options, bare words, one line for what is wrong."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from experiments.command import options_of, run, split_words
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
