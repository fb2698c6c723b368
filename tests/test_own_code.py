"""Spaces, scorers and searchers of one's own, from the command line, from Python and by entry point."""

from __future__ import annotations

import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

import nas
from nas import extensions
from nas.errors import UserError
from nas.files import read_spec_document
from nas.searchers.evolution import RandomSearch
from nas.spec import Spec
from nas.testing import check_scorer, check_space
from search_spaces import SearchSpace, find_space, space_names

QUICK = ("evaluations=40", "progress=false", "+budget.mine.latency_ms=20")
MODULE = """
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import nas
from nas.searchers.evolution import RandomSearch
from search_spaces import find_space
from search_spaces.c3k2 import SPACES, C3k2Space

Slim = replace(find_space("tinynas_k1kx"), name="slim", max_layers=21)


@dataclass(frozen=True, kw_only=True)
class Few(C3k2Space):
    step: int = 8
    steps: tuple[int, ...] = (16, 16, 16, 128)
    stem_channels: tuple[int, int] = (8, 96)
    channels: tuple[tuple[int, int], ...] = ((32, 384), (64, 768), (64, 768), (128, 768))
    start_stem: int = 16
    start: tuple[int, ...] = (64, 128, 128, 256)


def macs_per_layer(spec, image_size: int = 640, power: float = 1.0):
    counts = nas.count(spec, image_size=image_size)
    return (counts.macs / counts.layers) ** power


def weights(module):
    return sum(weight.numel() for weight in module.parameters())


def broken(spec):
    return 1 / 0


def stopping(spec):
    mark = Path(__file__).with_name("stopped")
    if not mark.exists():
        mark.touch()
        signal.raise_signal(signal.SIGINT)
    return len(spec.backbone.blocks)


def wordy(spec):
    return "good"


class Mine(RandomSearch):
    pass


def no_searcher(problem, seed=0):
    return object()
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module with a space, scorers and a searcher, in a folder of its own."""
    (tmp_path / "room_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "room_of_mine"
    sys.modules.pop("room_of_mine", None)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command in this process; returns what it printed, and the line with which it ended, if in error."""

    def run(name: str, *arguments: str) -> str:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [f"nas.{name}", *arguments])
        error = ""
        try:
            runpy.run_module(f"nas.{name}", run_name="__main__")
        except SystemExit as ended:
            error = str(ended.code or "")
        return capsys.readouterr().out + error

    return run


def test_a_search_by_references_resumes_only_with_use(mine: str, command: Callable[..., str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    chosen = (f"space={mine}:Few", f"scorer={mine}:macs_per_layer", "+scorer.power=0.5", f"searcher={mine}:Mine")
    assert "winner" in command("search", *QUICK, *chosen, "+space.depths=[1]", f"hydra.run.dir={run}")
    best, known = read_spec_document(run / "best.yaml")
    assert known["provenance"]["scorer"] == f"{mine}:macs_per_layer"
    assert known["provenance"]["searcher"] == f"{mine}:Mine" and known["provenance"]["space"] == "Few"
    counts = nas.count(best, image_size=640)
    assert known["metrics"]["score"] == pytest.approx((counts.macs / counts.layers) ** 0.5)
    assert all(block.depth == 1 for block in best.backbone.blocks[:-1])  # type: ignore[union-attr]
    del sys.modules[mine]
    before = (run / "best.yaml").read_bytes()
    refused = command("search", f"resume={run}")
    assert f"config.yaml needs space {mine}:Few: if you trust that package, add use=[{mine}]" in refused
    assert mine not in sys.modules
    assert "winner" in command("search", f"resume={run}", f"use=[{mine}]", "progress=false")
    assert (run / "best.yaml").read_bytes() == before


def test_the_line_of_a_stopped_search_goes_on_with_it(mine: str, command: Callable[..., str], tmp_path: Path) -> None:
    run = tmp_path / "the run"
    told = command("search", *QUICK, f"space={mine}:Few", f"scorer={mine}:stopping", f"searcher={mine}:Mine",
                   "+searcher.batch=8", "workers=1", f"hydra.run.dir='{run}'")  # fmt: skip
    (line,) = (text for text in told.splitlines() if text.startswith("stopped"))
    typed = shlex.split(line.removeprefix("stopped; go on with: python -m nas.search "))
    assert typed == [f"resume={run}", "progress=false", "workers=1", f"use=[{mine}]"]
    del sys.modules[mine]
    assert "winner" in command("search", *typed)


@pytest.mark.slow
def test_sweeps_mix_what_is_shipped_and_what_is_not(mine: str, command: Callable[..., str], tmp_path: Path) -> None:
    sweep = (
        "searcher=random",
        f"scorer=mae,{mine}:macs_per_layer",
        f"space={mine}:Slim",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    )
    assert command("search", "-m", *QUICK, *sweep).count("winner") == 2
    scorers = [read_spec_document(tmp_path / f"sweep/{job}/best.yaml")[1]["provenance"]["scorer"] for job in (0, 1)]
    assert scorers == ["mae", f"{mine}:macs_per_layer"]


def test_scorers_of_ones_own_are_ranked_and_compared(mine: str, command: Callable[..., str], tmp_path: Path) -> None:
    scorers = f"scorers=[mae,{mine}:macs_per_layer,{mine}:weights]"
    told = command("rank", "networks=tinynas_l20_k1kx", scorers, "image_size=32", "batch=2", "progress=false",
                   f"folder={tmp_path / 'rank'}")  # fmt: skip
    assert f"| mae | {mine}:macs_per_layer | {mine}:weights |" in told
    compared = command("compare", "models=[damo-yolo-t]", f"scorer={mine}:macs_per_layer", f"folder={tmp_path / 'c'}")
    assert f"training-free score {mine}:macs_per_layer" in compared


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("scorer={}:broken",), "scorer {}:broken failed with ZeroDivisionError: division by zero"),
        (("scorer={}:wordy",), "scorer {}:wordy must return a number, got 'good'"),
        (("scorer={}:nothing",), "{} has no nothing"),
        (("scorer={}:macs_per_layer", "+scorer.pwer=1"), "has no option 'pwer'; did you mean power"),
        (("space={}:weights",), "must be a SearchSpace"),
        (("space={}:Few", "+space.depth=1"), "space has no option 'depth'; did you mean depths"),
        (("searcher={}:no_searcher",), "lacks batch, ask, tell, state, restore"),
        (("use=[nowhere_at_all]",), "there is no module nowhere_at_all"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: tuple[str, ...], text: str, mine: str, command: Callable[..., str], tmp_path: Path
) -> None:
    told = command("search", *QUICK, *(part.format(mine) for part in arguments), f"hydra.run.dir={tmp_path / 'run'}")
    assert text.format(mine) in told and told.count("\n") == 0 and not (tmp_path / "run/best.yaml").exists()


def test_objects_are_taken_in_python() -> None:
    few = find_space("c3k2", depths=(1,))
    found = nas.find({"latency_ms": 20}, few, scorer=lambda spec: -nas.count(spec).params, searcher=RandomSearch,
                     evaluations=30)  # fmt: skip
    assert found.best.score == -nas.count(found.best.spec).params
    assert nas.score("damo-yolo-t", lambda spec, power: nas.count(spec).layers ** power, power=2) == 361
    with pytest.raises(UserError, match="cannot be sent to other processes"):
        nas.find({"latency_ms": 3}, scorer=lambda spec: 1.0, workers=2, evaluations=30)
    with pytest.raises(UserError, match="must be a function of a spec or of a module"):
        nas.score("damo-yolo-t", lambda: 1.0)


def test_a_function_of_a_module_sees_the_network() -> None:
    spec = nas.load("tinynas_l20_k1kx")
    built = nas.build(spec)

    def weights(module, images):  # type: ignore[no-untyped-def]
        assert images.shape == (16, 3, 64, 64)
        return sum(weight.numel() for weight in module.parameters())

    expected = sum(weight.numel() for weight in built.parameters())
    assert nas.score(built, weights, image_size=64) == expected
    assert nas.score(spec, weights, image_size=64) <= expected  # without the branches of training
    with pytest.raises(UserError, match="scorer mae takes a spec, not a torch module"):
        nas.score(built, "mae")


def test_entry_points_are_names(
    mine: str, monkeypatch: pytest.MonkeyPatch, command: Callable[..., str], tmp_path: Path
) -> None:
    points = [
        EntryPoint("slim", f"{mine}:Slim", "maenas.spaces"),
        EntryPoint("per_layer", f"{mine}:macs_per_layer", "maenas.scorers"),
    ]
    monkeypatch.setattr(extensions, "entry_points", lambda group: [point for point in points if point.group == group])
    assert find_space("slim", max_layers=19).name == "slim"
    told = command(
        "search", *QUICK, "space=slim", "scorer=per_layer", "searcher=random", f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert "winner" in told
    with pytest.raises(UserError, match="unknown search space 'slender'; known: .*slim"):
        find_space("slender")


@pytest.mark.parametrize("name", space_names())
def test_shipped_spaces_conform(name: str) -> None:
    check_space(name, draws=8)


@pytest.mark.parametrize("name", ["mae", "mae_neck", "mae_residual", "effective_rank", "level_balance", "deepmad",
                                  "params", "macs", "layers", "random"])  # fmt: skip
def test_shipped_scorers_conform(name: str) -> None:
    check_scorer(name)


def test_conformance_names_what_is_broken() -> None:
    small = find_space("c3k2")

    class Astray(type(small)):  # type: ignore[misc]
        def sample(self, rng):  # type: ignore[no-untyped-def]
            return find_space("gelan").initial()

    astray: SearchSpace = Astray(**{name: getattr(small, name) for name in small.__dataclass_fields__})
    with pytest.raises(AssertionError, match=r"sample\(Random\(0\)\) is no member of c3k2"):
        check_space(astray)
    calls = iter(range(9))

    def restless(spec: Spec) -> float:
        return float(next(calls))

    with pytest.raises(AssertionError, match="gives 0.0 and then 1.0"):
        check_scorer(restless)
    with pytest.raises(AssertionError, match="gives every network the score"):
        check_scorer(lambda spec: 1.0)
    with pytest.raises(AssertionError, match="gives inf"):
        check_scorer(lambda spec: float("inf"))
