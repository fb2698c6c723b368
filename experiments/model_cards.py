"""python -m experiments.model_cards FOLDER [measure=true] [hardware=t4_tensorrt_fp16] [output=CARDS]: cards of trained models.

FOLDER is a run of `python -m nas.train` or of `experiments.run`, or holds many. MODEL_CARD.md and curves.png are written
beside every best.safetensors, from what the run left there; seeds of one row share a card in the folder of the row.
`output` collects the cards in a folder instead; `measure=true` times the network on this CPU as well.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.command import run, split_words
from experiments.data import keep_drawn_out
from experiments.evidence import read_record
from experiments.result_plots import interval
from experiments.tables import load_table
from nas.errors import UserError
from nas.files import config_folder, dump_yaml, read_rows, read_text, write_atomic
from nas.report.canvas import ACCENT, WARM, canvas, label, save_png
from nas.training.hooks import read_epochs

CARD, CURVES = "MODEL_CARD.md", "curves.png"
#: Settings of `nas.train` that a card repeats; the rest is in the run's config.yaml.
SHOWN = ("augmentation", "trainer", "distill")


def write_cards(
    folder: Path, measure: bool = False, hardware: str = "t4_tensorrt_fp16", output: Path | None = None
) -> list[Path]:
    """Cards of all finished runs below `folder`; returns their paths. Raises UserError if there is no checkpoint."""
    runs: dict[Path, list[Path]] = defaultdict(list)
    for path in sorted({path.parent for path in folder.rglob("best.safetensors")}):
        seed_of_a_row = path.name.startswith("seed") and (path / "result.json").is_file()
        runs[path.parent if seed_of_a_row else path].append(path)
    if not runs:
        raise UserError(f"{folder} holds no best.safetensors: give the folder of a training")
    return [write_card(place, seeds, measure, hardware, output) for place, seeds in runs.items()]


def write_card(place: Path, runs: Sequence[Path], measure: bool, hardware: str, output: Path | None) -> Path:
    """The card of one training with one or more seeds, in `place` or `output`; the network's facts are those of the first."""
    from nas.models.checkpoint import load_checkpoint, read_header

    path = runs[0] / "best.safetensors"
    headers, records = (
        [read_header(folder / "best.safetensors") for folder in runs],
        [run_record(folder) for folder in runs],
    )
    record, model = records[0], load_checkpoint(path)
    header: dict[str, Any] = headers[0]
    name = card_name(record["scale"], record["table"], record["row"]) if "table" in record else place.name
    card = place / CARD if output is None else output / f"{name}.md"
    keep_drawn_out(str(record.get("data")), card)
    curves = place / CURVES if output is None else output / f"{name}.png"
    draw_curves(runs, curves)
    lines = [f"# {title(header, record)}", ""]
    lines += _table(dict(_facts(path, header, model, hardware)) | (_measured(model) if measure else {}))
    lines += ["## Accuracy", ""]
    lines += _table(_accuracy(runs[0], header, record)) if len(runs) == 1 else _seeds(runs, headers, records)
    lines += [f"![loss and validation AP]({curves.name})", "", "## How it was trained", "", *_table(_training(records))]
    if record.get("settings"):
        lines += ["```yaml", dump_yaml(record["settings"]).rstrip(), "```", ""]
    lines += [
        "Classes: " + ", ".join(header["classes"]) + ".",
        "",
        "Predicted milliseconds come from a latency table, include box decoding and not NMS, and are as good as the table.",
        "The limits of short trainings on small data are those of docs/limits.md. `nas.Detector.load` needs a checkpoint alone.",
        "",
    ]
    return write_atomic(card, "\n".join(lines))


def card_name(scale: str, table: str, row: str) -> str:
    """What the card of a row is called among others."""
    return f"{scale}-{table}-{load_table(table).row(row).key}"


def title(header: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """What the model is, in a few words."""
    name = (
        header["architecture"].get("baseline") or record.get("row") or Path(str(record.get("model", "detector"))).stem
    )
    return f"{name}, {header['image_size']} pixels, on {record.get('data', 'unknown data')}"


def run_record(run: Path) -> dict[str, Any]:
    """Model, data, seed, commit and settings of a run, from result.json (experiments) or config.yaml (nas.train)."""
    if (run / "result.json").is_file():
        from experiments.scales import scale_document

        result = read_record(run / "result.json")
        composed = run / ".hydra/config.yaml"
        scale = read_record(composed)["scale"] if composed.is_file() else scale_document(result["scale"])
        row = load_table(result["table"]).row(result["row"])
        parts = {name: value for name in ("backbone", "teacher") if (value := getattr(row, name))}
        settings = {
            "row": {"model": row.model, **parts, **row.changes, **row.training, **row.at.get(result["scale"], {})},
            "scale": {"narrow": scale.get("narrow", 1.0), **scale["trainer"]},
            "augmentation": scale.get("augmentation", {}),
        }
        return result | {"settings": settings}
    if (run / "config.yaml").is_file():
        config = read_record(run / "config.yaml")
        settings = {group: config[group] for group in SHOWN if group in config}
        record = {"model": config["model"], "data": config["data"]["name"], "seed": config["seed"]}
        teacher = config.get("distill", {}).get("teacher")
        return record | ({"teacher": teacher} if teacher else {}) | {"settings": settings}
    return {}


def draw_curves(runs: Sequence[Path], path: Path) -> Path:
    """Losses (smoothed) and AP of every validation, a line a run."""
    figure, ((losses, scores),) = canvas(1, 2, 9, 3)
    for folder in runs:
        steps = read_rows(folder / "steps.csv")
        totals = [float(row["total"]) for row in steps]
        window = max(1, len(steps) // 40)
        smooth = [sum(totals[max(0, i - window) : i + 1]) / min(i + 1, window + 1) for i in range(len(totals))]
        losses.plot([int(row["step"]) for row in steps], smooth, color=ACCENT, lw=1.0, alpha=0.8)
        epochs = read_epochs(folder)
        for name, colour in (("ap", ACCENT), ("ap50", WARM)):
            points = [(row["epoch"], row[name]) for row in epochs if name in row]
            if points:
                once = name if folder == runs[0] else None
                scores.plot(*zip(*points, strict=True), ".-", color=colour, label=once, lw=1.0, alpha=0.8)
    label(losses, "training", "step", "loss")
    if scores.lines:
        scores.legend(fontsize=8, frameon=False)
    label(scores, "validation, averaged weights", "epoch", "AP")
    return save_png(figure, path)


def _facts(path: Path, header: Mapping[str, Any], model: Any, hardware: str) -> Iterator[tuple[str, str]]:
    from nas.api import count, latency
    from nas.commands.search_files import shape_of

    spec = getattr(model, "spec", None)
    counts = count(spec if spec is not None else model, image_size=header["image_size"])
    if spec is not None:
        yield "backbone", shape_of(spec)
    yield "parameters", f"{counts.params / 1e6:.2f} M"
    yield "FLOPs", f"{counts.flops / 1e9:.2f} G at {header['image_size']} pixels"
    for side in dict.fromkeys((header["image_size"], 640)):
        yield (
            f"predicted at {side} pixels",
            str(latency(spec if spec is not None else model, hardware, image_size=side)),
        )
    yield (
        "file",
        f"{path.name}, {path.stat().st_size / 1e6:.1f} MB, sha256 {_sha256(path)}",
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _measured(model: Any) -> dict[str, str]:
    """Milliseconds of the deployed form on one thread of this CPU, batch 1."""
    import copy

    import torch

    from nas.cost.table_file import cpu_name
    from nas.inference.evaluator import time_model

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = time_model(copy.deepcopy(model).fuse().eval(), model.image_size)
    finally:
        torch.set_num_threads(threads)
    numbers = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
    return {"measured, torch FP32, one thread": f"{numbers} ms on {cpu_name()}"}


def _accuracy(run: Path, header: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, str]:
    """Validation of the chosen epoch, and the test split if it was scored."""
    extra = header.get("extra", {})
    found = {
        f"validation {name}": f"{value:.4f}"
        for name, value in extra.get("validation", {}).items()
        if name in ("ap", "ap50", "ap75")
    }
    if "epoch" in extra:
        found["chosen"] = f"epoch {extra['epoch']}, step {extra['step']}, by validation AP"
    test = read_record(run / "test.json") if (run / "test.json").is_file() else record
    return found | {f"test {name}": f"{float(test[name]):.4f}" for name in ("ap", "ap50", "ap75") if name in test}


def _seeds(
    runs: Sequence[Path], headers: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]]
) -> list[str]:
    """A line a seed, and the means of the test split with their 95 % intervals."""
    lines = ["| seed | validation AP | chosen epoch | test AP | test AP50 | sha256 |", "|---|---|---|---|---|---|"]
    for folder, header, record in zip(runs, headers, records, strict=True):
        extra = header.get("extra", {})
        lines.append(
            f"| {record['seed']} | {extra.get('validation', {}).get('ap', math.nan):.4f} | {extra.get('epoch', '')} "
            f"| {float(record['ap']):.4f} | {float(record['ap50']):.4f} | {_sha256(folder / 'best.safetensors')} |"
        )
    means = (interval([float(record[name]) for record in records]) for name in ("ap", "ap50"))
    cells = " | ".join(f"{mean:.4f} ± {half:.4f}" for mean, half in means)
    return [*lines, f"| mean, 95 % interval | | | {cells} | |", ""]


def _training(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the runs had in common, and where they differ all values."""
    record = records[0]
    names = (
        "table",
        "row",
        "scale",
        "model",
        "teacher",
        "data",
        "seed",
        "steps",
        "train_seconds",
        "device",
        "torch",
        "recipe",
        "commit",
        "date",
    )
    facts = {
        name.replace("_", " "): ", ".join(dict.fromkeys(str(each[name]) for each in records))
        for name in names
        if name in record
    }
    about = Path(config_folder()) / "data" / f"{record.get('data')}.yaml"
    if about.is_file():
        facts["data"] = read_text(about).splitlines()[0].lstrip("# ")
    return facts


def _table(facts: Mapping[str, str]) -> list[str]:
    if not facts:
        return ["Nothing is recorded.", ""]
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items()), ""]


def main(words: list[str]) -> None:
    """Write the cards and print their paths; UserError for anything unknown."""
    folders, options = split_words(words, {"measure": False, "hardware": "t4_tensorrt_fp16", "output": ""})
    if len(folders) != 1:
        raise UserError(
            "usage: python -m experiments.model_cards FOLDER [measure=true|false] [hardware=TABLE] [output=CARDS]"
        )
    output = Path(options["output"]) if options["output"] else None
    for path in write_cards(Path(folders[0]), options["measure"], options["hardware"], output):
        print(path)


if __name__ == "__main__":
    run(main)
