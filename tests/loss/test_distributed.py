"""A process that shares a training with others: statistics over all of them, and a clean end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nas.loss.distributed import leave_processes, share_batch_norm, world_size


@pytest.fixture
def alone(tmp_path):
    """A gloo group of one process."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    leave_processes()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads where /proc lists them")
def test_leaving_ends_the_threads_of_the_group_even_after_a_cycle(tmp_path):
    nn.Linear(2, 2)(torch.rand(3, 2)).sum().backward()  # the first one starts threads that stay, where there is a GPU
    before = set(os.listdir("/proc/self/task"))
    assert Fabric  # a training imports it first; else DistributedDataParallel's own late imports would keep the group
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    wrapped = DistributedDataParallel(nn.Linear(2, 2))
    wrapped(torch.rand(3, 2)).sum().backward()
    wrapped.itself = [wrapped]
    del wrapped
    assert set(os.listdir("/proc/self/task")) - before and world_size() == 1
    leave_processes()
    assert not set(os.listdir("/proc/self/task")) - before
    leave_processes()  # without a group: nothing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shared_statistics_are_those_of_plain_batch_norm(alone, monkeypatch, dtype):
    torch.manual_seed(0)
    plain, shared = nn.BatchNorm2d(5).to(dtype), share_batch_norm(nn.Sequential(nn.BatchNorm2d(5).to(dtype)), "cpu")
    images = [torch.randn(4, 5, 6, 7, dtype=dtype).mul_(3).add_(100).requires_grad_() for _ in range(2)]
    images[1].data.copy_(images[0].data)
    monkeypatch.setattr("nas.loss.distributed.world_size", lambda: 2)  # the group's mean is then half of the sum
    monkeypatch.setattr("nas.loss.distributed.mean_over_processes", lambda value: value.detach())
    weights = torch.randn(4, 5, 6, 7, dtype=dtype)
    (plain(images[0]) * weights).sum().backward()
    (shared(images[1]) * weights).sum().backward()
    close = 1e-9 if dtype is torch.float64 else 2e-4
    torch.testing.assert_close(images[1].grad, images[0].grad, atol=close, rtol=close)
    torch.testing.assert_close(shared[0].running_mean, plain.running_mean, atol=close, rtol=close)
    assert shared[0].running_var.dtype is dtype
