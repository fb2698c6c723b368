"""Every hostile file is refused in one line, quickly, without memory, and nothing in it is run."""

from __future__ import annotations

import ast
import importlib.util
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas.data.by_path import find_data
from nas.data.images import read_image
from nas.data.voc import read_xml
from nas.errors import UserError
from nas.files import load_spec, read_json
from nas.models.checkpoint import load_checkpoint
from nas.models.torch_file import read_torch
from nas.models.weights import clean_state
from nas.searchers.history import load_arrays
from nas.training.state import read_state

HERE = Path(__file__).resolve().parent
SOURCE = importlib.util.spec_from_file_location("hostile", HERE / "hostile.py")
assert SOURCE is not None and SOURCE.loader is not None
hostile = importlib.util.module_from_spec(SOURCE)
SOURCE.loader.exec_module(hostile)

READERS: dict[str, Callable[[Path], Any]] = {
    "torch": clean_state,
    "checkpoint": load_checkpoint,
    "spec": load_spec,
    "zip": find_data,
    "image": read_image,
    "search": lambda path: load_arrays(path, "a search"),
    "json": read_json,
    "voc": read_xml,
}


def test_there_are_many() -> None:
    assert sum(len(attacks) for _, attacks in hostile.ATTACKS.values()) >= 90


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, (_, attacks) in hostile.ATTACKS.items() for name in attacks]
)
def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    suffix, attacks = hostile.ATTACKS[kind]
    path = tmp_path / f"attack{suffix}"
    path.write_bytes(attacks[name]())
    assert path.stat().st_size < 6 << 20
    began = time.process_time()
    with pytest.raises(UserError) as told:
        READERS[kind](path)
    assert time.process_time() - began < 20
    assert "\n" not in str(told.value) and str(told.value).isprintable() and len(str(told.value)) < 600
    assert not list(tmp_path.glob("RAN*")) and not Path("/tmp/RAN").exists()


@pytest.mark.parametrize("name", [*hostile.TORCH, *hostile.CHECKPOINTS])
def test_as_the_state_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "last.state").write_bytes((hostile.TORCH.get(name) or hostile.CHECKPOINTS[name])())
    with pytest.raises(UserError) as told:
        read_state(tmp_path)
    assert "\n" not in str(told.value) and not list(tmp_path.glob("RAN*"))


def everything() -> dict[str, Any]:
    """What files of trainings hold: all kinds of numbers, views, empty tensors, states of optimisers."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    base = torch.arange(24.0)
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    numbers = {str(kind): torch.arange(5).to(kind) for kind in (*kinds, torch.int8, torch.uint8, torch.bool)}
    views = {"rows": base.view(4, 6)[1:3], "turned": base.view(4, 6).T, "one": base[3], "none": base[:0]}
    plain = {
        "epoch": 3,
        "big": 10**18,
        "less": -70_000,
        "rate": 1e-3,
        "no": None,
        "yes": [True, False],
        "pair": (1, "ä"),
    }
    layout = {"last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), "size": torch.Size([1, 2])}
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "own": nn.Parameter(base)} | (
        numbers | views | plain | layout
    )


def assert_equal(one: Any, two: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype and one.stride() == two.stride() and torch.equal(one, two)
    elif isinstance(one, dict):
        assert list(one) == list(two)
        for key in one:
            assert_equal(one[key], two[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for left, right in zip(one, two, strict=True):
            assert_equal(left, right)
    else:
        assert type(one) is type(two) and one == two


@pytest.mark.parametrize("zipped", [True, False])
def test_honest_files_are_read_as_torch_reads_them(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "honest.pth"
    torch.manual_seed(0)
    torch.save(everything(), path, _use_new_zipfile_serialization=zipped)
    assert_equal(torch.load(io.BytesIO(path.read_bytes()), weights_only=True), read_torch(path))


def test_nothing_is_unpickled_anywhere() -> None:
    """Neither torch.load nor pickle's readers are called in the package."""
    wrong = []
    for path in (*HERE.parents[1].glob("nas/**/*.py"), *HERE.parents[1].glob("search_spaces/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("torch.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec", "yaml.load"):
                wrong.append(f"{path.name}: {called}")
    assert not wrong
