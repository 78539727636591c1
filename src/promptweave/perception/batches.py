"""Examples as tensors: fitted or augmented, stacked, and as features that are computed once."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from promptweave.perception.perceiver import Perceiver
from promptweave.perception.samples import IGNORED, Examples, Sample

MOST_CACHED = 8e9  # bytes of kept features


def context_of(perceiver: Perceiver, batch: list[Sample]) -> Tensor:
    phrases = [sample.phrase or "" for sample in batch] if perceiver.plan.task == "refer" else None
    return perceiver.context(len(batch), phrases, [sample.kind for sample in batch] if perceiver.plan.kinds else None)


def stacked(batch: list[Sample], device: torch.device) -> tuple[Tensor, Tensor]:
    """Images [n, height, width, 3] in [0, 1], and answers [n, height, width]."""
    pictures = torch.from_numpy(np.stack([sample.picture for sample in batch])).to(device).float() / 255
    return pictures, torch.from_numpy(np.stack([sample.target for sample in batch])).to(device)


@torch.no_grad()
def kept_features(
    perceiver: Perceiver, examples: Examples, told: Callable[[float], None] | None = None, batch: int = 32
) -> tuple[list[Tensor], Tensor]:
    """What the head reads of all examples, in half precision, and their answers; images are brought to the plan's
    size. Raises ValueError if that is more than MOST_CACHED bytes."""
    levels: list[Tensor] = []
    targets: list[Tensor] = []
    count, learning = len(examples), perceiver.training
    perceiver.eval()
    for begin in range(0, count, batch):
        some = [fitted(examples[i], perceiver.plan.size) for i in range(begin, min(count, begin + batch))]
        pictures, answers = stacked(some, perceiver.extractor.model.device)
        extractor = perceiver.extractor
        found = perceiver.joined(
            extractor.see(extractor.latents(pictures), perceiver.adapted(context_of(perceiver, some)))
        )
        if not levels:
            size = sum(x[0].numel() for x in found) * 2 * count
            if size > MOST_CACHED:
                raise ValueError(
                    f"The features of {count} examples would take {size / 1e9:.1f} GB, and at most "
                    f"{MOST_CACHED / 1e9:.0f} are kept. Train through the network: --steps 0 --through N."
                )
            levels = [torch.empty(count, *x.shape[1:], dtype=torch.float16) for x in found]
        for whole, x in zip(levels, found, strict=True):
            whole[begin : begin + len(x)] = x.clamp(-65504, 65504).half().cpu()
        targets.append(answers.cpu())
        if told:
            told(min(1.0, (begin + batch) / count))
    perceiver.train(learning)
    return levels, torch.cat(targets)


def fitted(sample: Sample, size: tuple[int, int]) -> Sample:
    """A sample of this size: stretched, the answer by nearest neighbour."""
    if sample.picture.shape[:2] == size:
        return sample
    return _resized(sample, size)


def augmented(sample: Sample, size: tuple[int, int], scales: tuple[float, float], rng: random.Random) -> Sample:
    """A random scale, crop and mirror image of a sample, of this size; with a phrase, which may say left, stretched."""
    if sample.phrase is not None:
        return fitted(sample, size)
    height, width = sample.picture.shape[:2]
    factor = max(size[0] / height, size[1] / width) * rng.uniform(*scales)
    if (height, width) != size or factor != 1:
        sample = _resized(sample, (max(1, round(height * factor)), max(1, round(width * factor))))
        sample = _cropped(sample, size, rng)
    if rng.random() < 0.5:
        return Sample(sample.picture[:, ::-1].copy(), sample.target[:, ::-1].copy(), None, sample.kind)
    return sample


def _resized(sample: Sample, size: tuple[int, int]) -> Sample:
    picture = torch.from_numpy(sample.picture).permute(2, 0, 1)[None].float()
    picture = F.interpolate(picture, size, mode="bilinear", antialias=True).round().clamp(0, 255)
    target = torch.from_numpy(sample.target)[None, None].float()
    target = F.interpolate(target, size, mode="nearest-exact")[0, 0].numpy().astype(sample.target.dtype)
    return Sample(picture[0].permute(1, 2, 0).byte().numpy(), target, sample.phrase, sample.kind)


def _cropped(sample: Sample, size: tuple[int, int], rng: random.Random) -> Sample:
    """A random crop; where the sample is smaller, it is padded with black, of which nothing is known."""
    (height, width), (tall, broad) = sample.picture.shape[:2], size
    down, right = max(0, tall - height), max(0, broad - width)
    unknown = 0 if sample.target.dtype.kind == "f" else IGNORED
    picture = np.pad(sample.picture, ((0, down), (0, right), (0, 0)))
    target = np.pad(sample.target, ((0, down), (0, right)), constant_values=unknown)
    top, left = rng.randint(0, picture.shape[0] - tall), rng.randint(0, picture.shape[1] - broad)
    where = (slice(top, top + tall), slice(left, left + broad))
    return Sample(picture[where].copy(), target[where].copy(), sample.phrase, sample.kind)
