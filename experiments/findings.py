"""What the committed evidence says: each finding is read from files that a command of this project wrote, and put in words."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.evidence import read_record
from experiments.packed import read_packed
from experiments.result_plots import interval
from experiments.selection.contestants import read_contestants
from experiments.selection.report import lead
from experiments.selection.standings import selected_and_drawn, standings

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Result:
    """One line: what was asked, what came out, what to compare it with, and where it comes from.

    evidence: files, relative to the repository; command: what writes them; conditions: machine, date and commit.
    """

    question: str
    answer: str
    compared: str
    evidence: tuple[str, ...]
    command: str
    conditions: str = ""


def results() -> list[Result]:
    """All results, the most telling first."""
    return [
        selections(),
        score_truth(),
        equal_milliseconds(),
        backbones(),
        blood(),
        optima(),
        milliseconds(),
        int8(),
        assigners(),
        families(),
        proxies(),
        t4(),
    ]


def selections() -> Result:
    """What nas.select chose against what people drew, at equal measured milliseconds."""
    folder = "experiments/selection"
    people = read_contestants(ROOT / folder / "contestants.jsonl.gz")
    rows = read_packed(ROOT / folder / "runs.jsonl.gz")
    answers, rivals, shown = [], [], []
    for data, trained in standings(people, rows).items():
        if (pair := selected_and_drawn(trained)) is None:
            continue
        ours, theirs = pair
        answers.append(
            f"{data}: test AP {ap_text(ours.test_aps)}; lead over {theirs.contestant.name}, the best drawn one on val: "
            f"{lead(ours.test_aps, theirs.test_aps)}"
        )
        others = (f"{one.contestant.name} {ap_text(one.test_aps)}" for one in trained if one not in pair)
        rivals.append(f"{data}: {', '.join(others)}")
        shown += [row["machine"] for standing in trained for row in standing.runs]
    return Result(
        "Does what `nas.select` chose beat what people drew, at equal measured milliseconds (30 epochs from scratch)?",
        "; ".join(answers),
        f"{'; '.join(rivals)}; an interval over zero says no",
        (f"{folder}/results.md",),
        "python -m experiments.selection train",
        machines_of(shown),
    )


def score_truth() -> Result:
    """Scores against trained accuracy at equal latency."""
    path = "experiments/scorer_truth/results.md"
    rows = {cells[0]: cells[1] for cells in table_rows(path)}
    first = (ROOT / path).read_text(encoding="utf-8").splitlines()[0]
    epochs = first.split("pixels, ")[1].split(" epochs")[0]
    return Result(
        f"Which score orders {first.split(' of ')[0]} equally fast backbones as training does?",
        f"`effective_rank`: Spearman {rows['effective_rank']} with AP50 after {epochs} epochs on BCCD",
        f"the published entropy score `mae` {rows['mae']}, counting layers {rows['layers']}: "
        "a higher `mae` went with a worse detector",
        (path,),
        "python -m experiments.scorer_truth train",
    )


def equal_milliseconds() -> Result:
    """Scores against trained accuracy of the bench's detectors, another data set than score_truth's."""
    path = "experiments/detector_bench/results.md"
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    begin = lines.index("## cards")
    trained = lines[begin + 2].split(";")[0]
    told = next(line for line in lines[begin:] if line.startswith("effective_rank "))
    rho = dict(part.rsplit(" ", 1) for part in told.rstrip(".").split(", "))
    return Result(
        f"And in three bands of equal latency on cards, from five spaces ({trained})?",
        f"`effective_rank`: Spearman {rho['effective_rank']} with test AP, the mean within bands",
        ", ".join(f"`{name}` {rho[name]}" for name in ("level_balance", "params", "macs", "mae", "layers")),
        (path,),
        "python -m experiments.detector_bench report",
    )


def backbones() -> Result:
    """Hand-drawn backbones of equal predicted latency."""
    path = "experiments/results/backbones.csv"
    aps = by_row(path, "cpu320")
    tiny, c3k2, gelan = (ap_text(aps[row]) for row in
                         ("TinyNAS (DAMO-YOLO-T)", "C3k2 (YOLO11n scaled)", "GELAN (YOLOv9-T scaled)"))  # fmt: skip
    return Result(
        "Published backbones at equal predicted T4 latency, under one neck, head and recipe, trained on BCCD?",
        f"TinyNAS (DAMO-YOLO-T): test AP {tiny}",
        f"C3k2 (YOLO11n, scaled) {c3k2}; GELAN (YOLOv9-T, scaled) {gelan}; three seeds, 95 % intervals",
        (path,),
        "python -m experiments.run backbones scale=cpu320 minutes=200",
        conditions_of(read_rows(path), "cpu320"),
    )


def blood() -> Result:
    """The searched detector against YOLO11n in the same trainer."""
    ours, theirs = (read_record(ROOT / f"experiments/bccd/{name}.json") for name in ("train", "yolo11n"))
    own = ours["searched detector"]
    return Result(
        "A searched detector against YOLO11n, both from scratch on BCCD in this trainer?",
        f"searched: test AP {own['ap']['mean']:.3f} ± {own['ap']['deviation']:.3f} (deviation of three seeds), "
        f"AP50 {own['ap50']['mean']:.3f}, 23 minutes on two cores",
        f"YOLO11n, its own recipe, {theirs['epochs']} epochs: {theirs['ap']:.3f}, AP50 {theirs['ap50']:.3f}: "
        "the drawn network wins",
        ("experiments/bccd/train.json", "experiments/bccd/yolo11n.json"),
        "python experiments/bccd/run.py train",
        told(ours["machine"]),
    )


def optima() -> Result:
    """Proved optima of whole detectors under every shipped budget."""
    path = "experiments/exact_search/budgets.csv"
    rows = read_rows(path)
    equal = sum(abs(float(row["exact"]) - float(row["evolution"])) < 1e-5 for row in rows)
    seconds = [float(row["exact_seconds"]) for row in rows]
    gap = max(float(row["upper"]) - float(row["exact"]) for row in rows)
    return Result(
        f"The highest-scoring whole detector under each of {len(rows)} budgets, proved?",
        f"all proved, gap at most {gap:.0e}, {min(seconds):.0f} to {max(seconds):.0f} CPU-seconds each",
        f"evolution with ten times that reaches the same score in {equal} of {len(rows)}, never a higher one, and proves nothing",
        (path,),
        "python -m experiments.exact_search.budgets",
    )


def milliseconds() -> Result:
    """The error of the shipped processor table on unseen detectors."""
    path = "nas/cost/tables/cpu_onnxruntime_fp32_1thread.json"
    header = read_record(ROOT / path)
    checked = header["validation"]
    return Result(
        f"Predicted CPU milliseconds of {checked['networks']} detectors that the table has not seen (160 to 640 px)?",
        f"{checked['mape_percent']:.1f} % mean error, {checked['within_10_percent']:.0f} % of them within 10 %, "
        f"Spearman {checked['spearman']:.2f}",
        f"measured in the same session, {header['runtime']}, one thread of an {header['processor']}",
        (path,),
        "python -m nas.profile hardware=NAME image_size='[160,320,640]'",
        told(header["provenance"]),
    )


def int8() -> Result:
    """AP and time of quantised files."""
    path = "experiments/bccd/int8.json"
    rows = read_record(ROOT / path)
    ort, vino = rows["onnx int8"], rows["openvino int8"]
    whole = {name: rows[f"{name} fp32"] for name in ("onnx", "openvino")}
    return Result(
        "The same detector in INT8 (BCCD, 320 px, two cores)?",
        f"test AP {vino['ap']:.3f} at {vino['milliseconds']:.2f} ms in OpenVINO, "
        f"{ort['ap']:.3f} at {ort['milliseconds']:.2f} ms in "
        "ONNX Runtime",
        f"float32: {whole['openvino']['ap']:.3f} at {whole['openvino']['milliseconds']:.2f} ms and "
        f"{whole['onnx']['milliseconds']:.2f} ms",
        (path,),
        "python experiments/bccd/run.py int8",
        told(rows["machine"]),
    )


def assigners() -> Result:
    """The assigners of the DAMO-YOLO report in small."""
    path = "experiments/results/report_assigner.csv"
    aps = by_row(path, "cpu10")
    order = sorted(aps, key=lambda row: -sum(aps[row]))
    return Result(
        "Which assigner (S narrowed to 0.375, BCCD, 256 px, 60 epochs, three seeds)?",
        ", ".join(f"{row} {ap_text(aps[row])}" for row in order),
        "published order on COCO: AlignedOTA, TOOD, SimOTA, ATSS; here the intervals overlap",
        (path,),
        "python -m experiments.run report_assigner report_backbone scale=cpu10 minutes=200 jobs=2",
        conditions_of(read_rows(path), "cpu10"),
    )


def families() -> Result:
    """TinyNAS against CSP-Darknet in small."""
    path = "experiments/results/report_backbone.csv"
    aps = by_row(path, "cpu10")
    return Result(
        "MAE-ResNet against CSP-Darknet as the backbone of S (as above)?",
        f"MAE-ResNet {ap_text(aps['S, MAE-ResNet'])}",
        f"CSP-Darknet {ap_text(aps['S, CSP-Darknet'])}; MAE-CSP {ap_text(aps['S, MAE-CSP'])}",
        (path,),
        "python -m experiments.run report_assigner report_backbone scale=cpu10 minutes=200 jobs=2",
        conditions_of(read_rows(path), "cpu10"),
    )


def proxies() -> Result:
    """Training-free scores on NAS-Bench-201."""
    whole, sample = (f"experiments/proxy_benchmark/{part}/agreement.csv" for part in ("all", "sample"))
    rho = {path: {row["scorer"]: float(row["spearman"]) for row in read_rows(path) if row["target"] == "c10_test_e200"}
           for path in (whole, sample)}  # fmt: skip
    count = next(row["networks"] for row in read_rows(whole))
    fewer = next(row["networks"] for row in read_rows(sample))
    named = ("synflow", "mae_path", "params", "layers")
    return Result(
        f"Training-free scores on the {int(count):,} cells of NAS-Bench-201 (CIFAR-10, Spearman)?",
        ", ".join(f"`{name}` {rho[whole][name]:.2f}" for name in named),
        f"on {int(fewer):,} of them: `aznas` {rho[sample]['aznas']:.2f}, `meco` {rho[sample]['meco']:.2f}, "
        f"`zico` {rho[sample]['zico']:.2f}, `naswot` {rho[sample]['naswot']:.2f}",
        (whole, sample),
        "python -m experiments.proxy_benchmark tables=PATH",
    )


def t4() -> Result:
    """The calibrated T4 model."""
    path = "nas/cost/tables/t4_tensorrt_fp16.json"
    checked: Mapping[str, Any] = read_record(ROOT / path)["validation"]
    errors = checked["fit_error_percent"]
    worst = max(errors, key=lambda name: abs(errors[name]))
    return Result(
        f"T4 milliseconds of {len(errors)} published detectors (TensorRT 10)?",
        f"{checked['mape_percent']:.1f} % mean error on the rows of the fit (worst {abs(errors[worst]):.1f} %, {worst}), "
        f"{checked['left_out_mape_percent']:.1f} % on families left out",
        "published times; YOLOv5u, whose published times are of other networks, is not met ([limits](limits.md))",
        (path,),
        "python -m experiments.t4_calibration",
    )


def table_rows(path: str) -> list[list[str]]:
    """The cells of a Markdown table's rows."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def read_rows(path: str) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with (ROOT / path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def by_row(path: str, scale: str) -> dict[str, list[float]]:
    """AP of every row of a table at a scale, one a seed."""
    found: dict[str, list[float]] = {}
    for row in read_rows(path):
        if row["scale"] == scale:
            found.setdefault(row["row"], []).append(float(row["ap"]))
    return found


def ap_text(values: Sequence[float]) -> str:
    """Mean AP with its 95 % interval."""
    mean, half = interval(values)
    return f"{mean:.3f} ± {half:.3f}" if half == half else f"{mean:.3f}"


def conditions_of(rows: Sequence[Mapping[str, str]], scale: str) -> str:
    """Dates, commits and device of the runs of a scale."""
    chosen = [row for row in rows if row["scale"] == scale]
    commits, dates = (
        sorted({row[name][:7] if name == "commit" else row[name] for row in chosen}) for name in ("commit", "date")
    )
    return f"{chosen[0]['device']}, torch {chosen[0]['torch']}, {dates[-1]}, commit {' and '.join(commits)}"


def told(machine: Mapping[str, Any]) -> str:
    """Machine, date and commit of an evidence file."""
    return f"{machine['processor']}, {machine['cores']} cores, {machine['date']}, commit {machine['commit']}"


def machines_of(machines: Sequence[Mapping[str, Any]]) -> str:
    """Processors, last date and commits of many runs."""
    processors, commits = (sorted({machine[name] for machine in machines}) for name in ("processor", "commit"))
    last = max(machine["date"] for machine in machines)
    return f"{' and '.join(processors)}, {last}, {'commit' if len(commits) == 1 else 'commits'} {', '.join(commits)}"
