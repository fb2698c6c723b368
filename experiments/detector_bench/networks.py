"""The detectors of the bench: from five spaces, in bands of equal predicted latency, one neck and head around them.

In every band: the best network of each space under several scores, published and hand-drawn backbones scaled to the
band, and random members scaled to it. Networks of the giraffe space bring their own neck.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.costs import Latencies
from experiments.packed import read_packed, write_packed
from nas.cost.count import count_spec
from nas.errors import UserError
from nas.frame import Frame
from nas.scorers import SCORERS, score_spec
from nas.searchers.run import run_search
from nas.searchers.settings import SearchSettings
from nas.spec import Backbone, DetectorSpec, digest, from_dict, to_dict
from search_spaces import SearchSpace, find_space
from search_spaces.drawings import fit_to_cost, hand_drawn

PATH = Path(__file__).with_name("networks.jsonl.gz")
#: Neck and head around every backbone, and the input at which the bands are predicted.
FRAME = Frame(out=(64, 128, 256), depth=2, hidden_ratio=(0.5, 0.5, 0.5), num_classes=6, image_size=320)
#: Scores whose winners take part, by space.
SEARCHED = {
    "tinynas_k1kx": ("effective_rank", "mae", "level_balance", "params", "mae_residual", "deepmad"),
    "tinynas_kxkx": ("effective_rank", "mae", "level_balance"),
    "giraffe": ("mae_neck", "effective_rank", "level_balance"),
    "gelan": ("effective_rank", "mae", "level_balance"),
    "c3k2": ("effective_rank", "mae", "params"),
}
#: Published and drawn backbones that take part.
DRAWINGS = (
    "damo-t", "yolo11-n", "yolov9-t", "resnet18", "damo-s", "damo-m", "damo-nano", "darknet53", "inverse-pyramid", "even-3",
    "thin-bottleneck", "wide-early", "deep-c5",
)  # fmt: skip
#: How many of a band are trained on every data set, taken from the head of its list.
SHARED = 12
#: Places among the shared networks of all bands that are trained with several seeds.
REPEATED = (0, 4, 8, 13, 17)
#: The head of a band's list: something of every family and space.
FIRST = (
    "best-effective_rank-tinynas_k1kx", "scaled-damo-t", "best-mae-tinynas_k1kx", "scaled-yolo11-n", "scaled-yolov9-t",
    "random-0-tinynas_k1kx", "best-effective_rank-gelan", "best-mae_neck-giraffe", "scaled-resnet18", "best-mae-c3k2",
    "best-effective_rank-tinynas_kxkx", "random-0-gelan",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Network:
    """One detector of the bench.

    name: label@band; family: optimal, scaled or random; space: what the blocks are from; score: what it is the best of;
    band_ms, latency_ms: wanted and predicted milliseconds at 320 pixels by the table of that digest; shared: trained on
    every data set; repeated: with several seeds; scores, counts: of the whole detector where a score reads it, else of
    the backbone.
    """

    name: str
    family: str
    space: str
    score: str
    band_ms: float
    digest: str
    spec: DetectorSpec
    latency_ms: float
    hardware: str
    table: str
    shared: bool
    repeated: bool
    scores: dict[str, float]
    counts: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, one line of the file."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"spec": to_dict(self.spec)}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Network:
        """The network of a line; UserError if its digest is another one."""
        spec = from_dict(row["spec"])
        if not isinstance(spec, DetectorSpec) or digest(spec) != row["digest"]:
            raise UserError(f"network {row['name']}: the digest does not belong to its spec")
        return cls(**{**row, "spec": spec})


def space_of(name: str) -> SearchSpace[Any]:
    """A space whose members fit the frame."""
    space, side = find_space(name).in_frame(frame_of(name)), {"image_size": FRAME.image_size}
    return space.override(backbone=side) if isinstance(space.initial(), DetectorSpec) else space.override(**side)


def frame_of(name: str) -> Frame:
    """The frame of a space; of detectors, whose neck is searched too, with head and image size alone."""
    whole = isinstance(find_space(name).initial(), DetectorSpec)
    return Frame(num_classes=FRAME.num_classes, image_size=FRAME.image_size) if whole else FRAME


def block_family(spec: Backbone) -> str:
    """What the blocks of a drawing are from: the space of the same blocks, or their class."""
    kinds = {getattr(block, "kind", type(block).__name__.lower()) for block in spec.blocks}
    kind = next(iter(sorted(kinds - {"c2psa"})))
    return f"tinynas_{kind}" if kind in ("k1kx", "kxkx") else kind


def draw_band(
    band: float, hardware: str, tolerance: float, evaluations: int, randoms: int, seed: int, say: Callable[[str], None]
) -> Iterator[tuple[str, str, str, str, DetectorSpec, float]]:
    """(label, family, space, score, spec, milliseconds) of a band; what does not reach it is said and left out."""
    latency = Latencies(hardware, FRAME)

    def whole(spec: Backbone | DetectorSpec | None) -> DetectorSpec | None:
        return None if spec is None else FRAME.detector(spec)

    def cost(spec: Backbone | DetectorSpec) -> float:
        return latency(spec)

    def rows() -> Iterator[tuple[str, str, str, str, DetectorSpec | None]]:
        for name in DRAWINGS:
            drawing = hand_drawn()[name]
            fitted = fit_to_cost(drawing, cost, band, tolerance)
            yield f"scaled-{name}", "scaled", block_family(drawing), "", whole(fitted)
        for space, scores in SEARCHED.items():
            for score in scores:
                budget = {"latency_ms": band}
                settings = SearchSettings.of(
                    budget,
                    space_of(space),
                    scorer=score,
                    hardware=hardware,
                    frame=frame_of(space),
                    evaluations=evaluations,
                    seed=seed,
                )
                try:
                    best = run_search(settings).best.spec
                except UserError as error:
                    say(f"best-{score}-{space}: {error}")
                    continue
                yield f"best-{score}-{space}", "optimal", space, score, whole(best)
        for space in SEARCHED:
            rng = random.Random(f"{seed} {space} {band:g}")
            for number in range(randoms):
                tries = (fit_to_cost(space_of(space).sample(rng), cost, band, tolerance) for _ in range(60))
                yield (
                    f"random-{number}-{space}",
                    "random",
                    space,
                    "",
                    whole(next((t for t in tries if t is not None), None)),
                )

    for label, family, space, score, spec in rows():
        milliseconds = latency(spec) if spec is not None else float("nan")
        if spec is None or abs(milliseconds / band - 1) > 2 * tolerance:
            say(f"{label} does not reach {band:g} ms ({milliseconds:.2f})")
            continue
        yield label, family, space, score, spec, milliseconds


def draw_networks(
    bands: Sequence[float],
    hardware: str,
    tolerance: float = 0.015,
    evaluations: int = 20_000,
    randoms: int = 2,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> list[Network]:
    """All networks, each once, in the order in which they are trained: bands, spaces and families alternate."""
    table = Latencies(hardware, FRAME).table.digest
    lists = []
    for band in bands:
        drawn = list(draw_band(band, hardware, tolerance, evaluations, randoms, seed, say))
        say(f"{band:g} ms: {len(drawn)} networks")
        lists.append([(band, *row) for row in ordered(drawn)])
    found: dict[str, Network] = {}
    for place in range(max(map(len, lists))):
        for rows in lists:
            if place >= len(rows):
                continue
            band, label, family, space, score, spec, milliseconds = rows[place]
            key = digest(spec)
            shared = place < SHARED
            repeated = shared and sum(n.shared for n in found.values()) in REPEATED
            if key not in found:
                facts = (scores_of(spec), counts_of(spec))
                ms = round(milliseconds, 4)
                name = f"{label}@{band:g}"
                found[key] = Network(
                    name, family, space, score, band, key, spec, ms, hardware, table, shared, repeated, *facts
                )  # fmt: skip
    return list(found.values())


def ordered(drawn: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The band's list: the labels of FIRST, then one of each (family, space) after the other."""
    by_label = {row[0]: row for row in drawn}
    head = [by_label.pop(label) for label in FIRST if label in by_label]
    groups: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for row in by_label.values():
        groups.setdefault((row[1], row[2]), []).append(row)
    longest = max(map(len, groups.values()), default=0)
    return head + [rows[place] for place in range(longest) for rows in groups.values() if place < len(rows)]


def scores_of(spec: DetectorSpec) -> dict[str, float]:
    """Every score that needs no training and no torch, by name."""
    names = [
        scorer.name
        for scorer in SCORERS.values()
        if scorer.needs == "spec" and scorer.name not in ("random", "learned")
    ]
    return {name: float(f"{score_spec(spec, name):.9g}") for name in names}


def counts_of(spec: DetectorSpec) -> dict[str, float]:
    """Parameters, MACs, activations, layers and rho of the whole detector, branches merged."""
    return {name: float(f"{value:.9g}") for name, value in asdict(count_spec(spec)).items()}


def write_networks(networks: Sequence[Network], path: Path) -> Path:
    """Store the list, in its order."""
    return write_packed(path, [network.to_dict() for network in networks])


def read_networks(path: Path = PATH) -> list[Network]:
    """The stored list; UserError if it is missing or damaged."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run `python -m experiments.detector_bench plan` first")
    return [Network.from_dict(row) for row in read_packed(path)]
