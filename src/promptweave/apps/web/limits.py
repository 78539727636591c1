"""Limits on the requests of a visitor."""

from __future__ import annotations

from dataclasses import dataclass

from promptweave.editing.recipe import Recipe


class TooMuch(ValueError):
    """A request that exceeds the page's limits."""


@dataclass(frozen=True)
class Limits:
    """`recordings`: bytes for the recordings of all visitors; `history`: images per visitor."""

    steps: int = 100
    pixels: int = 1024 * 1024
    characters: int = 1000
    seed: int = 2**31 - 1
    cells: int = 36
    chain: int = 8
    controls: int = 12
    mask_cells: int = 1024 * 1024
    history: int = 30
    recordings: int = 2_000_000_000
    upload_bytes: int = 20_000_000
    upload_pixels: int = 16_000_000

    def check(self, recipe: Recipe, depth: int = 1) -> None:
        """Raise TooMuch for a recipe (or its bases) that would take too long or too much memory."""
        size = recipe.size or (1, 1)
        picture = (1, 1) if recipe.picture is None else recipe.picture.size
        masks = [getattr(control, "mask", None) or () for control in recipe.controls]
        asked = {
            "steps": (recipe.steps, self.steps),
            "pixels": (size[0] * size[1], self.pixels),
            "pixels of the image": (picture[0] * picture[1], self.pixels),
            "images at once": (len(recipe.prompts) * recipe.images, 4),
            "characters of a prompt": (max(len(p) for p in (*recipe.prompts, recipe.negative)), self.characters),
            "the seed": (recipe.seed, self.seed),
            "controls": (len(recipe.controls), self.controls),
            "cells of a mask": (sum(len(row) for mask in masks for row in mask), self.mask_cells),
            "chained edits": (depth, self.chain),
            "times the prompt's length": (recipe.chunks, 4),
        }
        for name, (value, most) in asked.items():
            if isinstance(value, bool) or not isinstance(value, int) or value > most:
                raise TooMuch(f"This page allows at most {most} for {name}. Received {value!r}. Ask for less.")
        if recipe.steps < 1:
            raise TooMuch(f"steps must be at least 1. Received {recipe.steps}.")
        if recipe.base is not None:
            self.check(recipe.base, depth + 1)
