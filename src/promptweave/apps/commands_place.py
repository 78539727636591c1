"""The command of Directed Diffusion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from promptweave.apps.options import (
    Device,
    Force,
    Guidance,
    Images,
    Json,
    ModelName,
    Negative,
    Output,
    Quiet,
    Scheduler,
    Seed,
    Size,
    Steps,
    Truncate,
)
from promptweave.apps.terminal import Terminal, number, size

Box = tuple[float, float, float, float]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(place)


def place(
    prompt: Annotated[str, typer.Argument(help="What the picture is to show.")],
    at: Annotated[
        list[str] | None, typer.Option("--at", help="word=left,top,right,bottom in shares; may be repeated.")
    ] = None,
    quadrants: Annotated[
        str | None, typer.Option("--quadrants", help="Send this word to each quarter of the picture, on one sheet.")
    ] = None,
    trailing: Annotated[int, typer.Option("--trailing", help="Tokens behind the prompt that go along.")] = 10,
    share: Annotated[float, typer.Option("--share", help="Share of the steps in which maps are edited.")] = 0.5,
    strength: Annotated[float, typer.Option("--strength", help="Of a word's map inside its box.")] = 0.7,
    weaken: Annotated[float, typer.Option("--weaken", help="What is left of it outside.")] = 0.01,
    reference_compat: Annotated[
        bool, typer.Option("--reference-compat", help="Weaken all other tokens too, as the authors' code does.")
    ] = False,
    seed: Seed = 0,
    images: Images = 1,
    steps: Steps = None,
    guidance: Guidance = None,
    scheduler: Scheduler = None,
    size_text: Size = None,
    negative: Negative = "",
    truncate: Truncate = False,
    model: ModelName = "toybox",
    device: Device = "auto",
    output: Output = Path("out/place"),
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put things where you want them (Directed Diffusion)."""
    import numpy as np

    from promptweave.apps.steering import facts, save, steer
    from promptweave.methods import DirectedDiffusion
    from promptweave.models.load import load
    from promptweave.view.boxes import boxed
    from promptweave.view.heat import over
    from promptweave.view.sheet import sheet

    if bool(at) == (quadrants is not None):
        raise ValueError("promptweave place takes boxes or one word. Give --at dog=0,0,0.5,0.5, or --quadrants dog.")
    terminal, network = Terminal(json, quiet), load(model, device=device, scheduler=scheduler)
    settings: dict[str, Any] = {
        "trailing": trailing, "share": share, "strength": strength, "weaken": weaken,
        "reference_compat": reference_compat,
    }  # fmt: skip
    run: dict[str, Any] = {
        "seed": seed, "images": images, "steps": steps, "guidance": guidance, "size": size(size_text),
        "negative": negative, "truncate": truncate,
    }  # fmt: skip
    if quadrants is not None:
        _quarters(terminal, prompt, quadrants, network, settings, run, output, force)
        return
    regions = tuple(map(_region, at or ()))
    control = DirectedDiffusion(regions, **settings)
    made, after, before = steer(terminal, prompt, [control], network, output=output, force=force, **run)
    words, rows, labels = network.words(prompt), list[list[Any]](), list[list[str]]()
    for name, maps in (("plain", before), ("steered", after)):
        picture = np.asarray(maps.picture)
        seen = [over(maps.attention[..., list(words.find(word))].sum(-1), picture) for word, _ in regions]
        framed = [boxed(one, dict([region])) for one, region in zip(seen, regions, strict=True)]
        rows.append([boxed(picture, dict(regions)), *framed])
        labels.append([name, *(f"who looks at {word}" for word, _ in regions)])
    terminal.say(f"  {facts(made.report['controls'][0])}")
    save(terminal, made, output, force, boxes=sheet(rows, labels))


def _region(text: str) -> tuple[str, Box]:
    word, equals, sides = text.rpartition("=")
    parts = sides.split(",")
    if not equals or not word or len(parts) != 4:
        raise ValueError(f"--at takes word=left,top,right,bottom, such as dog=0,0,0.5,0.5. Received {text!r}.")
    left, top, right, bottom = (number(part, "--at") for part in parts)
    return word, (left, top, right, bottom)


def _quarters(
    terminal: Terminal, prompt: str, word: str, network: Any, settings: Any, run: Any, output: Path, force: bool
) -> None:
    """The picture as it is, and with the word in each quarter: five rows of one run, from the same noise."""
    from promptweave.apps.steering import save
    from promptweave.edit import run as make
    from promptweave.methods import DirectedDiffusion
    from promptweave.plan import recipe_for
    from promptweave.result import check_output
    from promptweave.view.boxes import QUADRANTS, boxed
    from promptweave.view.sheet import sheet

    check_output(output, force=force)
    names = list(QUADRANTS)
    recipe = recipe_for(network, prompt, (prompt,) * len(names), **run)
    controls = [
        DirectedDiffusion(((word, QUADRANTS[name]),), prompts=(row,), **settings) for row, name in enumerate(names, 1)
    ]
    recipe = replace(recipe, controls=tuple(controls))
    with terminal.progress("steering", recipe.steps) as advance:
        made = make(recipe, network, progress=advance)
    pictures = made.sample.pictures
    rows = [
        [pictures[0, i], *(boxed(pictures[row, i], {word: QUADRANTS[name]}) for row, name in enumerate(names, 1))]
        for i in range(recipe.images)
    ]
    labels = [[prompt, *(f"{word}: {name}" for name in names)]] * recipe.images
    save(terminal, made, output, force, quadrants=sheet(rows, labels))
