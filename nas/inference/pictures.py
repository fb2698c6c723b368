"""Pictures from whatever a person has: files, folders, globs, videos, arrays, tensors."""

from __future__ import annotations

import glob
import os
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from PIL import Image

from nas.data.images import Pixels, pillow_to_rgb, read_image, to_rgb
from nas.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

#: Files that stand for a data set, whose pictures are meant.
DATA_SUFFIXES = frozenset({".zip", ".yaml", ".yml", ".json"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})


class Picture(NamedTuple):
    """One picture, or why there is none: `pixels` (H, W, 3) uint8 RGB; `name` is its path below the source.

    Those of a video share its `video` and its `rate` (pictures a second).
    """

    name: str
    pixels: Pixels | None = None
    error: str = ""
    video: str = ""
    rate: float = 0.0


#: What pictures come from: paths, arrays (H, W, 3), tensors (3, H, W) or batches of them, PIL images, and lists of these.
Source: TypeAlias = "str | Path | np.ndarray | Tensor | Image.Image | Sequence[Source]"


def open_pictures(source: Source, seed: int | None = None) -> Iterator[Picture]:
    """The pictures of a source, in order; a broken one of several comes with its error instead of its pixels.

    source: the path of an image or a video, a folder (with its sub-folders), a glob, a data set's file (a data.yaml, COCO
    JSON or zip: the pictures of its training split, or of the one that it has), an array (H, W, 3), a tensor
    (3, H, W) or batch of them (uint8 or 0..255), a PIL image, or a sequence of any of these. With a seed the files of a
    folder, a glob or a sequence come in a drawn order: the first of them are a sample.
    Raises UserError at once if nothing can come of it: a missing path, a glob without matches, a folder without files.
    """
    if isinstance(source, str | Path):
        root, files = _files(str(source))
        return (picture for file in _drawn(files, seed) for picture in _read(file, root))
    if isinstance(source, Sequence):
        if not source:
            raise UserError("the source is an empty list")
        parts = [open_pictures(item, seed) for item in _drawn(source, seed)]
        return (
            picture._replace(name=f"image_{index:05d}") if picture.name == "image_00000" else picture
            for index, part in enumerate(parts)
            for picture in part
        )
    return iter([Picture(f"image_{i:05d}", pixels) for i, pixels in enumerate(_in_memory(source))])


def prefetch(pictures: Iterable[Picture], depth: int = 4) -> Iterator[Picture]:
    """The same pictures, read ahead by a thread while the caller computes."""
    waiting: queue.Queue[Picture | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Picture | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for picture in pictures:
                if not put(picture):
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()


def _drawn(items: Sequence[Any], seed: int | None) -> Sequence[Any]:
    if seed is None:
        return items
    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]


def _files(source: str) -> tuple[Path, list[Path]]:
    """The files that a path or glob means, and the folder that their names are relative to."""
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        if not files:
            raise UserError(f"{source}: the folder has no files")
        return path, files
    if path.suffix.lower() in DATA_SUFFIXES and path.is_file():
        from nas.data.by_path import pictures_of

        files = pictures_of(path)
        return Path(os.path.commonpath([file.parent for file in files])), files
    if path.exists():
        return path.parent, [path]
    if any(mark in source for mark in "*?["):
        files = sorted(Path(match) for match in glob.glob(source, recursive=True) if Path(match).is_file())
        if files:
            return Path(os.path.commonpath([file.parent for file in files])), files
        raise UserError(f"{source}: no file matches")
    raise UserError(f"{source}: no such file, folder or glob")


def _read(path: Path, root: Path) -> Iterator[Picture]:
    name = path.relative_to(root).as_posix()
    if path.suffix.lower() in VIDEO_SUFFIXES:
        yield from _video(path, name)
        return
    try:
        yield Picture(name, read_image(path))
    except UserError as error:
        yield Picture(name, error=str(error))


def _video(path: Path, name: str) -> Iterator[Picture]:
    capture = cv2.VideoCapture(str(path))
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    count = 0
    try:
        while True:
            ok, pixels = capture.read()
            if not ok:
                break
            yield Picture(f"{name}#{count:06d}", cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), video=name, rate=rate)  # type: ignore[arg-type]
            count += 1
    finally:
        capture.release()
    if count == 0:
        yield Picture(name, error=f"{path}: not a readable video")


def _in_memory(source: Any) -> list[Pixels]:
    if isinstance(source, Image.Image):
        return [pillow_to_rgb(source)]
    if hasattr(source, "detach"):
        tensor = source.detach().cpu()
        if tensor.ndim not in (3, 4) or tensor.shape[-3] not in (1, 3, 4):
            raise UserError(f"a tensor must be (3, H, W) or (B, 3, H, W), got {tuple(tensor.shape)}")
        batch = tensor.numpy() if tensor.ndim == 4 else tensor.numpy()[None]
        return [to_rgb(image.transpose(1, 2, 0), "tensor") for image in batch]
    if isinstance(source, np.ndarray):
        return [to_rgb(image) for image in source] if source.ndim == 4 else [to_rgb(source)]
    raise UserError(f"a source must be a path, a glob, an array or a tensor, got {type(source).__name__}")
