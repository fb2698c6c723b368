"""Image files to RGB pixels: whatever their format with what cannot be read named, and fast and no finer than a training
needs, each file decoded once where memory allows."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from nas.data.dataset import Record
from nas.data.resize import BACKGROUND, Fit, Pixels, fitted, shrunk
from nas.errors import UserError
from nas.memory import free_memory
from nas.options import Resize

#: Megabytes that are taken to be free where the system does not tell.
UNTOLD = 4096.0
#: Endings that folders and globs are searched for.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jfif", ".ppm", ".mpo"})
#: OpenCV's decoders by the reduction of the size.
_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def read_image(path: str | Path) -> Pixels:
    """The picture of a file as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Grey, palette, RGBA (over grey 114), CMYK and 16-bit (high byte) pictures are converted; of several frames the first
    is taken. Raises UserError naming the file if it is missing, empty, truncated, no image, or too large to be meant.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> Pixels:
    """The picture encoded in `data`, as `read_image`; `name` stands in the errors."""
    if not data:
        raise UserError(f"{name}: the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            # OpenCV decodes faster, but fills up truncated files in silence; a proper end mark excludes those.
            if image.format == "JPEG" and image.mode in ("RGB", "L") and data.endswith(b"\xff\xd9"):
                pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                if pixels is not None:
                    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
            return _converted(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        return _by_opencv(data, name)
    except Image.DecompressionBombError:
        raise UserError(f"{name}: the picture has more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise UserError(f"{name}: damaged or truncated image ({error})") from None


def pillow_to_rgb(image: Image.Image, name: str = "image") -> Pixels:
    """A Pillow image as `read_image` gives its file; UserError naming it if it cannot be converted."""
    try:
        return _converted(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{name}: damaged or unusual image ({error})") from None


def to_rgb(array: ArrayLike, name: str = "array") -> Pixels:
    """An array in memory as (H, W, 3) uint8 RGB: (H, W), (H, W, 1), RGB or RGBA; uint8, uint16, or floats 0..255.

    Raises UserError for other shapes and types, or for values that are not finite.
    """
    pixels = np.asarray(array)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise UserError(f"{name}: an image must be (H, W), (H, W, 3) or (H, W, 4), got {pixels.shape}")
    if pixels.dtype == np.uint16:
        pixels = pixels >> 8
    elif pixels.dtype.kind in "fi":
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise UserError(f"{name}: the image has values that are not finite")
        pixels = np.clip(np.rint(pixels), 0, 255)
    elif pixels.dtype.kind not in "ub":
        raise UserError(f"{name}: an image must be of numbers, got {pixels.dtype}")
    pixels = pixels.astype(np.uint8)
    if pixels.shape[2] == 4:
        return _over_grey(pixels)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _converted(image: Image.Image) -> Pixels:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if image.mode == "F" or values.max(initial=0) > 65535:
            raise ValueError(f"pixels of mode {image.mode}, expected 8 or 16 bits")
        return to_rgb(values.astype(np.uint16) if values.max(initial=0) > 255 else values.astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        return _over_grey(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"), np.uint8)


def _over_grey(pixels: Pixels) -> Pixels:
    """RGBA over the background grey."""
    opacity = pixels[..., 3:].astype(np.float32) / 255
    return np.rint(pixels[..., :3] * opacity + BACKGROUND * (1 - opacity)).astype(np.uint8)


def _by_opencv(data: bytes, name: str) -> Pixels:
    """The second reader, for what the first does not know (16-bit colour TIFF)."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise UserError(f"{name}: not an image")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def decode(record: Record, reduction: int = 1) -> NDArray:
    """RGB (H, W, 3) of a record, at 1/reduction of its size (1, 2, 4 or 8).

    A JPEG is decoded at the reduced size directly. UserError for a missing or unreadable file, or one whose size is not
    the annotated one.
    """
    try:
        data = np.fromfile(record.path, np.uint8)
    except OSError as error:
        raise UserError(f"{record.path}: {error.strerror or error}; run python -m nas.data on this data set") from None
    return decode_data(data, record, reduction)


def decode_data(data: NDArray, record: Record, reduction: int = 1) -> NDArray:
    """As `decode`, from the bytes of the record's file."""
    whole = data.size > 4 and data[0] == 0xFF and data[1] == 0xD8 and b"\xff\xd9" in data[-64:].tobytes()
    image = cv2.imdecode(data, _REDUCED[reduction]) if whole else None
    if image is None:  # not a complete JPEG: the careful reader names what is wrong
        return _fit(decode_image(data.tobytes(), str(record.path)), record, reduction)
    if reduction > 1:
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    expected = (-(-record.height // reduction), -(-record.width // reduction))
    if image.shape[:2] == expected:
        return image
    if image.shape[:2] == expected[::-1]:  # annotated in the camera's orientation, not the EXIF one
        return _fit(_sensor_oriented(data), record, reduction)
    raise _wrong_size(record, image.shape[1] * reduction, image.shape[0] * reduction)


def _sensor_oriented(data: NDArray) -> NDArray:
    image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    assert image is not None  # decoded a moment ago with its orientation
    return image


def _fit(image: NDArray, record: Record, reduction: int) -> NDArray:
    height, width = image.shape[:2]
    if (height, width) != (record.height, record.width):
        raise _wrong_size(record, width, height)
    if reduction == 1:
        return image
    return cv2.resize(image, (-(-width // reduction), -(-height // reduction)), interpolation=cv2.INTER_AREA)


def _wrong_size(record: Record, width: int, height: int) -> UserError:
    return UserError(
        f"{record.path}: about {width} x {height} pixels, but annotated as {record.width} x {record.height}; "
        "correct the annotations or use data.mode=repair"
    )


class ImageSource:
    """NDArray of the records by index; their size may be smaller (or stretched) against the record: scale by the shape.

    cache "none": decoded at each use, the last `capacity` images kept; "ram": all images resized to what they have in an
    input of this size at the start (at most 3 size^2 bytes each), which mosaic and evaluation do with them anyway; forked
    workers share them; "auto": "ram" if that takes at most a quarter of the free memory, else "none".
    """

    def __init__(
        self,
        records: Sequence[Record],
        size: int,
        cache: str = "none",
        capacity: int = 0,
        resize: Resize = "stretch",
    ) -> None:
        if cache not in ("none", "ram", "auto"):
            raise UserError(f"image cache {cache!r}: none, ram or auto")
        needed, free = 3 * len(records) * size * size, 1e6 * (free_memory() or UNTOLD)
        if cache == "ram" and needed > 0.8 * free:
            raise UserError(
                f"image cache: {len(records)} images need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free; "
                "use cache=none"
            )
        cached = cache == "ram" or cache == "auto" and needed <= free / 4
        self.records, self.resize, self._capacity = records, resize, capacity
        self._recent: OrderedDict[tuple[int, int], NDArray] = OrderedDict()
        self._resized = _decode_all(records, size, resize) if cached else None

    def read(self, index: int, size: int) -> NDArray:
        """RGBA (h, w, 4), or RGB from the cache, at least `size` high and wide if the file is: enough for a stretch."""
        if self._resized is not None:
            return self._resized[index]
        record = self.records[index]
        shorter = min(record.height, record.width)
        key = index, next((r for r in (8, 4, 2) if size * r <= shorter), 1)
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key]
        image = cv2.cvtColor(decode(record, key[1]), cv2.COLOR_RGB2RGBA)
        if self._capacity:
            self._recent[key] = image
            if len(self._recent) > self._capacity:
                self._recent.popitem(last=False)
        return image

    def whole(self, index: int, fit: Fit) -> NDArray:
        """RGB (H, W, 3), bilinear, resized as `nas.data.resize` says: what evaluation sees."""
        image = decode(self.records[index]) if self._resized is None else self._resized[index]
        resized = fitted(image, fit)
        return resized.copy() if resized is image else resized


def _decode_all(records: Sequence[Record], size: int, resize: Resize) -> list[NDArray]:
    def resized(record: Record) -> NDArray:
        return shrunk(decode(record), Fit.of(record.width, record.height, size, resize))

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        return list(pool.map(resized, records))
