"""The command of Directed Diffusion."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from promptweave.apps.common import Common, with_common
from promptweave.apps.terminal import number

Box = tuple[float, float, float, float]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(place)


@with_common("out/place")
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
    *,
    common: Common,
) -> None:
    """Put things where you want them (Directed Diffusion)."""
    import numpy as np

    from promptweave.apps.steering import facts
    from promptweave.methods import DirectedDiffusion
    from promptweave.view.boxes import boxed
    from promptweave.view.heat import over
    from promptweave.view.sheet import sheet

    if bool(at) == (quadrants is not None):
        raise ValueError("promptweave place takes boxes or one word. Give --at dog=0,0,0.5,0.5, or --quadrants dog.")
    network = common.load()
    settings: dict[str, Any] = {
        "trailing": trailing, "share": share, "strength": strength, "weaken": weaken,
        "reference_compat": reference_compat,
    }  # fmt: skip
    if quadrants is not None:
        _quarters(common, prompt, quadrants, network, settings)
        return
    regions = tuple(map(_region, at or ()))
    made, after, before = common.steer(network, prompt, DirectedDiffusion(regions, **settings))
    words, rows, labels = network.words(prompt), list[list[Any]](), list[list[str]]()
    for name, maps in (("plain", before), ("steered", after)):
        picture = np.asarray(maps.picture)
        seen = [over(maps.attention[..., list(words.find(word))].sum(-1), picture) for word, _ in regions]
        framed = [boxed(one, dict([region])) for one, region in zip(seen, regions, strict=True)]
        rows.append([boxed(picture, dict(regions)), *framed])
        labels.append([name, *(f"who looks at {word}" for word, _ in regions)])
    common.terminal.say(f"  {facts(made.report['controls'][0])}")
    common.save(made, boxes=sheet(rows, labels))


def _region(text: str) -> tuple[str, Box]:
    word, equals, sides = text.rpartition("=")
    parts = sides.split(",")
    if not equals or not word or len(parts) != 4:
        raise ValueError(f"--at takes word=left,top,right,bottom, such as dog=0,0,0.5,0.5. Received {text!r}.")
    left, top, right, bottom = (number(part, "--at") for part in parts)
    return word, (left, top, right, bottom)


def _quarters(common: Common, prompt: str, word: str, network: Any, settings: Any) -> None:
    """The picture as it is, and with the word in each quarter: five rows of one run, from the same noise."""
    from promptweave.editing.edit import run
    from promptweave.editing.plan import recipe_for
    from promptweave.methods import DirectedDiffusion
    from promptweave.view.boxes import QUADRANTS, boxed
    from promptweave.view.sheet import sheet

    names = list(QUADRANTS)
    recipe = recipe_for(network, prompt, (prompt,) * len(names), **common.run)
    controls = [
        DirectedDiffusion(((word, QUADRANTS[name]),), prompts=(row,), **settings) for row, name in enumerate(names, 1)
    ]
    recipe = replace(recipe, controls=tuple(controls))
    with common.terminal.progress("steering", recipe.steps) as advance:
        made = run(recipe, network, progress=advance)
    pictures = made.sample.pictures
    rows = [
        [pictures[0, i], *(boxed(pictures[row, i], {word: QUADRANTS[name]}) for row, name in enumerate(names, 1))]
        for i in range(recipe.images)
    ]
    labels = [[prompt, *(f"{word}: {name}" for name in names)]] * recipe.images
    common.save(made, quadrants=sheet(rows, labels))
