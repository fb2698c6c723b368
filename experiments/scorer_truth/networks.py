"""Backbones of equal predicted latency and very different shape: random, searched, published, hand-drawn.

A network is written as `stem out/bottleneck x depth ...`, for example `24 64/24x2 96/64x2 192/96x2 192/152x2
384/192x1`: five k1kx blocks with strides 2, 2, 2, 1, 2 behind a Focus stem, deployed as DAMO-YOLO does (SPP, no
shortcut at stride 2).
"""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.files import write_atomic
from nas.frame import Frame
from nas.scorers import score_spec
from nas.searchers.objective import Objective
from nas.spec import Backbone, Residual, Stem

STRIDES = (2, 2, 2, 1, 2)
OUT_BLOCKS = (1, 3, 4)
Shape = list[tuple[int, int, int]]

#: Published DAMO-YOLO backbones and drawings after well-known networks; widths are scaled to the latency.
PUBLISHED = {
    "damo-t": "24 64/24x2 96/64x2 192/96x2 192/152x2 384/192x1",
    "damo-s": "32 128/24x1 128/88x5 256/128x3 256/120x2 512/144x1",
    "tinynas-start": "32 48/32x1 96/48x1 96/96x1 192/96x1 384/192x1",
    "damo-nano": "16 40/32x1 64/48x2 96/64x2 128/96x2 256/128x1",
}
DRAWN = {
    "resnet18": "32 64/64x2 128/128x2 256/256x1 256/256x1 512/512x2",
    "resnet34": "32 64/64x3 128/128x4 256/256x3 256/256x3 512/512x3",
    "darknet53": "32 64/32x1 128/64x2 256/128x4 256/128x4 512/256x4",
    "pyramid": "16 32/32x1 64/64x2 128/128x2 128/128x2 256/256x4",
    "inverse-pyramid": "32 96/96x4 128/128x3 192/192x1 192/192x1 256/256x1",
    "even-1": "32 64/64x1 128/128x1 256/256x1 256/256x1 512/512x1",
    "even-3": "32 64/48x3 128/96x3 192/144x3 192/144x3 384/288x3",
    "even-5": "32 64/40x5 64/64x5 192/192x5 192/192x5 384/384x5",
    "constant-width": "64 128/128x1 128/128x2 128/128x2 128/128x2 128/128x2",
    "wide-early": "64 128/128x2 160/160x2 192/192x1 192/192x1 224/224x1",
    "thin-bottleneck": "32 128/16x3 256/32x3 384/48x3 384/48x3 512/64x3",
    "fat-bottleneck": "32 48/48x1 64/64x2 96/96x2 96/96x2 128/128x2",
    "deep-c3": "32 64/48x1 96/96x8 128/96x1 128/96x1 256/128x1",
    "deep-c4": "32 64/48x1 96/64x1 160/128x5 160/128x5 256/128x1",
    "deep-c5": "32 64/48x1 96/64x1 128/96x1 128/96x1 320/256x8",
    "deep-stride4": "32 64/48x6 96/64x1 160/128x1 160/128x1 320/192x1",
}


@dataclass(frozen=True, slots=True)
class Network:
    """One backbone of the experiment: name, group, and text of its shape."""

    name: str
    group: str
    text: str
    latency_ms: float

    @property
    def backbone(self) -> Backbone:
        return backbone_of_text(self.text)


def backbone_of_text(text: str) -> Backbone:
    """The backbone of a shape text; UserError for anything else."""
    stem, *tokens = text.split()
    found = [re.fullmatch(r"(\d+)/(\d+)x(\d+)", token) for token in tokens]
    if not stem.isdigit() or len(found) != len(STRIDES) or any(match is None for match in found):
        raise UserError(f"not a shape `stem out/bottleneckxdepth ...` of five blocks: {text!r}")
    shape = [tuple(map(int, match.groups())) for match in found if match]
    return _backbone(int(stem), shape)  # type: ignore[arg-type]


def text_of(backbone: Backbone) -> str:
    """The shape text of a backbone."""
    blocks = [block for block in backbone.blocks if isinstance(block, Residual)]
    return " ".join([str(backbone.stem.out), *(f"{block.out}/{block.bottleneck}x{block.depth}" for block in blocks)])


def _backbone(stem: int, shape: Shape) -> Backbone:
    blocks = tuple(Residual("k1kx", o, b, d, s) for (o, b, d), s in zip(shape, STRIDES, strict=True))
    return Backbone(Stem("focus", stem), blocks, OUT_BLOCKS, "spp", reparam=True)


class Latencies:
    """Predicted milliseconds of the whole detector around a backbone (neck and head of DAMO-YOLO S, 640 pixels)."""

    def __init__(self, hardware: str) -> None:
        self._objective = Objective(None, LatencyTable.load(hardware), Frame())

    def __call__(self, backbone: Backbone) -> float:
        return self._objective.evaluate(backbone)["latency_ms"]


def scaled(backbone: Backbone, factor: float) -> Backbone:
    """All widths times a factor, in multiples of 8."""

    def width(value: int) -> int:
        return max(8, 8 * round(value * factor / 8))

    blocks = (block for block in backbone.blocks if isinstance(block, Residual))
    moved = tuple(replace(block, out=width(block.out), bottleneck=width(block.bottleneck)) for block in blocks)
    return replace(backbone, stem=replace(backbone.stem, out=min(64, width(backbone.stem.out))), blocks=moved)


def fitted(backbone: Backbone, target: float, tolerance: float, latency: Latencies) -> Backbone | None:
    """The backbone with its widths scaled to the latency, then single widths moved by 8 until it is met.

    None where no width reaches it (too deep, or too shallow for 1024 channels).
    """
    low, high, best = 0.1, 16.0, backbone
    for _ in range(9):
        middle = (low * high) ** 0.5
        candidate = scaled(backbone, middle)
        value = latency(candidate)
        if abs(value - target) < abs(latency(best) - target):
            best = candidate
        low, high = (middle, high) if value < target else (low, middle)
    for _ in range(6):
        if abs(latency(best) / target - 1) <= tolerance:
            return best if max(block.out for block in best.blocks) <= 1024 else None
        best = min(_neighbours(best), key=lambda item: abs(latency(item) - target))
    return None


def _neighbours(backbone: Backbone) -> Iterator[Backbone]:
    """Every backbone with one width changed by 8."""
    for index, block in enumerate(backbone.blocks):
        assert isinstance(block, Residual)
        for step in (-8, 8):
            for name in ("out", "bottleneck"):
                changed = replace(block, **{name: max(8, getattr(block, name) + step)})  # type: ignore[arg-type]
                yield replace(backbone, blocks=(*backbone.blocks[:index], changed, *backbone.blocks[index + 1 :]))


def random_backbone(rng: random.Random) -> Backbone:
    """Depths 1..8 (log-uniform), widths that grow by random ratios, bottlenecks of a fifth to the whole width."""
    shape: Shape = []
    width = rng.choice((32, 48, 64, 96))
    for index in range(len(STRIDES)):
        width = round(width * rng.choice((1.0, 1.0, 1.25, 1.5, 2.0))) if index else width
        depth = round(8 ** rng.random())
        shape.append((width, max(8, round(width * rng.uniform(0.2, 1.0))), depth))
    return _backbone(rng.choice((16, 24, 32, 48)), shape)


def searched_backbone(
    score: Callable[[Backbone], float], target: float, tolerance: float, latency: Latencies, rng: random.Random
) -> Backbone:
    """The best-scored backbone inside the latency window that 4,000 mutations of a population of 24 find.

    Depths are capped at 8 a block, so that a score which only wants depth stays trainable.
    """
    population: list[tuple[float, Backbone]] = []
    while len(population) < 24:
        start = fitted(random_backbone(rng), target, tolerance, latency)
        if start is not None:
            population.append((score(start), start))
    for _ in range(4000):
        parent = max(rng.sample(population, 3), key=lambda item: item[0])[1]
        child = _mutated(parent, rng)
        if abs(latency(child) / target - 1) > tolerance:
            refit = fitted(child, target, tolerance, latency) if rng.random() < 0.5 else None
            if refit is None:
                continue
            child = refit
        population.append((score(child), child))
        population.remove(min(population, key=lambda item: item[0]))
    return max(population, key=lambda item: item[0])[1]


def _mutated(backbone: Backbone, rng: random.Random) -> Backbone:
    blocks = list(backbone.blocks)
    for _ in range(rng.choice((1, 2))):
        index = rng.randrange(len(blocks))
        block = blocks[index]
        assert isinstance(block, Residual)
        move = rng.randrange(3)
        if move == 0:
            out = min(640, max(16, 8 * round(block.out * rng.choice((0.6, 0.8, 1.25, 1.5)) / 8)))
            blocks[index] = replace(block, out=out, bottleneck=min(block.bottleneck, out))
        elif move == 1:
            wanted = max(8, 8 * round(block.bottleneck * rng.choice((0.5, 0.75, 1.25, 2.0)) / 8))
            blocks[index] = replace(block, bottleneck=min(block.out, wanted))
        else:
            blocks[index] = replace(block, depth=min(8, max(1, block.depth + rng.choice((-2, -1, 1, 2)))))
    return replace(backbone, blocks=tuple(blocks))


def _scores() -> Iterator[tuple[str, Callable[[Backbone], float]]]:
    """The scores whose winners take part."""
    even = (0.0, 0.0, 1.0, 1.0, 1.0)
    yield "mae", lambda spec: score_spec(spec, "mae")
    yield "mae-even", lambda spec: score_spec(spec, "mae", level_weights=even)
    for name in ("deepmad", "mae_residual", "effective_rank", "level_balance", "macs", "params"):
        yield name.replace("_", "-"), lambda spec, name=name: score_spec(spec, name)  # type: ignore[misc]


def draw_networks(count: int, target: float, tolerance: float, hardware: str, seed: int) -> list[Network]:
    """At least `count` networks: all searched, published and drawn ones that fit, and random ones for the rest."""
    latency = Latencies(hardware)
    rng = random.Random(seed)
    found: dict[str, Network] = {}

    def keep(name: str, group: str, backbone: Backbone | None) -> None:
        if backbone is not None and all(network.text != text_of(backbone) for network in found.values()):
            found[name] = Network(name, group, text_of(backbone), round(latency(backbone), 4))

    for group, drawings in (("published", PUBLISHED), ("drawn", DRAWN)):
        for name, text in drawings.items():
            keep(name, group, fitted(backbone_of_text(text), target, tolerance, latency))
    for name, score in _scores():
        keep(f"best-{name}", "searched", searched_backbone(score, target, tolerance, latency, rng))
    number = 0
    while len(found) < count:
        keep(f"random-{number:02d}", "random", fitted(random_backbone(rng), target, tolerance, latency))
        number += 1
    networks = list(found.values())
    random.Random(seed).shuffle(networks)  # a training that is cut short has then met every group
    return networks


def write_networks(networks: list[Network], path: Path) -> None:
    """Store the networks as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["name", "group", "shape", "latency_ms"])
    writer.writerows((item.name, item.group, item.text, f"{item.latency_ms:.4f}") for item in networks)
    write_atomic(path, stream.getvalue())


def read_networks(path: Path) -> list[Network]:
    """The networks of a CSV; UserError if it is missing or damaged."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run `python -m experiments.scorer_truth plan` first")
    with path.open(encoding="utf-8", newline="") as file:
        try:
            rows = [Network(r["name"], r["group"], r["shape"], float(r["latency_ms"])) for r in csv.DictReader(file)]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not a list of networks: {error}") from None
    for row in rows:
        backbone_of_text(row.text)
    return rows
