"""The places where a mask is true, without making a GPU wait until they are counted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def counting_waits(device: torch.device) -> bool:
    """Whether the host must wait for the device to learn how many places a mask has."""
    return device.type != "cpu"


class Places(NamedTuple):
    """indices: one tensor (K,) a dimension. On the CPU the true places; elsewhere all places, with `keep` (K,) for them.

    Sums over `at` values then have the same terms, and zeros for the rest.
    """

    indices: tuple[Tensor, ...]
    keep: Tensor | None

    def at(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Values (..., same leading dimensions as the mask) at the places: (K, ...), `fill` where the mask is false."""
        return self.kept(values[self.indices], fill)

    def kept(self, rows: Tensor, fill: Tensor | float = 0.0) -> Tensor:
        """Rows (K, ...), one a place, with `fill` where the mask is false."""
        if self.keep is None:
            return rows
        keep = self.keep.view(-1, *(1,) * (rows.ndim - 1))
        return torch.where(keep, rows, torch.as_tensor(fill, dtype=rows.dtype, device=rows.device))


def places(mask: Tensor) -> Places:
    """The places of a mask of any shape."""
    if not counting_waits(mask.device):
        return Places(mask.nonzero(as_tuple=True), None)
    every = torch.arange(mask.numel(), device=mask.device)
    return Places(torch.unravel_index(every, mask.shape), mask.reshape(-1))
