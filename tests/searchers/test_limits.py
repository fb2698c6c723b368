"""Notes on limits that are not used up: each states what is true."""

from __future__ import annotations

from dataclasses import replace

import nas
from nas.cost.budget import Budget
from nas.searchers.base import Candidate, Certificate
from nas.searchers.history import History
from nas.searchers.limits import limit_notes
from nas.searchers.loop import SearchOutcome
from search_spaces import find_space

SPACE = find_space("tinynas_k1kx")
OUTCOME = SearchOutcome(None, [], History(("score",)), 3000, 3000, 1.0, False, False)
PROOF = Certificate(1.0, 1.0, 0.0, 1, (), (), 0.0)


def notes(limits: dict[str, float], outcome: SearchOutcome = OUTCOME, layers: float = 19.0) -> list[str]:
    spec = SPACE.initial()
    best = Candidate(spec, "d", {"score": 1.0, "latency_ms": 1.0, "layers": layers})
    return limit_notes(SPACE, Budget.of(limits), best, outcome)


def test_layers_move_in_units() -> None:
    assert notes({"layers": 20}) == ["layers is used up: 19 of 20, and one more unit has 2"]
    assert "layers does not bind (90 % used)" in notes({"layers": 21})[0]
    assert notes({"layers": 19}) == []


def test_under_a_proof_no_number_of_evaluations_is_blamed() -> None:
    proven = replace(OUTCOME, certificate=PROOF)
    assert notes({"latency_ms": 3.0}, proven) == [
        "latency_ms does not bind (33 % used): no member that uses more of it is better"
    ]
    assert notes({"latency_ms": 3.0, "layers": 20}, proven)[0] == (
        "latency_ms does not bind (33 % used): the proven optimum stands at the limit on layers"
    )


def test_without_a_proof_no_limit_is_blamed() -> None:
    assert notes({"latency_ms": 3.0}) == [
        "latency_ms does not bind (33 % used): the search ended after 3,000 evaluations, without a proof that using more "
        "does not help"
    ]
    unproven = replace(OUTCOME, unproven="too many labels are needed", open_levels=3)
    assert notes({"latency_ms": 1.0}, unproven) == [
        "the optimum is unproven: too many labels are needed",
        "the front is not proven at 3 of the costs that exact search tried",
    ]


def test_why_there_is_no_proof_is_told() -> None:
    found = nas.find({"latency_ms": 3.0}, scorer="deepmad", evaluations=100)
    assert any("unproven: exact search needs a score that is a sum over blocks" in note for note in found.notes)
    found = nas.find({"latency_ms": 3.0}, "c3k2", scorer="deepmad", evaluations=100)
    assert any("unproven: scorer deepmad is none of the sums" in note for note in found.notes)
    found = nas.find({"flops_g": 3}, "official_mbv2", scorer="mae_residual", scope="backbone", evaluations=100)
    assert any("in space official_mbv2 shortcuts depend on widths" in note for note in found.notes)
    found = nas.find({"latency_ms": 3.0, "peak_memory_mb": 1e6}, evaluations=100)
    assert any("unproven: peak_memory_mb is a maximum over the run" in note for note in found.notes)
