"""Image files to RGB pixels for training: no finer than needed, each file decoded once where memory allows."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nas.data.dataset import Record
from nas.data.images import decode_image
from nas.errors import UserError

Pixels = NDArray
_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def decode(record: Record, reduction: int = 1) -> Pixels:
    """RGB (H, W, 3) of a record, at 1/reduction of its size (1, 2, 4 or 8).

    A JPEG is decoded at the reduced size directly. UserError for a missing or unreadable file, or one whose size is not
    the annotated one.
    """
    try:
        data = np.fromfile(record.path, np.uint8)
    except OSError as error:
        raise UserError(f"{record.path}: {error.strerror or error}; run python -m nas.data on this data set") from None
    return decode_data(data, record, reduction)


def decode_data(data: NDArray, record: Record, reduction: int = 1) -> Pixels:
    """As `decode`, from the bytes of the record's file."""
    whole = data.size > 4 and data[0] == 0xFF and data[1] == 0xD8 and b"\xff\xd9" in data[-64:].tobytes()
    if not whole:  # not a complete JPEG: the careful reader names what is wrong
        return _fit(decode_image(data.tobytes(), str(record.path)), record, reduction)
    image = cv2.imdecode(data, _REDUCED[reduction])
    if image is None:
        return _fit(decode_image(data.tobytes(), str(record.path)), record, reduction)
    if reduction > 1:
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    expected = (-(-record.height // reduction), -(-record.width // reduction))
    if image.shape[:2] == expected:
        return image
    if image.shape[:2] == expected[::-1]:  # annotated in the camera's orientation, not the EXIF one
        return _fit(_sensor_oriented(data), record, reduction)
    raise _wrong_size(record, image.shape[1] * reduction, image.shape[0] * reduction)


def _sensor_oriented(data: NDArray) -> Pixels:
    image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    assert image is not None  # decoded a moment ago with its orientation
    return image


def _fit(image: Pixels, record: Record, reduction: int) -> Pixels:
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
    """Pixels of the records by index; their size may be smaller (or stretched) against the record: scale by the shape.

    cache "none": decoded at each use, the last `capacity` images kept; "ram": all images stretched to size x size at
    the start (3 size^2 bytes each), which mosaic and evaluation do with them anyway; forked workers share them;
    "auto": "ram" if that takes at most a quarter of the free memory, else "none".
    """

    def __init__(self, records: Sequence[Record], size: int, cache: str = "none", capacity: int = 0) -> None:
        if cache not in ("none", "ram", "auto"):
            raise UserError(f"image cache {cache!r}: none, ram or auto")
        needed, free = 3 * len(records) * size * size, _free_memory()
        if cache == "ram" and needed > 0.8 * free:
            raise UserError(
                f"image cache: {len(records)} images need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free; "
                "use cache=none"
            )
        cached = cache == "ram" or cache == "auto" and needed <= free / 4
        self.records, self._capacity = records, capacity
        self._recent: OrderedDict[tuple[int, int], Pixels] = OrderedDict()
        self._stretched = _decode_all(records, size) if cached else None

    def read(self, index: int, size: int) -> Pixels:
        """RGBA (h, w, 4), or RGB from the cache, at least `size` high and wide if the file is: enough for a stretch."""
        if self._stretched is not None:
            return self._stretched[index]
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

    def stretched(self, index: int, size: int) -> Pixels:
        """RGB (size, size, 3), bilinear, aspect not kept: what evaluation sees."""
        image = decode(self.records[index]) if self._stretched is None else self._stretched[index]
        if image.shape[:2] == (size, size):
            return image.copy()
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def _free_memory() -> int:
    """Bytes that can still be used, where the system tells; on Linux with what its file cache would give back."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    names = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" in names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 4 * 2**30


def _decode_all(records: Sequence[Record], size: int) -> Pixels:
    images = np.empty((len(records), size, size, 3), np.uint8)

    def fill(index: int) -> None:
        cv2.resize(decode(records[index]), (size, size), dst=images[index], interpolation=cv2.INTER_LINEAR)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        list(pool.map(fill, range(len(records))))
    return images
