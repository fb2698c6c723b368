"""The tables of the report: every row is a network, costs fit where they must, the queue knows what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from experiments import queue, train_row
from experiments.costs import cost_rows
from experiments.queue import append_result, missing_jobs, read_results
from experiments.report import interval, markdown
from experiments.run import main as run_queue
from experiments.scales import load_scale, scale_names, set_fields, spec_at, training_task
from experiments.tables import load_table, narrowed, table_names
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


def test_the_queue_lists_teachers_first_and_forgets_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "RESULTS", tmp_path)
    scale = load_scale("cpu")
    jobs = missing_jobs(["report_distillation"], scale, tmp_path)
    assert jobs[0].row.name in ("teacher", "none") and len(jobs) == 5
    assert [job.row.name for job in jobs].index("teacher") < [job.row.name for job in jobs].index("CWD")
    line = {key: "0" for key in queue.COLUMNS} | {
        "table": "report_distillation", "row": "CWD", "scale": "cpu", "seed": 0, "data": jobs[0].data, "ap": 0.25,
    }  # fmt: skip
    append_result(line)
    assert "CWD" not in {job.row.name for job in missing_jobs(["report_distillation"], scale, tmp_path)}
    assert read_results("report_distillation")[0]["ap"] == "0.25"
    assert "25.0" in markdown(load_table("report_distillation"))


def test_a_teacher_whose_checkpoint_is_gone_is_trained_again_for_its_students(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "RESULTS", tmp_path)
    scale = load_scale("cpu")

    def missing() -> list[str]:
        return [job.row.name for job in missing_jobs(["report_models"], scale, tmp_path)]

    def finish(name: str, ap: int) -> None:
        row = {"table": "report_models", "row": name, "scale": "cpu", "seed": 0, "data": queue.data_of(scale), "ap": ap}
        append_result({key: "0" for key in queue.COLUMNS} | row)

    for ap, name in enumerate(("T", "S", "M", "L", "M distilled", "L distilled")):
        finish(name, ap)
    assert missing() == ["S", "M", "T distilled", "S distilled"]
    teacher = missing_jobs(["report_models"], scale, tmp_path)[0]
    teacher.folder.mkdir(parents=True)
    (teacher.folder / "result.json").write_text("{}")
    assert missing() == ["M", "T distilled", "S distilled"]
    finish("M", 9)
    assert [line["ap"] for line in read_results("report_models") if line["row"] == "M"] == ["2"]


def test_a_folder_is_trained_in_by_one_process(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock"), pytest.raises(UserError, match="another process trains in"):
        train_row.main(["report_models", "T", "0", "cpu", str(tmp_path), "", "shapes"])


@pytest.mark.parametrize("word", ["jobs=0", "minutes=nan", "minutes=-1", "minutes=inf"])
def test_a_queue_needs_time_and_a_place(word: str) -> None:
    with pytest.raises(UserError, match="jobs must be at least 1 and minutes positive"):
        run_queue(["report_models", word])


def test_intervals_are_students() -> None:
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.303 / 3**0.5)


def test_a_row_becomes_a_training_with_its_own_options() -> None:
    table = load_table("report_assigner")
    task, test = training_task(table, table.row("ATSS"), 3, load_scale("cpu"), None, "shapes")
    assert task.options.loss.assigner == "atss" and task.seed == 3 and task.options.optimizer.lr == 0.02
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
