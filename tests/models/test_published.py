"""The published models equal the official ones: parameters, entry names, features, scores, boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nas.models.detector import build_detector

COUNTS = {  # training form, branches merged, BatchNorm folded
    "T": (8_875_727, 8_479_631, 8_473_911),
    "S": (16_935_647, 16_251_631, 16_242_751),
    "M": (29_241_727, 28_178_175, 28_164_063),
    "L": (43_861_759, 42_058_111, 42_039_711),
    "Ns": (1_405_691, 1_405_691, 1_392_299),
    "Nm": (2_707_219, 2_707_219, 2_688_371),
    "Nl": (5_688_579, 5_688_579, 5_659_451),
    "N": (2_347_347, 2_347_347, None),
}
PARTS = {
    "T": (2_358_480, 5_920_064, 597_183),
    "M": (10_217_920, 17_829_888, 1_193_919),
    "Nm": (1_436_032, 1_220_672, 50_515),
}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_in_three_forms(name, spec_of):
    model = build_detector(spec_of(name))
    counts = [parameters(model)]
    if name in PARTS:
        assert tuple(map(parameters, (model.backbone, model.neck, model.head))) == PARTS[name]
    counts.append(parameters(model.merge()))
    counts.append(parameters(model.fuse()))
    assert counts[:2] == list(COUNTS[name][:2])
    assert COUNTS[name][2] in (None, counts[2])


@pytest.mark.parametrize("name", [name for name in COUNTS if name != "N"])
def test_entry_names_and_shapes_are_the_official_ones(name, spec_of, shared):
    with torch.device("meta"):
        model = build_detector(spec_of(name))
    rows = [line.split("\t") for line in (shared / f"golden/damo/state_dict/{name}.tsv").read_text().splitlines()[1:]]
    expected = {row[0]: () if row[1] == "scalar" else tuple(map(int, row[1].split("x"))) for row in rows}
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == expected


def outputs(model, images):
    """Everything that the golden files record."""
    features = model.features(images)
    raw = model.predict_raw(images)
    sizes = [tuple(x.shape[2:]) for x in features["neck"]]
    counts = [height * width for height, width in sizes]
    found = {f"{part}{level}": x for part, maps in features.items() for level, x in enumerate(maps)}
    for level, (logits, spread) in enumerate(
        zip(raw.class_logits.split(counts, 1), raw.box_logits.split(counts, 1), strict=True)
    ):
        found[f"cls_level{level}"] = logits.sigmoid().transpose(1, 2).unflatten(2, sizes[level])
        found[f"reglogit_level{level}"] = spread.permute(0, 2, 3, 1).flatten(1, 2).unflatten(2, sizes[level])
    found["scores"], found["boxes"] = model(images)
    return found


def check(found, path: Path):
    record = np.load(path)
    for name, value in found.items():
        assert tuple(record[f"{name}_shape"]) == tuple(value.shape), name
        sample = value.reshape(-1)[torch.from_numpy(record[f"{name}_idx"])].numpy()
        expected = record[f"{name}_val"]
        if name == "boxes":
            rtol, atol = 0.0, 1e-3
        elif name == "scores" or name.startswith("cls_level"):
            rtol, atol = 0.0, 1e-5
        else:
            rtol, atol = 1e-4, 1e-4 * float(record[f"{name}_std"])
        np.testing.assert_allclose(sample, expected, rtol=rtol, atol=atol, err_msg=name)
        if name in record:
            np.testing.assert_allclose(value.numpy(), record[name], rtol=rtol, atol=atol)


@torch.no_grad()
@pytest.mark.parametrize("name", ["T", "M", "Ns"])
def test_outputs_equal_the_official_ones(name, spec_of, golden_weights, golden_images, golden, request):
    folder = golden / "damo"
    if not (folder / f"{name}_train_form.npz").exists():
        folder = request.getfixturevalue("shared") / "golden/damo"
    model = build_detector(spec_of(name)).eval()
    model.load_state_dict(golden_weights(name, model))
    check(outputs(model, golden_images), folder / f"{name}_train_form.npz")
    check(outputs(model.merge(), golden_images), folder / f"{name}_deploy_form.npz")
    unfused = model(golden_images)
    fused = model.fuse()(golden_images)
    assert (unfused[0] - fused[0]).abs().max() < 1e-4
    assert (unfused[1] - fused[1]).abs().max() < 1e-2


@pytest.mark.parametrize("name", COUNTS)
def test_spec_files_hold_the_published_tables(name, spec_of):
    from search_spaces.published import load_published

    assert load_published(f"damo-yolo-{name.lower()}") == spec_of(name)
