"""What follows the network, timed on this device over a small grid of candidates and classes, and between for its error."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nas.cost.postprocess import MOST_CANDIDATES, FinalRows, PostProcess, Suppression, predictions
from nas.inference.postprocess import postprocess
from nas.measure.measurement import time_repeated
from nas.spec import ONE_TO_ONE_ROWS

#: Numbers of candidates and of classes that are timed, with the predictions of an image of SIDE.
CANDIDATES, CLASSES, SIDE = (30, 100, 300, 1000, MOST_CANDIDATES), (1, 2, 4, 10, 30, 80), 640
#: Sides, classes and candidates between those, on which the error is told.
BETWEEN = ((320, 5, 550), (640, 50, 550), (640, 3, 1700), (320, 20, 1700), (320, 1, 2100), (640, 3, 2500), (320, 50, 3000),
           (640, 10, 200))  # fmt: skip
#: Objects of a made-up picture, around which its candidates lie, and the threshold that only candidates pass.
OBJECTS, THRESHOLD = 30, 0.001


def measure_postprocess(repetitions: int = 9, threads: int = 1, device: str = "cpu") -> PostProcess:
    """Time post-processing on a small grid of candidates and classes; device: where the network's outputs lie (cpu, cuda)."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    clock = time.thread_time if threads == 1 and device == "cpu" else time.perf_counter
    try:
        with torch.inference_mode():
            return fitted(lambda *point: _timed(point, repetitions, clock, device))
    finally:
        torch.set_num_threads(before)


def fitted(timed: Callable[[int, int, int], float]) -> PostProcess:
    """The prices by `timed(boxes, classes, candidates)`, milliseconds; no candidates: the final rows of a detector without
    NMS. What looking through pairs costs is told by two sizes of images with few candidates."""
    boxes, most, few = predictions(SIDE), CLASSES[-1], CANDIDATES[0]
    small = predictions(SIDE // 2)
    pairs = max(0.0, (timed(boxes, most, few) - timed(small, most, few)) / ((boxes - small) * most / 1e6))
    rows = []
    for candidates in CANDIDATES:
        times = (timed(boxes, classes, candidates) - pairs * boxes * classes / 1e6 for classes in CLASSES)
        rows.append(tuple(_shown(max(ms, 1e-3)) for ms in times))
    suppression = Suppression(CANDIDATES, CLASSES, tuple(rows), _shown(pairs))
    shown = [timed(ONE_TO_ONE_ROWS, classes, 0) for classes in (1, most)]
    step = max(0.0, (shown[1] - shown[0]) / (ONE_TO_ONE_ROWS * (most - 1) / 1e6))
    final = FinalRows(_shown(max(0.0, shown[0] - step * ONE_TO_ONE_ROWS / 1e6)), _shown(step))
    shares = [
        suppression.of(predictions(side), classes, candidates) / timed(predictions(side), classes, candidates) - 1
        for side, classes, candidates in BETWEEN
    ]
    return PostProcess(suppression, final, len(BETWEEN), round(float(100 * np.abs(shares).mean()), 2))


def _shown(value: float) -> float:
    """To five digits."""
    return float(f"{value:.5g}")


def _timed(point: tuple[int, int, int], repetitions: int, clock: Callable[[], float], device: str) -> float:
    boxes, classes, candidates = point
    nms = candidates > 0
    scores, corners = (value.to(device) for value in made_up(boxes, classes, candidates or boxes))

    def run() -> None:
        postprocess(scores, corners, THRESHOLD, max_detections=300, max_candidates=MOST_CANDIDATES, nms=nms)

    return time_repeated(run, repetitions, clock, pause=0.0)[0]


def made_up(boxes: int, classes: int, candidates: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Scores (1, N, C), of which so many pass the threshold, and corners (1, N, 4) that crowd around objects as a network's
    do."""
    generator = np.random.default_rng(seed)
    scores = np.zeros(boxes * classes, np.float32)
    chosen = generator.choice(boxes * classes, candidates, replace=False)
    scores[chosen] = generator.uniform(2 * THRESHOLD, 1, candidates) ** 2 + THRESHOLD
    centres = generator.uniform(0, 600, (OBJECTS, 2))[generator.integers(OBJECTS, size=boxes)]
    centres = centres + generator.normal(0, 12, (boxes, 2))
    sizes = generator.uniform(30, 90, (boxes, 2))
    corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1).astype(np.float32)
    return torch.from_numpy(scores.reshape(1, boxes, classes)), torch.from_numpy(corners[None])
