"""Low-rank additions to a network (LoRA, Hu et al. 2021, arXiv 2106.09685), in diffusers' file format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from promptweave.core.files import write_file

FILE = "pytorch_lora_weights.safetensors"  # what `pipeline.load_lora_weights(folder)` looks for
PREFIX = "unet."
DOWN, UP, ALPHA = ".lora_A.weight", ".lora_B.weight", ".alpha"
Pairs = Mapping[str, tuple[Tensor, Tensor]]  # name of a layer -> A, B; B A is added to the layer's weight


def addition(down: Tensor, up: Tensor, scale: int | float = 1.0) -> Tensor:
    """scale B A in the shape of the weight: A [rank, in, ...], B [out, rank, ...] -> [out, in, ...].

    >>> addition(torch.ones(2, 3, 1, 1), torch.ones(5, 2, 1, 1), 0.5).shape
    torch.Size([5, 3, 1, 1])
    """
    return scale * (up.flatten(1) @ down.flatten(1)).view(len(up), *down.shape[1:])


def save(folder: Path, pairs: Pairs) -> None:
    """Write the additions in half precision, with scale 1."""
    downs = {PREFIX + name + DOWN: down for name, (down, _) in pairs.items()}
    tensors = downs | {PREFIX + name + UP: up for name, (_, up) in pairs.items()}
    halves = {key: tensor.detach().half().cpu().contiguous() for key, tensor in tensors.items()}
    write_file(folder / FILE, lambda fresh: save_file(halves, fresh))


@torch.no_grad()
def merge(network: nn.Module, folder: Path) -> None:
    """Add the additions in a folder to the network's weights: W + (alpha / rank) B A, or W + B A without an alpha.

    Computed in double precision, so that the weights and their fingerprint are the same on all machines.
    """
    tensors = load_file(folder / FILE)
    for key in [key for key in tensors if key.endswith(DOWN)]:
        name = key.removesuffix(DOWN)
        down, up, alpha = tensors[key].double(), tensors[name + UP].double(), tensors.get(name + ALPHA)
        scale = 1.0 if alpha is None else float(alpha) / len(down)
        weight = network.get_parameter(name.removeprefix(PREFIX) + ".weight")
        weight.copy_(weight.cpu().double() + addition(down, up, scale))
