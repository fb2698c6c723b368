"""python -m experiments.predict_speed source=PICTURES [model=FILE.onnx] [rounds=7] [pictures=24] [save=false]

A whole prediction run (reading, resizing, network, NMS, drawing, writing) against the bare runtime on the same graph:
median milliseconds a picture, in rounds that alternate. Without a model, DAMO-YOLO-S is exported at 640 pixels.
save=true: also into result.json.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments.command import options_of, run
from experiments.evidence import save_result
from nas.cost.table_file import cpu_name
from nas.deploy.runtime import Runtime
from nas.detector import Detector
from nas.errors import UserError
from nas.inference import PredictCommand
from nas.inference.pictures import open_pictures
from nas.inference.run import predict_into
from nas.measure import commit


def measure(model: str, source: Path, scratch: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds a picture of each round: the bare runtime, the whole run."""
    detector = Detector.load(model)
    count, side = len(list(source.iterdir())), detector.image_size
    network = detector.network
    if not isinstance(network, Runtime):
        raise UserError(f"{model} is no deployed file: give an .onnx or an OpenVINO .xml")
    images = np.random.default_rng(0).uniform(0, 255, (1, 3, side, side)).astype(np.float32)
    for _ in range(3):
        network.run(images)
    bare, whole = [], []
    for number in range(rounds):
        start = time.perf_counter()
        for _ in range(count):
            network.run(images)
        bare.append(1e3 * (time.perf_counter() - start) / count)
        start = time.perf_counter()
        predict_into(detector, PredictCommand(model=model, source=str(source)), scratch / str(number))
        whole.append(1e3 * (time.perf_counter() - start) / count)
        print(f"round {number}: bare {bare[-1]:.1f} ms, whole {whole[-1]:.1f} ms a picture", flush=True)
    return bare, whole


def main(words: list[str]) -> None:
    """Measure and print; UserError without pictures."""
    given = options_of(words, {"source": "", "model": "", "rounds": 7, "pictures": 24, "save": False})
    if not given["source"]:
        raise UserError("give a folder of pictures: source=PATH")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        source = scratch / "source"
        source.mkdir()
        good = (picture.name for picture in open_pictures(given["source"]) if picture.pixels is not None)
        for name, _ in zip(good, range(given["pictures"]), strict=False):
            shutil.copy(Path(given["source"]) / name, source)
        model = given["model"] or str(scratch / "damo-yolo-s.onnx")
        if not given["model"]:
            export = ["-m", "nas.export", "model=damo-yolo-s", f"images={source}", f"output={model}", "check_images=2"]
            subprocess.run([sys.executable, *export], check=True)
        bare, whole = (statistics.median(values) for values in measure(model, source, scratch, given["rounds"]))
    print(f"medians: bare {bare:.1f} ms, whole {whole:.1f} ms: {whole / bare:.3f} x; {cpu_name()}, {commit()[:7]}")
    if given["save"]:
        case = given["model"] or "damo-yolo-s, 640 pixels, ONNX Runtime"
        numbers = {"bare_ms": round(bare, 1), "whole_ms": round(whole, 1), "ratio": round(whole / bare, 3)}
        print(save_result(Path(__file__).with_name("result.json"), case, numbers | {"rounds": given["rounds"]}))


if __name__ == "__main__":
    run(main)
