"""Images per second of our training loader, and of a peer's beside it: mosaic, affine, mixup and flip at 640 from JPEG.

    python experiments/loader_speed/measure.py [--data bccd] [--peer DIR] [--cache none|ram] [--rounds 5]

--peer: a virtual environment with the Ultralytics package; its loader runs in its own process and interpreter, and
nothing of it is imported here. Rounds alternate between the loaders, so that both see the same machine; each is the steady rate
over `--images` images after a warm-up. Prints JSON lines and, last, the medians and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from nas.augment.pipeline import Augmentation
from nas.config import compose_config
from nas.data.actions import DataCommand, convert_splits
from nas.data.dataset import DetectionData
from nas.data.loader import build_loader
from nas.data.sources import load_splits

HERE = Path(__file__).resolve().parent


def cpu_seconds() -> float:
    """Processor time of this process and its workers so far."""
    me = os.getpid()
    pids = [me, *map(int, Path(f"/proc/{me}/task/{me}/children").read_text().split())]
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def our_rate(data: DetectionData, recipe: Augmentation, args: argparse.Namespace) -> tuple[float, float]:
    """Images per second, and milliseconds of processor time an image."""
    loader = build_loader(
        data, args.batch, args.size, workers=args.workers, augmentation=recipe, cache=args.cache, endless=True
    )
    done, started, used = 0, 0.0, 0.0
    for _ in loader:  # the first epoch starts the workers
        pass
    while True:
        for batch in loader:
            if not started:
                started, used = time.perf_counter(), cpu_seconds()
                continue
            done += len(batch.images)
            if done >= args.images:
                return done / (time.perf_counter() - started), 1000 * (cpu_seconds() - used) / done


def peer_rate(folder: Path, args: argparse.Namespace) -> tuple[float, float]:
    """The same of the peer's loader over the same images in YOLO format."""
    numbers = [str(v) for v in (folder, args.batch, args.size, args.workers, args.images, args.cache)]
    code = (HERE / "peer_loader.txt").read_text()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"YOLO_OFFLINE": "1"}
    ran = subprocess.run(
        [f"{args.peer}/bin/python", "-c", code, *numbers], capture_output=True, text=True, env=environment, cwd="/"
    )
    if ran.returncode:
        sys.exit(f"the peer's loader failed: {ran.stderr.strip().splitlines()[-1]}")
    rate, processor = ran.stdout.strip().splitlines()[-1].split()
    return float(rate), float(processor)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="bccd")
    parser.add_argument("--peer", default="")
    parser.add_argument("--cache", default="none")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=1600)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    config = compose_config("data", DataCommand, {"data": args.data}).data
    splits, _ = load_splits(config, ("train",))
    boxes = tuple(replace(record, polygons=()) for record in splits["train"].records)  # the peer gets boxes alone too
    splits["train"] = replace(splits["train"], records=boxes)
    same = Augmentation(sada=False, scale=(0.1, 1.9), closing_epochs=0)
    loaders = {"ours": lambda: our_rate(splits["train"], same, args)}
    with tempfile.TemporaryDirectory() as folder:
        if args.peer:
            convert_splits(splits, "yolo", Path(folder))
            loaders["peer"] = lambda: peer_rate(Path(folder), args)
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in loaders}
        for number in range(args.rounds):
            for name, rate in loaders.items():
                rates[name].append(rate())
                print(json.dumps({"round": number, "loader": name} | _named(rates[name][-1])), flush=True)
    medians = {n: _named(tuple(map(statistics.median, zip(*values, strict=True)))) for n, values in rates.items()}
    result: dict[str, object] = {key: getattr(args, key) for key in ("data", "cache", "batch", "size", "workers")}
    result["medians"] = medians
    if args.peer:
        ours, peer = medians["ours"], medians["peer"]
        result["times_the_peer"] = {
            "images_per_second": round(ours["images_per_second"] / peer["images_per_second"], 2),
            "processor_time": round(peer["processor_ms"] / ours["processor_ms"], 2),
        }
    print(json.dumps(result))


def _named(numbers: tuple[float, ...]) -> dict[str, float]:
    return {"images_per_second": round(numbers[0], 1), "processor_ms": round(numbers[1], 2)}


if __name__ == "__main__":
    main()
