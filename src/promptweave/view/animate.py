"""Animations: GIF, WebP and MP4."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

KINDS = (".gif", ".webp", ".mp4")


def save_animation(frames: Sequence[Image.Image], path: Path | str, *, seconds: int | float = 0.15) -> Path:
    """Write frames as a looping .gif or .webp, or as an .mp4 (extra "video"); the last is held ten times as long.

    Raises ValueError for other suffixes or no frames, ImportError without the extra. Returns the path.
    """
    path = Path(path)
    if path.suffix not in KINDS:
        raise ValueError(f"An animation is a {', '.join(KINDS[:-1])} or {KINDS[-1]} file. Received {path}.")
    if not frames:
        raise ValueError("An animation needs at least one frame. Received none.")
    times = [round(seconds * 1000)] * (len(frames) - 1) + [round(seconds * 10_000)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        return _film([*frames, *[frames[-1]] * 9], path, seconds)
    shown = list(frames)
    if path.suffix == ".gif":  # one palette for all frames, so that colours do not flicker
        palette = shown[-1].quantize(255)
        shown = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in shown]
    options: dict[str, Any] = {"method": 4, "quality": 80} if path.suffix == ".webp" else {}
    shown[0].save(path, save_all=True, append_images=shown[1:], duration=times, loop=0, **options)
    return path


def _film(frames: Sequence[Image.Image], path: Path, seconds: int | float) -> Path:
    """Write H.264, which needs even sides: the last column or row is repeated."""
    video = check_video()
    with video.open(str(path), "w") as film:
        stream = film.add_stream("h264", rate=Fraction(1 / seconds).limit_denominator(1000))
        stream.width, stream.height = (side + side % 2 for side in frames[0].size)
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
        for image in frames:
            pixels = np.asarray(image.convert("RGB"))
            even = np.pad(pixels, [(0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)], "edge")
            film.mux(stream.encode(video.VideoFrame.from_ndarray(even, format="rgb24")))
        film.mux(stream.encode())
    return path


def check_video() -> Any:
    """PyAV, the video encoder. Raises ImportError without the extra."""
    try:
        return import_module("av")
    except ImportError as error:
        raise ImportError(
            "An .mp4 needs the extra 'video'. Install it with: pip install 'promptweave[video]', or write a .webp."
        ) from error
