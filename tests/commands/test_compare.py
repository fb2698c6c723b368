"""Names, specs, checkpoints and exported files in one table, beside published figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hydra
import pytest

from nas.commands.compare import CompareSettings, Gatherer, run_comparison
from nas.config import offer_schema, settings_of
from nas.errors import UserError
from nas.files import config_folder, save_spec
from nas.models.baselines import build_baseline
from nas.models.checkpoint import save_checkpoint
from nas.report.detector_table import published_rows
from nas.scorers.deepmad import deepmad
from search_spaces import load_published


def test_a_mix_of_everything(tmp_path: Path) -> None:
    save_spec(tmp_path / "mine.yaml", load_published("damo-yolo-ns"))
    model = build_baseline("yolov5n", num_classes=3, image_size=64)
    save_checkpoint(tmp_path / "best.safetensors", model, {"validation": {"ap": 0.625}})
    models = ("yolo11n", "yolov9-t-backbone", str(tmp_path / "mine.yaml"), str(tmp_path / "best.safetensors"))
    settings = CompareSettings(
        models, image_size=64, folder=tmp_path / "report", measure=True, repeats=1, scorer={"name": "mae"}
    )
    text = run_comparison(settings)
    for name in ("| yolo11n | 64 |", "| yolov9-t-backbone | 64 |", "| mine | 64 |", "| yolov5n (best) | 64 |"):
        assert name in text
    assert "62.5 [" in text and "in the checkpoint best.safetensors" in text and "measured on this machine" in text
    assert "training-free score mae" in text
    assert (tmp_path / "report" / "compare.csv").is_file()


@pytest.mark.parametrize(
    ("words", "name", "options"),
    [
        ((), "mae", {"level_weights": [0, 0, 1, 1, 16]}),
        (("scorer=macs",), "macs", {"name": "macs"}),
        (
            ("scorer=deepmad", "scorer.depth_penalty=5"),
            "deepmad",
            {"level_weights": [1, 1, 1, 1, 8], "depth_penalty": 5},
        ),
        (("~scorer",), "", None),
    ],
)
def test_the_scorer_is_chosen_as_in_a_search(
    words: tuple[str, ...], name: str, options: dict[str, object] | None
) -> None:
    offer_schema("compare", CompareSettings)
    with hydra.initialize_config_dir(config_folder(), version_base="1.3"):
        settings = settings_of(CompareSettings, hydra.compose("compare", overrides=list(words)))
    assert settings.scorer == (options and {"name": name, **options})


def test_scores_are_taken_at_the_size_of_the_row_with_the_options(tmp_path: Path) -> None:
    options = {"depth_penalty": 5.0}
    settings = CompareSettings(("damo-yolo-t", "yolo11n"), image_size=64, scorer={"name": "deepmad", **options})
    drawn = load_published("yolo11-n-backbone")
    for model, spec in (("damo-yolo-t", load_published("damo-yolo-t")), ("yolo11n", drawn)):
        assert Gatherer(settings).entry(model).value("score") == pytest.approx(deepmad(spec, image_size=64, **options))
    built = Gatherer(replace(settings, scorer={"name": "synflow"})).entry("damo-yolo-t").value("score")
    assert built is not None and built > 0  # a scorer that needs a module has one built
    with pytest.raises(UserError, match="scorer mae has no option"):
        run_comparison(replace(settings, scorer={"name": "mae", "depth_penalty": 5.0}, folder=tmp_path))


def test_a_row_that_the_scorer_cannot_judge_stays_without_a_score(tmp_path: Path) -> None:
    models = ("yolov9-t-backbone", "damo-yolo-t")
    text = run_comparison(CompareSettings(models, image_size=64, scorer={"name": "mae_neck"}, folder=tmp_path))
    assert "No mae_neck score: mae_neck scores a whole detector" in text and "training-free score mae_neck" in text


def test_published_figures_stand_beside_ours(tmp_path: Path) -> None:
    entry = Gatherer(CompareSettings(ap={"yolov9_t_published": 37.0})).entry("yolov9_t_published")
    assert entry.figures["params_m"].value == 2.00184
    assert entry.figures["flops_g"].value == pytest.approx(7.7127, abs=1e-3)
    assert entry.value("published_ms") == 2.3 and abs(entry.value("ms_difference") or 99) < 10
    assert entry.figures["ap_own"].source.startswith("our own run")
    small = Gatherer(CompareSettings(image_size=320)).entry("yolov9t")
    assert small.value("published_ms") is None, "published at 640 pixels"


def test_another_engine_has_its_own_table() -> None:
    rows = [row for row in published_rows() if row.model == "damo-yolo-t"]
    gatherer = Gatherer(CompareSettings(scorer=None))
    ten, seven = (gatherer.published_entry(row) for row in rows)
    assert "tensorrt7" in seven.figures["predicted_ms"].source and "tensorrt7" not in ten.figures["predicted_ms"].source
    assert abs(seven.value("ms_difference") or 99) < 6 and "README" in seven.name


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save_spec(tmp_path / folder / "best.yaml", load_published("damo-yolo-ns"))
    models = (f"{tmp_path}/a/best.yaml", f"{tmp_path}/b/best.yaml", "yolo11n")
    text = run_comparison(CompareSettings(models, image_size=64, folder=tmp_path / "report"))
    assert "| a/best | 64 |" in text and "| b/best | 64 |" in text and "| yolo11n | 64 |" in text


def test_a_family_without_its_package_keeps_its_published_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    gatherer = Gatherer(CompareSettings(scorer=None))

    def missing(model: str) -> None:
        raise UserError("RT-DETRv2 needs transformers")

    monkeypatch.setattr(gatherer, "_own", missing)
    row = next(row for row in published_rows() if row.model == "rtdetrv2-s")
    entry = gatherer.published_entry(row)
    assert entry.value("published_ms") == row.figures["published_ms"] and "params_m" not in entry.figures
    assert gatherer.problems == ["rtdetrv2-s: published figures alone, RT-DETRv2 needs transformers."]
    assert gatherer.published_entry(row) == entry and len(gatherer.problems) == 1


def test_a_table_of_batches_is_priced_by_the_image(tmp_path: Path) -> None:
    one = Gatherer(CompareSettings(scorer=None)).entry("yolo11n").value("predicted_ms")
    gatherer = Gatherer(CompareSettings(scorer=None))
    gatherer.table.header = replace(gatherer.table.header, batch=8)
    figure = gatherer.entry("yolo11n").figures["predicted_ms"]
    assert figure.value == pytest.approx((one or 0) / 8) and "in a batch of 8" in figure.source


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (CompareSettings(), "nothing to compare"),
        (CompareSettings(group="seed"), "unknown group"),
        (CompareSettings(("yolo12n",)), "did you mean"),
        (CompareSettings(("damo-yolo-s", "missing.onnx")), "no such file"),
    ],
)
def test_bad_requests_before_any_work(settings: CompareSettings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_comparison(settings)
