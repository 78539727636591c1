"""The three tasks: for each its head, loss and measures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptweave.evaluate.vision import Measure, depth_measures, mask_measures, region_measures
from promptweave.perception.heads import DepthHead, FpnHead, ReferHead, enlarged
from promptweave.perception.samples import IGNORED

TASKS = ("segment", "refer", "depth")
MASK_WEIGHTS = (0.9, 1.1)  # of ground and mask in the loss of referring segmentation
VARIANCE_SHARE = 0.5  # lambda of the scale-invariant loss


@dataclass(frozen=True)
class Plan:
    """What a perceiver does, and how it reads the network; kept in its file.

    `classes`: names of the context's vectors, for segment those of the answers, too; empty where phrases or scenes of
    the data are the context. `text`: a class is the state at the end of its text ("pooled", as published) or that of
    its word ("word"). `sink`: the context also has the start token's state, whose map is not read. `maps`: whether
    attention maps are read. `tokens`: read of a phrase. `width`: of the head. `size`: (height, width) in pixels of a
    window. `farthest`: metres. `mirrored`: whether the head has learned from mirror images, too.
    """

    task: str
    classes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    templates: tuple[str, ...] = ("{}",)
    text: Literal["pooled", "word"] = "pooled"
    sink: bool = False
    maps: bool = True
    t: int | float = 1
    published_scale: bool = False
    tokens: int = 40
    width: int = 256
    size: tuple[int, int] = (512, 512)
    farthest: int | float = 10.0
    fine_tuned: bool = False
    mirrored: bool = False

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}. Received {self.task!r}.")
        if self.task == "segment" and len(self.classes) < 2:
            raise ValueError(f"Segmentation needs at least two classes. Received {len(self.classes)}. Name them.")

    @property
    def vectors(self) -> int:
        """The number of the context's vectors that have a map."""
        if self.task == "refer":
            return self.tokens
        return len(self.classes) or 1

    @property
    def with_maps(self) -> bool:
        """Whether maps are read; a context of one vector has constant ones, and depth reads none then (section 4.3)."""
        return self.maps and self.vectors > 1

    def head(self, channels: Sequence[int]) -> nn.Module:
        """The head for levels of so many channels."""
        if self.task == "segment":
            return FpnHead(channels, len(self.classes), self.width)
        if self.task == "refer":
            return ReferHead(channels, self.width)
        return DepthHead(channels, self.width, self.farthest)

    def measure(self) -> Measure:
        """Fresh measures of the task."""
        if self.task == "segment":
            return region_measures(self.classes, IGNORED)
        return mask_measures() if self.task == "refer" else depth_measures(self.farthest)

    def answer(self, output: Tensor) -> Tensor:
        """Labels, a mask (bool) or depth [batch, height, width] of a head's output on the image's grid."""
        if self.task == "depth":
            return output[:, 0]
        return output.argmax(1) if self.task == "segment" else output.argmax(1) == 1

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of a head's output [batch, channels, h, w] against answers [batch, height, width]."""
        output = enlarged(output.float(), target[:, None], corners=self.task == "refer")
        if self.task == "depth":
            return silog(output[:, 0], target)
        weight = torch.tensor(MASK_WEIGHTS, device=output.device) if self.task == "refer" else None
        return F.cross_entropy(output, target, weight, ignore_index=IGNORED)

    def written(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Plan:
        """What `written` gave. Raises ValueError for anything else."""
        try:
            values: dict[str, Any] = json.loads(text)
            fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(**fields)
        except (TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"The file does not say which task it was trained for: {error}. Train it again."
            ) from error


def silog(found: Tensor, target: Tensor) -> Tensor:
    """The scale-invariant loss (Eigen et al. 2014) over pixels whose depth is known, sqrt(mean d^2 - mean(d)^2 / 2)
    with d = ln target - ln found."""
    known = target > 0
    d = target[known].log() - found[known].clamp_min(1e-3).log()
    if not d.numel():
        return found.sum() * 0
    return (d.square().mean() - VARIANCE_SHARE * d.mean().square()).clamp_min(1e-12).sqrt()
