"""The command maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from promptweave.apps.common import SETTINGS, FileOutput, Given, Opening, Prompt, steps_of
from promptweave.apps.flags import Flags, command
from promptweave.apps.looking import PASSES, passes_of
from promptweave.apps.map_files import Ask, beside, told, views, write


@command(
    ask=Flags(Ask), settings=SETTINGS, given=Flags(Given), passes=PASSES, opening=Flags(Opening),
    output=Flags(FileOutput, {"output": Path("out/maps.png")}),
)  # fmt: skip
def maps(
    prompt: Prompt,
    target: Annotated[
        str | None, Parameter(help="Edited prompt: show its maps beside the first's, and their difference.")
    ] = None,
    /,
    *,
    ask: Ask,
    settings: dict[str, Any],
    given: Given,
    passes: dict[str, Any],
    opening: Opening,
    output: FileOutput,
) -> None:
    """Draw attention maps: one heat map per word; by step, layer and head; source beside target."""
    ask = replace(ask, output=output.output)
    ask.check(target)
    if passes and target is not None:
        raise ValueError(f"--{next(iter(passes))} works with a single prompt. Received two. Leave one of them out.")
    output.check()
    network, terminal = opening.load(), output.terminal
    general: dict[str, Any] = {"model": network, **settings, **given.options}
    if target is None:
        general |= passes
        steps = passes_of(given.image is not None, given.inversion, passes, settings, network)
    else:
        steps = given.passes(steps_of(settings, network))
    if target is not None or given.inversion is not None:
        given.announce(terminal, network, settings)
    doing = "editing" if target else "generating" if given.image is None else "looking"
    with terminal.progress(doing, steps) as advance:
        general["progress"] = advance
        files, facts = views(ask, prompt, general) if target is None else beside(ask, prompt, target, general)
    written = write(files, output.force)
    terminal.give({"file": str(output.output), "files": [str(path) for path in written], **facts})
    terminal.say(*facts.get("notes", ()), *told(written, ask.files))
