"""Feature distillation against official values, and its failures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas.errors import UserError
from nas.loss.distill import Distiller, channel_wise, check_not_zero, mimic


@pytest.fixture
def read(golden):
    data = np.load(golden / "damo_losses" / "distill.npz")
    return lambda key: torch.from_numpy(np.asarray(data[key]))


def test_channel_wise_distiller_and_gradients(read):
    distiller = Distiller((6, 8, 10), (8, 12, 10))
    for i, adapter in enumerate(distiller.adapters):
        adapter.weight.data, adapter.bias.data = read(f"align{i}_weight"), read(f"align{i}_bias")
    students = [read(f"student{i}").requires_grad_() for i in range(3)]
    loss = distiller(students, [read(f"teacher{i}") for i in range(3)])
    loss.backward()
    assert loss.item() == pytest.approx(read("featureloss_cwd").item(), abs=1e-5)
    for i in range(3):
        torch.testing.assert_close(students[i].grad, read(f"student{i}_grad"), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            distiller.adapters[i].weight.grad, read(f"align{i}_weight_grad"), rtol=1e-5, atol=1e-5
        )


def test_bare_losses(read):
    pairs = [(read(f"raw_student{i}"), read(f"teacher{i}")) for i in range(3)]
    assert sum(channel_wise(*pair) for pair in pairs).item() == pytest.approx(read("raw_cwd_tau1").item(), rel=1e-5)
    assert sum(channel_wise(*pair, 2.0) for pair in pairs).item() == pytest.approx(
        read("raw_cwd_tau2").item(), rel=1e-5
    )
    assert sum(mimic(*pair) for pair in pairs).item() == pytest.approx(read("raw_mimic").item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["cwd", "mgd", "mimic"])
def test_every_kind_trains_adapters(kind):
    torch.manual_seed(0)
    distiller = Distiller((4, 4, 4), (6, 6, 6), kind)
    students, teachers = ([torch.randn(2, c, 8 >> i, 8 >> i) for i in range(3)] for c in (4, 6))
    distiller(students, teachers).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in distiller.named_parameters() if "weight" in n)


def test_zero_loss_other_strides_and_names_are_errors():
    with pytest.raises(UserError, match="exactly 0"):
        check_not_zero(torch.zeros(()))
    with pytest.raises(UserError, match="same strides"):
        Distiller((4,), (4,))([torch.randn(1, 4, 8, 8)], [torch.randn(1, 4, 4, 4)])
    with pytest.raises(UserError, match="distill.kind"):
        Distiller((4,), (4,), "logits")
