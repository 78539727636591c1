"""The command of Attend-and-Excite."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from promptweave.apps.common import Common, with_common


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(attend)


@with_common("out/attend")
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
    *,
    common: Common,
) -> None:
    """Give every subject a place in the picture (Attend-and-Excite)."""
    from promptweave.apps.steering import maps_of_both
    from promptweave.methods import AttendAndExcite
    from promptweave.view.curves import curves
    from promptweave.words.phrases import nouns

    network = common.load()
    subjects = tuple(word or nouns(prompt))
    control = AttendAndExcite(subjects, share, scale, iterations=iterations, reference_compat=reference_compat)
    made, after, before = common.steer(network, prompt, control)
    report: dict[str, Any] = made.report["controls"][0]
    losses: dict[str, list[float]] = report["losses"]["0"]
    curve = curves(losses, title="loss of each subject: 1 - its highest attention", across="step")
    for name, values in losses.items():
        common.terminal.say(f"  {name}: loss {values[0]:.3f} at the first step, {values[-1]:.3f} at the last moved")
    repeats = ", ".join(f"{count} at step {step}" for step, count in report["repeats"].items())
    common.terminal.say(f"  more moves: {repeats}" if repeats else "  no step needed more than one move")
    common.save(made, maps=maps_of_both(before, after, subjects), losses=curve)
