"""`thop` agrees with our multiply-accumulates exactly, once its own extra terms are taken off.

thop adds four operations per value that leaves a BatchNorm, which engines fold away, and
counts nothing for what we write as functions (the softmax of the head, which it counts in the official modules: 0.02 %).
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.cost.count import count_spec
from nas.models.detector import build_detector

PUBLISHED = {"T": 18.1238, "S": 37.7831, "Ns": 1.6214, "Nm": 3.8035}  # 2 x thop's count of the official merged modules


@pytest.mark.parametrize("name", PUBLISHED)
def test_thop_counts_our_macs_and_batch_norms(name, spec_of):
    thop = pytest.importorskip("thop")
    spec = spec_of(name)
    with torch.device("meta"):
        model = build_detector(spec).merge()
        images = torch.empty(1, 3, spec.image_size, spec.image_size)
    normalised = 0

    def record(module, inputs, output):
        nonlocal normalised
        normalised += output.numel()

    handles = [m.register_forward_hook(record) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    model(images)
    for handle in handles:
        handle.remove()
    counted, _ = thop.profile(model, (images,), verbose=False)
    ours = count_spec(spec, "merged").macs
    assert counted == ours + 4 * normalised
    assert 2 * counted / 1e9 == pytest.approx(PUBLISHED[name], rel=1e-3)
