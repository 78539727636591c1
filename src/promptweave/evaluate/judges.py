"""Judges of an edit: what it is made from goes in, named figures come out.

The figures of PIE-Bench (Ju et al. 2024, arXiv 2310.01506) with their published definitions are `structure`, `psnr`,
`lpips`, `mse`, `ssim`, `clip_whole` and `clip_edited`; beside each stands the corrected one. A judge that is a network
gets it when it is made (`models.judge_networks` loads them).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image

from promptweave.evaluate.metrics import mse, psnr
from promptweave.evaluate.published_metrics import corrected, published

SIDE = 224  # of the shorter side that DINO sees, in pixels; the longer is at most LONGEST
LONGEST = 480
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
Figures = dict[str, float]


@dataclass(frozen=True, eq=False)
class Case:
    """An edit to be judged. `source`, `edit`: uint8 [h, w, 3]; `source` is None for an image that was generated.

    `mask`: bool [h, w], True where the edit may change the image, None if the data set has no masks; `published_mask`:
    the same as the data set's own evaluation reads it. `source_prompt`, `target_prompt`: without brackets.
    """

    source: np.ndarray | None
    edit: np.ndarray
    source_prompt: str
    target_prompt: str
    mask: np.ndarray | None = None
    published_mask: np.ndarray | None = None
    goal: np.ndarray | None = None


@runtime_checkable
class Judge(Protocol):
    """A judge. A figure that a case does not define is NaN or left out."""

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of what a call gives."""
        ...

    def __call__(self, case: Case) -> Figures: ...


@dataclass(frozen=True)
class Pixels:
    """PSNR, MSE and SSIM outside the mask (`published_metrics`), or of the whole image where there is no mask."""

    figures: tuple[str, ...] = ("psnr", "mse", "ssim", "psnr_outside", "mse_outside", "ssim_outside")

    def __call__(self, case: Case) -> Figures:
        if case.source is None:
            return {}
        return published(case.source, case.edit, outside(case, published=True)) | corrected(
            case.source, case.edit, outside(case)
        )


@dataclass(frozen=True)
class Goal:
    """Distance to the edit as it should be, where the data set knows it: PSNR in dB of the whole image and inside the
    mask, and MagicBrush's L1 and L2 (mean absolute and squared difference of pixels from 0 to 1)."""

    figures: tuple[str, ...] = ("psnr_goal", "psnr_goal_inside", "l1_goal", "l2_goal")

    def __call__(self, case: Case) -> Figures:
        if case.goal is None:
            return {}
        inside = ~outside(case) if case.mask is not None else np.ones(case.edit.shape[:2], bool)
        return {
            "psnr_goal": psnr(case.goal, case.edit), "psnr_goal_inside": psnr(case.goal, case.edit, inside),
            "l1_goal": float(np.abs(case.goal.astype(float) - case.edit).mean() / 255),
            "l2_goal": mse(case.goal, case.edit),
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Perceptual:
    """LPIPS of SqueezeNet, lower is closer: `lpips` of the images blackened inside the mask, as published; and
    `lpips_outside`, the mean over the pixels outside of the map of the images as they are."""

    network: Any
    figures: tuple[str, ...] = ("lpips", "lpips_outside")

    def __call__(self, case: Case) -> Figures:
        if case.source is None:
            return {}
        device, found = next(self.network.parameters()).device, dict.fromkeys(self.figures, math.nan)
        pair = [_floats(image, device) / 127.5 - 1 for image in (case.source, case.edit)]
        kept, free = outside(case, published=True), outside(case)
        with torch.no_grad():
            if kept.any():
                black = torch.from_numpy(~kept).to(device)
                found["lpips"] = self.network.distance(*(image.masked_fill(black, -1.0) for image in pair))
            if free.any():
                found["lpips_outside"] = float(self.network(*pair)[torch.from_numpy(free).to(device)].mean())
        return found


@dataclass(frozen=True, eq=False)
class Structure:
    """Distance of the self-similarities of DINO's last keys (Tumanyan et al. 2022, arXiv 2201.00424), whole image.

    `structure`: as published, with pixels from 0 to 255 where the network expects 0 to 1; `structure_scaled`: with
    those it expects.
    """

    network: Any
    figures: tuple[str, ...] = ("structure", "structure_scaled")

    def __call__(self, case: Case) -> Figures:
        if case.source is None:
            return {}
        device = next(self.network.parameters()).device
        pair = torch.stack([_floats(image, device) for image in (case.source, case.edit)])
        return {name: self.distance(pair / top) for name, top in zip(self.figures, (1, 255), strict=True)}

    def distance(self, pair: torch.Tensor) -> float:
        """Mean squared difference of the cosine similarities of all pairs of tokens; `pair` is [2, 3, h, w]."""
        first, second = (self.similarities(image) for image in pair)
        return float((first - second).square().mean())

    def similarities(self, image: torch.Tensor) -> torch.Tensor:
        """Cosine similarities of the keys of the last layer, all heads, of an image [3, h, w]: [tokens, tokens]."""
        size = _seen(*image.shape[-2:])
        small = torch.nn.functional.interpolate(image[None], size, mode="bilinear", align_corners=False)
        mean, spread = (torch.tensor(v, device=image.device)[:, None, None] for v in (MEAN, SPREAD))
        keys: list[torch.Tensor] = []
        layer = [m for name, m in self.network.named_modules() if name.endswith(("k_proj", "attention.key"))][-1]
        handle = layer.register_forward_hook(lambda _, given, made: keys.append(made))
        try:
            with torch.no_grad():
                self.network(pixel_values=(small - mean) / spread, interpolate_pos_encoding=True)
        finally:
            handle.remove()
        (k,) = keys
        norms = k[0].norm(dim=1, keepdim=True)
        return k[0] @ k[0].T / (norms @ norms.T).clamp(min=1e-8)


@dataclass(frozen=True, eq=False)
class Clip:
    """Similarity of image and prompt by CLIP, 100 max(cos, 0), higher is closer.

    `clip_whole` and `clip_edited` (black outside the mask) to the target's prompt, as published; `clip_box`: of the
    smallest box around the mask, without black. `clip_source`: of the source's image to its own prompt;
    `clip_change`: whether the image changed the way the words did, the cosine of both differences from -1 to 1.
    """

    network: Any
    processor: Any
    tokenizer: Any
    figures: tuple[str, ...] = ("clip_whole", "clip_edited", "clip_box", "clip_source", "clip_change")

    def __call__(self, case: Case) -> Figures:
        target = self.text(case.target_prompt)
        edit = self.image(case.edit)
        found = {"clip_whole": _score(edit, target)}
        mask, exact = case.published_mask, case.mask
        if mask is not None:
            black = np.where(mask[..., None], case.edit, 0).astype(np.uint8)
            found["clip_edited"] = _score(self.image(black), target) if mask.any() else math.nan
        if exact is not None:
            found["clip_box"] = _score(self.image(case.edit[_box(exact)]), target) if exact.any() else math.nan
        if case.source is not None:
            before, words = self.image(case.source), self.text(case.source_prompt)
            found["clip_source"] = _score(before, words)
            moved, meant = edit - before, target - words
            still = moved.norm() < 1e-6 or meant.norm() < 1e-6
            found["clip_change"] = math.nan if still else float(torch.cosine_similarity(moved, meant, dim=0))
        return found

    def image(self, image: np.ndarray) -> torch.Tensor:
        """The unit vector of a uint8 image [h, w, 3]."""
        given = self.processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"]
        return self._unit(self.network.get_image_features(pixel_values=given.to(self.network.device)))

    def text(self, prompt: str) -> torch.Tensor:
        """The unit vector of a prompt, cut to what the network reads."""
        longest = self.network.config.text_config.max_position_embeddings
        given = self.tokenizer([prompt], truncation=True, max_length=longest, return_tensors="pt")
        return self._unit(self.network.get_text_features(**given.to(self.network.device)))

    def _unit(self, made: Any) -> torch.Tensor:
        vector = made if isinstance(made, torch.Tensor) else made.pooler_output
        return torch.nn.functional.normalize(vector.detach()[0].float(), dim=0)


def outside(case: Case, *, published: bool = False) -> np.ndarray:
    """Where the edit must not change the image, bool [h, w]: everywhere without a mask."""
    mask = case.published_mask if published else case.mask
    return np.ones(case.edit.shape[:2], bool) if mask is None else ~mask


def _floats(image: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 [h, w, 3] -> float32 [3, h, w], 0 to 255."""
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1).to(device)


def _seen(height: int, width: int) -> tuple[int, int]:
    """The size in which DINO sees an image.

    >>> _seen(512, 512), _seen(300, 450), _seen(100, 900)
    ((224, 224), (224, 336), (53, 480))
    """
    short, long = SIDE, SIDE * max(height, width) // min(height, width)
    if long > LONGEST:
        short, long = LONGEST * short // long, LONGEST
    return (short, long) if height <= width else (long, short)


def _score(first: torch.Tensor, second: torch.Tensor) -> float:
    return 100 * max(float(first @ second), 0.0)


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """The smallest box around a mask that is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
