"""Errors in the words of the page: its fields stand where the library names options."""

from __future__ import annotations

import re

from promptweave.apps.web.work import sentence

FIELDS = {  # by option: what is done about it on the page
    "truncate": 'checking "Cut prompts that are too long"', "image": "opening an image",
    "mask": "painting a region", "scheduler": "choosing another scheduler", "guidance": "the guidance",
    "negative": "the negative prompt", "size": "the size", "steps": "the steps", "seed": "the seed",
    "blend": 'the words under "Restrict changes"', "subtract": 'the words under "Keep the regions"',
    "weights": "the strengths of words", "cross": 'the slider "Words"', "self_attention": 'the slider "Shapes"',
    "joint": 'the slider "Source"', "threshold": "the region threshold", "inversion": "the inversion",
    "keep_original": '"Put edits back into the original"', "fit": "the way in which the image is opened",
}  # fmt: skip
RULES = (
    (r", read it in \d+ chunks \([^)]*--chunks[^)]*\)", ""),  # the page reads prompts whole
    (r"allow truncation with truncate=True(?: \(--truncate\))?", 'check "Cut prompts that are too long"'),
    (r'Load the model with scheduler="([\w+-]+)"(?: \(--scheduler [\w+-]+\))?', r"Choose the scheduler \1"),
    (r"[Gg]ive image=\.\.\.(?: and mask=\.\.\.)?[^,.]*?\(--image[^)]*\)", "Open an image"),
    (r" \((?:[\w=\".]+, )?--[^()]*\)", ""),  # an option of the command line in brackets
)


def page_sentence(error: Exception) -> str:
    """The message for an error on the page."""
    return for_page(sentence(error))


def for_page(text: str) -> str:
    """The sentence without options of the command line, and with the page's fields for those of Python."""
    for pattern, new in RULES:
        text = re.sub(pattern, new, text)
    text = re.sub(r"--([a-z][\w-]*)", lambda found: _field(found[1].replace("-", "_"), found[0]), text)
    return re.sub(r"\b([a-z_]+)=(?:True|\.\.\.)", lambda found: _field(found[1], found[0]), text)


def _field(name: str, otherwise: str) -> str:
    return FIELDS.get("self_attention" if name == "self" else name, otherwise)
