"""From any source to boxes in a picture's own pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from nas.errors import UserError
from nas.inference import PredictOptions
from nas.inference.pictures import Picture, open_pictures, prefetch
from nas.inference.predictor import Predictor, network_inputs


class Echo:
    """A network that finds the one saturated red rectangle of each input, by its pixels."""

    classes = ("other", "red")
    image_size = 64
    end_to_end = False

    def __call__(self, images: torch.Tensor):
        red = (images[:, 0] > 200) & (images[:, 1] < 60) & (images[:, 2] < 60)
        boxes = torch.zeros(len(images), 1, 4)
        for index, mask in enumerate(red):
            rows, columns = mask.nonzero().T
            if len(rows):
                low, high = torch.stack([columns, rows], 1).amin(0), torch.stack([columns, rows], 1).amax(0) + 1
                boxes[index, 0] = torch.cat([low, high])
        scores = torch.tensor([0.0, 0.9]).expand(len(images), 1, 2)
        return scores, boxes


def picture(width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    image = np.full((height, width, 3), 128, np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = (255, 0, 0)
    return image


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "rectangle"])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (256, 128), (96, 320), (32, 16)])
def test_boxes_come_back_in_the_pictures_pixels(width, height, resize):
    box = (width // 4, height // 4, width // 2, 3 * height // 4)
    (found,) = Predictor(Echo(), PredictOptions(resize=resize))(open_pictures(picture(width, height, box)))
    pixel = max(width, height) / 64
    assert np.abs(found.boxes[0] - box).max() <= 1.01 * pixel
    assert found.names == ["red"] and (found.width, found.height) == (width, height)


def test_letterbox_pads_with_grey_and_keeps_the_aspect():
    (out,), (fit,) = network_inputs([picture(200, 100, (0, 0, 200, 100))], 64, "letterbox")
    assert (fit.left, fit.top) == (0, 16) and fit.scale == (0.32, 0.32)
    assert (out[:, :16] == 114).all() and (out[:, 48:] == 114).all() and (out[0, 16:48] == 255).all()


def test_extreme_pictures_fit(tmp_path):
    for size, rectangle in (((1, 1), (64, 64)), ((10, 4000), (64, 32)), ((4000, 10), (32, 64))):
        for resize, shape in (("stretch", (64, 64)), ("letterbox", (64, 64)), ("rectangle", rectangle)):
            images, _ = network_inputs([np.zeros((size[1], size[0], 3), np.uint8)], 64, resize)
            assert images.shape == (1, 3, *shape)


def test_every_kind_of_source(tmp_path):
    box = (16, 16, 48, 48)
    rgb = picture(64, 64, box)
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "a.png", "sub/c.png"):
        Image.fromarray(rgb).save(tmp_path / name)
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    sources = {
        "file": (tmp_path / "a.png", ["a.png"]),
        "folder": (str(tmp_path), ["a.png", "b.png", "sub/c.png"]),
        "glob": (str(tmp_path / "*.png"), ["a.png", "b.png"]),
        "array": (rgb, ["image_00000"]),
        "batch": (np.stack([rgb, rgb]), ["image_00000", "image_00001"]),
        "tensor": (tensor, ["image_00000"]),
        "tensors": (torch.stack([tensor, tensor]).float(), ["image_00000", "image_00001"]),
        "pil": (Image.fromarray(rgb), ["image_00000"]),
        "list": ([rgb, tmp_path / "a.png", tensor], ["image_00000", "a.png", "image_00002"]),
    }
    for source, names in sources.values():
        for batch in (1, 2):
            found = list(Predictor(Echo(), PredictOptions(batch=batch))(open_pictures(source)))
            assert [one.name for one in found] == names
            assert all(np.allclose(one.boxes, [box], atol=1) for one in found)


def test_video_frames_are_rgb(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    if not writer.isOpened():
        pytest.skip("this OpenCV has no MJPG encoder")
    for left in (8, 16, 24):
        writer.write(cv2.cvtColor(picture(64, 64, (left, 16, left + 24, 48)), cv2.COLOR_RGB2BGR))
    writer.release()
    found = list(Predictor(Echo())(open_pictures(path)))
    assert [one.name for one in found] == [f"clip.avi#{index:06d}" for index in range(3)]
    assert [round(float(one.boxes[0, 0])) for one in found] == pytest.approx([8, 16, 24], abs=2)
    assert found[0].picture.rate == 10
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (broken,) = open_pictures(tmp_path / "broken.mp4")
    assert "not a readable video" in broken.error


def test_sources_that_cannot_be_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for source, words in (
        (tmp_path / "absent.jpg", "no such file, folder or glob"),
        (str(tmp_path / "*.jpg"), "no file matches"),
        (tmp_path / "empty", "the folder has no files"),
        ([], "empty list"),
        (3.5, "got float"),
        (torch.zeros(5, 5), "must be"),
    ):
        with pytest.raises(UserError, match=words):
            open_pictures(source)


def test_options_are_checked():
    for wrong in ({"score_threshold": 2}, {"batch": 0}, {"resize": "crop"}, {"max_detections": 0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            PredictOptions(**wrong)


def test_prefetch_hands_on_errors_and_stops():
    def broken():
        yield 1
        raise OSError("gone")

    ahead = prefetch(broken())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="gone"):
        next(ahead)
    endless = prefetch(iter(int, 1), 2)
    assert next(endless) == 0
    endless.close()


def test_a_seed_draws_the_order_of_the_files(tmp_path):
    for index in range(20):
        Image.new("L", (4, 4), index).save(tmp_path / f"{index:02d}.png")
    names = [picture.name for picture in open_pictures(tmp_path)]
    drawn = [[picture.name for picture in open_pictures(tmp_path, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and sorted(drawn[0]) == names == sorted(drawn[2])
    assert drawn[0] != names and set(drawn[0][:5]) != set(names[:5])
    listed = [f"{tmp_path}/{name}" for name in names]
    assert [picture.name for picture in open_pictures(listed, 0)] == drawn[0]


def test_the_stages_of_a_frame_are_timed_one_picture_at_a_time():
    pictures = [Picture(f"{index}", picture(60, 40, (3, 4, 30, 20))) for index in range(5)]
    broken = Picture("broken", None, "damaged")
    times = Predictor(Echo()).time_frames([pictures[0], broken, *pictures[1:]], warm_up=2)
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys(
        ("preprocess", "network", "postprocess", "frame"), 3
    )
    for *stages, frame in zip(*times.values(), strict=True):
        assert frame == pytest.approx(sum(stages)) and min(stages) > 0
