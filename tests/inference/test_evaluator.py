"""AP equals pycocotools on the file itself; classes by name; the same for torch modules and plain callables."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nas.data.coco import read_coco, write_coco
from nas.data.dataset import DetectionData, Record
from nas.data.shapes import draw_shapes
from nas.errors import UserError
from nas.inference.evaluator import class_lookup, evaluate, time_model
from nas.inference.scoring import NUMBERS, Found, coco_results, confusion_matrix, score_detections
from nas.report.evaluation_plots import save_confusion, save_histogram, save_precision_recall


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    root = draw_shapes(tmp_path_factory.mktemp("shapes"), counts={"val": 12}, size=96)
    read, _ = read_coco(root / "annotations/val.json", root / "images/val", "shapes", "val")
    crowd = replace(
        read.records[0],
        crowd_boxes=np.array([[0, 0, 50, 50]], np.float32),
        crowd_labels=np.array([1]),
        crowd_areas=np.array([2500.0]),
    )
    return replace(read, category_ids=(1, 5, 900, 7, 3), records=(crowd, *read.records[1:]))


def noisy(data: DetectionData, seed: int = 0) -> list[Found]:
    """Annotated boxes moved a little, some with a wrong class, and some boxes of nothing."""
    rng = np.random.default_rng(seed)
    found = []
    for record in data.records:
        count = len(record.labels)
        boxes = np.concatenate([record.boxes + rng.normal(0, 2, (count, 4)), [[5, 5, 30, 30], [40, 40, 60, 70]]])
        labels = np.concatenate([record.labels, rng.integers(0, data.num_classes, 2)])
        wrong = rng.random(len(labels)) < 0.2
        labels[wrong] = rng.integers(0, data.num_classes, wrong.sum())
        found.append(Found(boxes, rng.random(len(labels)), labels))
    return found


def official(annotations: Path, results: list[dict]) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        run = COCOeval(truth, truth.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return list(run.stats)


def test_the_twelve_numbers_equal_pycocotools_on_the_file(
    data: DetectionData, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_coco(data, tmp_path / "truth.json")
    found = noisy(data)
    scores = score_detections(data, found)
    assert capsys.readouterr().out == ""
    results = coco_results(data, found)
    assert {r["category_id"] for r in results} == {1, 5, 900, 7, 3}
    np.testing.assert_allclose(
        [scores.numbers[n] for n in NUMBERS], official(tmp_path / "truth.json", results), atol=2e-4
    )
    assert 0 < scores.ap < scores.ap50 < 1
    measured = [s.ap for s in scores.per_class.values() if s.ap >= 0]
    assert np.mean(measured) == pytest.approx(scores.ap)


def test_shared_coco_slice_equals_pycocotools(shared: Path) -> None:
    root = shared / "data/coco_mini"
    data, _ = read_coco(root / "annotations/instances_val2017.json", root / "val2017")
    found = noisy(data)
    expected = official(root / "annotations/instances_val2017.json", coco_results(data, found))
    numbers = score_detections(data, found).numbers
    np.testing.assert_allclose([numbers[n] for n in NUMBERS], expected, atol=2e-4)


def test_truth_against_itself_is_one_and_nothing_is_zero(data: DetectionData) -> None:
    truth = [Found(r.boxes, np.ones(len(r.labels)), r.labels) for r in data.records]
    assert score_detections(data, truth).ap == pytest.approx(1.0)
    nothing = [Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))] * len(data)
    assert score_detections(data, nothing).ap == 0
    empty = replace(data, records=tuple(Record(r.path, r.image_id, r.width, r.height) for r in data.records))
    assert score_detections(empty, nothing).ap == -1


def test_confusion_counts_every_box_once(data: DetectionData) -> None:
    found = noisy(data)
    matrix = confusion_matrix(data, found, 0.25)
    assert matrix[:-1].sum() == data.num_boxes
    above = sum(int((f.scores > 0.25).sum()) for f in found)
    assert above - 3 <= matrix[:, :-1].sum() <= above  # detections inside the crowd region may be left out
    truth = [Found(r.boxes, np.ones(len(r.labels)), r.labels) for r in data.records]
    np.testing.assert_array_equal(confusion_matrix(data, truth), np.diag([*data.histogram(), 0]))


class Oracle(nn.Module):
    """Answers with the annotations of the images in loading order, stretched as the images are."""

    def __init__(self, data: DetectionData, classes: tuple[str, ...], size: int) -> None:
        super().__init__()
        self.data, self.classes, self.size, self.next = data, classes, size, 0
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert not self.training and images.dtype == torch.float32 and images.max() > 1
        scores = torch.zeros(len(images), 16, len(self.classes))
        boxes = torch.zeros(len(images), 16, 4)
        for row in range(len(images)):
            record = self.data.records[self.next]
            self.next += 1
            scale = np.array([self.size / record.width, self.size / record.height] * 2)
            for slot, (box, label) in enumerate(zip(record.boxes, record.labels, strict=True)):
                boxes[row, slot] = torch.from_numpy(box * scale)
                scores[row, slot, self.classes.index(self.data.classes[label])] = 0.9
        return scores, boxes


def test_evaluate_maps_classes_by_name_and_restores_the_mode(data: DetectionData) -> None:
    classes = ("unicorn", *reversed(data.classes))
    oracle = Oracle(data, classes, 64).train()
    seen = []
    result = evaluate(oracle, data, 64, batch_size=5, progress=lambda done, total: seen.append((done, total)))
    assert result.ap == pytest.approx(1.0) and oracle.training
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert set(result.milliseconds) == {"model", "postprocess"} and result.images == 12
    json.dumps(result.to_dict())
    oracle.next = 0
    assert evaluate(lambda images: oracle.eval()(images), data, 64, classes=classes).ap == pytest.approx(1.0)


def test_classes_that_do_not_fit_are_named(data: DetectionData) -> None:
    with pytest.raises(UserError, match="has the class 'square', the model has disc, ring"):
        class_lookup(Oracle(data, ("disc", "ring"), 64), data)
    assert class_lookup(Oracle(data, ("ring", "x", *data.classes[:3], "cross"), 64), data).tolist() == [
        3,
        -1,
        0,
        1,
        2,
        4,
    ]
    assert class_lookup(Oracle(data, tuple("01234"), 64), data).tolist() == [0, 1, 2, 3, 4]
    assert class_lookup(Oracle(data, tuple(f"class {i}" for i in range(5)), 64), data).tolist() == [0, 1, 2, 3, 4]
    for names in (tuple("12345"), tuple("10234"), tuple("0123"), ("class 1", "class 0", *"234")):
        with pytest.raises(UserError, match="has the class 'disc', the model has"):
            class_lookup(Oracle(data, names, 64), data)
    with pytest.raises(UserError, match="gives 6 classes, but 5"):
        evaluate(lambda x: (torch.zeros(len(x), 4, 6), torch.zeros(len(x), 4, 4)), data, 64)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"iou_threshold": -3}, "iou_threshold must be a number from 0 to 1, got -3"),
        ({"score_threshold": float("nan")}, "score_threshold must be a number from 0 to 1, got nan"),
        ({"max_detections": 0}, "max_detections must be a whole number from 1"),
        ({"max_candidates": 2.5}, "max_candidates must be a whole number from 1"),
    ],
)
def test_options_are_checked_before_anything_runs(data: DetectionData, options: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        evaluate(lambda images: pytest.fail("it ran"), data, 64, **options)


def test_time_model() -> None:
    times = time_model(nn.Conv2d(3, 4, 3), 32, runs=5)
    assert 0 < times["p10"] <= times["median"] <= times["p90"]


def test_f1_is_that_of_the_boxes_that_score_enough(data: DetectionData) -> None:
    exact = [Found(record.boxes, np.full(len(record.labels), 0.6), record.labels) for record in data.records]
    result = score_detections(data, exact)
    assert result.best_f1 == (1.0, 0.0)
    known = [name for name, one in result.per_class.items() if one.boxes]
    assert list(result.f1_curves) == known and all(f1[60] == 1 and f1[61] == 0 for _, f1 in result.f1_curves.values())
    wrong = [Found(r.boxes + 1000, np.full(len(r.labels), 0.3), r.labels) for r in data.records]  # one more a box
    both = [
        Found(*(np.concatenate(pair) for pair in zip(a, b, strict=True))) for a, b in zip(exact, wrong, strict=True)
    ]
    result = score_detections(data, both)
    f1, threshold = result.best_f1
    assert (f1, round(threshold, 2)) == (1.0, 0.31) and result.to_dict()["best_f1"] == {
        "f1": f1,
        "score_threshold": threshold,
    }
    assert all(f1[0] == pytest.approx(2 / 3) for _, f1 in result.f1_curves.values())


def test_plots(data: DetectionData, tmp_path: Path) -> None:
    result = score_detections(data, noisy(data))
    names = [save_confusion(tmp_path / "confusion.png", result.confusion, data.classes)]
    names.append(
        save_precision_recall(tmp_path / "pr.png", result.curves, {n: s.ap50 for n, s in result.per_class.items()})
    )
    names.append(save_histogram(tmp_path / "h.png", {"val": data.histogram().tolist()}, data.classes))
    assert all(name.read_bytes()[:4] == b"\x89PNG" for name in names)
    save_confusion(tmp_path / "many.png", np.eye(61, dtype=int), [str(i) for i in range(60)])
