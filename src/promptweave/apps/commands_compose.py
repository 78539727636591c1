"""The command of Structured Diffusion Guidance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.tree import Tree

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
    app.command()(compose)


def compose(
    prompt: Annotated[str, typer.Argument(help="What the picture is to show; brackets name phrases, [a red car].")],
    variant: Annotated[
        str, typer.Option("--variant", help="What comes from several encodings: values, or keys for conjunctions.")
    ] = "values",
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
    output: Output = Path("out/compose"),
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read each noun phrase by itself, so that colours stay with their things (Structured Diffusion Guidance)."""
    from promptweave.apps.steering import save, steer
    from promptweave.methods import StructuredDiffusion
    from promptweave.models.load import load
    from promptweave.words.phrases import bracketed, noun_phrases

    terminal = Terminal(json, quiet)
    text, spans = bracketed(prompt)
    phrases = spans or noun_phrases(text)
    if not phrases:
        raise ValueError(
            f"A phrase of two words or more is needed, and {text!r} has none that was found. "
            "Put brackets around it: [a red car]."
        )
    network = load(model, device=device, scheduler=scheduler)
    made, _, _ = steer(
        terminal, text, [StructuredDiffusion(phrases, variant)], network, output=output, force=force, seed=seed,
        images=images, steps=steps, guidance=guidance, size=size(size_text), negative=negative, truncate=truncate,
    )  # fmt: skip
    read: dict[str, Any] = made.report["controls"][0]["phrases"]
    terminal.say(tree(text, phrases), f"  {variant} of the prompt and of {len(read['0'])} phrases read alone")
    save(terminal, made, output, force)


def tree(prompt: str, phrases: Sequence[tuple[int, int]]) -> Tree:
    """The phrases, each under the smallest one that holds it."""
    root = Tree(escape(prompt))
    open_at: list[tuple[tuple[int, int], Tree]] = [((0, len(prompt)), root)]
    for span in phrases:
        if span == (0, len(prompt)):
            continue
        while not (open_at[-1][0][0] <= span[0] and span[1] <= open_at[-1][0][1]):
            open_at.pop()
        open_at.append((span, open_at[-1][1].add(escape(prompt[slice(*span)]))))
    return root
