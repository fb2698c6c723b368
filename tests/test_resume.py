"""A run's settings in its folder, and how it goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nas.commands.search import SearchCommand
from nas.config import compose_config
from nas.errors import UserError
from nas.resume import continuation, continued, store_settings


def test_a_run_goes_on_with_its_settings_and_what_may_differ(tmp_path: Path) -> None:
    free = ("resume", "progress", "neck.depth")
    stored = compose_config("search", SearchCommand, {"seed": 3, "neck.num_classes": 4})
    store_settings(stored, tmp_path, free)
    asked = replace(compose_config("search", SearchCommand, {"neck.depth": 2}), resume=str(tmp_path), progress=False)
    again = continued(asked, ["neck.depth=2", f"resume={tmp_path}", "progress=false"], free)
    assert again == replace(stored, resume=str(tmp_path), progress=False, neck=replace(stored.neck, depth=2))
    assert continued(asked, ["use=[mine]"], free).neck == stored.neck
    with pytest.raises(UserError, match="take away seed=4$"):
        continued(asked, ["seed=4", "neck.depth=2"], free)
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    with pytest.raises(UserError, match="config.yaml lacks space, scorer, searcher$"):
        continued(asked, [], free)


def test_a_stopped_run_goes_on_with_what_its_files_do_not_hold() -> None:
    given = ["+space=mine.rooms:Few", "scorer=mae", "++searcher.name='yours:Walk'", "seed=3", "resume=old", "workers=2",
             "+storage=sqlite:///a b.db", "use=[mine.blocks, mine.rooms]"]  # fmt: skip
    assert continuation(Path("runs/first"), given, ("resume", "workers", "storage")) == (
        "resume=runs/first workers=2 '+storage=sqlite:///a b.db' 'use=[mine.blocks,mine.rooms,yours]'"
    )
    assert continuation(Path("runs/first"), ["seed=3"], ("resume",)) == "resume=runs/first"
