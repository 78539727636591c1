"""Moving pictures: GIF and WebP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

KINDS = (".gif", ".webp")


def save_animation(frames: Sequence[Image.Image], path: Path | str, *, seconds: int | float = 0.15) -> Path:
    """Write frames as an endless .gif or .webp; the last one stays for ten times as long."""
    path = Path(path)
    if path.suffix not in KINDS:
        raise ValueError(f"An animation is a {' or '.join(KINDS)} file. Received {path}.")
    if not frames:
        raise ValueError("An animation needs at least one frame. Received none.")
    times = [round(seconds * 1000)] * (len(frames) - 1) + [round(seconds * 10_000)]
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = list(frames)
    if path.suffix == ".gif":  # one palette for all, so that colours do not flicker
        palette = shown[-1].quantize(255)
        shown = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in shown]
    options: dict[str, Any] = {"method": 4, "quality": 80} if path.suffix == ".webp" else {}
    shown[0].save(path, save_all=True, append_images=shown[1:], duration=times, loop=0, **options)
    return path
