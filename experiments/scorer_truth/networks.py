"""Backbones of equal predicted latency and very different shape: random, searched, published, hand-drawn."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.costs import Latencies
from nas.errors import UserError
from nas.files import write_atomic
from nas.frame import Frame
from nas.scorers import score_spec
from nas.spec import Backbone, Residual
from search_spaces.drawings import DRAWN, PUBLISHED, STRIDES, backbone_of_shape, backbone_of_text, fit_to_cost, text_of


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


def random_backbone(rng: random.Random) -> Backbone:
    """Depths 1..8 (log-uniform), widths that grow by random ratios, bottlenecks of a fifth to the whole width."""
    shape: list[tuple[int, int, int]] = []
    width = rng.choice((32, 48, 64, 96))
    for index in range(len(STRIDES)):
        width = round(width * rng.choice((1.0, 1.0, 1.25, 1.5, 2.0))) if index else width
        depth = round(8 ** rng.random())
        shape.append((width, max(8, round(width * rng.uniform(0.2, 1.0))), depth))
    return backbone_of_shape(rng.choice((16, 24, 32, 48)), shape)


def searched_backbone(
    score: Callable[[Backbone], float], target: float, tolerance: float, latency: Latencies, rng: random.Random
) -> Backbone:
    """The best-scored backbone inside the latency window that 4,000 mutations of a population of 24 find.

    Depths are capped at 8 a block, so that a score which only wants depth stays trainable.
    """
    population: list[tuple[float, Backbone]] = []
    while len(population) < 24:
        start = fit_to_cost(random_backbone(rng), latency, target, tolerance)
        if start is not None:
            population.append((score(start), start))
    for _ in range(4000):
        parent = max(rng.sample(population, 3), key=lambda item: item[0])[1]
        child = _mutated(parent, rng)
        if abs(latency(child) / target - 1) > tolerance:
            refit = fit_to_cost(child, latency, target, tolerance) if rng.random() < 0.5 else None
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
    latency = Latencies(hardware, Frame())
    rng = random.Random(seed)
    found: dict[str, Network] = {}

    def keep(name: str, group: str, backbone: Backbone | None) -> None:
        if backbone is not None and all(network.text != text_of(backbone) for network in found.values()):
            found[name] = Network(name, group, text_of(backbone), round(latency(backbone), 4))

    for group, drawings in (("published", PUBLISHED), ("drawn", DRAWN)):
        for name, text in drawings.items():
            keep(name, group, fit_to_cost(backbone_of_text(text), latency, target, tolerance))
    for name, score in _scores():
        keep(f"best-{name}", "searched", searched_backbone(score, target, tolerance, latency, rng))
    number = 0
    while len(found) < count:
        keep(f"random-{number:02d}", "random", fit_to_cost(random_backbone(rng), latency, target, tolerance))
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
