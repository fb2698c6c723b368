"""NAS-Bench-201 and NAS-Bench-Macro: strings and counts."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from nas.errors import SpecError
from search_spaces.tabular import Cell, MacroNet


def rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


def test_published_counts_of_single_networks() -> None:
    heaviest = Cell(("nor_conv_3x3",) * 6).counts()
    assert (heaviest.params, heaviest.macs) == (1531546, 220119680)
    cell = Cell.parse("|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|")
    assert (cell.counts().params, cell.counts().macs) == (129306, 15647360)
    identity = MacroNet.parse("00000000").counts()
    assert (identity.params, identity.macs) == (387882, 7713280)
    one = MacroNet.parse("00000001").counts()
    assert (one.params, one.macs) == (791594, 14115328)


def test_depth_is_the_longest_convolution_path() -> None:
    assert Cell(("nor_conv_3x3",) * 6).depth == 3
    assert Cell(("none", "none", "none", "nor_conv_1x1", "none", "none")).depth == 1
    assert Cell(("nor_conv_3x3", "none", "none", "none", "none", "none")).depth == 0


@pytest.mark.parametrize("text", ["", "|none~0|", "|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "22212220"])
def test_wrong_cells_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        Cell.parse(text)


@pytest.mark.parametrize("text", ["", "2221222", "22212223", "|none~0|"])
def test_wrong_macro_networks_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        MacroNet.parse(text)


def test_params_and_macs_equal_the_nasbench201_table(shared: Path) -> None:
    table = rows(shared / "data/nas_tables/nb201_accuracy.csv.gz")
    assert len({row["arch"] for row in table}) == 5**6
    for row in table:
        counts = Cell.parse(row["arch"]).counts()
        assert (counts.params, counts.macs) == (int(row["params"]), int(row["macs"])), row["arch"]


def test_params_and_macs_equal_the_macro_table(shared: Path) -> None:
    table = rows(shared / "data/nas_tables/nasbench_macro_cifar10.csv.gz")
    assert len({row["arch"] for row in table}) == 3**8
    for row in table:
        counts = MacroNet.parse(row["arch"]).counts()
        assert (counts.params, counts.macs) == (int(row["params"]), int(row["flops"])), row["arch"]
