"""The command of MasaCtrl."""

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
from promptweave.apps.pictures import given_line, passes, read_drawn
from promptweave.apps.terminal import Terminal, size


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(masactrl)


def masactrl(
    source: Annotated[str, typer.Argument(help="Prompt of the picture whose looks are kept.")],
    targets: Annotated[list[str], typer.Argument(help="Prompts of other poses and layouts.")],
    start: Annotated[float, typer.Option("--start", help="Share of the steps before the first changed.")] = 0.08,
    layers: Annotated[float, typer.Option("--layers", help="Share of the layers before the first.")] = 0.625,
    union: Annotated[bool, typer.Option("--union", help="The target asks itself, too.")] = False,
    word: Annotated[
        list[str] | None, typer.Option("--word", "-w", help="Foreground, kept apart from the background.")
    ] = None,
    threshold: Annotated[float, typer.Option("--threshold", help="Of the foreground, 0 to 1.")] = 0.1,
    mask_source: Annotated[Path | None, typer.Option("--mask-source", help="Picture, white is foreground.")] = None,
    mask_target: Annotated[Path | None, typer.Option("--mask-target", help="The same of the result.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Also make the targets without control.")] = False,
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
    output: Output = Path("out/masactrl"),
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give the source's looks to another pose or layout (MasaCtrl)."""
    from promptweave.apps.steering import facts, save
    from promptweave.edit import edit
    from promptweave.methods import MasaCtrl
    from promptweave.models.load import load
    from promptweave.result import check_output

    terminal = Terminal(json, quiet)
    check_output(output, force=force)
    network = load(model, device=device, scheduler=scheduler)
    if (mask_source is None) != (mask_target is None):
        raise ValueError("Masks come in pairs: --mask-source of the source and --mask-target of the result.")
    masks = None
    if mask_source is not None and mask_target is not None:
        masks = read_drawn(mask_source), read_drawn(mask_target)
    control = MasaCtrl(start, layers, union, tuple(word or ()), threshold, masks)
    with terminal.progress("editing", passes(network.defaults[0] if steps is None else steps, image)) as advance:
        made = edit(
            source, *targets, model=network, controls=[control], seed=seed, images=images, steps=steps,
            guidance=guidance, size=size(size_text), negative=negative, truncate=truncate, compare=compare,
            image=image, inversion=inversion, progress=advance,
        )  # fmt: skip
    terminal.say(f"  MasaCtrl: {facts(made.report['controls'][0])}")
    terminal.say(*given_line(made.report))
    save(terminal, made, output, force)
