"""Pictures into inputs and boxes there and back: stretched, letterboxed or on rectangles, the same in every room."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import nas
from nas.augment.mosaic import whole_tile
from nas.augment.pipeline import Augmentation
from nas.commands.train import TrainCommand, task_of
from nas.config import compose_config
from nas.data.dataset import DetectionData, Record
from nas.data.images import decode
from nas.data.loader import build_loader
from nas.data.resize import BACKGROUND, MARGIN, Fit, fits_of, fitted
from nas.data.shapes import draw_shapes
from nas.data.sources import load_splits
from nas.deploy.runtime import Metadata, Runtime, read_metadata
from nas.errors import UserError
from nas.inference import PredictOptions
from nas.inference.evaluator import detect, evaluate
from nas.inference.pictures import Picture
from nas.inference.predictor import Prediction, Predictor
from nas.models.base import DetectorModule
from nas.models.baselines.detr import DETR
from nas.models.baselines.rtdetrv2 import RTDETRv2
from nas.models.checkpoint import load_checkpoint, read_header, save_checkpoint
from nas.models.detector import build_detector
from nas.options import Resize
from nas.training.run import run_training
from nas.training.setup import adapt_classes, prepare_detector
from tests.training.tiny_training import options, tiny_spec

RESIZES: tuple[Resize, ...] = ("stretch", "letterbox", "rectangle")
SHARES = st.tuples(*[st.floats(0, 1)] * 4)
SIDES = st.integers(1, 256).map(lambda number: 32 * number)


@given(
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    SIDES,
    st.sampled_from(RESIZES),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_a_box_goes_there_and_back(
    width: int, height: int, side: int, resize: Resize, shares: tuple[float, ...]
) -> None:
    fit = Fit.of(width, height, side, resize)
    box = np.array([shares]) * (width, height, width, height)
    there = fit.to_input(box)
    assert (there >= -1e-6).all() and (there <= side + 1e-6).all()
    assert np.abs(fit.to_picture(there) - box).max() < 1e-3


@given(st.integers(1, 20_000), st.integers(1, 20_000), SIDES)
def test_a_letterbox_keeps_the_aspect_and_stands_in_the_middle(width: int, height: int, side: int) -> None:
    fit = Fit.of(width, height, side, "letterbox")
    assert max(fit.inner_width, fit.inner_height) == side
    scale = side / max(width, height)
    assert abs(fit.inner_width - max(1, width * scale)) <= 0.5 + 1e-6
    assert abs(fit.inner_height - max(1, height * scale)) <= 0.5 + 1e-6
    assert 0 <= side - fit.inner_width - 2 * fit.left <= 1 and 0 <= side - fit.inner_height - 2 * fit.top <= 1
    assert Fit.of(width, height, side) == (width, height, side, side, side, side)


def test_what_is_free_is_grey() -> None:
    image = np.full((50, 200, 3), 255, np.uint8)
    made = fitted(image, Fit.of(200, 50, 64, "letterbox"))
    assert (made[24:40] == 255).all() and (made[:24] == BACKGROUND).all() and (made[40:] == BACKGROUND).all()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    """Two pictures of unlike aspect, a bright box in each."""
    folder = tmp_path_factory.mktemp("pictures")
    records = []
    for number, (width, height) in enumerate(((160, 60), (50, 120))):
        image = np.zeros((height, width, 3), np.uint8)
        box = np.array([[width // 5, height // 4, width // 2, 3 * height // 4]], np.float32)
        x1, y1, x2, y2 = box[0].astype(int)
        image[y1:y2, x1:x2] = 255
        path = folder / f"{number}.png"
        assert cv2.imwrite(str(path), image)
        area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
        records.append(Record(path, number + 1, width, height, box, np.zeros(1, np.int64), area.astype(np.float64)))
    return DetectionData("boxes", "val", ("box",), (1,), tuple(records))


@pytest.mark.parametrize("cache", ["none", "ram"])
@pytest.mark.parametrize("train", [False, True])
def test_loaders_letterbox_pictures_and_boxes(data: DetectionData, cache: str, train: bool) -> None:
    plain = Augmentation.plain() if train else None
    (batch,) = build_loader(data, 2, 64, train=train, augmentation=plain, cache=cache, resize="letterbox")
    for image, boxes, index in zip(batch.images.permute(0, 2, 3, 1).numpy(), batch.boxes, batch.indices, strict=True):
        record = data.records[index]
        fit = Fit.of(record.width, record.height, 64, "letterbox")
        np.testing.assert_array_equal(image, fitted(decode(record), fit))
        rows, columns = np.nonzero(image[..., 0] > 184)  # half of the way from grey to white, and more
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(boxes.numpy() - seen).max() <= 1.5
        assert boxes.dtype == torch.float32


def test_mosaics_and_moved_pictures_take_it_too(data: DetectionData) -> None:
    record = data.records[0]
    tile = whole_tile(0, record, 64, "letterbox")
    assert tile.visible == (0.0, 20.0, 64.0, 44.0)
    corner = tile.to_canvas @ np.array([160, 60, 1])
    assert corner[:2] == pytest.approx([64, 44])
    recipe = Augmentation(mosaic=1, mixup=0, closing_epochs=0, rotation=0, shear=0, translation=0, scale=(1, 1))
    for resize in RESIZES:
        (batch,) = build_loader(data, 2, 64, train=True, augmentation=recipe, resize=resize)
        for image, boxes in zip(batch.images.numpy(), batch.boxes, strict=True):
            for x1, y1, x2, y2 in boxes.numpy():
                inside = image[0, round(y1 + 1.5) : round(y2 - 1.5), round(x1 + 1.5) : round(x2 - 1.5)]
                assert inside.size == 0 or inside.mean() > 200


class Bright(torch.nn.Module):
    """Finds the one bright rectangle of each input, by its pixels."""

    classes, image_size, end_to_end = ("box",), 64, True

    def __init__(self, resize: Resize) -> None:
        super().__init__()
        self.resize, self.shapes = resize, list[tuple[int, ...]]()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.shapes.append(tuple(images.shape[2:]))
        boxes = torch.zeros(len(images), 1, 4)
        for row, image in enumerate(images):
            rows, columns = torch.nonzero(image[0] > 184).T
            boxes[row, 0] = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        return torch.full((len(images), 1, 1), 0.9), boxes


@pytest.mark.parametrize("resize", RESIZES)
def test_evaluation_and_prediction_give_boxes_in_the_pictures_pixels(data: DetectionData, resize: Resize) -> None:
    network = Bright(resize)
    assert evaluate(network, data, 64).ap50 == pytest.approx(1.0)
    found = list(Predictor(network)(map_pictures(data)))
    for one, record in zip(found, data.records, strict=True):
        assert np.abs(one.boxes[0] - record.boxes[0]).max() <= 1.6 * max(record.width, record.height) / 64
    for other in RESIZES:  # asked for, it holds for every way
        assert evaluate(network, data, 64, resize=other).ap50 == pytest.approx(1.0)


def map_pictures(data: DetectionData) -> list[Picture]:
    return [Picture(record.path.name, decode(record)) for record in data.records]


def test_models_carry_it_in_every_file(tmp_path: Path) -> None:
    model = prepare_detector(build_detector(tiny_spec(), 5), tuple("abcde"), None, resize="letterbox")
    path = save_checkpoint(tmp_path / "m.safetensors", model)
    assert read_header(path)["resize"] == load_checkpoint(path).resize == "letterbox"
    assert adapt_classes(load_checkpoint(path), ("a", "b")).resize == "letterbox"
    assert prepare_detector(path, ("a", "b"), None, one_to_one=True).resize == "letterbox"
    assert prepare_detector(path, tuple("abcde"), None, resize="stretch").resize == "stretch"
    assert nas.Detector.load(path).deployed().resize == "letterbox"
    told = Metadata(("a",), 64, resize="letterbox").to_json()
    assert read_metadata(told, "m.onnx").resize == "letterbox"
    for resize in RESIZES:
        model.resize = resize
        assert load_checkpoint(save_checkpoint(path, model)).resize == resize
        assert read_metadata(Metadata(("a",), 64, resize=resize).to_json(), "m.onnx").resize == resize
    old = told.replace(', "resize": "letterbox"', "")
    assert read_metadata(old, "m.onnx").resize == "stretch"
    with pytest.raises(UserError, match="resize must be one of stretch, letterbox"):
        read_metadata(told.replace("letterbox", "crop"), "m.onnx")


@given(
    st.lists(st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)), min_size=1, max_size=8),
    SIDES,
    st.sampled_from((0, MARGIN)),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_a_rectangle_is_the_smallest_that_holds_its_batch(
    sizes: list[tuple[int, int]], side: int, margin: int, shares: list[float]
) -> None:
    fits = fits_of(sizes, side, "rectangle", margin)
    (outer,) = {(fit.outer_width, fit.outer_height) for fit in fits}
    needed = max(fit.inner_width for fit in fits), max(fit.inner_height for fit in fits)
    assert all(
        pixels % 32 == 0 and 0 <= pixels - least - margin < 32 for pixels, least in zip(outer, needed, strict=True)
    )
    for fit, (width, height) in zip(fits, sizes, strict=True):
        assert fit[2:4] == Fit.of(width, height, side, "letterbox")[2:4]  # as large as in the square
        assert min(fit.left, fit.top) >= margin // 2
        box = np.array([shares]) * (width, height, width, height)
        assert np.abs(fit.to_picture(fit.to_input(box)) - box).max() < 1e-3


def test_rectangles_are_those_of_the_authors() -> None:
    def sides(margin: int, side: int, *sizes: tuple[int, int]) -> tuple[int, int]:
        return fits_of(sizes, side, "rectangle", margin)[0][4:]  # width, height

    assert sides(MARGIN, 1024, (512, 1024)) == (544, 1056)  # ultralytics/yolov5/issues/6404
    assert sides(MARGIN, 640, (800, 800)) == (672, 672)  # ultralytics/ultralytics/issues/6192
    assert sides(0, 512, (810, 1080)) == (384, 512)
    assert sides(0, 640, (640, 480), (640, 426), (427, 640)) == (640, 640)
    assert sides(0, 640, (640, 480), (640, 426)) == (640, 480)


def test_an_evaluation_goes_by_aspect_whatever_the_batches(data: DetectionData) -> None:
    (batch,) = build_loader(data, 2, 64, train=False, resize="rectangle")
    assert batch.indices == [1, 0] and batch.images.shape == (2, 3, 96, 96)  # 27 x 64 and 64 x 24
    network = Bright("rectangle")
    assert evaluate(network, data, 64, batch_size=1).ap50 == pytest.approx(1.0)
    assert network.shapes == [(96, 64), (64, 96)]
    found = {size: detect(network, build_loader(data, size, 64, train=False, resize="rectangle"))[0] for size in (1, 2)}
    for index in range(2):
        np.testing.assert_allclose(found[1][index].boxes, found[2][index].boxes, atol=1e-4)


def test_a_square_picture_is_predicted_on_as_in_a_letterbox(capsys: pytest.CaptureFixture) -> None:
    torch.manual_seed(0)
    model = build_detector(tiny_spec(), 5).eval()
    square, wide = (
        Picture("a", np.random.default_rng(0).integers(0, 255, s, np.uint8)) for s in ((90, 90, 3), (40, 90, 3))
    )

    def found(picture: Picture, resize: Resize, **told: bool) -> Prediction:
        for name, value in told.items():
            setattr(model, name, value)
        return next(iter(Predictor(model, PredictOptions(score_threshold=0.001, resize=resize), 64)([picture])))

    left, right = found(square, "letterbox"), found(square, "rectangle")
    assert len(left) > 0 and left.to_dict() == right.to_dict()
    assert found(wide, "letterbox").to_dict() != found(wide, "rectangle").to_dict()
    assert capsys.readouterr().out == ""
    assert found(wide, "letterbox").to_dict() == found(wide, "rectangle", squares_alone=True).to_dict()
    assert capsys.readouterr().out.splitlines() == [
        "resize=rectangle: this network takes squares alone, its pictures are letterboxed"
    ]


def test_files_and_transformers_take_squares_alone() -> None:
    assert Runtime.squares_alone and DETR.squares_alone and RTDETRv2.squares_alone and not DetectorModule.squares_alone


@pytest.mark.parametrize("resize", ["letterbox", "rectangle"])
def test_a_training_validates_as_it_is_told_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resize: Resize
) -> None:
    monkeypatch.setenv("MAENAS_SHAPES", str(tmp_path / "shapes"))
    draw_shapes(tmp_path / "shapes", counts={"train": 8, "val": 3, "test": 1}, size=64)
    config = compose_config("train", TrainCommand, {"data": "shapes", "data.resize": resize, "test": False})
    task, _, _ = task_of(config)
    assert task.resize == resize
    task = replace(task, model=tiny_spec(), options=options(epochs=1), augmentation=Augmentation.plain(), device="cpu")
    result = run_training(task, tmp_path / "run", progress=False)
    model = load_checkpoint(result.best)
    splits, _ = load_splits(config.data, ("val",))
    assert model.resize == resize
    assert evaluate(model.fuse(), splits["val"], 64, batch_size=3).ap == result.score
