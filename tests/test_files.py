"""Spec files: the identity through YAML, damage that is noticed, writes that are whole or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nas.errors import SpecError, UserError
from nas.files import load_spec, read_spec_document, read_yaml, save_spec, write_atomic
from search_spaces import load_published, published_names


@pytest.mark.parametrize("name", published_names())
def test_yaml_is_the_identity(name: str, tmp_path: Path) -> None:
    spec = load_published(name)
    assert load_spec(save_spec(tmp_path / "spec.yaml", spec, name=name)) == spec


def test_what_is_known_of_a_spec_travels_with_it(tmp_path: Path) -> None:
    path = save_spec(tmp_path / "s.yaml", load_published("damo-yolo-t"), metrics={"score": 1.5}, provenance={"seed": 3})
    known = read_spec_document(path)[1]
    assert known["metrics"] == {"score": 1.5} and known["provenance"] == {"seed": 3} and len(known["digest"]) == 16


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    path = save_spec(tmp_path / "s.yaml", load_published("damo-yolo-t"))
    path.write_text(path.read_text().replace("bottleneck: 24", "bottleneck: 32"))
    with pytest.raises(SpecError, match="digest"):
        load_spec(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2", "not valid YAML"),
        ("just words", "no architecture"),
        ("format: maenas-spec/9\nspec: {}", "format is 'maenas-spec/9'"),
        ("format: maenas-spec/1\nspecs: {}\nspec: {}", "unknown key 'specs'"),
        ("format: maenas-spec/1\nspec: {stem: {kind: conv, out: 8}, blocks: [{type: Cube, out: 8}], out_blocks: [0]}", "Cube"),
        ("format: maenas-spec/1\nspec: {stem: {kind: conv, out: 8.5}, blocks: [], out_blocks: [0]}", "stem.out must be int"),
        ("format: maenas-spec/1\nspec: {stem: {kind: conv, out: 8}, blocks: [{type: Plain}], out_blocks: [0]}", "'out'"),
        ("format: maenas-spec/1\nspec: !!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)  # fmt: skip
def test_damage_gives_one_clear_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        load_spec(path)
    assert "\n" not in str(caught.value) and "broken.yaml" in str(caught.value)


def test_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent.yaml"):
        read_yaml(tmp_path / "absent.yaml")
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="not a text file"):
        read_yaml(tmp_path / "picture.yaml")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_atomic(tmp_path / "a.txt", "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
