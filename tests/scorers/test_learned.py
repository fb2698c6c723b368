"""The learned score: fitted to a made-up table whose truth is known, one number everywhere, proved by exact search."""

from __future__ import annotations

import gzip
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nas
from nas.commands.rank import RankSettings, run_ranking
from nas.commands.search_files import provenance
from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.frame import Frame
from nas.scorers import find_scorer
from nas.scorers.agreement import spearman
from nas.scorers.fitting import FEWEST, fit
from nas.scorers.formula import formula_of
from nas.scorers.learned import FEATURES, Learned, features_of, read_learned
from nas.scorers.trained import Trained, read_table
from nas.searchers.catalog import make_problem
from nas.searchers.exact.search import exact_search
from nas.searchers.problem import Objective
from nas.searchers.problem.vectorized import GeneProblem
from nas.searchers.run import run_search
from nas.searchers.settings import SearchSettings
from nas.spec import Backbone, Residual, Stem, backbone_of, to_dict
from search_spaces import find_space
from search_spaces.streams import candidate_keys
from search_spaces.tinynas import SPACES
from tests.searchers.exact.test_search import brute_force, problem_of

SPACES_USED = ("tinynas_k1kx", "tinynas_kxkx", "gelan", "c3k2", "giraffe")
#: (mean AP, deviation of the truth) of the made-up data sets.
SETS = {"cards": (0.45, 0.03), "bccd": (0.6, 0.01)}
NOISE = 0.15  # of a run, in deviations of the truth


def members(count: int, seed: int = 0) -> list[Any]:
    rng = random.Random(seed)
    return [find_space(SPACES_USED[number % 5]).sample(rng) for number in range(count)]


def truth(spec: Any) -> float:
    """A planted sum over parts, of deviation about one over the members of the spaces."""
    known = dict(zip(FEATURES, features_of(backbone_of(spec)), strict=True))
    wide = known["width@16"] + known["width@32"] - 12
    return wide - 4 * known["thin@8"] - 0.05 * known["depth@32"] + 0.02 * known["work@8"]


def table_of(specs: list[Any], seeds: int = 1) -> list[Trained]:
    rng, rows = np.random.default_rng(0), []
    for number, spec in enumerate(specs):
        for data, (level, scale) in SETS.items():
            for seed in range(seeds):
                ap = level + 0.02 * (number % 3) + scale * (truth(spec) + NOISE * float(rng.normal()))
                rows.append(Trained(spec, ap, data, (20.0, 24.0, 29.0)[number % 3], seed))
    return rows


def write(rows: list[Trained], path: Path) -> Path:
    lines = [
        {"spec": to_dict(r.spec), "test_ap": r.ap, "data": r.data, "band_ms": r.band_ms, "seed": r.seed, "name": "any"}
        for r in rows
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def rows() -> list[Trained]:
    return table_of(members(60))


@pytest.fixture(scope="module")
def fitted(rows: list[Trained]) -> Learned:
    return fit(rows)


@pytest.fixture(scope="module")
def file(fitted: Learned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("learned") / "score.json"
    path.write_text(fitted.to_json())
    return path


def test_features_by_hand() -> None:
    blocks = (
        Residual("k1kx", 32, 16, 1, 2), Residual("k1kx", 64, 16, 2, 2), Residual("k1kx", 64, 32, 1, 2),
        Residual("k1kx", 128, 32, 1, 1), Residual("k1kx", 256, 64, 1, 2),
    )  # fmt: skip
    found = dict(zip(FEATURES, features_of(Backbone(Stem("conv", 24), blocks, (1, 3, 4))), strict=True))
    assert found["gain@2"] == pytest.approx(0.5 * math.log(27))
    assert found["work@2"] == pytest.approx(math.log(27 * 24 / 4))
    assert found["thin@2"] == pytest.approx(1 / 24) and found["depth@2"] == 1 and found["width@2"] == math.log(24)
    # Stride 8: its 1x1 convolutions at stride 4 and 8, its 3x3 ones both at stride 8.
    assert found["gain@8"] == pytest.approx(0.5 * (math.log(32) + math.log(64) + 2 * math.log(16 * 9)))
    work = math.log(32 * 16 / 16) + math.log(64 * 16 / 64) + 2 * math.log(16 * 9 * 64 / 64)
    assert found["work@8"] == pytest.approx(work)
    assert found["thin@8"] == pytest.approx(2 / 16 + 2 / 64) and found["depth@8"] == 4
    assert found["depth@16"] == 4 and found["width@16"] == math.log(128)  # of the last block there
    assert found["width@32"] == math.log(256)


def test_a_score_is_its_features_at_any_image_size(fitted: Learned, file: Path) -> None:
    for spec in members(10, seed=7):
        known = dict(zip(FEATURES, features_of(backbone_of(spec)), strict=True))
        terms = [c * known[name] for name, c in zip(fitted.features, fitted.coefficients, strict=True)]
        expected = fitted.intercept + math.fsum(terms)
        assert nas.score(spec, "learned", file=file) == pytest.approx(expected, rel=1e-12)
        for side in (64, 320, 416):
            assert fitted.score(spec, side) == pytest.approx(expected, rel=1e-12)


def test_other_strides_are_refused(fitted: Learned) -> None:
    four = Backbone(Stem("conv", 32), tuple(Residual("k1kx", 32, 16, 1, 2) for _ in range(3)), (0, 1, 2))
    slow = Backbone(Stem("conv", 32, 3, 1), tuple(Residual("k1kx", 32, 16, 1, 2) for _ in range(5)), (2, 3, 4))
    for spec in (four, slow):
        with pytest.raises(UserError, match="strides 2, 4, 8, 16, 32|level weights"):
            fitted.score(spec)
        with pytest.raises(UserError, match="strides 2, 4, 8, 16, 32"):
            features_of(spec)


@pytest.mark.parametrize("name", ["tinynas_k1kx", "tinynas_k1dwsek1"])
def test_one_row_thousands_of_rows_and_the_objective_agree(name: str, file: Path) -> None:
    formula = formula_of(find_scorer("learned"), {"file": file})
    assert isinstance(formula, Learned) and formula.digest == read_learned(file).digest
    table, frame = LatencyTable.load("t4_tensorrt_fp16"), Frame(image_size=320)
    problem = GeneProblem(SPACES[name], Objective(formula, table, frame), Budget.of({"layers": 25}))
    genes = problem.sample(candidate_keys(0, 0, 12))
    for row, score in zip(genes, problem.evaluate(genes).score, strict=True):
        spec = frame.detector(problem.spec(row))
        assert score == pytest.approx(nas.score(spec, "learned", file=file), rel=1e-11)
        assert score == pytest.approx(problem.objective.evaluate(spec)["score"], rel=1e-11)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_exact_search_proves_the_true_optimum(seed: int, fitted: Learned) -> None:
    # Coefficients of either sign, so that no direction is the better one throughout.
    sizes = np.random.default_rng(seed).normal(size=len(FEATURES)) / (1 + np.abs(features_of(members(1)[0])))
    formula = replace(fitted, features=FEATURES, coefficients=tuple(sizes.tolist()))
    frame = Frame() if seed else None
    free = problem_of(seed, {"latency_ms": 100.0}, frame, formula)
    ms = float(np.quantile(brute_force(free, seed)[1], 0.3))
    problem = problem_of(seed, {"latency_ms": ms}, frame, formula)
    scores, _ = brute_force(problem, seed)
    found = exact_search(problem)
    assert found.best is not None and found.certificate is not None
    assert found.best.score == pytest.approx(scores.max(), abs=1e-9)
    assert scores.max() - 1e-9 <= found.certificate.upper <= scores.max() + 1e-6


def test_the_fit_finds_the_planted_order(fitted: Learned) -> None:
    fresh = members(60, seed=99)
    scores, planted = [fitted.score(spec) for spec in fresh], [truth(spec) for spec in fresh]
    assert spearman(scores, planted) > 0.97
    assert "width" in {name.split("@")[0] for name in fitted.features}
    assert fitted.left_out > 0.9 and len(fitted.networks) == 60 and fitted.runs == 120
    cards, bccd = sorted(fitted.data, key=lambda term: -term.slope)
    assert (cards.name, bccd.name) == ("cards", "bccd") and cards.slope / bccd.slope == pytest.approx(3, rel=0.1)
    levels = [band.level for band in cards.bands]
    assert [band.band_ms for band in cards.bands] == [20, 24, 29] and np.diff(levels) == pytest.approx(0.02, abs=0.01)
    assert fitted.centre == pytest.approx(np.mean([fitted.score(spec) for spec in members(60)]))


def test_strides_have_coefficients_of_their_own_where_that_is_clearly_better(fitted: Learned) -> None:
    assert fitted.by_stride
    rng = np.random.default_rng(2)
    few = [replace(row, ap=row.ap + 0.03 * float(rng.normal())) for row in table_of(members(30)) if row.data == "cards"]
    shared = fit(few)
    assert not shared.by_stride and len(set(shared.coefficients)) == len({n.split("@")[0] for n in shared.features})
    assert 0.2 < shared.left_out < 1  # as much noise as truth


def test_kinds_that_do_not_vary_are_left_out() -> None:
    rng, rows = random.Random(3), []
    for _ in range(30):
        widths = sorted(8 * rng.randint(2, 40) for _ in range(5))
        blocks = tuple(Residual("k1kx", out, 8, 1, 2) for out in widths[1:])
        rows.append(Trained(Backbone(Stem("conv", widths[0]), blocks, (1, 2, 3)), 0.3 + widths[-1] / 3000, "cards"))
    found = fit(rows)
    assert found.left_out > 0.9 and not {name for name in found.features if name.startswith("depth@")}
    assert fit(rows, intervals=False).coefficients == found.coefficients


def test_noise_alone_is_shrunk_to_nothing(rows: list[Trained]) -> None:
    rng = np.random.default_rng(1)
    noise = fit([replace(row, ap=0.5 + 0.01 * float(rng.normal())) for row in rows])
    assert noise.left_out < 0.4
    assert np.std([noise.score(spec) for spec in members(60)]) < 0.005  # of 0.01 in the table


def test_intervals_hold_for_networks_that_came_later(fitted: Learned, rows: list[Trained]) -> None:
    later = [row for row in table_of(members(130)) if row.spec not in {known.spec for known in rows}]
    inside = []
    for row in later:
        low, middle, high = fitted.interval(row.spec, row.data, row.band_ms)
        assert middle - low == pytest.approx(high - middle)
        inside.append(low <= row.ap <= high)
    assert len(inside) > 100 and 0.8 < np.mean(inside) < 0.99
    for arguments, message in (
        (("sea",), "unknown data set 'sea'; fitted to bccd, cards"),
        (("cards", 22.0), "20.0, 24.0, 29.0"),
    ):
        with pytest.raises(UserError, match=message):
            fitted.interval(later[0].spec, *arguments)


def test_the_bytes_repeat_whatever_the_order_and_packing(rows: list[Trained], fitted: Learned, tmp_path: Path) -> None:
    assert fit(rows[::-1]).to_json() == fitted.to_json() == fit(rows).to_json()
    plain = write(rows, tmp_path / "table.jsonl")
    packed = tmp_path / "table.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    texts = []
    for number, table in enumerate((plain, packed)):
        output = tmp_path / f"score{number}.json"
        texts.append(run_ranking(RankSettings(action="fit", table=table, output=output)))
    assert (tmp_path / "score0.json").read_bytes() == (tmp_path / "score1.json").read_bytes()
    assert "60 networks, 120 runs" in texts[0] and f"scorer.file={tmp_path / 'score0.json'}" in texts[0]
    found = read_learned(tmp_path / "score0.json")
    assert found.versions["maenas"] == nas.__version__ and replace(found, versions=fitted.versions) == fitted


def test_seeds_are_averaged_and_single_networks_of_a_band_left_out(rows: list[Trained], fitted: Learned) -> None:
    twice = [replace(row, ap=row.ap + change, seed=seed) for row in rows for seed, change in enumerate((-0.01, 0.01))]
    doubled = fit(twice)
    assert doubled.runs == 240 and doubled.coefficients == pytest.approx(fitted.coefficients)
    alone = replace(rows[0], spec=members(61)[-1], band_ms=50.0, ap=1.0)
    assert fit([*rows, alone]).coefficients == fitted.coefficients
    unbanded = fit([replace(row, band_ms=None) for row in rows])
    assert [band.band_ms for term in unbanded.data for band in term.bands] == [None, None]


def test_a_search_goes_on_only_with_the_same_file(file: Path, fitted: Learned, tmp_path: Path) -> None:
    mine = tmp_path / "score.json"
    mine.write_text(fitted.to_json())
    settings = SearchSettings.of(
        {"latency_ms": 9.0}, "gelan", scorer="learned", scorer_options={"file": str(mine)}, evaluations=40,
        searcher="random",
    )  # fmt: skip
    result = run_search(settings, tmp_path / "state.npz")
    assert provenance(result)["score_digest"] == fitted.digest
    assert result.best.score == pytest.approx(nas.score(result.best.spec, "learned", file=file))
    mine.write_text(replace(fitted, intercept=fitted.intercept + 0.1).to_json())
    with pytest.raises(UserError, match="state.npz"):
        run_search(settings, tmp_path / "state.npz")
    plain = SearchSettings.of({"latency_ms": 3.0}, scorer="mae")
    assert plain.score_digest == "" and "score_digest" not in plain.identity


def test_both_kinds_of_space_are_searched(file: Path) -> None:
    table, budget = LatencyTable.load("t4_tensorrt_fp16"), Budget.of({"latency_ms": 3.0})
    made = [
        make_problem(find_space(name), budget, "learned", {"file": str(file)}, table, Frame(), 640)
        for name in ("tinynas_k1kx", "gelan")
    ]
    assert isinstance(made[0], GeneProblem) and not isinstance(made[1], GeneProblem)


def changed(fitted: Learned, **changes: Any) -> str:
    return json.dumps(json.loads(fitted.to_json()) | changes)


def test_hostile_score_files_are_refused_in_one_line(fitted: Learned, tmp_path: Path) -> None:
    path = tmp_path / "score.json"
    lacking = {key: value for key, value in json.loads(fitted.to_json()).items() if key != "centre"}
    term = json.loads(fitted.to_json())["data"][0]
    for text, message in (
        ("[]", "is not a learned score"),
        ("{", "is not valid JSON"),
        (changed(fitted, format="maenas-learned-score/9"), "is not a learned score"),
        (json.dumps(lacking), "lacks centre"),
        (changed(fitted, more=1), "no option 'more'"),
        (changed(fitted, coefficients=[0.5]), "differ in length"),
        (changed(fitted, coefficients=[math.nan] * len(fitted.features)), "coefficients.* must be"),
        (changed(fitted, intercept=math.inf), "intercept must be"),
        (changed(fitted, intercept="0.5"), "intercept must be"),
        (changed(fitted, features=["gain@64", *fitted.features[1:]]), "feature 'gain@64' is unknown"),
        (changed(fitted, features=[fitted.features[1], *fitted.features[1:]]), "named twice"),
        (changed(fitted, data=[term | {"slope": -1}]), "slope must be"),
        (changed(fitted, data=[{}]), "score.json"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message) as caught:
            read_learned(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(
        UserError, match="there is no learned score in .*none.json: fit one with python -m nas.rank action=fit"
    ):
        nas.score(nas.load("damo-yolo-t"), "learned", file=tmp_path / "none.json")


def test_hostile_tables_are_refused_in_one_line(rows: list[Trained], tmp_path: Path) -> None:
    path, row = (
        write(rows, tmp_path / "table.jsonl"),
        json.loads((tmp_path / "table.jsonl").read_text().splitlines()[0]),
    )
    few = [line for line in rows if line.spec in {known.spec for known in rows[: 2 * FEWEST - 2]}]
    for text, message in (
        ("", "0 networks"),
        ("hello\n", "line 1"),
        ("[1]\n", "line 1: not a mapping"),
        (json.dumps({key: value for key, value in row.items() if key != "spec"}), "line 1: there is no spec"),
        (json.dumps({key: value for key, value in row.items() if key != "test_ap"}), "no test_ap or ap"),
        (json.dumps({key: value for key, value in row.items() if key != "data"}), "there is no data"),
        (json.dumps(row | {"test_ap": math.nan}), "ap must be"),
        (json.dumps(row | {"test_ap": 45.0}), "ap must be a number from 0 to 1, got 45.0"),
        (json.dumps(row | {"spec": {"blocks": 3}}), "line 1: spec"),
        (json.dumps(row | {"seed": -1}), "seed must be"),
        (path.read_text().splitlines()[0] + "\n{", "line 2"),
        (
            "".join(json.dumps(row | {"spec": to_dict(r.spec), "test_ap": 0.5}) + "\n" for r in rows),
            "do not differ in AP on",
        ),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message) as caught:
            fit(read_table(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="19 networks .* train at least 20"):
        fit(few)
    path.write_bytes(gzip.compress(b"{}" * 100)[:-9])
    with pytest.raises(UserError, match="cannot be read"):
        read_table(path)
    with pytest.raises(UserError, match="No such file"):
        read_table(tmp_path / "none")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"action": "fit"}, "needs table=TABLE"),
        ({"action": "fit", "table": "t.jsonl"}, "and output=FILE"),
        ({"action": "fold"}, "action must be one of rank, fit"),
        ({"networks": "damo-yolo-t", "table": "t.jsonl"}, "belong to action=fit"),
    ],
)
def test_the_command_says_what_it_needs(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_ranking(RankSettings(**settings))
