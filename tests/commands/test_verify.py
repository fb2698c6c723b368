"""A passport proves the file: whatever is changed is found and named, on the command line in one line."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import load_file, save_file
from torch import Tensor

import nas
from nas.__main__ import main
from nas.augment.pipeline import Augmentation
from nas.commands.train import TrainCommand, task_of
from nas.commands.verify import Check, require_same, verified
from nas.config import compose_config
from nas.data.coco import read_coco
from nas.data.shapes import CLASSES, draw_shapes
from nas.deploy.onnx_graph import write
from nas.deploy.parity import Agreement
from nas.deploy.passport import content_digest, give_passport, metadata_of
from nas.deploy.runtime import KEY, Metadata, OnnxRuntime
from nas.errors import UserError
from nas.files import save_spec
from nas.models.checkpoint import load_checkpoint, read_header, save_checkpoint
from nas.models.detector import build_detector
from nas.models.passport import Passport, differing, generated_pictures, pictures_digest, seen
from nas.training.run import run_training
from tests.training.tiny_training import options, tiny_spec


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_shapes(tmp_path_factory.mktemp("data") / "shapes", counts={"train": 3, "val": 2, "test": 1}, size=64)


@pytest.fixture(scope="module")
def saved(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose passport tells of the drawn data."""
    torch.manual_seed(3)
    model = build_detector(tiny_spec(), classes=CLASSES).eval()
    data = {split: read_coco(shapes / f"annotations/{split}.json", shapes / f"images/{split}", "shapes", split)[0]
            for split in ("train", "val")}  # fmt: skip
    training = {"training data": data["train"].digest(), "validation data": data["val"].digest(), "recipe": "ab12"}
    return save_checkpoint(tmp_path_factory.mktemp("model") / "best.safetensors", model, {"epoch": 3}, training)


def outcomes(checks: tuple[Check, ...]) -> dict[str, str]:
    return {check.name: check.outcome for check in checks}


def edited(path: Path, target: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], object]) -> Path:
    header: dict[str, Any] = dict(read_header(path))
    tensors = load_file(path)
    change(header, tensors)
    save_file(tensors, target, {"maenas": json.dumps(header)})
    return target


def first(header: dict[str, Any]) -> Any:
    return header["architecture"]["spec"]["backbone"]["blocks"][0]


def test_an_untouched_checkpoint_is_the_same_in_all(saved: Path) -> None:
    found = outcomes(verified(str(saved)))
    assert {name for name, outcome in found.items() if outcome == "same"} == {
        "weights", "format", "architecture", "spec", "classes", "image_size", "normalisation", "resize", "extra",
        "detections",
    }  # fmt: skip
    assert found["training data"] == "not checked" and found["recipe"] == found["torch"] == "told"
    assert nas.verified is verified


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda h, t: t["neck.merge_3.conv1.conv.weight"].view(-1)[0].mul_(1.0001), {"weights"}),
        (lambda h, t: t.pop("neck.merge_3.conv1.conv.weight"), {"weights"}),
        (lambda h, t: h["extra"].update(epoch=4), {"extra"}),
        (lambda h, t: h["classes"].reverse(), {"classes"}),
        (lambda h, t: h.update(image_size=96), {"image_size"}),
        (lambda h, t: h["normalisation"].update(colour="BGR"), {"normalisation"}),
        (lambda h, t: h.update(more=1), {"more"}),
        (lambda h, t: first(h).update(kernel=3 if first(h)["kernel"] == 5 else 5), {"architecture", "spec"}),
        (lambda h, t: h["passport"]["training"].update(recipe="other"), {"passport"}),
        (lambda h, t: h["passport"]["sight"].update(score=1.0), {"passport"}),
        (lambda h, t: h["passport"]["sight"]["rows"][2][0].__setitem__(1, 0.9), {"detections", "passport"}),
    ],
)
def test_what_was_changed_is_found(saved: Path, tmp_path: Path, change: Any, names: set[str]) -> None:
    path = edited(saved, tmp_path / "m.safetensors", change)
    checks = verified(str(path))
    assert {name for name, outcome in outcomes(checks).items() if outcome == "differs"} == names
    with pytest.raises(UserError, match="is not what its passport says") as error:
        require_same(str(path), checks)
    assert all(name in str(error.value) for name in names) and "\n" not in str(error.value)


def test_data_is_compared(saved: Path, shapes: Path, tmp_path: Path) -> None:
    found = outcomes(verified(str(saved), data=str(shapes)))
    assert found["training data"] == found["validation data"] == "same"
    other = draw_shapes(tmp_path / "other", seed=1, counts={"train": 3, "val": 2}, size=64)
    found = outcomes(verified(str(saved), data=str(other)))
    assert found["training data"] == found["validation data"] == "differs"


def test_an_older_file_is_said_to_have_none_and_loads(saved: Path, tmp_path: Path) -> None:
    path = edited(saved, tmp_path / "old.safetensors", lambda h, t: h.pop("passport"))
    with pytest.raises(UserError, match="has no passport"):
        verified(str(path))
    assert load_checkpoint(path).passport is None
    path = edited(saved, tmp_path / "bad.safetensors", lambda h, t: h.update(passport={"digests": 3}))
    with pytest.raises(UserError, match="bad.safetensors: its passport: lacks|digests must be"):
        verified(str(path))


def test_the_training_is_told_as_long_as_the_weights_are_the_same(saved: Path, tmp_path: Path) -> None:
    model = load_checkpoint(saved)
    path = save_checkpoint(tmp_path / "again.safetensors", model)
    assert known(path).training == known(saved).training
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    assert known(save_checkpoint(path, model)).training == {}


def test_a_training_tells_what_made_its_checkpoints(
    shapes: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_spec(tmp_path / "best.yaml", tiny_spec(), provenance={"table_digest": "9f3a"})
    monkeypatch.setenv("MAENAS_SHAPES", str(shapes))
    task = task_of(compose_config("train", TrainCommand, {"data": "shapes", "model": str(model), "test": False}))[0]
    assert task.table == "9f3a"
    task = replace(task, options=options(epochs=2), augmentation=Augmentation.plain(), device="cpu", seed=5, loggers=())
    run_training(task, tmp_path / "run", progress=False, until=1)
    result = run_training(replace(task, table=None), tmp_path / "run", resume=True, progress=False)
    told = known(result.last).training
    assert told["latency table"] == "9f3a" and told["seed"] == "5" and len(told["recipe"]) == 16
    assert {name: told[name] for name in ("training data", "validation data")} == {
        name: known(saved).training[name] for name in ("training data", "validation data")
    }
    tuned = run_training(replace(task, model=str(result.best), table=None), tmp_path / "tuned", progress=False)
    assert known(tuned.last).training["start weights"] == known(result.best).digests["weights"]


def known(path: Path) -> Passport:
    passport = load_checkpoint(path).passport
    assert passport is not None
    return passport


def test_rounding_is_forgiven_and_another_network_is_not(saved: Path) -> None:
    model = load_checkpoint(saved).fuse()
    sight = seen(model)
    assert sight is not None and len(sight.rows) == 8 and all(len(rows) == 8 for rows in sight.rows)
    pictures = generated_pictures(8, sight.side)

    def off(shift: float, score: float) -> Any:
        return lambda images: (model(images)[0] + score, model(images)[1] + shift)

    assert differing(model, sight, pictures, 1e-3, 0.5) == ""
    assert differing(off(0.4, 0.0009), sight, pictures, 1e-3, 0.5) == ""
    assert "64 of 64 detections" in differing(off(0.6, 0), sight, pictures, 1e-3, 0.5)
    assert "64 of 64 detections" in differing(off(0, 0.002), sight, pictures, 1e-3, 0.5)


def test_the_pictures_are_the_same_everywhere() -> None:
    assert pictures_digest(generated_pictures(2, 64)) == "9949c703da60ecde7a4d33df9e866965"


@pytest.fixture(scope="module")
def exported(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest ONNX detector: one convolution whose maps are scores and boxes."""
    make, helper = onnx.numpy_helper.from_array, onnx.helper
    weights = torch.linspace(-1, 1, 9 * 3).view(9, 3, 1, 1).numpy() / 64
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["maps"], kernel_shape=[1, 1], strides=[16, 16]),
        helper.make_node("Reshape", ["maps", "flat"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Split", ["turned", "parts"], ["raw", "boxes"], axis=2),
        helper.make_node("Sigmoid", ["raw"], ["scores"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tiny",
        [info("images", 1, [1, 3, 64, 64])],
        [info("scores", 1, [1, 16, 5]), info("boxes", 1, [1, 16, 4])],
        [
            make(weights, "w"),
            make(torch.tensor([0, 9, -1]).numpy(), "flat"),
            make(torch.tensor([5, 4]).numpy(), "parts"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path_factory.mktemp("export") / "m.onnx"
    helper.set_model_props(model, {KEY: Metadata(CLASSES, 64).to_json()})
    before = content_digest(write(model, path))
    give_passport(path, OnnxRuntime(path), load_checkpoint(saved), Agreement(8, 9, 1.0, 1e-6, 1e-4))
    assert content_digest(path) == before
    return path


def test_an_export_carries_what_made_its_weights(exported: Path, saved: Path) -> None:
    passport = metadata_of(exported).passport
    assert passport is not None and passport.made_with.keys() >= {"maenas", "torch", "onnx", "onnxruntime"}
    assert passport.training == known(saved).training | {"exported weights": known(saved).digests["weights"]}
    found = outcomes(verified(str(exported)))
    assert found["content"] == found["classes"] == found["detections"] == "same" and "differs" not in found.values()


def test_a_changed_export_is_found(exported: Path, tmp_path: Path) -> None:
    graph = onnx.load(str(exported))
    told = graph.metadata_props[0]
    wrong = copy.deepcopy(graph)
    wrong.graph.initializer[0].raw_data = wrong.graph.initializer[0].raw_data[:-1] + b"\0"
    assert outcomes(verified(str(write(wrong, tmp_path / "w.onnx"))))["content"] == "differs"
    told.value = told.value.replace('"disc"', '"dish"')
    assert outcomes(verified(str(write(graph, tmp_path / "c.onnx"))))["classes"] == "differs"
    told.value = Metadata(CLASSES, 64).to_json()
    with pytest.raises(UserError, match="has no passport"):
        verified(str(write(graph, tmp_path / "n.onnx")))


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """How `maenas verify` ends in this process: its error, or nothing."""
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["maenas", "verify", *words])
    try:
        main()
    except SystemExit as ended:
        return str(ended.code or "")
    return ""


def test_the_command(
    saved: Path,
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not run(monkeypatch, str(saved), f"data={shapes}")
    shown = capsys.readouterr().out
    assert "detections" in shown and "validation data" in shown and "differs" not in shown
    changed = edited(saved, tmp_path / "m.safetensors", lambda h, t: h["classes"].reverse())
    told = run(monkeypatch, f"model={changed}")
    assert told.startswith("error: ") and "is not what its passport says: classes (" in told and "\n" not in told
    assert "differs" in capsys.readouterr().out
    assert "no such file" in run(monkeypatch, "none.safetensors")
    assert "a checkpoint ends in .safetensors" in run(monkeypatch, str(shapes))
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_signatures(saved: Path, tmp_path: Path) -> None:
    pytest.importorskip("model_signing", reason="the extra `sign` is not installed")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    from nas.commands.verify import sign

    for name in ("own", "other"):
        key = ec.generate_private_key(ec.SECP256R1())
        pem = form.Encoding.PEM
        private = key.private_bytes(pem, form.PrivateFormat.PKCS8, form.NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(private)
        (tmp_path / f"{name}.pub").write_bytes(
            key.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo)
        )
    path = tmp_path / "m.safetensors"
    path.write_bytes(saved.read_bytes())
    with pytest.raises(UserError, match="sig: no such file"):
        verified(str(path), key=str(tmp_path / "own.pub"))
    assert sign(str(path), str(tmp_path / "own.pem")).name == "m.safetensors.sig"
    assert outcomes(verified(str(path), key=str(tmp_path / "own.pub")))["signature"] == "same"
    assert outcomes(verified(str(path), key=str(tmp_path / "other.pub")))["signature"] == "differs"
    edited(saved, path, lambda h, t: h["extra"].update(epoch=9))
    assert outcomes(verified(str(path), key=str(tmp_path / "own.pub")))["signature"] == "differs"
    with pytest.raises(UserError, match="cannot be signed by"):
        sign(str(path), str(path))


def test_signing_without_its_package_says_what_to_install(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing.signing", None)
    with pytest.raises(UserError, match=r"pip install 'maenas\[sign\]'"):
        verified(str(saved), key="none.pub")
