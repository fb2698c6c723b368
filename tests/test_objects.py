"""What people meet in Python: one line each, a picture in a notebook, data and files; and the names of `nas`."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nas
from nas.data.shapes import draw_shapes
from nas.errors import UserError
from nas.inference.predictor import Prediction
from nas.report.canvas import Shown


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One of every kind."""
    folder = tmp_path_factory.mktemp("objects")
    data = draw_shapes(folder / "shapes", counts={"train": 4, "val": 2, "test": 1}, size=64)
    detector = nas.Detector.load("damo-yolo-ns", num_classes=5)
    small: dict[str, Any] = {"image_size": 64, "device": "cpu", "augmentation": "none"}
    trainer = {"epochs": 1, "batch_size": 4, "workers": 0, "schedule": {"warmup_epochs": 0}}
    training = detector.train(str(data), folder / "run", progress=False, trainer=trainer, **small)
    return {
        "search": nas.find({"latency_ms": 3, "layers": 25}, searcher="random", evaluations=300),
        "latency": nas.latency("damo-yolo-s"),
        "detector": detector,
        "training": training,
        "evaluation": detector.evaluate(str(data)),
        "prediction": detector.predict(str(data / "images/val/0000.jpg"), score_threshold=0.0, max_detections=3)[0],
    }


KINDS = ("search", "latency", "detector", "training", "evaluation", "prediction")


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_is_one_line_and_a_picture(kind: str, objects: dict[str, Any], tmp_path: Path) -> None:
    thing = objects[kind]
    assert isinstance(thing, Shown) and len(repr(thing)) < 400 and "\n" not in repr(thing)
    shown = thing._repr_html_()
    encoded = re.search(r'src="data:image/png;base64,([^"]+)"', shown)
    assert encoded is not None and "<script" not in shown
    (tmp_path / "shown.png").write_bytes(base64.b64decode(encoded[1]))
    with Image.open(tmp_path / "shown.png") as picture:
        picture.load()
        assert picture.width > 50 and len(set(picture.convert("RGB").resize((40, 40)).getdata())) > 3
    json.dumps(thing.to_dict(), allow_nan=False)
    if kind != "detector":
        assert json.loads(thing.save(tmp_path / "data.json").read_text()) == json.loads(json.dumps(thing.to_dict()))
        assert thing.save(tmp_path / "picture.png").stat().st_size > 500
        with pytest.raises(UserError, match=r"give a name that ends in .json"):
            thing.save(tmp_path / "picture.docx")
    figure = thing.plot()
    assert figure.axes


@pytest.mark.slow
def test_a_notebook_shows_line_and_picture() -> None:
    import nbformat
    from nbclient import NotebookClient

    cell = nbformat.v4.new_code_cell("import nas\nnas.latency('damo-yolo-s')")
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": {"name": "python3", "display_name": ""}})
    NotebookClient(notebook, timeout=300).execute()
    (output,) = notebook.cells[0].outputs
    assert output.data["text/html"].startswith("<p>Latency(3.5") and "data:image/png" in output.data["text/html"]
    assert len(output.data["text/plain"]) < 400


def test_everything_public_has_a_short_repr(objects: dict[str, Any]) -> None:
    found = objects["search"]
    things = [*objects.values(), found.best, found.outcome, found.settings, found.front[:5], found.table,
              nas.count("damo-yolo-s"), *(nas.load(name) for name in ("damo-yolo-l", "mae-det-l", "deepmad-r50"))]  # fmt: skip
    assert all(len(repr(thing)) < 2000 for thing in things)


def test_a_search_says_what_it_found_and_saves_a_spec(objects: dict[str, Any], tmp_path: Path) -> None:
    found = objects["search"]
    assert repr(found).startswith("SearchResult(tinynas_k1kx: mae ") and "latency_ms" in repr(found)
    assert nas.load(found.save(tmp_path / "best.yaml")) == found.best.spec
    assert found.to_dict()["best"]["metrics"]["score"] == found.best.score


def test_a_latency_adds_up(objects: dict[str, Any]) -> None:
    latency = objects["latency"]
    plain = latency.to_dict()
    assert plain["ms"] == pytest.approx(plain["offset_ms"] + sum(row["ms"] for row in plain["operations"]))
    assert repr(latency).startswith("Latency(3.5") and "t4_tensorrt_fp16" in repr(latency)


def test_an_exported_or_failed_one_shows_its_line(tmp_path: Path) -> None:
    failed = Prediction(
        "a.jpg", np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), ("cat",), error="a.jpg: <b>broken</b>"
    )
    assert failed._repr_html_() == "<p>Prediction(a.jpg, 0 x 0: a.jpg: &lt;b&gt;broken&lt;/b&gt;)</p>"
    with pytest.raises(UserError, match="there are no pixels to draw on"):
        failed.plot()


def test_predictions_go_to_supervision_and_back(monkeypatch: pytest.MonkeyPatch, objects: dict[str, Any]) -> None:
    """The package's own class where it is installed, else one with its constructor."""

    class Detections(SimpleNamespace):
        def __init__(self, xyxy: Any, mask: Any = None, confidence: Any = None, class_id: Any = None,
                     tracker_id: Any = None, data: Any = None) -> None:  # fmt: skip
            super().__init__(xyxy=xyxy, mask=mask, confidence=confidence, class_id=class_id, data=data)

    try:
        import supervision  # noqa: F401
    except ImportError:
        monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=Detections))
    prediction = objects["prediction"]
    there = prediction.to_supervision()
    assert len(there.xyxy) == len(prediction) == 3 and list(there.data["class_name"]) == prediction.names
    back = Prediction.from_supervision(there, prediction.classes, prediction.name, prediction.picture.pixels)
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_allclose(getattr(back, name), getattr(prediction, name))
    assert (back.width, back.height, back.classes) == (prediction.width, prediction.height, prediction.classes)
    bare = Prediction.from_supervision(Detections(np.array([[0, 0, 5, 5]])), ("cat",))
    assert bare.names == ["cat"] and bare.scores.tolist() == [1.0]
    with pytest.raises(UserError, match="class_id 4 has no name among 1 classes"):
        Prediction.from_supervision(Detections(np.zeros((1, 4)), class_id=np.array([4])), ("cat",))
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="pip install supervision"):
        prediction.to_supervision()


def test_tab_shows_what_is_meant() -> None:
    code = (
        "import nas, nas.compare, nas.rank, nas.search, nas.profile, nas.list; print(*dir(nas)); "
        "print(all(callable(getattr(nas, name)) for name in nas.__all__), 'supervision' in __import__('sys').modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[0].split() == sorted([*nas.__all__, "__version__"])
    assert told[1] == "True False"


def test_commands_have_twins_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = nas.compared(["damo-yolo-t", "damo-yolo-s"])
    assert "damo-yolo-t" in table and (tmp_path / "outputs/compare/compare.csv").is_file()
    ranked = nas.ranked("tinynas_l20_k1kx", scorers=["mae", "params"], progress=False)
    assert "mae" in ranked and (tmp_path / "outputs/rank/report.md").is_file()
    draw_shapes(tmp_path / "my set", counts={"train": 3, "val": 2, "test": 1}, size=64)
    splits = nas.read_data("my set")
    assert {split: len(data) for split, data in splits.items()} == {"train": 3, "val": 2, "test": 1}
    assert repr(splits["val"]).startswith("DetectionData(my_set val: 2 images, ")
