"""python -m experiments.backbones: scale the hand-drawn backbones to the latency of the TinyNAS one; write their files.

The frame (neck, head, image size) and the target are DAMO-YOLO-T's. Widths of YOLOv9-T's and YOLO11n's backbones are
multiplied by one factor each (and moved by at most 8 channels), depths stay as drawn; chosen is what comes nearest to
the target on the T4. Then `python -m experiments.run backbones scale=cpu320` trains all three alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from experiments.command import options_of, run
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.files import save_spec
from nas.lowering import operations
from nas.spec import C2PSA, GELAN, Backbone, Block, C3k2, DetectorSpec, attention_heads
from search_spaces import load_published
from search_spaces.base import round_to

FOLDER = Path(__file__).resolve().parent
HARDWARE = "t4_tensorrt_fp16"
REFERENCE = "damo-yolo-t"
#: File -> the published backbone that is scaled.
DRAWN = {"gelan": "yolov9-t-backbone", "c3k2": "yolo11-n-backbone"}
FACTORS = tuple(step / 100 for step in range(60, 201))
#: How far from the target a backbone may end, as a fraction of it.
TOLERANCE = 0.02


def whole_heads(width: int) -> int:
    """The nearest width, from below, whose attention heads are whole."""
    while (width // 2) % attention_heads(width // 2):
        width -= 16
    return width


def scaled(backbone: Backbone, factor: float, steps: Sequence[int] = ()) -> Backbone:
    """The same structure with every width multiplied, on multiples of 8; `steps` moves each stage's width by so many.

    The other widths of a stage keep their published ratios to it.
    """
    blocks: list[Block] = []
    for index, block in enumerate(backbone.blocks):
        if isinstance(block, C2PSA):
            blocks.append(replace(block, out=blocks[-1].out))
            continue
        out = round_to(block.out * factor) + 8 * (steps[index] if index < len(steps) else 0)
        follower = backbone.blocks[index + 1] if index + 1 < len(backbone.blocks) else None
        if isinstance(follower, C2PSA):
            out = whole_heads(out // 16 * 16)
        if isinstance(block, GELAN):
            entry, hidden = (round_to(out * width / block.out) for width in (block.entry, block.hidden))
            inner = round_to(hidden * block.inner / block.hidden, 4)
            blocks.append(replace(block, out=out, entry=entry, hidden=hidden, inner=inner))
        elif isinstance(block, C3k2):
            entry, hidden = (round_to(out * width / block.out) for width in (block.entry, block.hidden))
            blocks.append(replace(block, out=out, entry=entry, hidden=hidden))
        else:
            raise UserError(f"a {type(block).__name__} block is not scaled here")
    return replace(
        backbone, stem=replace(backbone.stem, out=round_to(backbone.stem.out * factor)), blocks=tuple(blocks)
    )


def reference() -> DetectorSpec:
    """The detector whose latency is the target and whose neck and head all share."""
    spec = load_published(REFERENCE)
    assert isinstance(spec, DetectorSpec)
    return spec


def milliseconds(backbone: Backbone, frame: DetectorSpec, table: LatencyTable) -> float:
    """Predicted latency of the backbone inside the frame."""
    return float(table.total(operations(replace(frame, backbone=backbone), "folded")))


def nearest(backbone: Backbone, frame: DetectorSpec, target: float, table: LatencyTable) -> tuple[float, Backbone]:
    """The factor, and the scaled backbone, that come nearest to the target; raises UserError beyond the tolerance.

    Around the best factors each stage may be one step of 8 channels narrower or wider: single factors move many kernels
    over the edge of a tile at once.
    """

    def distance(spec: Backbone) -> float:
        return abs(milliseconds(spec, frame, table) - target)

    best = sorted(FACTORS, key=lambda factor: (distance(scaled(backbone, factor)), factor))[:6]
    stages = sum(not isinstance(block, C2PSA) for block in backbone.blocks)
    moves = sorted(product((-1, 0, 1), repeat=stages), key=lambda steps: (sum(map(abs, steps)), steps))
    choices = [(factor, scaled(backbone, factor, steps)) for steps in moves for factor in best]
    factor, found = min(choices, key=lambda choice: round(distance(choice[1]) / target, 3))
    if distance(found) > TOLERANCE * target:
        raise UserError(f"no scaled backbone comes within {TOLERANCE:.0%} of {target:.3f} ms")
    return factor, found


def write_backbones(folder: Path = FOLDER) -> list[str]:
    """Write one spec file a backbone; returns a line on each."""
    table, frame = LatencyTable.load(HARDWARE), reference()
    target = milliseconds(frame.backbone, frame, table)
    lines = [f"tinynas: {REFERENCE} as published, {target:.3f} ms"]
    save_spec(folder / "tinynas.yaml", frame.backbone, name="tinynas", provenance={"backbone of": REFERENCE})
    for name, drawn in DRAWN.items():
        original = load_published(drawn)
        assert isinstance(original, Backbone)
        factor, backbone = nearest(original, frame, target, table)
        found = milliseconds(backbone, frame, table)
        provenance = {
            "scaled": drawn,
            "factor": factor,
            "frame": REFERENCE,
            "hardware": HARDWARE,
            "table": table.digest,
        }
        metrics = {"latency_ms": round(found, 4), "target_ms": round(target, 4)}
        save_spec(folder / f"{name}.yaml", backbone, name=name, provenance=provenance, metrics=metrics)
        lines.append(f"{name}: {drawn} x {factor:g}, {found:.3f} ms ({100 * (found / target - 1):+.2f} %)")
    return lines


def main(words: list[str]) -> None:
    """Write the files and print their lines."""
    options_of(words, {})
    print("\n".join(write_backbones()))


if __name__ == "__main__":
    run(main)
