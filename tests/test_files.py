"""Spec files: the identity through YAML, damage that is noticed, writes that are whole or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nas.errors import SpecError, UserError
from nas.files import UNFINISHED, claimed, load_spec, read_spec_document, read_yaml, save_spec, write_atomic
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


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        path = write_atomic(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode and [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synced there")
def test_file_and_folder_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool | None] = []
    fsync = os.fsync

    def noted(number: int) -> None:
        synced.append(os.path.isdir(f"/proc/self/fd/{number}") if os.path.exists("/proc") else None)
        fsync(number)

    monkeypatch.setattr(os, "fsync", noted)
    write_atomic(tmp_path / "file", "text")
    assert len(synced) == 2 and (None in synced or synced == [False, True])


CLAIM = """
import sys, time
from nas.files import claimed
with claimed(sys.argv[1]):
    print("mine", flush=True)
    time.sleep(100)
"""


def test_a_folder_has_one_owner_until_its_process_ends(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", CLAIM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "mine\n"
    refusal = "another command is at work in .*: wait for its end, or choose another folder"
    with pytest.raises(UserError, match=refusal), claimed(tmp_path):
        pass
    other.kill()
    other.wait()
    (tmp_path / f".best.yaml.1234{UNFINISHED}").write_text("half")
    with claimed(tmp_path), claimed(tmp_path):
        assert not list(tmp_path.glob(f"*{UNFINISHED}"))
