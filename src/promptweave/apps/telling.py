"""What several commands print about a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from promptweave.apps.terminal import Terminal

_arguments: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())


def started(arguments: Sequence[str]) -> None:
    """Note the arguments of the command that runs."""
    _arguments.set(tuple(arguments))


def line() -> str:
    """The command that runs, as it is typed: what a sheet says of how it was made."""
    return shlex.join(("promptweave", *_arguments.get()))


def tell_memory(terminal: Terminal, inversion: str, network: Any, settings: Mapping[str, Any]) -> dict[str, int]:
    """Print the memory of an inversion that needs gradients, before it runs; its figures in bytes, for JSON."""
    from promptweave.editing.inversions import read_inversion

    method, size = read_inversion(inversion), settings.get("size")
    needed = method.memory(network, None if size == "auto" else size)
    if needed is None:
        return {}
    terminal.say(f"  {method.name} needs {needed.told()}")
    return {on: needed.peak(checkpointing=on == "checkpointed") for on in ("kept", "checkpointed")}


def facts(report: Mapping[str, Any], hidden: tuple[str, ...] = ()) -> list[str]:
    """What a control did, as text: "cross steps 40", "mask 12% at the end"."""
    said: list[str] = []
    for name, value in report.items():
        if name == "mask_area":
            said += [f"mask {area[-1]:.0%} at the end" for area in value.values() if area]
        elif name not in ("control", *hidden) and value:
            said.append(
                f"{name.replace('_', ' ')} {value:.3g}"
                if isinstance(value, float)
                else f"{name.replace('_', ' ')} {value}"
            )
    return said


def tell_image(terminal: Terminal, report: Mapping[str, Any]) -> None:
    """Print how close the source is to an input image, what became of it, and what of the original was replaced."""
    from promptweave.editing.fitting import told
    from promptweave.editing.report import inversion_told, put_back_told

    found = report.get("picture")
    if found:
        said = [*inversion_told(found), f"image: {told(found)}", *put_back_told(found)]
        terminal.say(*(f"  {each}" for each in said))


def tell(terminal: Terminal, report: Mapping[str, Any], hidden: tuple[str, ...] = ()) -> None:
    """Print what each control did, and whose strengths it had."""
    from promptweave.editing.usual_strengths import strengths_told

    for told in dict.fromkeys(strengths_told(found) for found in report["strengths"] if found):
        terminal.say(f"  {told}")
    for control in report["controls"]:
        terminal.say(f"  {control['control']}: {', '.join(facts(control, hidden)) or 'done'}")
