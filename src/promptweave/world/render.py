"""Draw a scene: an RGB image and the visible region of each thing."""

from __future__ import annotations

import functools
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from promptweave.world.scene import Scene, Thing
from promptweave.world.sprites import sprite

SIDE = 128
# Colours of the sky (or back wall) and of the ground.
GROUNDS = {
    "beach": ((120, 200, 250), (235, 215, 160)),
    "grass": ((165, 220, 250), (105, 180, 75)),
    "snow": ((185, 205, 235), (240, 245, 250)),
    "desert": ((250, 205, 150), (215, 155, 85)),
    "night": ((18, 22, 66), (40, 44, 62)),
    "forest": ((95, 160, 120), (45, 85, 45)),
}


def render(scene: Scene, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """The image, uint8 [side, side, 3], and the visible region of each thing, bool [things, side, side]."""
    image = background(scene.background, scene.detail, side)
    masks = np.zeros((len(scene.things), side, side), dtype=bool)
    for index, thing in enumerate(scene.things):
        picture, corner = _placed(thing, side)
        image.paste(picture, corner, picture)
        canvas = Image.new("L", (side, side))
        canvas.paste(picture.getchannel("A"), corner)
        covered = np.asarray(canvas) > 127
        masks[:index] &= ~covered
        masks[index] = covered
    return np.asarray(styled(image, scene.style)), masks


def background(name: str, detail: int, side: int = SIDE) -> Image.Image:
    """A simple landscape; `detail` seeds its horizon, hue and ornaments."""
    rng = random.Random(detail)
    horizon = int(side * rng.uniform(0.55, 0.66))
    sky, ground = (np.array(colour) + rng.uniform(-8, 8) for colour in GROUNDS[name])
    rows = np.linspace(0, 1, side)[:, None]
    colours = np.where(rows * side < horizon, sky + rows * 30, ground - (rows - 0.6) * 50)
    image = Image.fromarray(np.broadcast_to(colours[:, None], (side, side, 3)).clip(0, 255).astype(np.uint8).copy())
    _ORNAMENTS[name](ImageDraw.Draw(image), rng, horizon, side)
    return image.filter(ImageFilter.GaussianBlur(side / 180))


def _sun(draw: ImageDraw.ImageDraw, rng: random.Random, horizon: int, side: int) -> None:
    x, radius = rng.choice((0.14, 0.86)) * side, 0.07 * side
    draw.ellipse((x - radius, 0.14 * side - radius, x + radius, 0.14 * side + radius), fill=(255, 228, 100))


def _meadow(draw: ImageDraw.ImageDraw, rng: random.Random, horizon: int, side: int) -> None:
    _sun(draw, rng, horizon, side)
    x = rng.uniform(0.3, 0.6) * side
    draw.ellipse((x, 0.10 * side, x + 0.2 * side, 0.17 * side), fill=(255, 255, 255))


def _beach(draw: ImageDraw.ImageDraw, rng: random.Random, horizon: int, side: int) -> None:
    _sun(draw, rng, horizon, side)
    draw.rectangle((0, horizon - 0.14 * side, side, horizon), fill=(45, 130, 200))


def _snow(draw: ImageDraw.ImageDraw, rng: random.Random, horizon: int, side: int) -> None:
    draw.polygon([(0, horizon), (0.2 * side, horizon - 0.2 * side), (0.45 * side, horizon)], fill=(225, 232, 245))
    draw.polygon([(0.4 * side, horizon), (0.75 * side, horizon - 0.28 * side), (side, horizon)], fill=(215, 225, 242))


def _desert(draw: ImageDraw.ImageDraw, rng: random.Random, horizon: int, side: int) -> None:
    draw.ellipse((-0.2 * side, horizon - 0.10 * side, 0.6 * side, horizon + 0.3 * side), fill=(228, 170, 100))


def _night(draw: ImageDraw.ImageDraw, rng: random.Random, horizon: int, side: int) -> None:
    x = rng.choice((0.15, 0.85)) * side
    draw.ellipse((x - 0.07 * side, 0.07 * side, x + 0.07 * side, 0.21 * side), fill=(240, 240, 205))


def _forest(draw: ImageDraw.ImageDraw, rng: random.Random, horizon: int, side: int) -> None:
    for index in range(6):
        x, half = (index + 0.5 + rng.uniform(-0.2, 0.2)) * side / 6, 0.10 * side
        top = horizon - rng.uniform(0.28, 0.42) * side
        draw.polygon(
            [(x - half, horizon + 0.03 * side), (x, top), (x + half, horizon + 0.03 * side)], fill=(35, 95, 55)
        )


_ORNAMENTS = {"beach": _beach, "grass": _meadow, "snow": _snow, "desert": _desert, "night": _night, "forest": _forest}


def _placed(thing: Thing, side: int) -> tuple[Image.Image, tuple[int, int]]:
    picture = _scaled(thing.noun, thing.colour, thing.flip, max(4, round(thing.size * side)))
    return picture, (round(thing.x * side - picture.width / 2), round(thing.bottom * side - picture.height))


@functools.lru_cache(maxsize=8192)
def _scaled(noun: str, colour: str | None, flip: bool, longer: int) -> Image.Image:
    picture = sprite(noun, colour)
    factor = longer / max(picture.size)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else picture


def styled(image: Image.Image, style: str) -> Image.Image:
    """The image in one of the world's four styles."""
    if style == "painting":
        return Image.blend(image, image.filter(ImageFilter.ModeFilter(7)), 0.9).point(
            [int(v % 256 * 0.82) for v in range(768)]
        )
    if style == "watercolor":
        soft = image.filter(ImageFilter.GaussianBlur(image.width / 90))
        return Image.blend(soft, Image.new("RGB", image.size, (255, 250, 240)), 0.38)
    if style == "sketch":
        grey = image.convert("L")
        lines = grey.filter(ImageFilter.GaussianBlur(0.6)).filter(ImageFilter.CONTOUR)
        return Image.blend(lines, grey, 0.45).convert("RGB")
    return image
