"""The command of semantic guidance."""

from __future__ import annotations

from typing import Annotated

import typer

from promptweave.apps.common import Common, with_common
from promptweave.apps.terminal import number

USUAL = 5.0  # strength of a concept


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sega)


@with_common("out/sega", pictures=True)
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
    *,
    common: Common,
) -> None:
    """Add concepts to a picture, or take them away, beside its prompt (SEGA, with LEDITS++'s masks)."""
    from promptweave.methods import SemanticGuidance

    towards, from_ = _concepts(concept or [], "--concept"), _concepts(away or [], "--away")
    if not towards and not from_:
        raise ValueError("Semantic guidance needs a concept. Received none: --concept TEXT or --away TEXT.")
    concepts = {**towards, **{text: -strength for text, strength in from_.items()}}
    control = SemanticGuidance(concepts, warmup, threshold, momentum, attention=attention)
    made = common.edit(common.load(), [prompt, prompt], control, "guiding")
    facts, distance = made.report["controls"][0], made.report["distance"][0][0]
    common.terminal.say(f"  {facts['area']:.1%} of the latent moved in {facts['steps']} steps")
    common.terminal.say(f"  {distance['changed_pixels']:.0%} of the pixels changed")
    common.save(made)


def _concepts(texts: list[str], option: str) -> dict[str, float]:
    """Strength of each text, written as "a hat" or "a hat=4"."""
    found: dict[str, float] = {}
    for text in texts:
        words, equals, strength = text.rpartition("=")
        found[words if equals else text] = number(strength, option) if equals else USUAL
    return found
