"""python -m experiments.backbones_searched: search each space under DAMO-YOLO-T's latency; write the winners' files."""

from __future__ import annotations

from pathlib import Path

from experiments.backbones.__main__ import HARDWARE, REFERENCE, milliseconds, reference
from experiments.command import options_of, run
from nas.api import find
from nas.cost.latency import LatencyTable
from nas.files import save_spec
from nas.frame import Frame

FOLDER = Path(__file__).resolve().parent
SPACES = ("tinynas_k1kx", "gelan", "c3k2")
EVALUATIONS = 40_000


def write_searched(folder: Path = FOLDER, evaluations: int = EVALUATIONS) -> list[str]:
    """Search every space, write its best backbone; returns a line on each."""
    table, shared = LatencyTable.load(HARDWARE), reference()
    target = milliseconds(shared.backbone, shared, table)
    neck = shared.neck
    frame = Frame(neck.depth, neck.out, neck.hidden_ratio, neck.activation)
    lines = []
    for space in SPACES:
        best = find({"latency_ms": target}, space, frame=frame, evaluations=evaluations, seed=0).best
        metrics = {key: round(best.metrics[key], 4) for key in ("score", "latency_ms", "flops_g", "params_m")}
        provenance = {
            "space": space,
            "scorer": "mae",
            "evaluations": evaluations,
            "seed": 0,
            "frame": REFERENCE,
            "hardware": HARDWARE,
            "table": table.digest,
        }
        backbone = getattr(best.spec, "backbone", best.spec)
        save_spec(folder / f"{space}.yaml", backbone, name=f"{space}-searched", provenance=provenance, metrics=metrics)
        lines.append(f"{space}: {metrics}")
    return lines


def main(words: list[str]) -> None:
    """Search, write the files and print their lines."""
    print("\n".join(write_searched(**options_of(words, {"evaluations": EVALUATIONS}))))


if __name__ == "__main__":
    run(main)
