"""The experiment that judges scores by training: its networks, its bookkeeping, its statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import experiments.scorer_truth
from experiments.costs import Latencies
from experiments.noise import Noise, measured_noise
from experiments.scorer_truth.__main__ import main, parse
from experiments.scorer_truth.judging import accuracies, analytic_scores, judge, recommendation, write_report
from experiments.scorer_truth.networks import read_networks, write_networks
from experiments.scorer_truth.training import Recipe, Result, append_result, read_results, wanted
from nas.errors import UserError
from nas.frame import Frame
from search_spaces.drawings import DRAWN, PUBLISHED, backbone_of_text, fit_to_cost, text_of

FOLDER = Path(experiments.scorer_truth.__file__).parent


def test_the_committed_networks_are_many_different_and_equally_fast() -> None:
    networks = read_networks(FOLDER / "networks.csv")
    assert len(networks) >= 40 and len({network.text for network in networks}) == len(networks)
    assert {network.group for network in networks} == {"published", "drawn", "searched", "random"}
    latency = Latencies("t4_tensorrt_fp16", Frame())
    predicted = np.array([latency(network.backbone) for network in networks])
    assert predicted.max() / predicted.min() < 1.03
    layers = analytic_scores(networks)["layers"]
    assert layers.min() < 15 < 60 < layers.max()


def test_the_committed_drawings_are_what_scaling_gives() -> None:
    latency, texts = Latencies("t4_tensorrt_fp16", Frame()), PUBLISHED | DRAWN
    committed = {network.name: network.text for network in read_networks(FOLDER / "networks.csv")}
    assert set(texts) <= set(committed)
    for name, text in texts.items():
        found = fit_to_cost(backbone_of_text(text), latency, 2.6, 0.01)
        assert found is not None and text_of(found) == committed[name]


def rows(networks: list, noise: float, path: Path) -> list[Result]:  # type: ignore[type-arg]
    """Made-up results: accuracy follows the effective rank, plus noise from the seed."""
    rank = analytic_scores(networks)["effective_rank"]
    rng = np.random.default_rng(0)
    for network, seed in wanted(networks, 5, 3):
        true = 0.6 + 0.02 * rank[[item.name for item in networks].index(network.name)]
        value = true + noise * rng.normal()
        row = {"name": network.name, "seed": seed, "ap50": f"{value:.5f}", "ap": f"{value / 2:.5f}"}
        append_result(path, row | {"epochs": 1, "seconds": 1, "device": "cpu", "recipe": Recipe().digest})
    return read_results(path, Recipe())


def test_results_are_appended_read_back_and_torn_lines_left_out(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    networks = read_networks(FOLDER / "networks.csv")[:12]
    assert len(rows(networks, 0.01, path)) == len(wanted(networks, 5, 3)) == 12 + 10
    with path.open("a") as file:
        file.write("damo-t,0,0.5")
    assert len(read_results(path, Recipe())) == 22
    assert read_results(path, Recipe(epochs=41)) == [] and Recipe(data="elsewhere").digest == Recipe().digest


def test_noise_comes_first_and_a_clear_winner_is_recommended(tmp_path: Path) -> None:
    networks = read_networks(FOLDER / "networks.csv")
    results = rows(networks, 0.001, tmp_path / "results.csv")
    noise = measured_noise(accuracies(results).values())
    assert noise.networks == 5 and noise.seeds == 3 and noise.ratio > 5 and 0.9 < noise.ceiling <= 1
    ap50 = np.array([next(r.ap50 for r in results if r.name == network.name) for network in networks])
    judged = judge(analytic_scores(networks), ap50, resamples=50)
    assert judged[0].score == "effective_rank" and judged[0].lead_low > 0
    assert "Recommended: effective_rank" in recommendation(judged, noise)
    assert "No recommendation" in recommendation(judged, Noise(5, 3, 0.01, 0.02))
    with pytest.raises(UserError, match="two seeds"):
        measured_noise(accuracies([row for row in results if row.seed == 0]).values())


def test_a_report_of_an_unfinished_training(tmp_path: Path) -> None:
    networks = read_networks(FOLDER / "networks.csv")[:14]
    write_networks(networks, tmp_path / "networks.csv")
    results = rows(networks, 0.01, tmp_path / "results.csv")[:-3]
    text = write_report(networks, results, tmp_path, Recipe(epochs=7), resamples=20)
    assert "160 pixels, 7 epochs of batch 16" in text and Recipe(epochs=7).digest in text
    assert "Over the best count" in text
    assert text.index("Noise first") < text.index("| score |") and "| layers |" in text
    assert (tmp_path / "scorer_truth.png").stat().st_size > 10_000
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1 + len({row.name for row in results})


def test_the_committed_results_say_what_their_report_says(tmp_path: Path) -> None:
    recipe = Recipe()
    results = read_results(FOLDER / "results.csv", recipe)
    networks = read_networks(FOLDER / "networks.csv")
    assert len({row.name for row in results}) >= 40 and measured_noise(accuracies(results).values()).networks == 5
    assert np.median([row.ap50 for row in results if row.seed == 0]) >= 0.5
    text, committed = (
        write_report(networks, results, tmp_path, recipe, resamples=2),
        (FOLDER / "results.md").read_text(),
    )
    assert text.splitlines()[:2] == committed.splitlines()[:2]
    rows_of = [[line.split(" [")[0] for line in t.splitlines() if line.startswith("| ")] for t in (text, committed)]
    assert rows_of[0] == rows_of[1] and rows_of[0][1] == "| effective_rank | 0.752"


def test_options_keep_their_types_and_unknown_ones_are_named(tmp_path: Path) -> None:
    action, options = parse(["train", "minutes=2.5", "epochs=3"])
    assert action == "train" and options["minutes"] == 2.5 and options["epochs"] == 3
    for arguments, message in (([], "plan, train or report"), (["train", "epoch=3"], "unknown option 'epoch=3'")):
        with pytest.raises(UserError, match=message):
            parse(arguments)
    with pytest.raises(UserError, match="epochs must be a int"):
        parse(["train", "epochs=many"])
    with pytest.raises(UserError, match="run `python -m experiments.scorer_truth plan` first"):
        main(["report", f"folder={tmp_path}"])
