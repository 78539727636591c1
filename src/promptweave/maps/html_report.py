"""A run as one self-contained HTML page: images, word maps, masks, alignment, effect and recipe.

The page is the template report.html, filled by Jinja2, which escapes all text; this module gathers its data.
"""

from __future__ import annotations

import base64
import io
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined, Template
from PIL import Image

from promptweave.core.files import write_text
from promptweave.core.typed import checked
from promptweave.editing.command import NoCommand, command_of, python_of
from promptweave.editing.fitting import told
from promptweave.editing.result import Result
from promptweave.editing.values import as_json
from promptweave.maps.edit_maps import EditMaps, edit_maps, masked, masks_of
from promptweave.view.heat import BOTH_WAYS, over, signed
from promptweave.view.sheet import reduced
from promptweave.view.threads import svg, threads

SMALL = 192  # side of maps and masks, in pixels
LOSSLESS = 256  # up to this many pixels a side, images are embedded losslessly
Facts = dict[str, Any]  # the template's variables


@checked
def html_report(result: Result) -> str:
    """The page of a run as HTML. It shows word maps if the run had `maps=True`."""
    recipe, run = result.recipe, result.sample.run
    views = edit_maps(result) if result.watched else None
    facts = [
        f"model {recipe.model} ({result.model_hash})", f"{run.steps} steps of {recipe.scheduler}",
        f"guidance {recipe.guidance:g}", f"seed {recipe.seed}",
    ]  # fmt: skip
    facts += [f"negative prompt “{recipe.negative}”"] if recipe.negative else []
    facts += [f"input image of {told(result.report['picture'])}"] if "picture" in result.report else []
    again, command = _again(result)
    return _template().render(
        title="An edit by promptweave" if recipe.targets else "An image by promptweave",
        facts=" · ".join(facts),
        prompts=_prompts(result),
        targets=[_target(result, views, target) for target in range(1, len(recipe.prompts))],
        single=None if recipe.targets else _single(result, views),
        controls=[_control(report) for report in result.report["controls"]],
        again=again,
        command=command,
        recipe=as_json(recipe.as_dict(), indent=1),
        ramp=", ".join("rgb({:.0f} {:.0f} {:.0f})".format(*colour) for colour in BOTH_WAYS),
    )


@cache
def _template() -> Template:
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return made.from_string(files("promptweave.maps").joinpath("report.html").read_text("utf-8"))


@checked
def write_report(result: Result, path: Path | str) -> Path:
    """Write the HTML page of a run; returns its path."""
    return write_text(Path(path), html_report(result))


def _again(result: Result) -> tuple[str, str]:
    """A command that reproduces the images, and a sentence about it."""
    try:
        return "This command reproduces the images:", command_of(result.recipe, result.sample.run)
    except NoCommand as reason:
        said = f"No command-line options reproduce these images. {reason} Replay one of its PNG files, or use Python:"
        return said, f"promptweave replay IMAGE.png\n\n{python_of(result.recipe)}"


def _prompts(result: Result) -> list[tuple[str, str]]:
    recipe = result.recipe
    if not recipe.targets:
        return [("prompt", recipe.source)]
    several = len(recipe.targets) > 1
    edits = [(f"edit {n}" if several else "edit", text) for n, text in enumerate(recipe.targets, 1)]
    return [("source", recipe.source), *edits]


def _target(result: Result, views: EditMaps | None, target: int) -> Facts:
    """The template's variables for one target."""
    pictures, recipe = result.sample.pictures, result.recipe
    shown: list[Facts] = []
    for image in range(recipe.images):
        seed = f"seed {recipe.seed + image}" if recipe.images > 1 else ""
        before, after = _image(pictures[0, image], "source"), _image(pictures[target, image], "edit")
        shown.append({"before": before, "after": after, "seed": seed})
        if recipe.images == 1:
            shown += [{**before, "after": None}, {**after, "after": None}]
        if result.plain is not None:
            shown.append(_figure(result.plain[target - 1, image], f"without control {seed}".strip()))
    masks = [
        _image(reduced(masked(pictures[target, 0], mask), SMALL), f"step {step}: {float(mask.float().mean()):.0%}")
        for (row, step), mask in masks_of(result).items()
        if row == target
    ]
    words, top = ([], 0.0) if views is None else _words(views, target)
    return {
        "prompt": recipe.targets[target - 1], "pictures": shown, "distances": _distances(result, target),
        "threads": svg(threads(result.report["alignment"][target - 1])), "words": words, "top": f"{top:.2g}",
        "masks": masks,
    }  # fmt: skip


def _single(result: Result, views: EditMaps | None) -> Facts:
    """The template's variables for a run without targets."""
    pictures, recipe = result.sample.pictures, result.recipe
    shown: list[Facts] = []
    for image in range(recipe.images):
        shown.append(_figure(pictures[0, image], f"seed {recipe.seed + image}"))
        if result.plain is not None:
            shown.append(_figure(result.plain[0, image], f"without control, seed {recipe.seed + image}"))
    if views is None:
        return {"pictures": shown, "words": []}
    maps, picture = views.maps[0], reduced(views.maps[0].picture, SMALL)
    cards = [
        {"name": name, "map": _image(over(maps.of(name), picture), f"up to {float(maps.of(name).max()):.1%}")}
        for name, _ in maps.words
    ]
    return {"pictures": shown, "words": cards}


def _words(views: EditMaps, target: int) -> tuple[list[Facts], float]:
    """The maps of each pair of words: source, edit, difference; and the largest difference."""
    pairs = views.pairs(target)
    top = max(float(views.difference(pair, target).abs().max()) for pair in pairs)
    pictures = [reduced(views.maps[row].picture, SMALL) for row in (0, target)]
    size = (pictures[0].shape[1], pictures[0].shape[0])
    cards: list[Facts] = []
    for pair in pairs:
        maps = views.before(pair), views.after(pair, target)
        highest = max(float(one.max()) for one in maps)
        sides = zip(maps, (pair.source, pair.target), pictures, ("source", "edit"), strict=True)
        tiles: list[Facts] = [
            _image(over(values, picture, top=highest), f"{name}: {text}") if text else {"src": None, "missing": name}
            for values, text, picture, name in sides
        ]
        tiles.append(_image(signed(views.difference(pair, target), size, top), "difference"))
        cards.append({"name": pair.target or pair.source or "", "kind": pair.kind, "tiles": tiles})
    return cards, top


def _distances(result: Result, target: int) -> list[Facts]:
    """The distances of the edits, and of the targets without controls, to the source."""
    found = [("edit", result.report["distance"][target - 1])]
    if result.report["distance_uncontrolled"]:
        found.append(("without control", result.report["distance_uncontrolled"][target - 1]))
    return [
        {
            "name": name,
            "seed": result.recipe.seed + image,
            "changed": f"{one['changed_pixels']:.1%}",
            "psnr": f"{one['psnr']:.1f} dB",
        }  # fmt: skip
        for name, each in found
        for image, one in enumerate(each)
    ]


def _control(report: Facts) -> tuple[str, str]:
    """The report of one control."""
    return report["control"], "; ".join(
        _fact(name, value) for name, value in report.items() if value and name != "control"
    )


def _fact(name: str, value: Any) -> str:
    if name == "mask_area":
        value = ", ".join(f"{areas[-1]:.0%} at the end" for areas in value.values())
    return f"{name.replace('_', ' ')} {value}"


def _figure(picture: np.ndarray, caption: str) -> Facts:
    """An image that can be compared with others."""
    return {**_image(picture, caption), "after": None}


def _image(picture: np.ndarray, said: str) -> Facts:
    """An image as a data URL, and what it shows."""
    image, buffer = Image.fromarray(picture), io.BytesIO()
    image.save(buffer, "WEBP", lossless=max(image.size) <= LOSSLESS and "step" not in said, quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"alt": said, "width": image.width, "height": image.height, "src": f"data:image/webp;base64,{data}"}
