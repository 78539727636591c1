"""The commands record and sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from promptweave.apps.commands_edit import PROMPT_TO_PROMPT
from promptweave.apps.common import (
    SETTINGS,
    FileOutput,
    Given,
    MaybePrompt,
    MaybeTarget,
    Opening,
    Output,
    Source,
    recipe_of,
)
from promptweave.apps.flags import Axis, Flags, command
from promptweave.apps.forms import byte_count
from promptweave.apps.telling import tell_image
from promptweave.core.fields import Option


@dataclass(frozen=True)
class Storing:
    """Where a recording is stored while it is made."""

    place: Annotated[
        Literal["cpu", "device", "disk"], Option("Where recordings are stored: cpu, device or disk.", group="Advanced")
    ] = "cpu"
    budget: Annotated[
        str | None, Option("Maximum size of a recording, such as 500M or 2G.", group="Advanced", metavar="BYTES")
    ] = None

    @property
    def bytes(self) -> int | None:
        """The budget as a number."""
        return None if self.budget is None else byte_count(self.budget)


@dataclass(frozen=True)
class Batching:
    """How a sweep is run."""

    batch: Annotated[int, Option("Edits in one forward pass.", low=1, group="Advanced")] = 4


@command(
    keeping=Flags("promptweave.core.kept:Kept"), settings=SETTINGS, given=Flags(Given), storing=Flags(Storing),
    opening=Flags(Opening), output=Flags(FileOutput, {"output": Path("out/recording.safetensors")}),
)  # fmt: skip
def record(
    prompt: MaybePrompt = None, /, *, keeping: dict[str, Any], settings: dict[str, Any], given: Given, storing: Storing,
    opening: Opening, output: FileOutput,
) -> None:  # fmt: skip
    """Generate an image and record its attention: `edit --recording FILE TARGET` then takes half the work."""
    output.check()
    if output.output.suffix != ".safetensors":
        raise ValueError(f"A recording is saved as a .safetensors file. Received {output.output}.")
    prompts = given.first(given.image, () if prompt is None else (prompt,), opening, output.terminal, settings)
    if len(prompts) != 1:
        raise ValueError("A recording has one prompt, or --image and --caption. Received both or neither.")
    (prompt,) = prompts
    from promptweave.editing.edit import record as make
    from promptweave.editing.record import estimate, megabytes
    from promptweave.sampling.recording import Kept

    network, terminal = opening.load(), output.terminal
    recipe = recipe_of(network, prompt, (), settings, **given.options)
    needed = estimate(network, recipe, Kept(**keeping))
    terminal.say(f"The recording will take {megabytes(needed)}.")
    given.announce(terminal, network, settings)
    with terminal.progress("recording", given.passes(recipe.steps)) as advance:
        made = make(
            prompt, model=network, place=storing.place, budget=storing.bytes, progress=advance, **keeping,
            **given.options, **settings,
        )  # fmt: skip
    made.save(output.output)
    near = {} if made.psnr is None else {"psnr": made.psnr}
    if made.psnr is not None:
        terminal.say(f"  inversion {made.recipe.inversion}: PSNR of the source to the input image {made.psnr:.1f} dB")
    terminal.give(
        {"file": str(output.output), **near, "bytes": made.bytes, "estimate": needed, "recipe": made.recipe.as_dict()}
    )
    terminal.say(f"wrote {output.output}")


@command(
    options=Flags(PROMPT_TO_PROMPT, axes=True), settings=replace(SETTINGS, axes=True), given=Flags(Given),
    batching=Flags(Batching), storing=Flags(Storing), opening=Flags(Opening),
    output=Flags(Output, {"output": Path("out/sweep")}, without=("report",)),
)  # fmt: skip
def sweep(
    source: Source, target: MaybeTarget = None, /, *, options: dict[str, Any],
    settings: dict[str, Any], given: Given, batching: Batching, storing: Storing, opening: Opening, output: Output,
) -> None:  # fmt: skip
    """Edit with all combinations of two settings, from one recording: a labelled grid and single images.

    Options with several values are the two axes; by default --cross and --self-attention, in joint attention
    --shared-start and --joint.
    """
    from promptweave.editing.sweep import check_sweep, usual_axes
    from promptweave.editing.sweep import sweep as make

    check_sweep(output.output, force=output.force)
    prompts = given.first(
        given.image, (source,) if target is None else (source, target), opening, output.terminal, settings
    )
    if len(prompts) != 2:
        raise ValueError(
            f"A sweep has a source prompt and a target, or with --caption a target alone. Received {len(prompts)}."
        )
    source, target = prompts
    network = opening.load()
    rows, columns, fixed = axes_of({**options, **settings}, usual_axes(network))
    steps = fixed.get("steps") or network.defaults[0]
    recordings = max((len(axis[1]) for axis in (rows, columns) if axis[0] == "seed"), default=1)
    total = given.passes(steps) - steps + steps * (recordings + len(rows[1]) * len(columns[1]))
    given.announce(output.terminal, network, fixed)
    with output.terminal.progress("sweeping", total) as advance:
        made = make(
            source, target, rows=rows, columns=columns, model=network, batch=batching.batch, place=storing.place,
            budget=storing.bytes, progress=advance, **given.options, **fixed,
        )  # fmt: skip
    tell_image(output.terminal, made.cells[0][0].report)
    files = made.save(output.output, force=output.force)
    output.terminal.give({"files": [str(path) for path in files], "rows": made.rows, "columns": made.columns})
    output.terminal.say(f"wrote {output.output / 'sweep.png'} and {len(files) - 1} more files beside it")


def axes_of(given: Mapping[str, Any], usual: Sequence[str]) -> tuple[Any, Any, dict[str, Any]]:
    """The two axes (rows, columns) and the remaining options; `usual` are those that fill up."""
    from promptweave.editing.sweep import USUAL

    found: dict[str, tuple[float, ...]] = {}
    fixed: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, Axis):
            found[name] = value.values
        elif name == "weights":
            found |= {f"weight:{word}": one.values for word, one in value.items() if isinstance(one, Axis)}
            single = {word: one for word, one in value.items() if not isinstance(one, Axis)}
            fixed |= {"weights": single} if single else {}
        else:
            fixed[name] = value
    for name in usual:
        if len(found) < 2 and name not in found and name not in fixed:
            found[name] = USUAL
    if len(found) != 2:
        raise ValueError(
            f"A sweep needs two axes, which are options with several values. Received {', '.join(found) or 'none'}. "
            "Write, for example, --cross 0,0.4,0.8 --self-attention 0,0.5,1."
        )
    names = list(found)
    rows, columns = (names[1], names[0]) if names[0] == usual[0] else names
    return (rows, found[rows]), (columns, found[columns]), fixed
