"""What follows the network, timed on this device over a small grid of predictions, classes and candidates, and fitted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from nas.cost.postprocess import (
    MOST_CANDIDATES,
    FinalRows,
    PostProcess,
    Suppression,
    predictions,
    suppression_work,
)
from nas.inference.postprocess import postprocess
from nas.measure.measurement import time_repeated
from nas.spec import ONE_TO_ONE_ROWS

#: Sides of images, numbers of classes and of candidates that are timed.
SIDES, CLASSES, CANDIDATES = (320, 640), (1, 20, 80), (100, 1000, MOST_CANDIDATES)
#: Objects of a made-up picture, around which its candidates lie, and the threshold that only candidates pass.
OBJECTS, THRESHOLD = 30, 0.001


def measure_postprocess(repetitions: int = 9, threads: int = 1, device: str = "cpu") -> PostProcess:
    """Time post-processing on the grid and fit it; device: where the network's outputs lie (cpu, cuda)."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    clock = time.thread_time if threads == 1 and device == "cpu" else time.perf_counter
    try:
        with torch.inference_mode():
            return fitted(lambda *point: _timed(point, repetitions, clock, device))
    finally:
        torch.set_num_threads(before)


def fitted(timed: Callable[[int, int, int], float]) -> PostProcess:
    """The prices through `timed(boxes, classes, candidates)`, milliseconds; no candidates: final rows of a detector without
    NMS. Every price is positive, and the errors are weighed in percent."""
    points = list(grid())
    rows = [(ONE_TO_ONE_ROWS, classes, 0) for classes in CLASSES]
    times, row_times = (np.array([timed(*point) for point in some]) for some in (points, rows))
    work = np.array([suppression_work(*point) for point in points])
    row_work = np.array([(1.0, boxes * classes / 1e6) for boxes, classes, _ in rows])
    prices, row_prices = (nnls(w / t[:, None], np.ones(len(t)))[0] for w, t in ((work, times), (row_work, row_times)))
    shares = np.concatenate([work @ prices / times, row_work @ row_prices / row_times]) - 1
    suppression, final = (tuple(float(f"{price:.5g}") for price in found) for found in (prices, row_prices))
    error = round(float(100 * np.abs(shares).mean()), 2)
    return PostProcess(Suppression(*suppression), FinalRows(*final), len(points) + len(rows), error)


def grid() -> Iterator[tuple[int, int, int]]:
    """Predictions, classes and candidates of every point with NMS."""
    for side, classes, candidates in product(SIDES, CLASSES, CANDIDATES):
        boxes = predictions(side)
        yield boxes, classes, min(candidates, boxes * classes)


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
