"""The figures of PIE-Bench that need no network (Ju et al. 2024, arXiv 2310.01506): PSNR, MSE and SSIM outside a mask.

`psnr`, `mse` and `ssim` are what its published tables hold: both images are multiplied by the region outside the mask,
and then compared over the WHOLE image, black parts included. So MSE shrinks, and PSNR and SSIM grow, with the area of
the mask. `psnr_outside`, `mse_outside` and `ssim_outside` are over the pixels outside alone.

All are NaN where nothing lies outside, as published. The published mask has a frame of one pixel that always counts as
edited (`pie_bench.framed`); the others do not.
"""

from __future__ import annotations

import math

import numpy as np

from promptweave.evaluate.metrics import mse, psnr
from promptweave.evaluate.structural_similarity import ssim

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
        "ssim": ssim(*kept),
    }  # fmt: skip


def corrected(source: np.ndarray, edit: np.ndarray, outside: np.ndarray) -> Figures:
    """The same over the pixels of `outside` alone, bool [h, w]. PSNR is at most 60 dB; SSIM is the mean over the
    windows that lie outside as a whole, NaN if there is none."""
    _check(source, edit, outside)
    return {
        "psnr_outside": psnr(source, edit, outside), "mse_outside": mse(source, edit, outside),
        "ssim_outside": ssim(source, edit, outside),
    }  # fmt: skip


def _check(source: np.ndarray, edit: np.ndarray, outside: np.ndarray) -> None:
    if source.shape != edit.shape or source.shape[:2] != outside.shape:
        raise ValueError(
            f"Two images of one size are compared, with a region of that size. Received {source.shape}, {edit.shape} "
            f"and {outside.shape}."
        )
