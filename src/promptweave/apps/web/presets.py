"""Starting points: pairs of prompts to try, and strengths to begin with."""

from __future__ import annotations

from dataclasses import dataclass

from promptweave.core.clock import Number


@dataclass(frozen=True)
class Example:
    """Two prompts and a seed."""

    source: str
    target: str
    seed: int = 0


EXAMPLES = {
    "Swap a word": Example("a photo of a cat riding a bike", "a photo of a cat riding a car"),
    "Another animal": Example("a photo of a dog next to a tree", "a photo of a fox next to a tree", 2),
    "Another colour": Example("a photo of a red car in the snow", "a photo of a blue car in the snow", 1),
    "Add a thing": Example("a photo of a cat on a beach", "a photo of a cat wearing a hat on a beach", 3),
    "Another background": Example("a photo of a cat on a beach", "a photo of a cat in the snow", 3),
    "Another style": Example("a photo of a house in a forest", "a watercolor of a house in a forest", 1),
}
USUAL, CUSTOM = "Usual for this edit", "As set below"
STRENGTHS: dict[str, tuple[Number, Number, Number]] = {  # of words, shapes, and the source in joint attention
    "Keep more": (1.0, 0.6, 0.4),
    "Change more": (0.4, 0.2, 0.1),
    "No control": (0, 0, 0.05),
}
CHOICES = (USUAL, *STRENGTHS)
