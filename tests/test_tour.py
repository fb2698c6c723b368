"""The tour names files as they are: their lines, their names, and where things are changed."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOUR = (ROOT / "docs/tour.md").read_text(encoding="utf-8")
STOPS = re.findall(r"^\| \d \| \[(\S+)\]\(\.\./\1\) \| (\d+) \| (.*) \|$", TOUR, re.M)
ANSWERS = re.findall(r"^\| \d+ \| (.*) \| (\S+\.py) \|$", TOUR, re.M)


def test_six_files_are_as_long_as_the_tour_says() -> None:
    assert len(STOPS) == 6
    lengths = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name, _, _ in STOPS}
    assert lengths == {name: int(lines) for name, lines, _ in STOPS}
    assert sum(lengths.values()) < 900


def test_the_names_of_the_tour_stand_in_its_files() -> None:
    for file, _, words in STOPS:
        text = (ROOT / file).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", words):
            assert re.search(rf"\b(class|def) {name}\b|^{name}\b", text, re.M), f"{name} in {file}"


def test_the_twenty_answers_are_files() -> None:
    assert len(ANSWERS) == 20
    assert not [file for _, file in ANSWERS if not (ROOT / file).is_file()]
