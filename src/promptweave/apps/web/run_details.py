"""The facts of the run that made an image, as a table that people read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptweave.apps.web.session import Session
from promptweave.apps.web.words import steps_html
from promptweave.editing.fitting import told
from promptweave.editing.report import inversion_told, put_back_told
from promptweave.editing.usual_strengths import strengths_told
from promptweave.editing.who_reads import asked

LONGEST = 200  # characters of a value
TITLES = {
    "Replace": "Words swapped", "Refine": "Words added or dropped", "Reweight": "Strengths of words",
    "LocalBlend": "Region that may change", "Inpaint": "Made anew",
}  # fmt: skip


def details(session: Session) -> str:
    """The table of the image on the page."""
    node = session.shown
    recipe, report = node.recipe, node.result.report
    height, width = node.pixels.shape[:2]
    facts = [
        ("Prompt", node.prompt), ("Edited from", recipe.source if node.row else "-"), ("Model", session.model),
        ("Seed", str(recipe.seed)), ("Steps", f"{recipe.steps}, scheduler {recipe.scheduler}"),
        ("Guidance", f"{recipe.guidance:g}"), ("Size", f"{height} x {width} pixels"),
    ]  # fmt: skip
    facts += [("Negative prompt", recipe.negative)] if recipe.negative else []
    picture = report.get("picture")
    if picture is not None:
        facts += [("Image", told(picture))] + [("Inversion", line) for line in inversion_told(picture)]
        facts += [("Original", line.partition(": ")[2]) for line in put_back_told(picture)]
    facts += [("Strengths", strengths_told(found)) for found in report["strengths"] if found]
    facts += [
        (TITLES.get(str(one["control"]), str(one["control"])), control_told(one, recipe.steps))
        for one in report["controls"]
    ]
    weights = asked(recipe.controls).get("weights")
    facts += [("Factors", in_words(weights))] if weights else []
    if node is not session.before():
        distance = session.distance()
        facts.append(("Distance", f"{distance['changed_pixels']:.1%} of the pixels, PSNR {distance['psnr']:.1f} dB"))
    room = session.studio.shelf
    facts.append(("Recordings", f"{room.bytes / 1e6:.0f} MB of {room.budget / 1e6:.0f} MB, of all visitors"))
    return steps_html(facts)


def control_told(control: Mapping[str, Any], steps: int) -> str:
    """What a report says of a control; without what is empty or too long to read."""
    left, said = {key: value for key, value in control.items() if key != "control" and value}, list[str]()
    for kind in ("cross", "self", "joint"):
        count, sites = left.pop(f"{kind}_steps", None), left.pop(f"{kind}_sites", None)
        if count:
            said.append(f"{kind} attention in {count} of {steps} steps" + (f" at {sites} layers" if sites else ""))
    for area in dict(left.pop("mask_area", {})).values():
        said.append(f"the region covers {sum(area) / max(1, len(area)):.0%} of the image (mean)")
    values = {name(key): in_words(value) for key, value in left.items()}
    said += [f"{key} {value}" for key, value in values.items() if len(value) < LONGEST]
    return ", ".join(said) or "as published"


def in_words(value: Any) -> str:
    """A value as text: mappings as "cat 2, dog 0.5", lists with commas."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name(str(key))} {in_words(part)}" for key, part in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(in_words(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def name(key: str) -> str:
    """A field's name for people."""
    return key.replace("_", " ")
