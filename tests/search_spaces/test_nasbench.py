"""NAS-Bench-201 and NAS-Bench-Macro: strings, counts and moves."""

from __future__ import annotations

import csv
import gzip
import random
from pathlib import Path

import pytest

from nas.errors import SpecError
from search_spaces import nasbench201, nasbench_macro
from search_spaces.nasbench201 import Cell, NasBench201
from search_spaces.nasbench_macro import MacroNet, NasBenchMacro


def rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


def test_published_counts_of_single_networks() -> None:
    heaviest = nasbench201.network_counts(Cell(("nor_conv_3x3",) * 6))
    assert (heaviest.params, heaviest.macs) == (1531546, 220119680)
    cell = Cell.parse("|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|")
    counts = nasbench201.network_counts(cell)
    assert (counts.params, counts.macs) == (129306, 15647360)
    identity = nasbench_macro.network_counts(MacroNet.parse("00000000"))
    assert (identity.params, identity.macs) == (387882, 7713280)
    one = nasbench_macro.network_counts(MacroNet.parse("00000001"))
    assert (one.params, one.macs) == (791594, 14115328)


def test_space_is_complete_and_has_341_dead_cells() -> None:
    cells = list(NasBench201())
    assert len(set(cells)) == NasBench201().size() == 15625
    assert sum(not cell.connected for cell in cells) == 341
    assert all(Cell.parse(cell.text) == cell for cell in cells[::97])
    assert len(set(NasBenchMacro())) == NasBenchMacro().size() == 6561


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


@pytest.mark.parametrize("space", [NasBench201(), NasBenchMacro()])
def test_moves_stay_in_the_space_and_repeat_with_the_seed(space: NasBench201 | NasBenchMacro) -> None:
    def walk(seed: int) -> list[object]:
        rng = random.Random(seed)
        first, second = space.sample(rng), space.sample(rng)
        child = space.mutate(first, rng)  # type: ignore[arg-type]
        genes = "edges" if isinstance(space, NasBench201) else "choices"
        assert sum(a != b for a, b in zip(getattr(first, genes), getattr(child, genes), strict=True)) == 1
        mixed = space.crossover(first, second, rng)  # type: ignore[arg-type]
        parents = zip(getattr(first, genes), getattr(second, genes), getattr(mixed, genes), strict=True)
        assert all(gene in (a, b) for a, b, gene in parents)
        assert all(space.contains(item) for item in (first, second, child, mixed))
        return [first, second, child, mixed]

    assert walk(3) == walk(3) != walk(4)


def test_params_and_macs_equal_the_nasbench201_table(shared: Path) -> None:
    table = rows(shared / "data/nas_tables/nb201_accuracy.csv.gz")
    assert len(table) == 15625
    for row in table:
        counts = nasbench201.network_counts(Cell.parse(row["arch"]))
        assert (counts.params, counts.macs) == (int(row["params"]), int(row["macs"])), row["arch"]


def test_params_and_macs_equal_the_macro_table(shared: Path) -> None:
    table = rows(shared / "data/nas_tables/nasbench_macro_cifar10.csv.gz")
    assert [row["arch"] for row in table] == [net.text for net in NasBenchMacro()]
    for row in table:
        counts = nasbench_macro.network_counts(MacroNet.parse(row["arch"]))
        assert (counts.params, counts.macs) == (int(row["params"]), int(row["flops"])), row["arch"]
