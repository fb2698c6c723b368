"""One run along many limits: every point is the search under that limit, and nothing is searched twice."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from nas.commands.search_curve import Curve
from nas.errors import UserError
from nas.files import read_yaml
from tests.commands.test_search import QUICK, error_of, search


def test_limits_are_spaced_evenly_or_listed() -> None:
    assert Curve.of("latency_ms:1.5:6:10") == Curve("latency_ms", tuple(1.5 + 0.5 * i for i in range(10)))
    assert Curve.of(["layers", 25, 15, 20, 15]) == Curve("layers", (15.0, 20.0, 25.0))
    assert Curve.of("flops_g:20:5:2").limits == (5.0, 20.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("latency", "unknown budget metric 'latency'; known: latency_ms"),
        ("latency_ms:1:5", "write curve=latency_ms:FIRST:LAST:COUNT"),
        ("latency_ms:1:5:1", "with 2 to 1000 limits"),
        ("latency_ms:1:5:1e9", "with 2 to 1000 limits"),
        ("latency_ms:0:5:3", "a limit of the curve on latency_ms must be"),
        ("latency_ms:x:5:3", "a limit of the curve on latency_ms must be"),
        (["latency_ms"], "give one to 1000 limits"),
        (["latency_ms", "nan"], "a limit of the curve on latency_ms must be"),
        ([3, 4], "unknown budget metric '3'"),
    ],
)
def test_what_is_no_curve_is_told(given: object, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        Curve.of(given)


@pytest.mark.slow
def test_every_point_is_the_search_under_its_limit(tmp_path: Path) -> None:
    folder, alone = tmp_path / "curve", tmp_path / "alone"
    own = ("neck=nano", "space.depths=[1,2,2,2,2]", *QUICK)
    done = search("curve=[latency_ms,0.2,1.6,2.4]", *own, f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((folder / "curve.csv").open()))
    assert [float(row["latency_ms_limit"]) for row in rows] == [0.2, 1.6, 2.4]
    assert [row["status"] for row in rows] == ["nothing", "proved", "proved"] and "impossible budget" in rows[0]["told"]
    assert float(rows[1]["latency_ms"]) <= 1.6 and float(rows[1]["score"]) < float(rows[2]["score"])
    assert (folder / "curve.png").stat().st_size > 10_000
    assert "2 of 3 limits have a network, 2 proved" in done.stdout
    assert search("+budget.x.latency_ms=2.4", *own, f"hydra.run.dir={alone}").returncode == 0
    point = folder / rows[2]["folder"]
    for name in ("best.yaml", "pareto.csv"):
        assert (point / name).read_bytes() == (alone / name).read_bytes()
    # The run goes on where it stopped: what is done is read back, what is missing is searched.
    before = (folder / "curve.csv").read_bytes()
    shutil.rmtree(point)
    finished = json.loads((folder / rows[1]["folder"] / "summary.json").read_text())["finished"]
    again = search(f"resume={folder}", "progress=false")
    assert again.returncode == 0 and (folder / "curve.csv").read_bytes() == before, again.stderr
    assert json.loads((folder / rows[1]["folder"] / "summary.json").read_text())["finished"] == finished
    assert read_yaml(folder / "config.yaml")["curve"] == ["latency_ms", 0.2, 1.6, 2.4]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("curve=[latency_ms,2]", "+budget=latency_3ms"), "and so does the budget: take one of them away"),
        (("curve=[latency_ms,0.1,0.2]", "evaluations=100"), "nothing fits any limit of the curve"),
        (("curve=hello",), "unknown budget metric 'hello'"),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in error_of(monkeypatch, *arguments, f"hydra.run.dir={tmp_path}/run")
