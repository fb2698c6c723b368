"""README and docs/results.md say what the committed evidence says, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import experiments.findings as findings
from experiments.findings import ROOT, results
from experiments.results_page import PAGE, README, page, shown, with_block


def test_the_pages_are_what_the_evidence_says() -> None:
    found = results()
    assert page(found) == PAGE.read_text(encoding="utf-8"), "run python -m experiments.results_page"
    text = README.read_text(encoding="utf-8")
    assert with_block(text, shown(found)) == text, "run python -m experiments.results_page"
    assert all((ROOT / path).is_file() for result in found for path in result.evidence)


def test_no_number_stands_outside_of_what_is_read_from_evidence() -> None:
    """README gives measured decimals in its block of results alone."""
    text = README.read_text(encoding="utf-8")
    outside = text.replace(shown(results()), "")
    prose = re.sub(r"```.*?```|`[^`]*`|\[[^]]*\]\([^)]*\)", "", outside, flags=re.DOTALL)
    assert re.findall(r"\d+\.\d+", prose.replace("Apache-2.0", "").replace("AGPL-3.0", "")) == []


def test_a_changed_file_changes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "experiments/bccd"
    folder.mkdir(parents=True)
    for name in ("train", "yolo11n"):
        (folder / f"{name}.json").write_bytes((ROOT / f"experiments/bccd/{name}.json").read_bytes())
    monkeypatch.setattr(findings, "ROOT", tmp_path)
    known = json.loads((folder / "train.json").read_text())
    known["searched detector"]["ap"]["mean"] = 0.7654
    (folder / "train.json").write_text(json.dumps(known))
    assert "test AP 0.765" in findings.blood().answer
