"""The configuration files of the spaces say what the spaces are."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.files import read_yaml
from search_spaces import find_space

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "space"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_space_file_repeats_the_defaults_of_its_space(path: Path) -> None:
    limits = read_yaml(path)
    name = limits.pop("name")
    assert name == path.stem and find_space(name, **limits) == find_space(name)
