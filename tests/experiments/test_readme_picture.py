"""README's picture is drawn from the committed files, and names every network by how it came about."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from experiments import readme_picture
from experiments.detector_bench.networks import read_networks
from experiments.detector_bench.table import load


def test_the_files_hold_what_is_drawn() -> None:
    assert readme_picture.searched() == [2.0, 3.0, 4.0, 5.0, 7.0]
    known = readme_picture.published()
    assert ("damo-yolo-s", 3.45, 46.0) in known and len(known) > 20


def test_every_network_of_the_bench_has_a_kind() -> None:
    kinds = {one.digest: readme_picture.kind_of(one) for one in load()}
    named = {network.digest: network.name for network in read_networks()}
    assert set(kinds.values()) <= set(readme_picture.KINDS)
    for digest, kind in kinds.items():
        assert named[digest].startswith({"r": "random", "d": "scaled", "h": "best"}[kind[0]]), named[digest]
    assert Counter(kinds.values())["highest effective_rank"] >= 1


def test_it_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme_picture, "PICTURE", tmp_path / "results.png")
    readme_picture.main([])
    assert (tmp_path / "results.png").stat().st_size > 20_000
