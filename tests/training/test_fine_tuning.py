"""What a training starts from: forms for deployment are refused, and every load says what it kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import nas
from nas.data.dataset import relabel
from nas.errors import UserError
from nas.models.baselines import build_baseline
from nas.models.checkpoint import load_checkpoint, save_checkpoint
from nas.models.detector import build_detector
from nas.training.options import DistillOptions
from nas.training.run import run_training
from nas.training.setup import adapt_classes, prepare_detector, start_from

FIVE = ("disc", "square", "triangle", "ring", "cross")


def detectors(tiny):
    torch.manual_seed(0)
    names = ("yolo11n", "yolo26n", "yolov9t-pgi")
    return [build_detector(tiny.tiny_spec(), classes=FIVE), *(build_baseline(name, 5, 64, FIVE) for name in names)]


@pytest.mark.slow
@pytest.mark.parametrize("classes", [FIVE, ("a", "b")])
def test_fused_checkpoints_are_refused_with_the_remedy(tiny, tmp_path, classes):
    words = "is in its form for deployment .0 of .* give the checkpoint that it was made from, such as best.safetensors"
    for index, model in enumerate(detectors(tiny)):
        path = save_checkpoint(tmp_path / f"whole{index}.safetensors", model)
        assert prepare_detector(path, classes, None).num_classes == len(classes)
        fused = save_checkpoint(tmp_path / f"fused{index}.safetensors", load_checkpoint(path).fuse())
        with pytest.raises(UserError, match=f"fused{index}.safetensors {words}"):
            prepare_detector(fused, classes, None)
        with pytest.raises(UserError, match=f"the model {words}"):
            prepare_detector(model.fuse(), FIVE, None)


def test_merged_branches_are_refused_too(tiny, tmp_path):
    model = build_detector(tiny.tiny_spec(), classes=FIVE).merge()
    with pytest.raises(UserError, match=r"form for deployment \(\d+ of \d+ BatchNorms are left\)"):
        adapt_classes(model, ("a",))
    detector = nas.Detector(load_checkpoint(save_checkpoint(tmp_path / "m.safetensors", model)))
    with pytest.raises(UserError, match="m.safetensors is in its form for deployment"):
        detector.train("shapes", tmp_path / "run", progress=False)


def test_every_load_says_how_many_entries_were_kept(tiny, tmp_path, capsys):
    model = build_detector(tiny.tiny_spec(), classes=FIVE)
    total = sum(not name.endswith("num_batches_tracked") for name in model.state_dict())
    path = save_checkpoint(tmp_path / "five.safetensors", model)
    assert str(load_checkpoint(path).origin) == f"{path}: {total} of {total} entries kept"
    other = prepare_detector(path, ("a", "b"), None)
    fresh = "fresh: head.gfl_cls.0.weight, head.gfl_cls.0.bias, head.gfl_cls.1.weight, ..."
    assert str(other.origin) == f"{path}: {total - 6} of {total} entries kept; {fresh}"
    task = tiny.tiny_task(tmp_path / "shapes", {"epochs": 2}, distill=DistillOptions(str(path)))
    run_training(replace(task, model=str(path)), tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    for kind in ("weights", "teacher"):
        assert f"{kind}: {path}: {total} of {total} entries kept" in lines


def test_fine_tuning_to_other_classes_with_a_frozen_backbone(tiny, root, tmp_path):
    first = tiny.run(root, tmp_path / "first", {"epochs": 2})
    before = load_checkpoint(first.best)
    task = tiny.tiny_task(root, {"epochs": 2, "freeze": ["backbone"]})
    names = ("disc", "ring")
    task = replace(task, model=str(first.best), train=relabel(task.train, names), val=relabel(task.val, names))
    after = load_checkpoint(run_training(task, tmp_path / "second", progress=False).last)
    assert after.classes == names and after.num_classes == 2
    old, new = before.state_dict(), after.state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old if name.startswith("backbone."))
    assert not all(torch.equal(old[name], new[name]) for name in old if name.startswith("neck."))
    task.options.freeze = ["spine"]
    with pytest.raises(UserError, match="no module 'spine'; it has backbone, neck, head"):
        run_training(task, tmp_path / "third", progress=False)


def test_adapting_classes_keeps_everything_else(tiny):
    model = build_detector(tiny.tiny_spec(), 5)
    other = adapt_classes(model, ("a", "b"))
    old, new = model.state_dict(), other.state_dict()
    changed = {name for name in new if old[name].shape != new[name].shape}
    assert changed == {f"head.gfl_cls.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")}
    assert all(torch.equal(old[name], new[name]) for name in new if name not in changed)
    same = adapt_classes(build_detector(tiny.tiny_spec(), 2), ("x", "y"))
    assert same.classes == ("x", "y")


def test_another_network_gives_what_fits(tiny, root, tmp_path, capsys):
    torch.manual_seed(1)
    model, spec = build_detector(tiny.tiny_spec(), classes=FIVE), tiny.tiny_spec()
    path = save_checkpoint(tmp_path / "other.safetensors", model)
    wider = replace(spec.backbone.blocks[-1], out=spec.backbone.blocks[-1].out + 8)
    spec = replace(spec, backbone=replace(spec.backbone, blocks=(*spec.backbone.blocks[:-1], wider)))
    fresh, old = build_detector(spec, classes=FIVE), model.state_dict()
    start_from(fresh, path)
    names = [name for name in old if not name.endswith("num_batches_tracked")]
    fitting = [name for name in names if fresh.state_dict()[name].shape == old[name].shape]
    assert 0 < len(fitting) < len(names) and all(torch.equal(fresh.state_dict()[name], old[name]) for name in fitting)
    assert str(fresh.origin).startswith(f"{path}: {len(fitting)} of {len(names)} entries kept; fresh: backbone.")
    other = build_detector(spec, classes=("a", "b", "c", "d", "e"))  # as many classes, and others
    start_from(other, path)
    assert not any(torch.equal(other.state_dict()[n], old[n]) for n in names if n == "head.gfl_cls.0.weight")
    assert f"{len(fitting) - 6} of {len(names)} entries kept" in str(other.origin)
    task = replace(tiny.tiny_task(root, {"epochs": 2}), model=spec, weights=str(path))
    run_training(replace(task, options=replace(task.options, epochs=2)), tmp_path / "run", until=1)
    assert f"weights: {path}: {len(fitting)} of {len(names)} entries kept" in capsys.readouterr().out
    path.unlink()  # a continuation has its own
    run_training(task, tmp_path / "run", resume=True, progress=False)
    with pytest.raises(UserError, match="no such checkpoint"):
        run_training(task, tmp_path / "again", progress=False)
    unlike = save_checkpoint(tmp_path / "unlike.safetensors", build_baseline("yolo11n", 5, 64, FIVE))
    with pytest.raises(UserError, match="none of its entries fits the network"):
        start_from(fresh, unlike)


@pytest.mark.slow
def test_a_detector_without_nms_is_trained_resumed_and_scored(tiny, root, tmp_path, capsys):
    from nas.inference.evaluator import evaluate

    first = tiny.run(root, tmp_path / "first", {"epochs": 2})
    task = replace(tiny.tiny_task(root, {"epochs": 2}), model=str(first.best), one_to_one=True)
    whole = run_training(task, tmp_path / "whole", progress=False)
    run_training(task, tmp_path / "cut", progress=False, until=1)
    cut = run_training(task, tmp_path / "cut", progress=False, resume=True)
    model = load_checkpoint(whole.best)
    assert model.end_to_end and cut.best.read_bytes() == whole.best.read_bytes()
    scores = evaluate(model.fuse(), task.val, model.image_size)
    assert scores.ap == pytest.approx(whole.score, abs=0.02)  # its BatchNorm statistics are measured there
    rows = (tmp_path / "whole" / "steps.csv").read_text().splitlines()
    assert {"aux_class", "aux_box", "aux_dfl"} <= set(rows[0].split(","))
    distil = replace(task, model=tiny.tiny_spec(), distill=DistillOptions(str(first.best)))
    assert load_checkpoint(run_training(distil, tmp_path / "distil", progress=False).last).end_to_end
