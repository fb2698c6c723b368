"""BCCD from scratch on two CPU cores: three seeds of 23 minutes; and distillation against none at equal time.

    python experiments/bccd/run.py train [MINUTES]        seeds 0, 1, 2 -> outputs/bccd/train/seedN, train.json, train.png
    python experiments/bccd/run.py distill [MINUTES]      a wider teacher, then seeds 0, 1, 2 with and without it
    python experiments/bccd/run.py yolo11n                YOLO11n with its own recipe in this trainer, 100 epochs, seed 0
    python experiments/bccd/run.py int8                   exports of the first trained seed: AP and milliseconds of each file
    python experiments/bccd/run.py gpu [EPOCHS]           DAMO-YOLO-T and -S at 640 on BCCD and coco_mini, T also distilled from S

Every run is one `python -m nas.train` command, printed before it starts; finished runs are not repeated and interrupted
ones go on. Nothing else should run on the machine: the budget is wall time.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from nas.data.sources import DataConfig, data_root
from nas.measure import cpu_facts
from nas.training.hooks import read_epochs
from nas.training.state import resumable

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RECIPE = [
    "data=bccd",
    "data.check=labels",
    "image_size=320",
    "trainer=cpu_small",
    "trainer.precision=bf16",
    "trainer.epochs=250",
    "trainer.schedule.tail_epochs=10",
    "augmentation=light",
    "augmentation.flip_vertical=0.5",
    "augmentation.closing_epochs=20",
]
#: YOLO11's own recipe at the size and length of the peer's run; its warm-up lasts 3 epochs, but at least 100 steps.
YOLO_RECIPE = [
    "data=bccd",
    "data.check=labels",
    "image_size=320",
    "trainer=yolo",
    "trainer.precision=bf16",
    "trainer.epochs=100",
    "trainer.batch_size=16",
    "trainer.workers=0",
    "trainer.cache=ram",
    "trainer.schedule.shape=cosine",
    "trainer.schedule.warmup_epochs=7.7",
    "augmentation=yolo",
]
SEEDS = (0, 1, 2)


def train(folder: Path, *overrides: str, recipe: list[str] = RECIPE) -> dict:
    """Run one training unless its scores are there; the scores on the test split, or the last on the validation split."""
    if not (folder / "done").is_file():
        arguments = [*recipe, *overrides, f"hydra.run.dir={folder}"]
        if resumable(folder):
            arguments = [f"resume={folder}"]
        call("nas.train", *arguments)
        (folder / "done").touch()
    if (folder / "test.json").is_file():
        return json.loads((folder / "test.json").read_text())
    return max(read_epochs(folder), key=lambda row: row["ap"])


def summary(runs: dict[str, list[dict]]) -> dict:
    """Mean, lowest and highest AP and AP50 over the seeds of each kind."""
    table = {}
    for kind, scores in runs.items():
        table[kind] = {
            name: {
                "mean": round(statistics.fmean(s[name] for s in scores), 4),
                "deviation": round(statistics.stdev(s[name] for s in scores), 4),
                "seeds": [round(s[name], 4) for s in scores],
            }
            for name in ("ap", "ap50", "ap75")
        }
    return table


def curves(folders: dict[str, Path], target: Path) -> None:
    """Validation AP and AP50 over the epochs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
    for label, folder in folders.items():
        rows = read_epochs(folder)
        for axis, name in zip(axes, ("ap", "ap50"), strict=True):
            axis.plot([row["epoch"] for row in rows], [row[name] for row in rows], label=label)
            axis.set(xlabel="epoch", ylabel=f"val {name}")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(target, dpi=100)
    plt.close(figure)


def write(name: str, table: dict, folders: dict[str, Path]) -> None:
    """Results beside this file, as JSON and PNG."""
    curves(folders, HERE / f"{name}.png")
    save(name, table)


def save(name: str, table: dict) -> None:
    """Results beside this file, with the machine and the commit, and on the screen."""
    text = json.dumps(table | {"machine": cpu_facts()}, indent=1)
    (HERE / f"{name}.json").write_text(text + "\n")
    print(text)


def run_train(minutes: float) -> None:
    """The searched detector, three seeds."""
    base = ROOT / "outputs/bccd/train"
    folders = {f"seed {seed}": base / f"seed{seed}" for seed in SEEDS}
    model = f"model={HERE / 'model.yaml'}"
    scores = [
        train(folder, model, f"seed={seed}", f"trainer.minutes={minutes}")
        for seed, folder in zip(SEEDS, folders.values(), strict=True)
    ]
    write("train", summary({"searched detector": scores}), folders)


def run_yolo11n() -> None:
    """The peer's detector and recipe in this trainer, without a limit of time."""
    folder = ROOT / "outputs/bccd/yolo11n"
    score = train(folder, "model=yolo11n", "seed=0", recipe=YOLO_RECIPE)
    save("yolo11n", {name: round(score[name], 4) for name in ("ap", "ap50", "ap75")} | {"epochs": 100, "seed": 0})


def run_distill(minutes: float) -> None:
    """The searched detector alone, from a wider teacher of twice the time, and from its own long training, if that is
    there: every student in the same time."""
    base = ROOT / "outputs/bccd"
    wide, long = base / "distill/teacher", base / "train/seed0"
    teachers = {
        "wide teacher": train(wide, f"model={HERE / 'teacher.yaml'}", "seed=0", f"trainer.minutes={2 * minutes}")
    }
    kinds: dict[str, tuple[str, list[str]]] = {
        "alone": ("alone", []),
        "wide teacher": ("distilled", [f"distill.teacher={wide / 'best.safetensors'}"]),
    }
    if (long / "done").is_file():
        kinds["long teacher"] = ("long", [f"distill.teacher={long / 'best.safetensors'}"])
        teachers["long teacher"] = train(long)
    runs: dict[str, list[dict]] = {}
    folders = {}
    for kind, (place, extra) in kinds.items():
        for seed in SEEDS:
            folders[f"{kind}, seed {seed}"] = folder = base / f"distill/{place}{seed}"
            model = f"model={HERE / 'model.yaml'}"
            runs.setdefault(kind, []).append(train(folder, model, f"seed={seed}", f"trainer.minutes={minutes}", *extra))
    scores = {f"the {name} itself": {"ap": round(score["ap"], 4)} for name, score in teachers.items()}
    write("distill", {"minutes": minutes} | summary(runs) | scores, folders)


def run_int8() -> None:
    """The first seed's detector in two runtimes and two precisions: test AP and milliseconds of the same file."""
    base = ROOT / "outputs/bccd"
    model, root = (
        base / "train/seed0/best.safetensors",
        data_root(DataConfig("bccd", root=os.environ.get("MAENAS_BCCD"))),
    )
    images = json.loads((root / "annotations/train.json").read_text())["images"]
    calibration = base / "int8/calibration"
    calibration.mkdir(parents=True, exist_ok=True)
    for image in images:
        shutil.copy(root / "images" / image["file_name"], calibration)
    files = {"torch float32": model}
    for runtime, suffix in (("onnx", "onnx"), ("openvino", "xml")):
        for precision in ("fp32", "int8"):
            path = files[f"{runtime} {precision}"] = base / f"int8/{runtime}_{precision}.{suffix}"
            chosen = [f"format={runtime}", f"precision={precision}", f"output={path}", f"images={calibration}"]
            call("nas.export", f"model={model}", *chosen)
    table: dict[str, dict] = {}
    for name, path in files.items():
        folder = base / "int8" / name.replace(" ", "_")
        call("nas.evaluate", f"model={path}", "data=bccd", "split=test", "plots=false", f"hydra.run.dir={folder}")
        scores = json.loads((folder / "scores.json").read_text())
        table[name] = {key: round(scores[key], 4) for key in ("ap", "ap50", "ap75")}
        table[name]["milliseconds"] = round(scores["milliseconds"]["batch1"], 2)
    save("int8", table)


def call(module: str, *arguments: str) -> None:
    """Print and run one command of the project."""
    print(" ".join(["python", "-m", module, *arguments]), flush=True)
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=True)


def run_gpu(epochs: float) -> None:
    """Waits for a GPU: the official recipe at 640 pixels, batch 64, on small data."""
    import torch

    if not torch.cuda.is_available():
        sys.exit("these runs need a GPU: none is found")
    recipe = [
        "trainer=damo",
        "trainer.batch_size=64",
        "trainer.cache=ram",
        "image_size=640",
        f"trainer.epochs={epochs:g}",
    ]
    table: dict[str, dict] = {}
    for data in ("bccd", "coco_mini"):
        base = ROOT / "outputs/bccd/gpu" / data
        teacher = f"distill.teacher={base / 'damo-yolo-s/best.safetensors'}"
        for name, model, extra in (
            ("damo-yolo-s", "damo-yolo-s", []),
            ("damo-yolo-t", "damo-yolo-t", ["augmentation=damo_t"]),
            ("damo-yolo-t distilled", "damo-yolo-t", ["augmentation=damo_t", teacher]),
        ):
            folder = base / name.replace(" ", "-")
            score = train(folder, f"model={model}", f"data={data}", *extra, recipe=recipe)
            table[f"{data}, {name}"] = {key: round(score[key], 4) for key in ("ap", "ap50", "ap75")}
            (HERE / "gpu.json").write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    what, minutes = sys.argv[1] if len(sys.argv) > 1 else "", float(sys.argv[2]) if len(sys.argv) > 2 else None
    if what == "train":
        run_train(minutes or 23)
    elif what == "distill":
        run_distill(minutes or 5)
    elif what == "yolo11n":
        run_yolo11n()
    elif what == "int8":
        run_int8()
    elif what == "gpu":
        run_gpu(minutes or 300)
    elif what in ("-h", "--help"):
        print(__doc__)
    else:
        sys.exit(__doc__)
