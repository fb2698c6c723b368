"""The milliseconds until boxes as a limit: those of the network with what follows, in every searcher and with proofs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nas
from nas.cost.postprocess import FinalRows, PostProcess, Suppression
from nas.cost.table_file import TABLES
from nas.errors import UserError
from nas.searchers.limits import least_cost
from search_spaces import find_space

KNOWN = PostProcess(Suppression((10, 1000), (1, 100), ((1.0, 2.0), (3.0, 8.0)), 2.0), FinalRows(0.1, 4.0), 8, 3.0)
SPACE = "official_tiny"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The T4 table, with what follows."""
    content = json.loads((TABLES / "t4_tensorrt_fp16.json").read_text())
    (tmp_path / "known.json").write_text(json.dumps(content | {"postprocess": KNOWN.body()}))
    return str(tmp_path / "known.json")


def test_a_search_within_it_is_one_within_the_network_s_share(path: str) -> None:
    after = KNOWN.ms(80, False, 640)
    options = {"hardware": path, "searcher": "exact"}
    whole = nas.find({"e2e_ms": 3.0 + after}, SPACE, **options)
    network = nas.find({"latency_ms": 3.0}, SPACE, **options)
    assert whole.best.digest == network.best.digest and whole.proof
    assert whole.best.metrics["e2e_ms"] == pytest.approx(network.best.metrics["latency_ms"] + after, rel=1e-12)
    assert whole.outcome.best is not None and "e2e_ms" in whole.to_dict()["limits"]  # type: ignore[operator]


def test_it_is_limited_by_the_table_of_the_search_or_by_another(path: str) -> None:
    after = KNOWN.ms(80, False, 640)
    options = {"searcher": "evolution", "evaluations": 200}
    here = nas.find({"e2e_ms": 3.0 + after}, hardware=path, **options)
    assert here.best.metrics["e2e_ms"] - here.best.metrics["latency_ms"] == pytest.approx(after)
    elsewhere = nas.find({f"e2e_ms@{path}": 3.0 + after}, **options)
    assert elsewhere.best.score == here.best.score


def test_what_cannot_be_limited_is_said_before_any_search(path: str) -> None:
    with pytest.raises(UserError, match="e2e_ms is of whole detectors"):
        nas.find({"e2e_ms": 5.0}, hardware=path, scope="backbone")
    with pytest.raises(UserError, match="impossible budget: e2e_ms <= 4"):
        nas.find({"e2e_ms": 4.0}, hardware=path)
    assert least_cost("e2e_ms", find_space("tinynas_k1kx"), None, 640, None) == 0.0
