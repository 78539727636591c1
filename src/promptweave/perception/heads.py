"""The heads of VPD: small networks from the levels of a diffusion model to classes, a mask or depth.

Each takes the levels from fine to coarse, any number of them, and gives logits or depth [batch, channels, height,
width] on a grid of its own. Layers follow section 3.3 and the authors' configurations; widths are arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DROPOUT = 0.1
DEPTH_FILTERS = 32  # of the transposed convolutions
DEPTH_STD = 0.001  # of the initial weights of the depth decoder


def convolved(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def enlarged(x: Tensor, like: Tensor, corners: bool = False) -> Tensor:
    """`x` on the grid of `like`, bilinearly."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=corners)


class FpnHead(nn.Module):
    """A feature pyramid (Lin et al. 2017) and a panoptic head (Kirillov et al. 2019): each level is brought to the
    finest grid by convolutions with enlargement between them, and their sum is classified."""

    def __init__(self, channels: Sequence[int], classes: int, width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([nn.Conv2d(count, width, 1) for count in channels])
        self.smooth = nn.ModuleList([nn.Conv2d(width, width, 3, 1, 1) for _ in channels])
        self.rise = nn.ModuleList(
            [nn.ModuleList([convolved(width, width) for _ in range(max(1, place))]) for place in range(len(channels))]
        )
        self.classify = nn.Sequential(nn.Dropout2d(DROPOUT), nn.Conv2d(width, classes, 1))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        sides = [lateral(x) for lateral, x in zip(self.lateral, levels, strict=True)]
        for place in reversed(range(len(sides) - 1)):
            sides[place] = sides[place] + F.interpolate(sides[place + 1], sides[place].shape[-2:])
        sides = [smooth(x) for smooth, x in zip(self.smooth, sides, strict=True)]
        total: Any = 0
        for place, steps in enumerate(self.rise):
            x = sides[place]
            for number, step in enumerate(steps):  # pyright: ignore[reportArgumentType]
                x = step(x)
                if place:
                    x = enlarged(x, sides[place - 1 - number])
            total = total + x
        return self.classify(total)


class ReferHead(nn.Module):
    """From coarse to fine: enlarge, join with the next level, two convolutions; then two classes, ground and mask."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        coarse, *rest = reversed(channels)
        self.fuse = nn.ModuleList(
            [
                nn.Sequential(convolved((width if place else coarse) + count, width), convolved(width, width))
                for place, count in enumerate(rest)
            ]
        )
        self.classify = nn.Conv2d(width, 2, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        x, *rest = reversed(levels)
        for fuse, level in zip(self.fuse, rest, strict=True):
            x = fuse(torch.cat([enlarged(x, level, corners=True), level], 1))
        return self.classify(x)


class DepthHead(nn.Module):
    """All levels on the second-coarsest grid, joined; three transposed convolutions; depth = sigmoid * `farthest`."""

    def __init__(self, channels: Sequence[int], width: int, farthest: int | float) -> None:
        super().__init__()
        self.farthest = float(farthest)
        middle = len(channels) - 2  # the grid on which all are joined
        self.lower = nn.ModuleList([_lowered(count, middle - place) for place, count in enumerate(channels)])
        self.join = nn.Sequential(nn.Conv2d(sum(channels), width, 1), nn.GroupNorm(16, width), nn.ReLU())
        layers: list[nn.Module] = []
        for place in range(3):
            inputs = DEPTH_FILTERS if place else width
            layers += [nn.ConvTranspose2d(inputs, DEPTH_FILTERS, 2, 2, bias=False), nn.BatchNorm2d(DEPTH_FILTERS)]
            layers.append(nn.ReLU())
        self.decode = nn.Sequential(*layers, convolved(DEPTH_FILTERS, width))
        self.last = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, 1, 3, 1, 1))
        for module in self.decode.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=DEPTH_STD)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        middle = levels[-2]
        lowered = [lower(x) for lower, x in zip(self.lower, levels, strict=True)]
        joined = torch.cat([F.interpolate(x, middle.shape[-2:]) for x in lowered], 1)
        return self.last(self.decode(self.join(joined))).sigmoid() * self.farthest


def _lowered(channels: int, halvings: int) -> nn.Module:
    """Convolutions of stride 2, with a norm and ReLU between them; the authors write two of them for the finest of four
    levels, and one for the next."""
    layers: list[nn.Module] = []
    for place in range(max(0, halvings)):
        if place:
            layers += [nn.GroupNorm(16, channels) if channels % 16 == 0 else nn.GroupNorm(1, channels), nn.ReLU()]
        layers.append(nn.Conv2d(channels, channels, 3, 2, 1))
    return nn.Sequential(*layers)


def parameters(module: nn.Module) -> int:
    """The number of weights."""
    return sum(weight.numel() for weight in module.parameters())
