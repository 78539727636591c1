"""The command of Attend-and-Excite."""

from __future__ import annotations

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
from promptweave.apps.terminal import Terminal, size


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(attend)


def attend(
    prompt: Annotated[str, typer.Argument(help="What the picture is to show.")],
    word: Annotated[
        list[str] | None, typer.Option("--word", "-w", help="A subject; may be repeated. [the nouns of the prompt]")
    ] = None,
    share: Annotated[float, typer.Option("--share", help="Share of the steps in which the latents are moved.")] = 0.5,
    scale: Annotated[float, typer.Option("--scale", help="How far they are moved.")] = 20,
    iterations: Annotated[int, typer.Option("--iterations", help="Moves at most in a step with a threshold.")] = 20,
    reference_compat: Annotated[
        bool, typer.Option("--reference-compat", help="Smooth maps as the authors' code does.")
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
    output: Output = Path("out/attend"),
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give every subject a place in the picture (Attend-and-Excite)."""
    from promptweave.apps.steering import maps_of_both, save, steer
    from promptweave.methods import AttendAndExcite
    from promptweave.models.load import load
    from promptweave.view.curves import curves
    from promptweave.words.phrases import nouns

    terminal, network = Terminal(json, quiet), load(model, device=device, scheduler=scheduler)
    subjects = tuple(word or nouns(prompt))
    control = AttendAndExcite(
        subjects, share, scale, iterations=iterations, reference_compat=reference_compat
    )  # fmt: skip
    made, after, before = steer(
        terminal, prompt, [control], network, output=output, force=force, seed=seed, images=images, steps=steps,
        guidance=guidance, size=size(size_text), negative=negative, truncate=truncate,
    )  # fmt: skip
    report: dict[str, Any] = made.report["controls"][0]
    losses: dict[str, list[float]] = report["losses"]["0"]
    curve = curves(losses, title="loss of each subject: 1 - its highest attention", across="step")
    for name, values in losses.items():
        terminal.say(f"  {name}: loss {values[0]:.3f} at the first step, {values[-1]:.3f} at the last that is moved")
    repeats = ", ".join(f"{count} at step {step}" for step, count in report["repeats"].items())
    terminal.say(f"  more moves: {repeats}" if repeats else "  no step needed more than one move")
    save(terminal, made, output, force, maps=maps_of_both(before, after, subjects), losses=curve)
