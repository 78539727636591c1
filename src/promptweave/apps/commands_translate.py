"""The command of pix2pix-zero."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptweave.apps.options import (
    Device,
    Force,
    Given,
    Guidance,
    Images,
    Inversion,
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
from promptweave.apps.pictures import given_line, passes
from promptweave.apps.terminal import Terminal, size


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(translate)


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
    image: Given = None,
    inversion: Inversion = None,
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
    output: Output = Path("out/translate"),
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn one thing into another without a new prompt (pix2pix-zero)."""
    from promptweave.apps.steering import facts, save
    from promptweave.edit import edit
    from promptweave.methods import Pix2PixZero
    from promptweave.methods.pix2pix_zero import Direction
    from promptweave.models.load import load
    from promptweave.plan import recipe_for
    from promptweave.result import check_output
    from promptweave.watching import bound

    terminal = Terminal(json, quiet)
    check_output(output, force=force)
    banks = (_bank(source, sentences_from), _bank(target, sentences_to))
    network = load(model, device=device, scheduler=scheduler)
    if save_direction is not None:
        run = bound(recipe_for(network, prompt, steps=steps), network)
        terminal.say(f"wrote {Direction.of(banks[0], banks[1], run).save(save_direction)}")
    inversion = inversion or (None if image is None else "regularised")
    control = Pix2PixZero(*banks, strength, keep, direction=None if direction is None else str(direction))
    with terminal.progress("translating", passes(network.defaults[0] if steps is None else steps, image)) as advance:
        made = edit(
            prompt, prompt, model=network, controls=[control], seed=seed, images=images, steps=steps, guidance=guidance,
            size=size(size_text), negative=negative, truncate=truncate, image=image, inversion=inversion,
            progress=advance,
        )  # fmt: skip
    report, distance = made.report["controls"][0], made.report["distance"][0][0]
    losses = report["losses"].get("1", [])
    if losses:
        terminal.say(f"  distance of the maps: {losses[0]:.3g} at the first step, {losses[-1]:.3g} at the last")
    terminal.say(f"  {source} -> {target}: {facts(distance, ())}")
    terminal.say(*given_line(made.report))
    save(terminal, made, output, force)


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
