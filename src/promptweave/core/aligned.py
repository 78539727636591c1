"""Tensors read from files, brought to where new tensors lie in memory: sums over them then round in the same way."""

from __future__ import annotations

from torch import Tensor

BOUNDARY = 64  # bytes; of PyTorch's own allocations in main memory


def aligned(x: Tensor) -> Tensor:
    """The tensor, copied if it is in main memory and begins elsewhere than a new one would.

    Matrix products of the CPU libraries may sum in another order for such tensors.
    """
    return x.clone() if x.device.type == "cpu" and x.data_ptr() % BOUNDARY else x
