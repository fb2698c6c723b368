"""A card says what the run's own files say, for both kinds of runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from experiments.data import RESULTS
from experiments.model_cards import main, write_cards
from nas.errors import UserError
from nas.files import dump_yaml
from nas.models.checkpoint import save_checkpoint
from nas.models.detector import build_detector
from nas.spec import Backbone, DetectorSpec, HeadSpec, NeckSpec, Residual, Stem

CONFIG = {
    "model": "outputs/search/best.yaml",
    "data": {"name": "shapes"},
    "seed": 7,
    "trainer": {"epochs": 3, "batch_size": 4},
    "augmentation": {"mosaic": 0.5},
    "distill": {"teacher": "teacher.safetensors"},
}


def fake_run(folder: Path) -> Path:
    """What a training leaves, without the training."""
    blocks = tuple(Residual("k1kx", out=out, bottleneck=8, depth=1, stride=2) for out in (8, 16, 16, 24))
    spec = DetectorSpec(
        Backbone(Stem("focus", 8), blocks, (1, 2, 3)), NeckSpec((8, 8, 8), depth=1), HeadSpec(5, reg_max=7), 64
    )
    folder.mkdir(parents=True)
    extra = {"epoch": 2, "step": 12, "validation": {"ap": 0.25, "ap50": 0.5, "ap75": 0.125}}
    save_checkpoint(folder / "best.safetensors", build_detector(spec, 5), extra)
    rows = [f"{step},{1 + step // 6},0.01,1.0,{3 - step / 10}" for step in range(1, 19)]
    (folder / "steps.csv").write_text("\n".join(["step,epoch,lr,class,total", *rows]) + "\n")
    epochs = [{"step": 6 * epoch, "epoch": epoch, "ap": 0.1 * epoch, "ap50": 0.2 * epoch} for epoch in (1, 2, 3)]
    (folder / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in epochs))
    return folder


def test_card_of_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fake_run(tmp_path / "run")
    (run / "config.yaml").write_text(dump_yaml(CONFIG))
    (run / "test.json").write_text(json.dumps({"ap": 0.2, "ap50": 0.4, "ap75": 0.1}))
    main([str(tmp_path)])
    assert capsys.readouterr().out.strip() == str(run / "MODEL_CARD.md")
    card = (run / "MODEL_CARD.md").read_text()
    for text in (
        "# best, 64 pixels, on shapes",
        "| backbone | 8 8/8x1 16/8x1 16/8x1 24/8x1 |",
        "| validation ap | 0.2500 |",
        "| test ap50 | 0.4000 |",
        "| chosen | epoch 2, step 12, by validation AP |",
        "| seed | 7 |",
        "| teacher | teacher.safetensors |",
        "| data | Drawn shapes",
        "batch_size: 4",
        "t4_tensorrt_fp16, batch 1",
        "predicted at 640 pixels",
        "Classes: ",
    ):
        assert text in card
    assert "measured" not in card
    assert (run / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_card_of_an_experiment_measured(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "cpu/shapes/report_assigner/tood/seed0")
    line = {"table": "report_assigner", "row": "TOOD", "scale": "cpu", "seed": 0, "data": "shapes", "ap": 0.3, "ap50": 0.6,
            "steps": 18, "train_seconds": 3.5, "device": "a CPU", "commit": "abc", "date": "2026-01-01"}  # fmt: skip
    (run / "result.json").write_text(json.dumps(line))
    (card,) = write_cards(tmp_path, measure=True)
    text = card.read_text()
    for part in ("# TOOD, 64 pixels", "| test ap | 0.3000 |", "loss.assigner: tal", "| commit | abc |", "one thread"):
        assert part in text


def test_seeds_of_a_row_share_a_card(tmp_path: Path) -> None:
    for seed, ap in enumerate((0.3, 0.32, 0.34)):
        run = fake_run(tmp_path / f"cpu/shapes/report_assigner/tood/seed{seed}")
        line = {
            "table": "report_assigner",
            "row": "TOOD",
            "scale": "cpu",
            "seed": seed,
            "data": "shapes",
            "ap": ap,
            "ap50": 0.6,
        }
        (run / "result.json").write_text(json.dumps(line))
    (card,) = write_cards(tmp_path / "cpu", output=tmp_path / "cards")
    assert card == tmp_path / "cards/cpu-report_assigner-tood.md" and card.with_suffix(".png").is_file()
    text = card.read_text()
    assert "| 2 | 0.2500 | 2 | 0.3400 | 0.6000 |" in text and "(cpu-report_assigner-tood.png)" in text
    assert "| seed | 0, 1, 2 |" in text and "| row | TOOD |" in text
    assert f"0.3200 ± {4.303 * 0.02 / 3**0.5:.4f} | 0.6000 ± 0.0000" in text
    assert write_cards(tmp_path / "cpu")[0] == tmp_path / "cpu/shapes/report_assigner/tood/MODEL_CARD.md"


def test_a_bare_checkpoint_still_has_a_card(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    for name in ("steps.csv", "epochs.jsonl"):
        os.unlink(run / name)
    (card,) = write_cards(tmp_path)
    assert "on unknown data" in card.read_text() and "Nothing is recorded." in card.read_text()


def test_errors_are_one_line(tmp_path: Path) -> None:
    for arguments, words in (
        ([str(tmp_path)], "holds no best.safetensors"),
        ([], "usage"),
        ([str(tmp_path), "measured=true"], "unknown option 'measured=true'; known: measure, hardware, output"),
        ([str(tmp_path), "measure=yes"], "measure must be true or false, got 'yes'"),
    ):
        with pytest.raises(UserError, match=words):
            main(arguments)


def test_cards_of_drawn_data_stay_out_of_the_results(tmp_path: Path) -> None:
    (fake_run(tmp_path / "run") / "config.yaml").write_text(dump_yaml(CONFIG))
    with pytest.raises(UserError, match="is for results on real data and shapes is drawn"):
        write_cards(tmp_path, output=RESULTS / "cards")
