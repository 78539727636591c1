"""The oracle: a small network that detects what an image of the synthetic world shows, and where.

It is trained on rendered scenes only (`world.train_oracle`), and scores the images of diffusion models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from promptweave.core.files import write_file

ORACLE = "oracle.safetensors"  # file name of its weights, in a training folder and in the package
SEEN = 0.5  # probability above which a thing counts as present


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class OracleNetwork(nn.Module):
    """A U-Net on [n, 3, 128, 128]: regions and colours at 32 x 32; things, background and style of the image."""

    def __init__(self, nouns: int, colours: int, backgrounds: int, styles: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(block(3, 24, 2), block(24, 32))
        self.quarter = nn.Sequential(block(32, 64, 2), block(64, 64))
        self.eighth = nn.Sequential(block(64, 96, 2), block(96, 96))
        self.sixteenth = nn.Sequential(block(96, 128, 2), block(128, 128))
        self.rise = nn.ModuleList([nn.Conv2d(128, 64, 1), nn.Conv2d(96, 64, 1), nn.Conv2d(64, 64, 1)])
        self.merge = nn.Sequential(block(64, 64), nn.Conv2d(64, nouns + 1 + colours + 1, 1))
        self.things = nn.Linear(256, nouns)
        self.background, self.style = nn.Linear(256, backgrounds), nn.Linear(256, styles)
        self.nouns = nouns

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the layers see, of a quarter, an eighth and a sixteenth of the image's height and width."""
        quarter = self.quarter(self.stem(x))
        eighth = self.eighth(quarter)
        return quarter, eighth, self.sixteenth(eighth)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.answers(self.features(x))

    def answers(self, layers: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        """What follows from what the layers see."""
        quarter, eighth, deep = layers
        up = nn.functional.interpolate(self.rise[0](deep), scale_factor=2) + self.rise[1](eighth)
        up = self.merge(nn.functional.interpolate(up, scale_factor=2) + self.rise[2](quarter))
        pooled = torch.cat([deep.mean((2, 3)), deep.amax((2, 3))], 1)
        return {
            "region": up[:, : self.nouns + 1],
            "colour": up[:, self.nouns + 1 :],
            "things": self.things(pooled),
            "background": self.background(pooled),
            "style": self.style(pooled),
        }


@dataclass(frozen=True)
class Sight:
    """What the oracle detects in one image. `regions`: noun -> bool [128, 128]; `colours`: noun -> colour;
    `backgrounds` and `styles`: the probability of each."""

    things: dict[str, float]
    background: str
    style: str
    regions: dict[str, np.ndarray]
    colours: dict[str, str | None]
    backgrounds: Mapping[str, float] = field(default_factory=dict[str, float])
    styles: Mapping[str, float] = field(default_factory=dict[str, float])

    def has(self, noun: str, colour: str | None = None) -> bool:
        """Whether the thing is present, and in that colour if one is given."""
        return self.things[noun] > SEEN and (colour is None or self.colours.get(noun) == colour)


class Oracle:
    """A trained network and the names of its outputs."""

    def __init__(self, network: OracleNetwork, names: dict[str, list[str]]) -> None:
        self.network, self.names = network.eval(), names

    @classmethod
    def create(cls, names: dict[str, list[str]]) -> Oracle:
        """An untrained oracle."""
        return cls(OracleNetwork(*(len(names[k]) for k in ("nouns", "colours", "backgrounds", "styles"))), names)

    def save(self, path: Path) -> None:
        """Write the weights (half precision) and names to a safetensors file."""
        from safetensors.torch import save_file

        weights = {k: v.half() if v.is_floating_point() else v for k, v in self.network.state_dict().items()}
        whole = {k: v.contiguous() for k, v in weights.items()}
        write_file(path, lambda fresh: save_file(whole, fresh, {"names": json.dumps(self.names)}))

    @classmethod
    def load(cls, path: Path) -> Oracle:
        """Load what `save` wrote."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            oracle = cls.create(json.loads(file.metadata()["names"]))
            oracle.network.load_state_dict({k: file.get_tensor(k).float() for k in file.keys()}, strict=False)
        return oracle

    def look(self, pictures: np.ndarray) -> list[Sight]:
        """Judge images, uint8 [n, 128, 128, 3]."""
        return [sight for sight, _ in self.look_closely(pictures)]

    @torch.no_grad()
    def look_closely(self, pictures: np.ndarray) -> list[tuple[Sight, tuple[Tensor, ...]]]:
        """Judge images, uint8 [n, 128, 128, 3], and give of each what the layers see, [1, channels, rows, columns] from
        fine to coarse (`evaluate.similarity` compares images by it)."""
        x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        layers = self.network.features(x)
        out = self.network.answers(layers)
        labels = nn.functional.interpolate(out["region"], x.shape[2:], mode="bilinear").argmax(1).numpy()
        shades = nn.functional.interpolate(out["colour"].softmax(1), x.shape[2:], mode="bilinear").numpy()
        chances = out["things"].sigmoid().numpy()
        kinds = [dict[str, float]() for _ in x], [dict[str, float]() for _ in x]
        for name, found in zip(("background", "style"), kinds, strict=True):
            for i, row in enumerate(out[name].softmax(1).tolist()):
                found[i].update(zip(self.names[f"{name}s"], row, strict=True))
        return [
            (
                self._sight(chances[i], labels[i], shades[i], kinds[0][i], kinds[1][i]),
                tuple(layer[i : i + 1] for layer in layers),
            )
            for i in range(len(x))
        ]

    def _sight(
        self,
        chances: np.ndarray,
        labels: np.ndarray,
        shades: np.ndarray,
        backgrounds: dict[str, float],
        styles: dict[str, float],
    ) -> Sight:
        regions = {noun: labels == i + 1 for i, noun in enumerate(self.names["nouns"])}
        colours: dict[str, str | None] = {}
        for noun, region in regions.items():
            best = int(shades[:, region].mean(1).argmax()) if region.any() else 0
            colours[noun] = self.names["colours"][best - 1] if best else None
        things = dict(zip(self.names["nouns"], map(float, chances), strict=True))
        ground, style = (max(chances, key=lambda name: chances[name]) for chances in (backgrounds, styles))
        return Sight(things, ground, style, regions, colours, backgrounds, styles)
