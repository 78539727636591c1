"""The command of MasaCtrl."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptweave.apps.common import Common, with_common
from promptweave.apps.pictures import read_drawn


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(masactrl)


@with_common("out/masactrl", pictures=True)
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
    *,
    common: Common,
) -> None:
    """Give the source's looks to another pose or layout (MasaCtrl)."""
    from promptweave.apps.steering import facts
    from promptweave.methods import MasaCtrl

    if (mask_source is None) != (mask_target is None):
        raise ValueError("Masks come in pairs: --mask-source of the source and --mask-target of the result.")
    masks = None
    if mask_source is not None and mask_target is not None:
        masks = read_drawn(mask_source), read_drawn(mask_target)
    control = MasaCtrl(start, layers, union, tuple(word or ()), threshold, masks)
    made = common.edit(common.load(), [source, *targets], control, "editing", compare=compare)
    common.terminal.say(f"  MasaCtrl: {facts(made.report['controls'][0])}")
    common.save(made)
