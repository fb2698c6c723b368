"""The checklist of best practices: what is open is told as open, and a missing or emptied file opens an item."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from experiments.checklist import items
from experiments.checklist.__main__ import ROOT, lines, main
from experiments.checklist.items import ABLATIONS, BENCH, ITEMS, SEARCHERS, SWEEP, TUNED, states
from nas.errors import UserError

RESULTS = "experiments/results/report_fusion.csv"
HEAD = "table,row,scale,seed,data,recipe,ap,ap50,steps,train_seconds,seconds,device,torch,commit,date"


def small_root(folder: Path) -> Path:
    """The files that the checks read, with one table of results of our own making."""
    for name in ("CITATION.cff", "conf/search.yaml", "docs/reproducing.md", SEARCHERS, BENCH,
                 *(f"experiments/{name}/table.yaml" for name in ABLATIONS)):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / RESULTS).parent.mkdir(parents=True, exist_ok=True)
    rows = [f"report_fusion,conv,cpu10,{seed},bccd,abc,0.1,0.2,9,1,2,CPU,2.13,c0ffee,2026-11-01" for seed in range(3)]
    (folder / RESULTS).write_text("\n".join([HEAD, *rows]) + "\n")
    return folder


def test_every_practice_is_there_and_names_files_that_exist() -> None:
    assert [item.number for item in ITEMS] == list(range(1, 15))
    for item in ITEMS:
        assert item.asks.endswith("?") and not [name for name in item.files if not (ROOT / name).exists()]


def test_the_command_tells_what_is_open_and_fails_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    still = [number for number, reasons in states(ROOT).items() if reasons]
    if still:
        with pytest.raises(UserError, match=f"{len(still)} of 14 items are open: {', '.join(map(str, still))}"):
            main([])
    else:
        main([])
    told = capsys.readouterr().out.splitlines()
    for item in ITEMS:
        state = "OPEN" if item.number in still else "kept"
        assert f"{item.number:2}  {state}  {item.asks}" in told


def test_a_file_that_is_gone_opens_its_items(tmp_path: Path) -> None:
    found = states(tmp_path)
    assert all(found.values())
    assert found[1][0] == "nas/training/trainer.py is not there"


def test_checks_read_what_the_files_hold(tmp_path: Path) -> None:
    root = small_root(tmp_path)
    assert items.training_code(root) == items.same_protocol(root) == []
    assert [line for line in items.confounders(root) if "report_fusion" in line] == []
    assert items.ablations(root)[0] == "report_fusion: 1 of 4 rows have 3 seeds"
    with (root / RESULTS).open("a") as file:
        file.write("report_fusion,conv,cpu10,3,coco,,0.1,0.2,9,1,,GPU,2.13,c0ffee,2026-11-01\n")
    assert items.training_code(root) == ["report_fusion: conv does not say its recipe"]
    assert items.same_protocol(root) == ["report_fusion at scale cpu10 mixes bccd, coco"]
    assert items.confounders(root)[0] == "report_fusion at scale cpu10 mixes 2 devices or versions of torch"
    assert items.end_to_end(root) == ["report_fusion: conv has no seconds"]
    assert "report_fusion: conv does not say its recipe, seconds" in items.all_details(root)


def test_searchers_without_random_or_with_few_seeds_are_told(tmp_path: Path) -> None:
    root = small_root(tmp_path)
    path = root / SEARCHERS
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], *(row for row in rows[1:] if ",random," not in row)]) + "\n")
    assert len(items.against_random(root)) == 5 and "no run of random" in items.against_random(root)[0]
    path.write_text(rows[0] + "\n")
    assert f"{SEARCHERS}: 0 of 20 seeds of every searcher" in items.several_runs(root)


def test_settings_need_a_whole_sweep_and_a_known_origin(tmp_path: Path) -> None:
    root = small_root(tmp_path)
    for name in (SWEEP, TUNED, *(f"conf/{group}" for group in ("searcher", "trainer"))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, root / name)
    page = root / TUNED
    page.write_text(page.read_text().replace("not recorded", "a sweep"))
    assert items.tuning(root) == []
    page.write_text(
        page.read_text().replace("| `nsga2` |", "| `another` |") + "| `mine` | lr | not recorded | none |\n"
    )
    assert items.tuning(root) == [f"{TUNED} does not name nsga2", f"{TUNED}: `mine`, lr: not (wholly) recorded"]
    head, first, _, *rest = (root / SWEEP).read_text().splitlines()
    (root / SWEEP).write_text("\n".join([head, first, *rest]) + "\n")
    assert items.tuning(root)[0] == f"{SWEEP}: 1 settings have fewer than 5 seeds"
    (root / SWEEP).write_text("\n".join([head, *(row for row in rest if ",512,0.3,50000," not in row)]) + "\n")
    assert f"{SWEEP} does not hold the settings of conf/searcher/evolution.yaml" in items.tuning(root)


def test_a_selection_has_to_say_what_the_whole_of_it_took(tmp_path: Path) -> None:
    root, place = small_root(tmp_path), tmp_path / "experiments/selection/photos"
    place.mkdir(parents=True)
    for told, open_ in (({"seconds": 90.5}, True), ({"seconds": 90.5, "cpu_seconds": 80.0}, False)):
        (place / "summary.json").write_text(json.dumps(told))
        assert [
            line.startswith("experiments/selection/photos/summary.json does not say") for line in items.end_to_end(root)
        ] == ([True] * open_)


def test_an_address_answers_the_third(tmp_path: Path) -> None:
    root = small_root(tmp_path)
    text = (root / "CITATION.cff").read_text()
    (root / "CITATION.cff").write_text(text.replace("license:", "repository-code: https://example.org/x\nlicense:"))
    assert items.public(root) == []
    assert len(lines(tmp_path)[1]) > 0
