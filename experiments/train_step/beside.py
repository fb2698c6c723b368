"""Images a second of a training on all cores: alone, and beside processes that want a core each.

    python experiments/train_step/beside.py [MODEL] [BATCH] [SIZE] [STEPS] [BUSY] -- NAME=VALUE,... [NAME=VALUE,...]...

Every group after `--` is an environment (`threads=1` is trainer.threads, `-` changes nothing) under which the real trainer
runs twice in a process of its own: alone, and beside BUSY processes that count. Loader workers prepare the drawn
pictures as always. Wall clock: nothing else should run meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WARM_UP = 2
KINDS = (str, int, int, int, int)
DEFAULTS = ("yolo11n", 16, 320, 12, 1)


def main(given: list[str], environments: list[str]) -> None:
    """Print a line for each environment."""
    texts = given + [str(value) for value in DEFAULTS[len(given) :]]
    busy = int(texts.pop())
    print(f"{'environment':50s}{'alone':>10s}{f'beside {busy}':>10s}  images/s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for text in environments:
            rates = [_rate(text, texts, folder, count) for count in (0, busy)]
            print(f"{text:50s}{rates[0]:10.1f}{rates[1]:10.1f}", flush=True)


def _rate(environment: str, texts: list[str], folder: str, busy: int) -> float:
    """Images a second of one training in a process of its own."""
    changes = dict(pair.split("=", 1) for pair in environment.split(",") if "=" in pair)
    threads = changes.pop("threads", "")
    cleared = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        line = [sys.executable, __file__, "--train", folder, threads, *texts]
        done = subprocess.run(line, env=cleared | changes, capture_output=True, text=True, check=True)
    finally:
        for other in others:
            other.kill()
            other.wait()
    return float(done.stdout.split()[-1])


def train(folder: str, threads: str, model: str, batch: int, size: int, steps: int) -> None:
    """Train `steps` steps and print the images a second of those after the first two."""
    from nas.augment.pipeline import Augmentation
    from nas.data.coco import read_coco
    from nas.data.shapes import draw_shapes
    from nas.training.hooks import Hook, Step, TrainingView
    from nas.training.options import ScheduleOptions, TrainerOptions
    from nas.training.run import run_training
    from nas.training.task import TrainingTask

    root = Path(folder) / "shapes"
    if not root.exists():
        draw_shapes(root, counts={"train": batch * steps}, size=size)
    data, _ = read_coco(root / "annotations/train.json", root / "images/train", "shapes", "train")
    options = TrainerOptions(epochs=1, batch_size=batch, workers=2, cache="ram", precision="fp32")
    options.schedule = ScheduleOptions(warmup_epochs=0, tail_epochs=0)
    options.threads = int(threads) if threads else None
    ends: list[float] = []

    class Ends(Hook):
        """When each step ended."""

        def on_step_end(self, view: TrainingView, step: Step) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as run:
        task = TrainingTask(model, data, None, options, Augmentation(closing_epochs=0), image_size=size, device="cpu")
        run_training(task, Path(run) / "run", progress=False, hooks=[Ends()])
    print(batch * (steps - WARM_UP) / (ends[-1] - ends[WARM_UP - 1]))


if __name__ == "__main__":
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(__doc__)
    elif words[:1] == ["--train"]:
        folder, threads, *rest = words[1:]
        train(folder, threads, *(kind(text) for kind, text in zip(KINDS, rest, strict=False)))  # type: ignore[arg-type]
    else:
        cut = words.index("--") if "--" in words else len(words)
        main(words[:cut], words[cut + 1 :] or ["-"])
