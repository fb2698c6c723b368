"""The tables of the report: every row is a network, costs fit where they must, the queue knows what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from experiments import queue, report
from experiments.costs import cost_rows
from experiments.data import data_of
from experiments.queue import Job, append_result, equal_rows, missing_jobs, read_results, share_results
from experiments.report import draw, markdown
from experiments.result_plots import interval
from experiments.run import main as run_queue
from experiments.scales import RowConfig, load_scale, scale_names, set_fields, spec_at, training_task
from experiments.tables import FOLDER, load_table, narrowed, table_names
from experiments.train_row import finish_row
from nas.errors import UserError

REPORT = [name for name in table_names() if name.startswith("report_")]


@pytest.mark.parametrize("name", REPORT)
def test_unambiguous_rows_cost_what_the_report_prints(name: str) -> None:
    for row in cost_rows(load_table(name)):
        if not row["ambiguous"]:
            assert abs(row["error"].get("flops_g", 0.0)) <= 0.01, row
            assert abs(row["error"].get("latency_ms", 0.0)) <= 0.08, row


def test_latency_of_the_report_is_predicted_within_six_percent_on_average() -> None:
    errors = [
        abs(row["error"]["latency_ms"])
        for name in REPORT
        for row in cost_rows(load_table(name))
        if "latency_ms" in row["error"] and not row["ambiguous"]
    ]
    assert len(errors) >= 15 and sum(errors) / len(errors) <= 0.06


@pytest.mark.parametrize("name", table_names())
def test_every_row_can_be_trained_at_every_scale(name: str) -> None:
    table = load_table(name)
    for row in table.rows:
        for scale in map(load_scale, scale_names()):
            spec = spec_at(table, row, scale)
            assert spec.image_size == scale.image_size


def test_narrowing_keeps_the_structure() -> None:
    from search_spaces import load_published

    spec = load_published("damo-yolo-s")
    small = narrowed(spec, 0.25, 160)  # type: ignore[arg-type]
    assert [b.depth for b in small.backbone.blocks] == [b.depth for b in spec.backbone.blocks]  # type: ignore[union-attr]
    assert small.backbone.out_channels == (32, 64, 128) and small.neck.out == (32, 64, 128)


def line_of(table: str, row: str, **values: object) -> dict[str, object]:
    """A line of results as the queue writes it."""
    fixed = {"table": table, "row": row, "scale": "cpu", "seed": 0, "data": data_of(load_scale("cpu"))}
    return {key: "0" for key in queue.COLUMNS} | fixed | values


def missing(table: str, output: Path) -> list[str]:
    return [job.row.name for job in missing_jobs([table], load_scale("cpu"), output)]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of results."""
    monkeypatch.setattr(queue, "RESULTS", tmp_path)
    return tmp_path


def test_the_queue_lists_teachers_first_and_forgets_what_is_done(results: Path) -> None:
    assert missing("report_distillation", results) == ["M, MAE-CSP", "AlignedOTA", "mimic", "MGD", "CWD"]
    append_result(line_of("report_distillation", "CWD", ap=0.25))
    assert missing("report_distillation", results) == ["M, MAE-CSP", "AlignedOTA", "mimic", "MGD"]
    assert read_results("report_distillation")[0]["ap"] == "0.25"
    assert "25.0" in markdown(load_table("report_distillation"))


def test_a_teacher_whose_checkpoint_is_gone_is_trained_again_for_its_students(results: Path) -> None:
    for ap, name in enumerate(("T", "S", "M", "L", "M distilled", "L distilled")):
        append_result(line_of("report_models", name, ap=ap))
    # S and M are trained under the names of the first tables that hold them.
    assert sorted(missing("report_models", results)) == ["AlignedOTA", "CWD", "M, MAE-CSP", "T distilled"]
    teacher = next(job for job in missing_jobs(["report_models"], load_scale("cpu"), results) if job.row.name == "AlignedOTA")
    teacher.folder.mkdir(parents=True)
    (teacher.folder / "result.json").write_text("{}")
    assert sorted(missing("report_models", results)) == ["CWD", "M, MAE-CSP", "T distilled"]
    append_result(line_of("report_models", "M", ap=9))
    assert [line["ap"] for line in read_results("report_models") if line["row"] == "M"] == ["2"]


def test_rows_that_are_one_training_share_its_line(results: Path) -> None:
    names = [(table.name, row.name) for table, row in equal_rows("report_models", "S", "gpu")]
    assert ("report_assigner", "AlignedOTA") in names and ("report_queen_fusion", "down") in names and len(names) == 8
    assert len(equal_rows("report_assigner", "TOOD", "gpu")) == 1
    assert [row.name for _, row in equal_rows("report_models", "S distilled", "gpu")] == ["CWD", "S distilled"]
    append_result(line_of("report_models", "S", ap=0.5, commit="abc"))
    append_result(line_of("report_distillation", "none", ap=0.4, seed=1))
    share_results(load_scale("cpu"))
    for table, row in names:
        lines = sorted((line for line in read_results(table) if line["row"] == row), key=lambda line: line["seed"])
        assert [(line["seed"], line["ap"]) for line in lines] == [("0", "0.5"), ("1", "0.4")]
    assert lines[0]["commit"] == "abc" and len(read_results("report_assigner")) == 2
    assert missing("report_queen_fusion", results) == ["none", "up", "up and down"]


def test_a_folder_is_trained_in_by_one_process(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock"), pytest.raises(UserError, match="another process trains in"):
        finish_row(RowConfig("report_models", "T", load_scale("cpu"), data="shapes"), tmp_path)


def test_a_student_asks_for_its_teacher(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'CWD' is taught by 'teacher': train that first and give teacher="):
        finish_row(RowConfig("report_distillation", "CWD", load_scale("cpu"), data="shapes"), tmp_path)


@pytest.mark.parametrize("name", scale_names())
def test_a_row_is_a_hydra_experiment(name: str) -> None:
    """What the queue asks for is what Hydra composes, scale by scale, with every value open to an override."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    ConfigStore.instance().store(name="row_schema", node=RowConfig)
    table = load_table("report_neck_size")
    job = Job(table, table.rows[0], 2, load_scale(name), "shapes", Path("out puts"))
    words = [word for word in job.command() if not word.startswith("hydra.")]
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        config = compose("row", [*words, "scale.trainer.optimizer.lr=0.5"])
    settings = OmegaConf.to_object(config)
    assert isinstance(settings, RowConfig) and settings.scale.trainer.optimizer.lr == 0.5
    assert (settings.table, settings.row, settings.seed, settings.data) == (table.name, "2 / (192, 192, 192)", 2, "shapes")
    expected = load_scale(name)
    expected.trainer.optimizer.lr = 0.5
    assert settings.scale == expected and settings.scale.name == name


@pytest.mark.parametrize("word", ["jobs=0", "minutes=nan", "minutes=-1", "minutes=inf"])
def test_a_queue_needs_time_and_a_place(word: str) -> None:
    with pytest.raises(UserError, match="jobs must be at least 1 and minutes positive"):
        run_queue(["report_models", word])


def test_intervals_are_students() -> None:
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.3026527 / 3**0.5)


def test_a_row_becomes_a_training_with_its_own_options() -> None:
    table = load_table("report_assigner")
    task, test = training_task(table, table.row("ATSS"), 3, load_scale("cpu"), None, "shapes")
    assert task.options.loss.assigner == "atss" and task.seed == 3 and task.options.optimizer.lr == 0.002
    assert task.model.image_size == 160 and len(test) > 0


def test_unknown_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no experiment 'report_nothing'"):
        load_table("report_nothing")
    with pytest.raises(UserError, match="no scale 'huge'"):
        load_scale("huge")
    with pytest.raises(UserError, match="no field loss.speed"):
        set_fields(training_task(load_table("report_assigner"), load_table("report_assigner").rows[0], 0,
                                 load_scale("cpu"), None, "shapes")[0].options, {"loss.speed": 1})  # fmt: skip
    assert json.dumps(scale_names())


def test_a_table_with_several_seeds_has_a_picture(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", results)
    table = load_table("report_assigner")
    append_result(line_of("report_assigner", "ATSS", ap=0.4))
    assert draw(table) == []
    append_result(line_of("report_assigner", "ATSS", ap=0.5, seed=1))
    (picture,) = draw(table)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert f"](plots/{picture.name})" in markdown(table) and "45.0 ± 63.5 (n=2)" in markdown(table)
    (results / "cards").mkdir()
    (results / "cards/report_assigner-atss.md").touch()
    assert "| [ATSS](cards/report_assigner-atss.md) |" in markdown(table)
