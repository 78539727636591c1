"""The command of Plug-and-Play."""

from __future__ import annotations

from typing import Annotated

import typer

from promptweave.apps.common import Common, with_common


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pnp")(plug_and_play)


@with_common("out/pnp", pictures=True)
def plug_and_play(
    source: Annotated[str, typer.Argument(help="Prompt of the picture whose layout is kept.")],
    targets: Annotated[list[str], typer.Argument(help="Prompts of other looks.")],
    features: Annotated[float, typer.Option("--features", help="Share of the steps with the source's features.")] = 0.8,
    attention: Annotated[float, typer.Option("--attention", help="The same for queries and keys.")] = 0.5,
    layers: Annotated[float, typer.Option("--layers", help="Share of the layers before the first.")] = 0.5,
    block: Annotated[str, typer.Option("--block", help="Residual block, by stage and number.")] = "up_res_1_1",
    compare: Annotated[bool, typer.Option("--compare", help="Also make the targets without control.")] = False,
    *,
    common: Common,
) -> None:
    """Give other looks to the source's layout (Plug-and-Play diffusion features)."""
    from promptweave.apps.steering import facts
    from promptweave.methods import PlugAndPlay

    control = PlugAndPlay(features, attention, layers, block)
    made = common.edit(common.load(), [source, *targets], control, "editing", compare=compare)
    common.terminal.say(f"  PlugAndPlay: {facts(made.report['controls'][0])}")
    common.save(made)
