"""The tables of the report: every row is a network, costs fit where they must, the queue knows what is missing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from experiments import queue, report, tables
from experiments.costs import cost_rows
from experiments.queue import Trainings, add_results, read_results
from experiments.report import cost_errors, draw, markdown
from experiments.result_plots import interval
from experiments.run import main as run_queue
from experiments.scales import RowConfig, load_scale, options_at, scale_names, spec_at, training_recipe, training_task
from experiments.tables import FOLDER, detector_of, load_table, narrowed, table_names
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


@pytest.fixture(scope="module")
def recipes() -> Trainings:
    """The trainings of the smoke scale; their results are read anew by every call."""
    return Trainings(load_scale("cpu"))


@pytest.fixture
def trainings(recipes: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """The trainings of the smoke scale without results; the tables take them for more."""
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "load_scale", lambda name: replace(load_scale(name), smoke=False))
    monkeypatch.setattr(recipes, "output", tmp_path)
    monkeypatch.setattr(recipes, "place", tmp_path)
    return recipes


def finish(trainings: Trainings, table: str, row: str, **values: object) -> None:
    """Add a line of results as the queue does."""
    fixed = {"table": table, "row": row, "scale": "cpu", "seed": 0, "data": trainings.data}
    recipe = {"recipe": trainings.recipes[table, row]}
    add_results(table, [{key: "0" for key in queue.COLUMNS} | fixed | recipe | values], trainings.place)


def missing(trainings: Trainings, table: str) -> list[str]:
    return [job.row.name for job in trainings.missing([table])]


def test_the_queue_lists_teachers_first_and_forgets_what_is_done(trainings: Trainings) -> None:
    assert missing(trainings, "report_distillation") == ["M, MAE-CSP", "AlignedOTA", "mimic", "MGD", "CWD"]
    finish(trainings, "report_distillation", "CWD", ap=0.25)
    assert missing(trainings, "report_distillation") == ["M, MAE-CSP", "AlignedOTA", "mimic", "MGD"]
    assert read_results("report_distillation", trainings.place)[0]["ap"] == "0.25"
    assert "25.0" in markdown(load_table("report_distillation"))


def test_a_teacher_whose_checkpoint_is_gone_is_trained_again_for_its_students(trainings: Trainings) -> None:
    for ap, name in enumerate(("T", "S", "M", "L", "M distilled", "L distilled")):
        finish(trainings, "report_models", name, ap=ap)
    # S and M are trained under the names of the first tables that hold them.
    assert missing(trainings, "report_models") == ["AlignedOTA", "T distilled", "M, MAE-CSP", "CWD"]
    teacher = trainings.missing(["report_models"])[0]
    teacher.folder.mkdir(parents=True)
    (teacher.folder / "result.json").write_text("{}")
    assert missing(trainings, "report_models") == ["T distilled", "M, MAE-CSP", "CWD"]
    finish(trainings, "report_models", "M", ap=9)
    assert [line["ap"] for line in read_results("report_models", trainings.place) if line["row"] == "M"] == ["2"]


def test_an_edited_row_is_missing_again(trainings: Trainings) -> None:
    finish(trainings, "report_assigner", "ATSS", ap=0.4, recipe="01234567")
    assert "ATSS" in missing(trainings, "report_assigner") and "40.0" not in markdown(load_table("report_assigner"))
    finish(trainings, "report_assigner", "ATSS", ap=0.5)
    assert [line["ap"] for line in read_results("report_assigner", trainings.place)] == ["0.5"]
    table = load_table("report_models")
    job = trainings.job(trainings.recipes["report_models", "S distilled"], 0)
    assert (
        job.recipe in job.folder.parent.name
        and job.teacher
        and job.teacher.checkpoint.parent.parent != job.folder.parent
    )
    faster = load_scale("cpu")
    faster.trainer.optimizer.lr *= 2
    assert training_recipe(table, table.rows[0], faster) != trainings.recipes["report_models", "T"]
    faster = load_scale("cpu")
    faster.trainer.workers += 1
    assert training_recipe(table, table.rows[0], faster) == trainings.recipes["report_models", "T"]


def test_rows_that_are_one_training_share_its_line(trainings: Trainings) -> None:
    def rows(table: str, row: str) -> list[tuple[str, str]]:
        return [(t.name, r.name) for t, r in trainings.rows[trainings.recipes[table, row]]]

    names = rows("report_models", "S")
    assert ("report_assigner", "AlignedOTA") in names and ("report_queen_fusion", "down") in names and len(names) == 8
    assert rows("report_assigner", "TOOD") == [("report_assigner", "TOOD")]
    assert rows("report_models", "S distilled") == [("report_distillation", "CWD"), ("report_models", "S distilled")]
    finish(trainings, "report_models", "S", ap=0.5, commit="abc")
    finish(trainings, "report_distillation", "none", ap=0.4, seed=1)
    trainings.share()
    for table, row in names:
        lines = sorted(
            (line for line in read_results(table, trainings.place) if line["row"] == row), key=lambda line: line["seed"]
        )
        assert [(line["seed"], line["ap"]) for line in lines] == [("0", "0.5"), ("1", "0.4")]
    assert lines[0]["commit"] == "abc" and len(read_results("report_assigner", trainings.place)) == 2
    assert missing(trainings, "report_queen_fusion") == ["none", "up", "up and down"]


def test_a_folder_is_trained_in_by_one_process(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock"), pytest.raises(UserError, match="another process trains in"):
        finish_row(RowConfig("report_models", "T", load_scale("cpu"), data="shapes"), tmp_path)


def test_a_student_asks_for_its_teacher(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'CWD' is taught by 'teacher': train that first and give teacher="):
        finish_row(RowConfig("report_distillation", "CWD", load_scale("cpu"), data="shapes"), tmp_path)


@pytest.mark.parametrize("name", scale_names())
def test_a_row_is_a_hydra_experiment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the queue asks for is what Hydra composes, scale by scale, with every value open to an override."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    monkeypatch.delitem(store.repo, "data", raising=False)  # a group that a command of this process offered
    store.store(name="row_schema", node=RowConfig)
    trainings = Trainings(load_scale(name), Path("out puts"))
    job = trainings.job(trainings.recipes["report_neck_size", "2 / (192, 192, 192)"], 2)
    words = [word for word in job.words() if not word.startswith("hydra.")]
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        config = compose("row", [*words, "scale.trainer.optimizer.lr=0.5"])
    settings = OmegaConf.to_object(config)
    assert isinstance(settings, RowConfig) and settings.scale.trainer.optimizer.lr == 0.5
    assert (settings.table, settings.row, settings.seed) == ("report_neck_size", "2 / (192, 192, 192)", 2)
    expected = load_scale(name)
    expected.trainer.optimizer.lr = 0.5
    assert settings.scale == expected and settings.scale.name == name


@pytest.mark.parametrize("word", ["jobs=0", "processes=0", "minutes=nan", "minutes=-1", "minutes=inf"])
def test_a_queue_needs_time_and_a_place(word: str) -> None:
    with pytest.raises(UserError, match="jobs and processes must be at least 1 and minutes positive"):
        run_queue(["report_models", word])


def test_intervals_are_students() -> None:
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.3026527 / 3**0.5)


def test_a_row_becomes_a_training_with_its_own_options() -> None:
    table = load_table("report_assigner")
    task, test = training_task(table, table.row("ATSS"), 3, load_scale("cpu"), None, "shapes")
    assert task.options.loss.assigner == "atss" and task.seed == 3 and task.options.optimizer.lr == 0.02
    assert task.model.image_size == 160 and len(test) > 0


def test_the_table_of_the_documentation_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", (FOLDER.parent / "docs/reproducing.md").read_text(), re.M | re.S)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/table.yaml").write_text(text)
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    table = load_table("mine")
    assert table.row("depth 1").name in markdown(table) and abs(cost_rows(table)[0]["error"]["flops_g"]) < 0.01
    recipes = {training_recipe(table, row, load_scale(scale)) for row in table.rows for scale in ("cpu", "coco")}
    assert len(recipes) == 8


def test_unknown_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no experiment 'report_nothing'"):
        load_table("report_nothing")
    with pytest.raises(UserError, match="no scale 'huge'"):
        load_scale("huge")
    row = load_table("report_assigner").rows[0]
    for key, words in (("trainer.loss.speed", "speed"), ("trian.epochs", "trian"), ("trainer.epochs", "'many'")):
        with pytest.raises(UserError, match=f"row 'ATSS', training {key}=many: .*{words}"):
            options_at(replace(row, training={key: "many"}), load_scale("cpu"))
    for change in ("nekc.depth", "neck.dept"):
        with pytest.raises(UserError, match=f"the spec has no field {change}"):
            detector_of(load_table("report_assigner"), replace(row, changes={change: 2}))
    assert json.dumps(scale_names())


def test_smoke_tests_are_no_column(trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(trainings, "report_assigner", "ATSS", ap=0.3)
    assert "AP cpu" in markdown(load_table("report_assigner"))
    monkeypatch.setattr(report, "load_scale", load_scale)
    assert "AP cpu" not in markdown(load_table("report_assigner"))


def test_a_table_with_several_seeds_has_a_picture(trainings: Trainings, tmp_path: Path) -> None:
    table = load_table("report_assigner")
    finish(trainings, "report_assigner", "ATSS", ap=0.4)
    assert draw(table) == []
    finish(trainings, "report_assigner", "ATSS", ap=0.5, seed=1)
    assert draw(table) == [], "there is nothing to compare with"
    for seed in (0, 1):
        finish(trainings, "report_assigner", "TOOD", ap=0.5, seed=seed)
    (picture,) = draw(table)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert f"](plots/{picture.name})" in markdown(table) and "| 45.0 ± 63.5 (n=2) |" in markdown(table)
    finish(trainings, "report_models", "S", ap=0.25)
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards/cpu-report_assigner-alignedota.md").touch()
    assert "[25.0](cards/cpu-report_assigner-alignedota.md)" in markdown(load_table("report_models"))


def test_published_and_predicted_costs_are_compared_in_words() -> None:
    assert re.match(
        r"Mean distance .* milliseconds 2\.9 % over 25 clear rows .*; FLOPs 0\.4 % over 21 clear", cost_errors()
    )
