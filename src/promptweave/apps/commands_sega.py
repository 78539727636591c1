"""The command of semantic guidance."""

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
from promptweave.apps.terminal import Terminal, number, size

USUAL = 5.0  # strength of a concept


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sega)


def sega(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    concept: Annotated[
        list[str] | None, typer.Option("--concept", "-c", help="Text to lead to, or text=strength. [5]")
    ] = None,
    away: Annotated[list[str] | None, typer.Option("--away", help="Text to lead away from, or text=strength.")] = None,
    warmup: Annotated[float, typer.Option("--warmup", help="Share of the steps before the first that is led.")] = 0.2,
    threshold: Annotated[float, typer.Option("--threshold", help="Share of the latent that is left alone.")] = 0.9,
    momentum: Annotated[float, typer.Option("--momentum", help="How much of the steps before is added.")] = 0.1,
    attention: Annotated[bool, typer.Option("--attention", help="Only where the concept's words look.")] = False,
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
    output: Output = Path("out/sega"),
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add concepts to a picture, or take them away, beside its prompt (SEGA, with LEDITS++'s masks)."""
    from promptweave.apps.steering import save
    from promptweave.edit import edit
    from promptweave.methods import SemanticGuidance
    from promptweave.models.load import load
    from promptweave.result import check_output

    terminal = Terminal(json, quiet)
    check_output(output, force=force)
    towards, from_ = _concepts(concept or [], "--concept"), _concepts(away or [], "--away")
    if not towards and not from_:
        raise ValueError("Semantic guidance needs a concept. Received none: --concept TEXT or --away TEXT.")
    network = load(model, device=device, scheduler=scheduler)
    concepts = {**towards, **{text: -strength for text, strength in from_.items()}}
    control = SemanticGuidance(concepts, warmup, threshold, momentum, attention=attention)
    with terminal.progress("guiding", passes(network.defaults[0] if steps is None else steps, image)) as advance:
        made = edit(
            prompt, prompt, model=network, controls=[control], seed=seed, images=images, steps=steps, guidance=guidance,
            size=size(size_text), negative=negative, truncate=truncate, image=image, inversion=inversion,
            progress=advance,
        )  # fmt: skip
    facts, distance = made.report["controls"][0], made.report["distance"][0][0]
    terminal.say(f"  {facts['area']:.1%} of the latent moved in {facts['steps']} steps", *given_line(made.report))
    terminal.say(f"  {distance['changed_pixels']:.0%} of the pixels changed")
    save(terminal, made, output, force)


def _concepts(texts: list[str], option: str) -> dict[str, float]:
    """Strength of each text, written as "a hat" or "a hat=4"."""
    found: dict[str, float] = {}
    for text in texts:
        words, equals, strength = text.rpartition("=")
        found[words if equals else text] = number(strength, option) if equals else USUAL
    return found
