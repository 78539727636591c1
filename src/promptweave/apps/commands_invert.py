"""The command invert."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from promptweave.apps.common import SETTINGS, Captioning, FileOutput, MaybePrompt, Opening, Speaking, steps_of
from promptweave.apps.flags import Flags, command
from promptweave.apps.telling import tell_memory
from promptweave.core.fields import Option


@dataclass(frozen=True)
class Inverting(Captioning):
    """Which inversion."""

    inversion: Annotated[
        str,
        Option("How the image is inverted: direct, ddim, null-text ...", metavar="NAME[:OPTION=VALUE,...]"),
    ] = "direct"  # fmt: skip


@command(
    settings=SETTINGS, inverting=Flags(Inverting), opening=Flags(Opening),
    output=Flags(FileOutput, {"output": Path("out/inverted.safetensors")}),
)  # fmt: skip
def invert(
    image: Annotated[str, Parameter(help="Image file.")],
    prompt: MaybePrompt = None, /, *, settings: dict[str, Any], inverting: Inverting, opening: Opening,
    output: FileOutput,
) -> None:  # fmt: skip
    """Invert an image once: `edit --recording FILE TARGET` and sweeps then start from it."""
    output.check()
    if output.output.suffix != ".safetensors":
        raise ValueError(f"An inverted image is saved as a .safetensors file. Received {output.output}.")
    prompts = inverting.first(image, (prompt,) if prompt else (), opening, output.terminal, settings)
    if len(prompts) != 1:
        raise ValueError("An image is inverted under a prompt that says what it shows, or with --caption. Give one.")
    (prompt,) = prompts
    from promptweave.editing.inversions import read_inversion
    from promptweave.editing.invert import invert as make

    method = read_inversion(inverting.inversion)
    network, terminal = opening.load(), output.terminal
    memory = tell_memory(terminal, inverting.inversion, network, settings)
    with terminal.progress("inverting", method.passes(steps_of(settings, network))) as advance:
        made = make(prompt, image, model=network, inversion=method, progress=advance, **settings)
    made.save(output.output)
    chosen, figures = made.inverted.method.spec, dict(made.inverted.figures)
    said = {"file": str(output.output), "inversion": chosen, "psnr": made.psnr, "figures": figures}
    terminal.give({**said, "bytes": memory} if memory else said)
    terminal.say(f"  inversion {chosen}: PSNR of the source to the input image {made.psnr:.1f} dB")
    for name, value in figures.items():
        terminal.say(f"  {name}: {value:.4g}")
    terminal.say(f"wrote {output.output}")


@dataclass(frozen=True)
class Describing:
    """Who describes an image."""

    captioner: Annotated[
        str | None,
        Option("Image-to-text model: a folder, or a name in the local cache.", group="Model", metavar="MODEL"),
    ] = None
    fit: Annotated[
        Literal["crop", "pad", "stretch"] | None,
        Option("How the image gets the size that is read: crop, pad or stretch. [crop]", group="Image"),
    ] = None


@command(describing=Flags(Describing), opening=Flags(Opening), speaking=Flags(Speaking))
def caption(
    image: Annotated[str, Parameter(help="Image file.")], /, *, describing: Describing, opening: Opening,
    speaking: Speaking,
) -> None:  # fmt: skip
    """Say what an image shows, as the source prompt of its edits; by a model that is on this machine."""
    from promptweave.perception.captioning import captioned

    text, who = captioned(image, opening.model, describing.captioner, describing.fit)
    speaking.terminal.give({"caption": text, "by": who})
    speaking.terminal.say(text)
