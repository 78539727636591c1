"""The command of Structured Diffusion Guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.tree import Tree

from promptweave.apps.common import Common, with_common


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(compose)


@with_common("out/compose")
def compose(
    prompt: Annotated[str, typer.Argument(help="What the picture is to show; brackets name phrases, [a red car].")],
    variant: Annotated[
        str, typer.Option("--variant", help="What comes from several encodings: values, or keys for conjunctions.")
    ] = "values",
    *,
    common: Common,
) -> None:
    """Read each noun phrase by itself, so that colours stay with their things (Structured Diffusion Guidance)."""
    from promptweave.methods import StructuredDiffusion
    from promptweave.words.phrases import bracketed, noun_phrases

    text, spans = bracketed(prompt)
    phrases = spans or noun_phrases(text)
    if not phrases:
        raise ValueError(
            f"A phrase of two words or more is needed, and {text!r} has none that was found. "
            "Put brackets around it: [a red car]."
        )
    made, _, _ = common.steer(common.load(), text, StructuredDiffusion(phrases, variant))
    read: dict[str, Any] = made.report["controls"][0]["phrases"]
    common.terminal.say(tree(text, phrases), f"  {variant} of the prompt and of {len(read['0'])} phrases read alone")
    common.save(made)


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
