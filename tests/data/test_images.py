"""Every kind of picture is read alike, and every broken file is named."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from nas.data.images import read_image, to_rgb
from nas.data.resize import BACKGROUND
from nas.errors import UserError
from nas.inference.pictures import open_pictures


@pytest.fixture()
def picture() -> Image.Image:
    y, x = np.mgrid[0:48, 0:64]
    return Image.fromarray(np.stack([x * 4, y * 5, 255 - x * 4], -1).astype(np.uint8))


def close(a, b, tolerance):
    return np.abs(a.astype(int) - np.asarray(b).astype(int)).mean() < tolerance


def test_jpeg_and_png(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "a.jpg", quality=95)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.asarray(picture))
    assert close(read_image(tmp_path / "a.jpg"), picture, 3)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_exif_orientation_is_applied(picture, tmp_path, ending):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn clockwise by 90 degrees
    picture.save(tmp_path / f"a.{ending}", exif=exif)
    found = read_image(tmp_path / f"a.{ending}")
    assert found.shape == (64, 48, 3)
    assert close(found, picture.transpose(Image.Transpose.ROTATE_270), 6)


def test_pillow_images_are_read_as_their_files(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(np.full((4, 6), 30000, np.uint16)).save(tmp_path / "deep.png")
    for name in ("turned.png", "deep.png"):
        path = tmp_path / name
        (picture,) = open_pictures(Image.open(path))
        assert np.array_equal(picture.pixels, read_image(path)), name
    assert read_image(tmp_path / "deep.png").max() == 30000 >> 8
    with pytest.raises(UserError, match="image: damaged or unusual"):
        open_pictures(Image.new("F", (4, 4)))


def test_modes_become_rgb(picture, tmp_path):
    path = tmp_path / "a.png"
    picture.convert("L").save(path)
    assert np.array_equal(read_image(path), np.repeat(np.asarray(picture.convert("L"))[..., None], 3, 2))
    picture.convert("P").save(path)
    assert read_image(path).shape == (48, 64, 3)
    picture.convert("1").save(path)
    assert set(np.unique(read_image(path))) <= {0, 255}
    picture.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert close(read_image(tmp_path / "a.jpg"), picture, 4)


def test_transparent_pixels_show_grey(picture, tmp_path):
    picture.putalpha(Image.new("L", picture.size, 0))
    picture.save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == BACKGROUND).all()


def test_sixteen_bits_keep_their_high_byte(picture, tmp_path):
    high = np.asarray(picture)[..., ::-1].astype(np.uint16) * 257
    for ending in ("png", "tif"):
        cv2.imwrite(str(tmp_path / f"colour.{ending}"), high)
        cv2.imwrite(str(tmp_path / f"grey.{ending}"), high[..., 0])
        assert close(read_image(tmp_path / f"colour.{ending}"), picture, 1)
        assert close(read_image(tmp_path / f"grey.{ending}")[..., 0], np.asarray(picture)[..., 2], 1)


@pytest.mark.parametrize("size", [(1, 1), (10, 4000)])
def test_extreme_sizes(tmp_path, size):
    Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (size[1], size[0], 3)


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp"])
def test_truncated_files_are_named(picture, tmp_path, ending):
    stream = io.BytesIO()
    picture.save(stream, {"jpg": "JPEG"}.get(ending, ending))
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(stream.getvalue()[: len(stream.getvalue()) * 6 // 10])
    with pytest.raises(UserError, match=f"cut.{ending}"):
        read_image(path)


def test_other_files_are_named(tmp_path):
    for name, data, words in (("empty.jpg", b"", "empty"), ("text.jpg", b"hello", "not an image")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}.*{words}"):
            read_image(tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(UserError, match="cannot be read"):
        read_image(tmp_path)


def test_arrays(picture):
    rgb = np.asarray(picture)
    assert np.array_equal(to_rgb(rgb), rgb)
    assert np.array_equal(to_rgb(rgb.astype(np.float32)), rgb)
    assert np.array_equal(to_rgb(rgb.astype(np.uint16) * 257), rgb)
    assert to_rgb(rgb[..., 0]).shape == rgb.shape
    for wrong in (rgb[0, 0], np.zeros((4, 4, 2)), np.zeros((0, 4, 3)), np.full((4, 4, 3), np.nan), np.array([["a"]])):
        with pytest.raises(UserError):
            to_rgb(wrong)
