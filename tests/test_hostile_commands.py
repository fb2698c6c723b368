"""Hostile command lines: every command ends what it cannot do in one line and a non-zero exit, and writes no result."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from nas.data.shapes import draw_shapes

FILES = "{files}"
BUDGET = "+budget=latency_3ms"
DETECTOR = "damo-yolo-t"
LONG = "9" * 5000

#: Command lines by command; {files} is a folder with the files of `hostile_files`.
HOSTILE: dict[str, list[str]] = {
    "search": [
        *(f"{BUDGET} {line}" for line in (
            "+nonsense=3", "+neck.nonsense=3", "++seeds=3", "~space", "~scorer", "~searcher.name", "space=tinynas",
            "seed=-1", "seed=1.5", "seed=true", f"seed={LONG}", f"seed={10**30}", "seed=null", "seed=[1]", "seed=''",
            "space=null", "searcher=5", "neck=null",
            "workers=0", "workers=100000", "evaluations=0", "evaluations=-0.0", f"evaluations={10**12}",
            "image_size=33", "image_size=-64", "image_size=a", f"image_size={2**40}", "scope=roof", "scope=''",
            "searcher=evolution searcher.population=2.5", "searcher=evolution +searcher.batch=-5",
            "searcher=evolution searcher.crossover=nan", "searcher=evolution searcher.crossover='0.5'",
            "searcher=evolution searcher.minor_from=-1", "searcher=evolution searcher.population=[8]",
            f"searcher=evolution searcher.population={10**15}", "searcher=evolution +searcher.problem=1",
            "searcher=exact searcher.levels=-3", "searcher=exact searcher.share=-inf",
            "searcher=exact +searcher.bins=0",
            "searcher=exact searcher.near=true", "searcher=nsga2 searcher.population=3", "searcher.name=5",
            "searcher=optuna searcher.storage=5", "searcher=optuna searcher.storage=journal:/proc/none/x",
            "searcher=optuna searcher.storage=sqlite:////proc/none.db", "searcher=optuna searcher.lease=-1",
            "searcher=optuna searcher.sampler=magic", "searcher=optuna searcher.study=''",
            "searcher=random +searcher.batch=0",
            "searcher=optuna searcher.storage=journal:{files}/folder",
            "searcher=optuna searcher.storage=journal:{files}/binary",
            "scorer.level_weights=abc", "scorer.level_weights=5", "scorer.level_weights=[]",
            "scorer.level_weights=[1,nan,1,1,1]",
            "scorer.level_weights=[1,2,3]", "scorer.level_weights={a:1}", "scorer.level_weights=[true,1,1,1,1]",
            "scorer=deepmad scorer.depth_penalty=-1", "+scorer.weights=3", "scorer.name=naswot", "scorer.name=[mae]",
            "scorer=macs +scorer.image_size=0", "scorer=random +scorer.seed=-1",
            "scorer=learned scorer.file={files}/binary", "scorer=learned scorer.file={files}/folder",
            "scorer=learned scorer.file=5",
            "space.step=0", "space.step=-8", "+space.growth=nan", "+space.growth=0", "space.kernels=[]",
            "space.kernels=[2]",
            "space.kernels=3", "space.bottleneck=[1.0,0.1]", "+space.scales=[nan]", "+space.scales=[]",
            "space.channels=8",
            "space.channels=[[8,16]]", "space.channels=[[8,128],[64,128],[64,256],[128,256],[512,256]]",
            "space.name=''",
            "space.depths=[0,1,1,1,1]", "space.depths=[1e3,1,1,1,1]", "space.max_layers=3", "space.max_layers=-0.0",
            "space.stem_channels=[8,16,24]", "+space.strides=[2,2,3,1,2]", "+space.strides=[]",
            "+space.out_blocks=[9,10,11]",
            "+space.kind=k9", "+space.start=[]", "+space.minor_steps=[0]", "+space.image_size=0",
            "space.activation=gelu",
            "space=gelan space.downs=[]", "space=gelan space.entries=[-1]", "space=c3k2 space.kinds=[1]",
            "space=gelan space.channels=[]", "space=giraffe scorer=mae_neck space.hidden_ratios=[0.001]",
            "space=giraffe scorer=mae_neck space.neck_depth=[3,1]",
            "space=giraffe scorer=mae_neck +space.backbone.step=0",
            "space=giraffe scorer=mae_neck space.backbone=3", "space=giraffe scorer=mae_neck +space.start_neck=[1]",
            "neck.depth=-1", "neck.hidden_ratio=[0.001,1,1]", "neck.hidden_ratio=[1]", "neck.hidden_ratio=0.5",
            "neck.out=[8]",
            "neck.activation=gelu", "neck.num_classes=0", "neck.head_kernel=2", "neck.fusion=''",
            f"neck.reg_max={10**9}",
            "hardware=''", "hardware=abacus", "hardware={files}/folder", "hardware={files}/binary",
            "hardware={files}/deep.json",
            "hardware={files}/huge.json", "hardware={files}/nan.json", "hardware={files}/negative.json",
            "hardware=/root/\u00e9\u4e2d",
            "hardware={files}/digits.json", "hardware={files}/list.json", "hardware={files}/empty",
            "hydra.run.dir=/proc/none",
        )),
        "+budget.mine.e2e_ms=25", "+budget.mine.e2e_ms=25 +budget.mine.part=neck", "+budget.mine.hardware=x",
        "", "+budget=''", "+budget=null", "+budget=5", "+budget=[latency_3ms,latency_2ms]", "+budget.mine.latency_ms=nan",
        "+budget.mine.latency_ms=-1",
        "+budget.mine.latency_ms=true", "+budget.mine.latency_ms=[3]", "+budget.mine.latency_ms='3'", "+budget.mine=[]",
        f"+budget.mine.latency_ms={10**400}", "+budget.mine={}", "+budget.latency_ms=null",
        "+budget.\u00fc.latency_ms=3x",
        "resume={files}/folder", "resume={files}/binary", "resume=''", "resume={files}/edited", "resume={files}/list",
        "resume={files}/typed", "resume={files}/broken", "seed", "=", "seed=[", "--nonsense", "-m +budget=latency_9ms",
    ],
    "rank": [
        "", f"networks={DETECTOR} seeds=-1", f"networks={DETECTOR} seed=-1", f"networks={DETECTOR} batch=0",
        f"networks={DETECTOR} batch=1.5", f"networks={DETECTOR} image_size=33", f"networks={DETECTOR} image_size=-32",
        f"networks={DETECTOR} scorers=synflow", f"networks={DETECTOR} scorers=[magic]",
        f"networks={DETECTOR} scorers=[]",
        f"networks={DETECTOR} threads=0", f"networks={DETECTOR} resamples=-1", f"networks={DETECTOR} +nonsense=3",
        f"networks={DETECTOR} inputs={FILES}/folder", f"networks={DETECTOR} inputs=", f"networks={DETECTOR} sample=-1",
        "networks={files}/binary", "networks={files}/folder", "networks=''", "networks=nobody",
        "action=fit", "action=fit table={files}/binary output={files}/score.json", "action=fit table=nowhere output=s.json",
        "action=fit table={files}/folder output={files}/score.json", "action=train", "table={files}/list.yaml",
        "networks={files}/list.yaml",
        "networks={files}/deep.yaml", "benchmark=nasbench", "benchmark=nasbench201",
        "benchmark=nasbench201 tables={files}/binary",
        "benchmark=nasbench201 tables={files}/tables", f"networks={DETECTOR} published={FILES}/binary",
        f"networks={DETECTOR} published={FILES}/folder", f"networks={DETECTOR} published={FILES}/none",
        f"networks={DETECTOR} folder={FILES}/binary scorers=[mae]", f"networks={DETECTOR} spread_seeds=-3",
        f"networks={DETECTOR} published={FILES}/list.yaml",
    ],
    "compare": [
        "", "models=[]", "models=damo-yolo-t", "models=[nobody]", "models=['']", "models=[1]",
        "models=[{files}/none.yaml]",
        "models=[{files}/binary.safetensors]", "models=[{files}/binary.onnx]", "models=[{files}/binary.yaml]",
        "group=x",
        f"models=[{DETECTOR}] repeats=0", f"models=[{DETECTOR}] repeats=-1 measure=true",
        f"models=[{DETECTOR}] threads=0",
        f"models=[{DETECTOR}] image_size=33", f"models=[{DETECTOR}] image_size=0",
        f"models=[{DETECTOR}] hardware=abacus",
        f"models=[{DETECTOR}] scorer=magic", f"models=[{DETECTOR}] +ap.x=a", f"models=[{DETECTOR}] +ap.{DETECTOR}=nan",
        f"models=[{DETECTOR}] +ap.{DETECTOR}=-5", f"models=[{DETECTOR}] +nonsense=3", f"models=[{DETECTOR}] measure=maybe",
        f"models=[{DETECTOR}] folder={FILES}/binary", f"models=[{DETECTOR}] hardware={FILES}/binary",
        *(f"models=[{FILES}/{name}.yaml]" for name in (
            "type_list", "inner", "ratio", "no_spec", "deep", "depth", "huge", "unknown", "format", "scalar",
            "blocks", "side",
        )),
    ],
    "profile": [
        "", "hardware=..", "hardware=x runtime=abacus", "hardware=x mode=slow", "hardware=x threads=0", "hardware=x batch=-1",
        "hardware=x image_size=33", "hardware=x time_limit_s=-1", "hardware=x time_limit_s=nan",
        "hardware=x networks=0",
        "hardware=x repetitions=0", "hardware=x validation_networks=-1 mode=validate", "hardware=x seed=-1",
        "hardware=x +nonsense=3",
        "hardware=x mode=validate table={files}/none", "hardware=x mode=validate table={files}/binary",
        "hardware=a/../b",
        "hardware=x space.step=0", "hardware=x neck.depth=-1", "hardware=x neck.hidden_ratio=[0.001,1,1]",
        "hardware=x ~space",
        "hardware=x output={files}/binary mode=quick", "hardware=x space=none", "hardware=''", "hardware=x batch=1.5",
    ],
    "train": [
        "+nonsense=3", "+trainer.nonsense=3", "trainer.epochs=0", "trainer.epochs=1.5", "data=none", "seed=-1",
        "model=nobody",
        "model={files}/none.yaml", "model={files}/binary.safetensors", "image_size=33", "trainer.batch_size=-1",
        "augmentation=none +augmentation.nonsense=1", "resume={files}/folder", "trainer=none", "device=abacus",
        "trainer.workers=-1",
        "data.download=5", "trainer.minutes=-1", "data=null", "trainer=null", "~trainer.schedule", "trainer.schedule=null",
        "data.classes=[]", "data.classes=[a,a]", "data.num_classes=-2", "augmentation.scale=big", "trainer.freeze=backbone",
        "trainer.clip=-1", "trainer.optimizer.lr=-1", "trainer.ema.decay=5", "distill.tau=0", "resume=[]", "resume=/nowhere",
    ],
    "evaluate": [
        "", "model=nobody", "model={files}/binary.onnx", "model={files}/none.safetensors", f"model={DETECTOR} split=x",
        f"model={DETECTOR} +nonsense=3", f"model={DETECTOR} image_size=a", f"model={DETECTOR} data=none",
    ],
    "predict": [
        "", f"model={DETECTOR}", f"model={DETECTOR} source={FILES}/none", f"model={DETECTOR} source={FILES}/folder",
        f"model={DETECTOR} source={FILES}/binary.png +nonsense=3", "model=nobody source=x",
        f"model={DETECTOR} source=x batch=a",
    ],
    "export": [
        "", "model=nobody", f"model={DETECTOR} format=paper", f"model={DETECTOR} precision=fp1",
        f"model={DETECTOR} +nonsense=3",
        f"model={DETECTOR} opset=a", f"model={DETECTOR} keep_float=5", "model={files}/binary.safetensors",
    ],
    "benchmark": [
        "", "model=nobody", "model={files}/binary.onnx", "model={files}/none.safetensors", f"model={DETECTOR} formats=[paper]",
        f"model={DETECTOR} formats=[]", f"model={DETECTOR} 'precisions=[fp32,fp32]'", f"model={DETECTOR} precisions=fp32",
        f"model={DETECTOR} threads=0", f"model={DETECTOR} +nonsense=3", f"model={DETECTOR} split=dev", "resume={files}/folder",
        f"model={DETECTOR} data=none", f"model={DETECTOR} image_size=33", "resume={files}/folder seed=1",
    ],
    "verify": [
        "", "nobody.safetensors", "model=nobody", "model={files}/binary.safetensors", "model={files}/binary", "model=5",
        "model={files}/binary.safetensors +nonsense=3", "model={files}/folder", "model={files}/binary.safetensors key=5",
    ],
    "data": [
        "data=none", "action=dance", "data=5", "action=convert", "+nonsense=3", "data.format=xml", "data.mode=x",
        "data.nonsense=1", f"data={'x' * 5000}", "data=~nobody-at-all/x", "data={files}/binary", "data={files}/folder",
        "data={files}/none.zip", "data={files}/deep.json", "data={files}/list.yaml", "data={files}/binary.yaml",
        "data=coco action=fetch data.download=[]", "data.root={files}/none data.format=coco", "data.train=5",
    ],
}  # fmt: skip

SPEC: dict[str, Any] = {
    "format": "maenas-spec/1",
    "spec": {
        "stem": {"kind": "conv", "out": 16},
        "blocks": [
            {"type": "Residual", "kind": "k1kx", "out": 16 * 2**i, "bottleneck": 8, "depth": 1, "stride": 2}
            for i in range(4)
        ],
        "out_blocks": [1, 2, 3],
    },
}


def changed(**fields: Any) -> str:
    """The spec file with fields of the second block changed, as YAML (which JSON is)."""
    document = json.loads(json.dumps(SPEC))
    document["spec"]["blocks"][1] |= fields
    return json.dumps(document)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files and folders that are not what they are taken for."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "folder").mkdir()
    (folder / "tables").mkdir()
    for name in (
        "binary",
        "binary.safetensors",
        "binary.onnx",
        "binary.yaml",
        "binary.png",
        "tables/nb201_accuracy.csv.gz",
    ):
        (folder / name).write_bytes(bytes(range(256)) * 8)
    table = Path(__file__).resolve().parents[1] / "nas/cost/tables/t4_tensorrt_fp16.json"
    whole = table.read_text()
    first = next(value for value in json.loads(whole)["parameters"].values() if value)
    for name, text in {
        "empty": "",
        "deep.json": "[" * 100_000,
        "digits.json": whole.replace(repr(first), LONG, 1),
        "huge.json": whole.replace(repr(first), "1" + "0" * 400, 1),
        "nan.json": whole.replace(repr(first), "NaN", 1),
        "negative.json": whole.replace(repr(first), "-1.0", 1),
        "list.json": "[1, 2]",
        "list.yaml": "- {model: 5}\n- [3]\n",
        "deep.yaml": "[" * 20_000,
        "type_list.yaml": changed(type=["Residual"]),
        "inner.yaml": json.dumps(
            SPEC
            | {
                "spec": SPEC["spec"]
                | {"blocks": [{"type": "GELAN", "out": 16, "entry": 16, "hidden": 16, "inner": 1, "depth": 1}] * 4}
            }
        ),  # fmt: skip
        "ratio.yaml": json.dumps(
            SPEC | {"spec": {"backbone": SPEC["spec"], "neck": {"out": [16, 16, 16], "hidden_ratio": 0.001}}}
        ),
        "side.yaml": json.dumps(
            SPEC | {"spec": {"backbone": SPEC["spec"], "neck": {"out": [16, 16, 16]}, "image_size": 33}}
        ),
        "no_spec.yaml": "format: maenas-spec/1\n",
        "depth.yaml": changed(depth=True),
        "huge.yaml": changed(out=10**30),
        "unknown.yaml": changed(colour="red"),
        "format.yaml": json.dumps(SPEC | {"format": ["maenas-spec/1"]}),
        "scalar.yaml": json.dumps(SPEC | {"spec": 5}),
        "blocks.yaml": json.dumps(SPEC | {"spec": SPEC["spec"] | {"blocks": 5}}),
    }.items():
        (folder / name).write_text(text)
    edits: dict[str, Any] = {"edited": {"seed": -3}, "list": None, "typed": {"space": [1]}}
    for name, change in (edits | {"broken": {"neck": {"depth": "deep"}}}).items():
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text(json.dumps(change and STORED | change))
    return folder


STORED = {
    "budget": {"latency_3ms": {"latency_ms": 3.0}}, "space": {"name": "tinynas_k1kx"}, "scorer": {"name": "mae"},
    "searcher": {"name": "auto"}, "neck": {"depth": 3}, "hardware": "t4_tensorrt_fp16", "scope": "detector",
    "image_size": 640, "seed": 0, "evaluations": 100,
}  # fmt: skip


def error_of(
    command: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What the command says in the end, run in this process."""
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", [f"nas.{command}", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"nas.{command}", run_name="__main__")
    printed = capsys.readouterr().err
    code = ended.value.code
    return f"{printed}{code}" if isinstance(code, str) else f"{printed.rstrip()}" * bool(code)


def test_a_sweep_tells_every_failed_job_and_runs_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["-m", "+budget.mine.latency_ms=3,0.01,-1", "searcher=random", "evaluations=64", "progress=false"]
    lines = error_of("search", [*sweep, f"hydra.sweep.dir={tmp_path}"], monkeypatch, capsys).splitlines()
    assert lines[0].startswith("error in job 1 (") and "impossible budget" in lines[0]
    assert lines[1].startswith("error in job 2 (") and "latency_ms must be a number above 0, got -1" in lines[1]
    assert lines[2] == "error: 2 of the sweep's jobs failed: 1, 2" and len(lines) == 3
    assert (tmp_path / "0" / "best.yaml").is_file()


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pictures in the place of the data that a training draws at first use."""
    return draw_shapes(tmp_path_factory.mktemp("shapes"), counts={"train": 4, "val": 2, "test": 2}, size=64)


@pytest.mark.parametrize(
    ("command", "line"),
    [  # of every command each third line in seconds; together they take minutes
        pytest.param(command, line, marks=pytest.mark.slow if number % 3 else ())
        for command, lines in HOSTILE.items()
        for number, line in enumerate(lines)
    ],
    ids=lambda text: text[:60],
)
def test_hostile_command_lines_end_in_one_line(
    command: str,
    line: str,
    files: Path,
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAENAS_SHAPES", str(shapes))
    arguments = [part.replace(FILES, str(files)) for part in line.split(" ")] if line else []
    if "hydra.run.dir" not in line and "-m" not in line and "resume" not in line and "--" not in line:
        arguments.append(f"hydra.run.dir={tmp_path}/run")
    said = error_of(command, arguments, monkeypatch, capsys)
    last = said.splitlines()[-1]
    assert "Traceback" not in said and last.startswith(("error: ", "nas.", "usage")), said
    assert len(last) < 1200 and said.count("error: ") <= 1
