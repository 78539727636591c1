"""The command of pix2pix-zero."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptweave.apps.common import Common, with_common


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(translate)


@with_common("out/translate", pictures=True)
def translate(
    prompt: Annotated[str, typer.Argument(help="What the source picture shows.")],
    source: Annotated[str, typer.Option("--from", help="The thing that changes: cat, red car ...")],
    target: Annotated[str, typer.Option("--to", help="What it becomes.")],
    strength: Annotated[float, typer.Option("--strength", help="How much of the direction is added.")] = 1.0,
    keep: Annotated[float, typer.Option("--keep", help="How strongly the source's maps are kept; 0: not.")] = 0.1,
    sentences_from: Annotated[Path | None, typer.Option(help="Own sentences about the first, one a line.")] = None,
    sentences_to: Annotated[Path | None, typer.Option(help="Own sentences about the second.")] = None,
    direction: Annotated[Path | None, typer.Option("--direction", help="Use a direction that was saved.")] = None,
    save_direction: Annotated[Path | None, typer.Option("--save-direction", help="Write the direction.")] = None,
    *,
    common: Common,
) -> None:
    """Turn one thing into another without a new prompt (pix2pix-zero)."""
    from promptweave.apps.steering import facts
    from promptweave.editing.plan import recipe_for
    from promptweave.editing.recorders import bound
    from promptweave.methods import Pix2PixZero
    from promptweave.methods.pix2pix_zero import Direction

    banks = (_bank(source, sentences_from), _bank(target, sentences_to))
    network = common.load()
    if save_direction is not None:
        run = bound(recipe_for(network, prompt, steps=common.steps), network)
        common.terminal.say(f"wrote {Direction.of(banks[0], banks[1], run).save(save_direction)}")
    control = Pix2PixZero(*banks, strength, keep, direction=None if direction is None else str(direction))
    made = common.edit(network, [prompt, prompt], control, "translating", inversion="regularised")
    report, distance = made.report["controls"][0], made.report["distance"][0][0]
    losses = report["losses"].get("1", [])
    if losses:
        common.terminal.say(f"  distance of the maps: {losses[0]:.3g} at the first step, {losses[-1]:.3g} at the last")
    common.terminal.say(f"  {source} -> {target}: {facts(distance, ())}")
    common.save(made)


def _bank(thing: str, path: Path | None) -> str | tuple[str, ...]:
    """The thing's name, or the sentences of a file."""
    if path is None:
        return thing
    try:
        lines = tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Sentences are read from a text file, one a line. {path} cannot be read: {error}.") from error
    if not lines:
        raise ValueError(f"Sentences are read from a text file, one a line. {path} holds none.")
    return lines
