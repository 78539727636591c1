"""The figures of PIE-Bench that need no network (Ju et al. 2024, arXiv 2310.01506): PSNR, MSE and SSIM outside a mask.

`psnr`, `mse` and `ssim` are what its published tables hold: both images are multiplied by the region outside the mask,
and then compared over the WHOLE image, black parts included. So MSE shrinks, and PSNR and SSIM grow, with the area of
the mask. `psnr_outside`, `mse_outside` and `ssim_outside` are over the pixels outside alone.

All are NaN where nothing lies outside, as published. The published mask has a frame of one pixel that always counts as
edited (`pie_bench.framed`); the others do not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from promptweave.evaluate.metrics import mse, psnr

WINDOW = 11  # side of the window of SSIM, in pixels: a Gaussian of 1.5 pixels
Figures = dict[str, float]


def published(source: np.ndarray, edit: np.ndarray, outside: np.ndarray) -> Figures:
    """PSNR in dB (infinite for equal regions), MSE and SSIM of two uint8 images [h, w, 3], scaled to [0, 1], as
    published. `outside`: bool [h, w], False in the published mask."""
    _check(source, edit, outside)
    if not outside.any():
        return dict.fromkeys(("psnr", "mse", "ssim"), math.nan)
    kept = [np.where(outside[..., None], image, 0).astype(np.uint8) for image in (source, edit)]
    error = mse(*kept)
    return {
        "psnr": -10 * math.log10(error) if error else math.inf, "mse": error,
        "ssim": float(ssim_map(*kept).mean()),
    }  # fmt: skip


def corrected(source: np.ndarray, edit: np.ndarray, outside: np.ndarray) -> Figures:
    """The same over the pixels of `outside` alone, bool [h, w]. PSNR is at most 60 dB; SSIM is the mean over the
    windows that lie outside as a whole, NaN if there is none."""
    _check(source, edit, outside)
    free = whole_windows(outside)
    return {
        "psnr_outside": psnr(source, edit, outside), "mse_outside": mse(source, edit, outside),
        "ssim_outside": float(ssim_map(source, edit)[free].mean()) if free.any() else math.nan,
    }  # fmt: skip


def ssim_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) of two uint8 images [h, w, 3] at each pixel, mean over the channels,
    float32 [h, w]; computed by torchmetrics with its defaults, the range 1. Raises ImportError without the extra."""
    pair = [torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None] for image in (first, second)]
    _, full = _torchmetrics()(*pair, data_range=1.0, return_full_image=True)
    return full[0].mean(0).numpy()


def whole_windows(outside: np.ndarray) -> np.ndarray:
    """The pixels whose window of SSIM lies in `outside` as a whole, bool [h, w]."""
    image = Image.fromarray(np.pad(outside, WINDOW // 2, mode="edge").astype(np.uint8) * 255)
    inner = np.asarray(image.filter(ImageFilter.MinFilter(WINDOW))) > 0
    return inner[WINDOW // 2 : -(WINDOW // 2), WINDOW // 2 : -(WINDOW // 2)]


def _check(source: np.ndarray, edit: np.ndarray, outside: np.ndarray) -> None:
    if source.shape != edit.shape or source.shape[:2] != outside.shape:
        raise ValueError(
            f"Two images of one size are compared, with a region of that size. Received {source.shape}, {edit.shape} "
            f"and {outside.shape}."
        )


def _torchmetrics() -> Any:
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError as missing:
        raise ImportError(
            "SSIM needs the extra 'evaluate'. Install it with: pip install 'promptweave[evaluate]'"
        ) from missing
    return structural_similarity_index_measure
