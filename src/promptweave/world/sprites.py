"""The sprites: Fluent Emoji 3D (Microsoft, MIT licence); downscaled copies ship with the package."""

from __future__ import annotations

import colorsys
import functools
import shutil
import subprocess
import tarfile
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"
FOLDER = "sprite_pictures"
CODEPOINTS = {
    "cat": "1f408", "dog": "1f415", "lion": "1f981", "tiger": "1f405", "zebra": "1f993", "horse": "1f40e",
    "rabbit": "1f407", "penguin": "1f427", "fox": "1f98a", "bear": "1f43b", "panda": "1f43c",
    "squirrel": "1f43f-fe0f", "bird": "1f426", "bike": "1f6b2", "car": "1f697", "bus": "1f68c", "scooter": "1f6f5",
    "motorcycle": "1f3cd-fe0f", "skateboard": "1f6f9", "burger": "1f354", "pizza": "1f355", "cake": "1f382",
    "apple": "1f34e", "tree": "1f333", "house": "1f3e0", "castle": "1f3f0", "hat": "1f3a9", "crown": "1f451",
}  # fmt: skip
HUES = {"red": 0.985, "yellow": 0.14, "green": 0.36, "blue": 0.60}
SHIPPED_SIDE = 144  # pixels: slightly larger than any sprite in a 128-pixel scene


def prepare(cache: Path, folder: Path) -> None:
    """Fetch the sprite set with npm into `cache` and write downscaled copies of the world's nouns to `folder`."""
    if shutil.which("npm") is None:
        raise RuntimeError(
            "npm is needed to fetch the sprite set and is not installed. Install Node.js, then try again."
        )
    cache.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["npm", "pack", PACKAGE], cwd=cache, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"npm could not fetch {PACKAGE}: {done.stderr.strip()[-300:]}. Check the network, then try again."
        )
    with tarfile.open(cache / done.stdout.strip().splitlines()[-1]) as archive:
        archive.extractall(cache, filter="data")
    folder.mkdir(parents=True, exist_ok=True)
    for noun, codepoint in CODEPOINTS.items():
        image = Image.open(cache / "package" / "assets" / f"{codepoint}.webp").convert("RGBA")
        image = image.crop(image.getbbox())
        image.thumbnail((SHIPPED_SIDE, SHIPPED_SIDE), Image.Resampling.LANCZOS)
        image.save(folder / f"{noun}.webp", quality=92, method=6)


@functools.cache
def sprite(noun: str, colour: str | None = None) -> Image.Image:
    """The RGBA sprite of a noun, tinted if a colour is given. Raises ValueError for unknown nouns."""
    if noun not in CODEPOINTS:
        raise ValueError(f"The world has no thing {noun!r}. Choose one of {', '.join(CODEPOINTS)}.")
    with resources.files("promptweave.world").joinpath(FOLDER, f"{noun}.webp").open("rb") as file:
        image = Image.open(file).convert("RGBA")
    return tint(image, colour) if colour else image


def tint(image: Image.Image, colour: str) -> Image.Image:
    """Shift the saturated (and the dark) parts of a sprite to the hue of `colour`, keeping the shading."""
    pixels = np.asarray(image, dtype=np.float32) / 255
    rgb, alpha = pixels[..., :3], pixels[..., 3:]
    high, low = rgb.max(-1, keepdims=True), rgb.min(-1, keepdims=True)
    saturation = (high - low) / np.maximum(high, 1e-5)
    painted = np.clip((saturation - 0.12) / 0.25, 0, 1)
    value = 0.42 + 0.9 * high if float(np.median(high[alpha > 0.5])) < 0.5 else high  # brighten black things
    pure = np.array(colorsys.hsv_to_rgb(HUES[colour], 0.86, 1.0), dtype=np.float32)
    tinted = painted * (value * pure + 0.10 * value**4) + (1 - painted) * rgb
    return Image.fromarray((np.concatenate([tinted.clip(0, 1), alpha], -1) * 255).astype(np.uint8), "RGBA")
