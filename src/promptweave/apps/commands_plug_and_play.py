"""The command of Plug-and-Play."""

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
    app.command("pnp")(plug_and_play)


def plug_and_play(
    source: Annotated[str, typer.Argument(help="Prompt of the picture whose layout is kept.")],
    targets: Annotated[list[str], typer.Argument(help="Prompts of other looks.")],
    features: Annotated[float, typer.Option("--features", help="Share of the steps with the source's features.")] = 0.8,
    attention: Annotated[float, typer.Option("--attention", help="The same for queries and keys.")] = 0.5,
    layers: Annotated[float, typer.Option("--layers", help="Share of the layers before the first.")] = 0.5,
    block: Annotated[str, typer.Option("--block", help="Residual block, by stage and number.")] = "up_res_1_1",
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
    output: Output = Path("out/pnp"),
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give other looks to the source's layout (Plug-and-Play diffusion features)."""
    from promptweave.apps.steering import facts, save
    from promptweave.edit import edit
    from promptweave.methods import PlugAndPlay
    from promptweave.models.load import load
    from promptweave.result import check_output

    terminal = Terminal(json, quiet)
    check_output(output, force=force)
    network = load(model, device=device, scheduler=scheduler)
    control = PlugAndPlay(features, attention, layers, block)
    with terminal.progress("editing", passes(network.defaults[0] if steps is None else steps, image)) as advance:
        made = edit(
            source, *targets, model=network, controls=[control], seed=seed, images=images, steps=steps,
            guidance=guidance, size=size(size_text), negative=negative, truncate=truncate, compare=compare,
            image=image, inversion=inversion, progress=advance,
        )  # fmt: skip
    terminal.say(f"  PlugAndPlay: {facts(made.report['controls'][0])}")
    terminal.say(*given_line(made.report))
    save(terminal, made, output, force)
