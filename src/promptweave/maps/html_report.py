"""A run as one page of HTML: pictures, word maps, masks, alignment, effect and recipe; it needs no network."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from promptweave.editing.command import NoCommand, command_of, python_of
from promptweave.editing.result import Result
from promptweave.maps.edit_maps import EditMaps, edit_maps, masked, masks_of
from promptweave.view.heat import BOTH_WAYS, over, signed
from promptweave.view.sheet import reduced
from promptweave.view.threads import svg, threads

SMALL = 192  # pixels of a side of maps and masks
LOSSLESS = 256  # pixels up to which pictures are embedded bit by bit


def html_report(result: Result) -> str:
    """The page. Word maps are on it if the edit ran with `maps=True`; of a single prompt, its pictures and its maps."""
    recipe, run = result.recipe, result.sample.run
    views = edit_maps(result) if result.watched else None
    parts = [_prompts(result)]
    for target in range(1, len(recipe.prompts)):
        parts += _target(result, views, target)
    parts += [] if recipe.targets else _single(result, views)
    parts += _controls(result.report["controls"])
    again = "This makes the images again:"
    try:
        command = command_of(recipe, run)
    except NoCommand as reason:
        again = f"No command of options makes these images. {reason} Any of its PNG files does, and so does Python:"
        command = f"promptweave replay IMAGE.png\n\n{python_of(recipe)}"
    facts = [
        f"model {recipe.model} ({result.model_hash})", f"{run.steps} steps of {recipe.scheduler}",
        f"guidance {recipe.guidance:g}", f"seed {recipe.seed}",
    ]  # fmt: skip
    facts += [f"away from “{recipe.negative}”"] if recipe.negative else []
    values = {
        "title": escape("An edit by promptweave" if recipe.targets else "A picture by promptweave"),
        "facts": escape(" · ".join(facts)), "body": "\n".join(parts),
        "again": escape(again), "command": escape(command),
        "recipe": escape(json.dumps(recipe.as_dict(), indent=1, ensure_ascii=False)),
        "ramp": ", ".join("rgb({:.0f} {:.0f} {:.0f})".format(*colour) for colour in BOTH_WAYS),
    }  # fmt: skip
    return Template(files("promptweave.maps").joinpath("report.html").read_text("utf-8")).substitute(values)


def write_report(result: Result, path: Path | str) -> Path:
    """Write the page of a run."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html_report(result), "utf-8")
    return path


def _prompts(result: Result) -> str:
    names = [
        "source" if result.recipe.targets else "prompt",
        *(f"edit {n}" if len(result.recipe.targets) > 1 else "edit" for n in range(1, 99)),
    ]
    rows = zip(names, result.recipe.prompts, strict=False)
    return f'<dl class="prompts">{"".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows)}</dl>'


def _target(result: Result, views: EditMaps | None, target: int) -> list[str]:
    """The sections of one target."""
    pictures, recipe = result.sample.pictures, result.recipe
    parts = [f"<h2>{escape(recipe.targets[target - 1])}</h2>"]
    shown: list[str] = []
    for image in range(recipe.images):
        seed = f"seed {recipe.seed + image}" if recipe.images > 1 else ""
        shown.append(_slider(pictures[0, image], pictures[target, image], seed))
        if recipe.images == 1:
            shown += [_figure(pictures[0, 0], "source"), _figure(pictures[target, 0], "edit")]
        if result.plain is not None:
            shown.append(_figure(result.plain[target - 1, image], f"without control {seed}".strip()))
    parts += [_group("pictures", shown), _distances(result, target)]
    parts += [
        "<h3>What became of each word</h3>",
        f'<div class="scroll" tabindex="0">{_alignment(result, target)}</div>',
    ]
    parts += [] if views is None else _words(views, target)
    masks = {step: mask for (row, step), mask in masks_of(result).items() if row == target}
    if masks:
        tiles = [
            _figure(reduced(masked(pictures[target, 0], mask), SMALL), f"step {step}: {float(mask.float().mean()):.0%}")
            for step, mask in masks.items()
        ]
        parts.append("<h3>Where the edit may differ, step by step</h3>")
        parts.append(f'<div class="scroll" tabindex="0" aria-label="masks">{_group("masks", tiles)}</div>')
    return parts


def _single(result: Result, views: EditMaps | None) -> list[str]:
    """The sections of a run without targets."""
    pictures, recipe = result.sample.pictures, result.recipe
    shown: list[str] = []
    for image in range(recipe.images):
        shown.append(_figure(pictures[0, image], f"seed {recipe.seed + image}"))
        if result.plain is not None:
            shown.append(_figure(result.plain[0, image], f"without control, seed {recipe.seed + image}"))
    parts = [_group("pictures", shown)]
    if views is None:
        return parts
    maps, picture = views.maps[0], reduced(views.maps[0].picture, SMALL)
    cards = [
        f'<section class="word"><header><strong>{escape(name)}</strong></header>'
        f"{_figure(over(maps.of(name), picture), f'up to {float(maps.of(name).max()):.1%}')}</section>"
        for name, _ in maps.words
    ]
    return [
        *parts,
        "<h2>What each word looks at</h2>",
        '<p class="soft">Attention of the picture to each word, mean over layers, heads and steps; each word is on a '
        "scale of its own, up to the share that its caption says.</p>",
        _group("words", cards),
    ]


def _slider(source: np.ndarray, edit: np.ndarray, seed: str) -> str:
    before, after = _image(source, "source"), _image(edit, "edit")
    return (
        f'<figure class="compare"><div class="stage">{before}<div class="after">{after}</div>'
        f'<div class="bar"></div></div><input type="range" min="0" max="100" value="50" '
        f'aria-label="source left of the bar, edit right of it"><figcaption>source | edit {seed}</figcaption></figure>'
    )


def _words(views: EditMaps, target: int) -> list[str]:
    """A card for each pair of words: source, edit, difference."""
    pairs = views.pairs(target)
    top = max(float(views.difference(pair, target).abs().max()) for pair in pairs)
    pictures = [reduced(views.maps[row].picture, SMALL) for row in (0, target)]
    cards: list[str] = []
    for pair in pairs:
        maps = views.before(pair), views.after(pair, target)
        highest = max(float(one.max()) for one in maps)
        sides = zip(maps, (pair.source, pair.target), pictures, ("source", "edit"), strict=True)
        tiles = [
            _figure(over(values, picture, top=highest), f"{name}: {text}")
            if text
            else f'<figure><div class="none">not in<br>the {name}</div><figcaption>{name}</figcaption></figure>'
            for values, text, picture, name in sides
        ]
        size = (pictures[0].shape[1], pictures[0].shape[0])
        tiles.append(_figure(signed(views.difference(pair, target), size, top), "difference"))
        name = escape(pair.target or pair.source or "")
        head = f'<header><strong>{name}</strong><span class="kind {pair.kind}">{pair.kind}</span></header>'
        cards.append(f'<section class="word">{head}{"".join(tiles)}</section>')
    scale = f'<div class="scale"><span>-{top:.2g}</span><i></i><span>+{top:.2g}</span></div>'
    return [
        "<h3>What each word looks at</h3>",
        '<p class="soft">Attention of the picture to each word, mean over layers, heads and steps. Source and edit of '
        "a word are on one scale; all differences are on the scale below, as shares of a pixel's attention.</p>",
        scale, _group("words", cards),
    ]  # fmt: skip


def _alignment(result: Result, target: int) -> str:
    return svg(threads(result.report["alignment"][target - 1]))


def _distances(result: Result, target: int) -> str:
    """How far the edits, and the targets without control, are from the source."""
    found = [("edit", result.report["distance"][target - 1])]
    if result.report["distance_uncontrolled"]:
        found.append(("without control", result.report["distance_uncontrolled"][target - 1]))
    rows = "".join(
        f"<tr><td>{name}</td><td class='number'>{result.recipe.seed + i}</td>"
        f"<td class='number'>{one['changed_pixels']:.1%}</td><td class='number'>{one['psnr']:.1f} dB</td></tr>"
        for name, each in found
        for i, one in enumerate(each)
    )
    heads = "".join(f"<th>{name}</th>" for name in ("distance from the source", "seed", "pixels changed", "PSNR"))
    return f'<div class="scroll" tabindex="0"><table><tr>{heads}</tr>{rows}</table></div>'


def _controls(reports: Sequence[dict[str, Any]]) -> list[str]:
    """What each control did."""
    rows: list[str] = []
    for report in reports:
        facts = [_fact(name, value) for name, value in report.items() if value and name != "control"]
        rows.append(f"<tr><th>{escape(report['control'])}</th><td>{escape('; '.join(facts))}</td></tr>")
    if not rows:
        return []
    table = f'<div class="scroll" tabindex="0"><table>{"".join(rows)}</table></div>'
    return ["<h2>What the controls did</h2>", table]


def _fact(name: str, value: Any) -> str:
    if name == "mask_area":
        value = ", ".join(f"{areas[-1]:.0%} at the end" for areas in value.values())
    return f"{name.replace('_', ' ')} {value}"


def _figure(picture: np.ndarray, caption: str) -> str:
    return f"<figure>{_image(picture, caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def _image(picture: np.ndarray, said: str) -> str:
    image, buffer = Image.fromarray(picture), io.BytesIO()
    image.save(buffer, "WEBP", lossless=max(image.size) <= LOSSLESS and "step" not in said, quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    width, height = image.size
    return f'<img alt="{escape(said)}" width="{width}" height="{height}" src="data:image/webp;base64,{data}">'


def _group(name: str, parts: Sequence[str]) -> str:
    return f'<div class="{name}">{"".join(parts)}</div>'
