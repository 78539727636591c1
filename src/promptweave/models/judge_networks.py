"""Networks that judge images, from a folder or from the local cache: CLIP, DINO, and the SqueezeNet of LPIPS.

Nothing is downloaded. What is not on this machine raises NoJudge, whose message says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from promptweave.models.hub import reach
from promptweave.models.quiet import quiet

CLIP, DINO = "openai/clip-vit-large-patch14", "facebook/dino-vitb8"
SQUEEZENET = "squeezenet1_1-b8a52dc0.pth"  # of torchvision
FIRES = (  # channels in, squeezed, out, by place in the network
    (3, 64, 16, 64), (4, 128, 16, 64), (6, 128, 32, 128), (7, 256, 32, 128), (9, 256, 48, 192), (10, 384, 48, 192),
    (11, 384, 64, 256), (12, 512, 64, 256),
)  # fmt: skip
SLICES = (2, 5, 8, 10, 11, 12, 13)  # ends of the parts whose outputs LPIPS compares


class NoJudge(Exception):
    """A judge whose network or library is not on this machine."""


def load_clip(folder: Path | None = None, name: str = CLIP) -> tuple[Any, Any, Any]:
    """A CLIP model, its image processor and its tokenizer. `folder`: looked into first, for a folder of that name."""
    from transformers import AutoTokenizer, CLIPModel

    place = _place(folder, name)

    def made() -> tuple[Any, Any, Any]:
        model = CLIPModel.from_pretrained(place, local_files_only=True).eval().requires_grad_(False)
        return model, _image_processor(place), AutoTokenizer.from_pretrained(place, local_files_only=True)

    return _loaded("CLIP", place, name, made)


def load_dino(folder: Path | None = None, name: str = DINO) -> Any:
    """A vision transformer of DINO. `folder`: looked into first, for a folder of that name."""
    from transformers import ViTModel

    place = _place(folder, name)

    def made() -> Any:
        model = ViTModel.from_pretrained(place, local_files_only=True, add_pooling_layer=False)
        return model.eval().requires_grad_(False)

    return _loaded("DINO", place, name, made)


def load_lpips(folder: Path | None = None) -> Lpips:
    """LPIPS with SqueezeNet 1.1 of torchvision, from `folder` or from torch's cache, and the weights of its layers
    that torchmetrics brings along."""
    try:
        heads = files("torchmetrics.functional.image").joinpath("lpips_models/squeeze.pth")
    except ImportError as missing:
        raise NoJudge(
            "LPIPS needs the extra 'evaluate'. Install it with: pip install 'promptweave[evaluate]'"
        ) from missing
    places = [*([folder / SQUEEZENET] if folder else []), Path(torch.hub.get_dir()) / "checkpoints" / SQUEEZENET]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise NoJudge(
            f"LPIPS needs the weights {SQUEEZENET} of torchvision, which are not in {' or '.join(map(str, places))}. "
            "Put the file there; nothing is downloaded."
        )
    network = Lpips()
    try:
        network.read(_tensors(found), _tensors(Path(str(heads))))
    except Exception as error:
        raise NoJudge(f"LPIPS cannot use {found} ({_said(error)}). Replace the file.") from error
    return network.eval().requires_grad_(False)


class Fire(nn.Module):
    """A fire module of SqueezeNet (Iandola et al. 2016); its names are torchvision's."""

    def __init__(self, given: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(given, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


class Lpips(nn.Module):
    """Learned perceptual distance (Zhang et al. 2018, arXiv 1801.03924) with SqueezeNet 1.1, as torchmetrics has it.

    The network is here, since torchvision, which brings it, cannot be installed everywhere.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU()]
        fires = {place: Fire(*sizes) for place, *sizes in FIRES}
        layers += [fires.get(place) or nn.MaxPool2d(3, 2, ceil_mode=True) for place in range(2, 13)]
        self.features = nn.Sequential(*layers)
        self.heads = nn.ParameterList(torch.zeros(width) for width in (64, 128, 256, 384, 384, 512, 512))

    def read(self, features: dict[str, torch.Tensor], heads: dict[str, torch.Tensor]) -> None:
        """Take weights by torchvision's names, and those of the layers by torchmetrics'."""
        prefix = "features."
        self.features.load_state_dict(
            {name.removeprefix(prefix): value for name, value in features.items() if name.startswith(prefix)}
        )
        with torch.no_grad():
            for place, head in enumerate(self.heads):
                head.copy_(heads[f"lin{place}.model.1.weight"].flatten())

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """The distance of two images [3, h, w] from -1 to 1 at each pixel, [h, w]; their mean is LPIPS only where all
        layers have whole cells, so `distance` is what is published."""
        size = first.shape[-2:]
        maps = [
            nn.functional.interpolate(one[None, None], size, mode="bilinear", align_corners=False)
            for one in self.layers(first, second)
        ]
        return torch.stack(maps).sum(0)[0, 0]

    def distance(self, first: torch.Tensor, second: torch.Tensor) -> float:
        """The distance of two images [3, h, w] from -1 to 1: the sum over layers of the means."""
        return float(sum(one.mean() for one in self.layers(first, second)))

    def layers(self, first: torch.Tensor, second: torch.Tensor) -> list[torch.Tensor]:
        """The weighted squared difference of the normalised features of each part, [cells, cells]."""
        x = (torch.stack([first, second]) - self.shift) / self.scale
        found: list[torch.Tensor] = []
        for begin, end, head in zip((0, *SLICES), SLICES, self.heads, strict=False):
            x = self.features[begin:end](x)
            unit = x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt()
            found.append(((unit[0] - unit[1]).square() * head[:, None, None]).sum(0))
        return found


def _place(folder: Path | None, name: str) -> str:
    """The folder of a network, or its name in the cache."""
    inside = None if folder is None else folder / name.partition("/")[2]
    return str(inside) if inside is not None and inside.is_dir() else name


def _loaded(what: str, place: str, name: str, made: Callable[[], Any]) -> Any:
    try:
        with reach(offline=True), quiet():
            return made()
    except Exception as error:  # any error of the library on a missing or damaged model
        where = f"in {place}" if place != name else "in the local cache"
        reason = "" if place == name else f" ({_said(error)})"
        raise NoJudge(
            f"{what} needs {name}, which cannot be loaded: it is not {where} as a whole{reason}. Give the folder that "
            f"holds {name.partition('/')[2]}; nothing is downloaded."
        ) from error


def _image_processor(place: str) -> Any:
    """CLIP's own by Pillow, which is what the published figures were made with."""
    import transformers

    kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    return kind.from_pretrained(place, local_files_only=True)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
