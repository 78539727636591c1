"""Sentences about a thing: the sentence banks that edit directions are computed from (pix2pix-zero, section 3.1)."""

from __future__ import annotations

TEMPLATES = (
    "{a}", "a photo of {a}", "a picture of {a}", "an image of {a}", "a close-up of {a}", "a painting of {a}",
    "a drawing of {a}", "a sketch of {a}", "a watercolor painting of {a}", "a photo of {a} on the grass",
    "a photo of {a} on a beach", "a photo of {a} in the snow", "a photo of {a} in a forest", "a photo of {a} at night",
    "a photo of {a} in the desert", "a photo of {a} in the city", "{a} in front of a house", "{a} next to a tree",
    "a small {n}", "a big {n}", "a beautiful {n}", "a red {n}", "a blue {n}", "a black {n}", "a white {n}",
    "a photo of the {n}", "the {n} in the morning", "the {n} in the rain", "a portrait of {a}", "{a} in the sun",
    "there is {a} in the picture", "{a} seen from the side", "{a} seen from the front", "a photo of {a} with a hat",
)  # fmt: skip


def about(thing: str) -> tuple[str, ...]:
    """The templates filled with a thing: "cat" or, with its own article, "a tabby cat". Raises ValueError if empty.

    >>> about("owl")[1]
    'a photo of an owl'
    """
    thing = thing.strip()
    if not thing:
        raise ValueError("A direction leads from one thing to another. Received an empty name.")
    first, _, rest = thing.partition(" ")
    own = first.lower() in ("a", "an", "the") and bool(rest)
    noun = rest if own else thing
    whole = thing if own else f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
    return tuple(template.format(a=whole, n=noun) for template in TEMPLATES)
