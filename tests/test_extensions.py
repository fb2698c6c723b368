"""Code of one's own: a person's word imports, a file's word does not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from nas import extensions
from nas.errors import UserError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module with a space, that leaves a trace when it is imported."""
    name = "house_of_one"
    (tmp_path / f"{name}.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'trace')!r}).touch()\n\n\nclass Slim:\n    '''A space.'''\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def test_references() -> None:
    assert extensions.is_reference("a.b:C")
    for text in ("a.b", "a.b:", ":C", "a b:C", "a.b:C()", "http://x", "C:\\x"):
        assert not extensions.is_reference(text)
    assert extensions.reference_to(Path) == f"{Path.__module__}:Path"


def test_a_person_may_import_and_a_file_may_not(package: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"best.yaml needs block {package}:Slim.*use=\[{package}\]"):
        extensions.loaded(f"{package}:Slim", "block", "best.yaml")
    assert not (tmp_path / "trace").exists()
    extensions.use([package])
    assert extensions.loaded(f"{package}:Slim", "block", "best.yaml").__name__ == "Slim"
    assert extensions.found(f"{package}:Slim", "space") is extensions.imported(f"{package}:Slim", "space")


def test_an_installed_entry_point_counts_as_permission(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("slim", f"{package}:Slim", "maenas.spaces")
    monkeypatch.setattr(extensions, "entry_points", lambda group: [point] if group == point.group else [])
    assert list(extensions.installed("space")) == ["slim"]
    assert extensions.found("slim", "block") is None
    assert extensions.found("slim", "space").__name__ == "Slim"
    assert extensions.loaded(f"{package}:Slim", "space", "config.yaml").__name__ == "Slim"


def test_what_is_missing_or_broken_is_named_in_one_line(package: str, tmp_path: Path) -> None:
    (tmp_path / "broken_house.py").write_text("raise RuntimeError('no')\n")
    for wrong, text in (
        ("nowhere_at_all:X", "there is no module nowhere_at_all"),
        (f"{package}:Thin", f"{package} has no Thin"),
        ("broken_house:X", "importing broken_house failed with RuntimeError: no"),
    ):
        with pytest.raises(UserError, match=text):
            extensions.imported(wrong, "space")


def test_a_file_does_not_make_a_module_import_lazily(package: str, tmp_path: Path) -> None:
    lazy = tmp_path / "lazy_house.py"
    lazy.write_text(f"def __getattr__(name):\n    import {package}\n    return getattr({package}, name)\n")
    extensions.use(["lazy_house"])
    with pytest.raises(UserError, match="best.yaml needs block lazy_house:Slim: module lazy_house has no Slim"):
        extensions.loaded("lazy_house:Slim", "block", "best.yaml")
    assert not (tmp_path / "trace").exists()
    assert extensions.imported("lazy_house:Slim", "block").__name__ == "Slim"
