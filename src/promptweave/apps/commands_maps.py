"""The command that shows attention: maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from promptweave.apps.flags import Blend, Guidance, Json, ModelName, Quiet, Size, Steps
from promptweave.apps.map_files import Ask, beside, views, write
from promptweave.apps.terminal import Terminal, byte_count, size

Many = list[str] | None


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(maps)


def maps(
    prompt: Annotated[str, typer.Argument(help="What the picture is to show.")],
    target: Annotated[
        str | None, typer.Argument(help="An edited prompt: its maps beside the first's, and their difference.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", "-s")] = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    size_text: Size = None,
    special: Annotated[bool, typer.Option("--special", help="Also the start and end tokens.")] = False,
    alone: Annotated[bool, typer.Option("--alone", help="The maps without the picture below.")] = False,
    grid: Annotated[
        str | None, typer.Option("--grid", help="Grid of the maps, such as 16 or 8x16; all: enlarged and averaged.")
    ] = None,
    renormalise: Annotated[bool, typer.Option("--renormalise", help="Shares among the words alone.")] = False,
    steps_shown: Annotated[
        str | None, typer.Option("--steps-shown", help="Also the maps at these steps, such as 0,5,10,25,50.")
    ] = None,
    layers: Annotated[
        Many, typer.Option("--layers", help="Also layer by layer: all, down, up_cross_2 ...; may be repeated.")
    ] = None,
    per_head: Annotated[bool, typer.Option("--per-head", help="Of --layers: each head by itself.")] = False,
    word: Annotated[Many, typer.Option("--word", help="Of --layers: a sheet of this word. [all words]")] = None,
    animate: Annotated[bool, typer.Option("--animate", help="Also a GIF and a WebP through all steps.")] = False,
    video: Annotated[bool, typer.Option("--video", help="Also an MP4 (extra 'video').")] = False,
    self_attention: Annotated[
        Many, typer.Option("--self", help="Also self-attention: components, or pixel=x,y; may be repeated.")
    ] = None,
    self_grid: Annotated[str | None, typer.Option("--self-grid", help="Of --self: its grid, such as 16.")] = None,
    stats: Annotated[
        Path | None, typer.Option("--stats", help="Also entropy, share and overlap, as .csv or .json.")
    ] = None,
    mask: Annotated[
        Many, typer.Option("--mask", help="Of --stats: word=PICTURE, white where the thing is; may be repeated.")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--files", help="Folder for each map as a file.")] = None,
    blend: Blend = None,
    budget: Annotated[str, typer.Option("--budget", help="Most memory that maps may take, such as 500M.")] = "2G",
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG to write; further ones stand beside it.")] = Path(
        "out/maps.png"
    ),
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace files.")] = False,
    model: ModelName = "toybox",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw what each word looks at: one heat map per word; by step, layer and head; source beside target."""
    from promptweave.models.load import load

    terminal = Terminal(json, quiet)
    ask = Ask(
        output, special, not alone, grid, renormalise, steps_shown, tuple(layers or ()), per_head, tuple(word or ()),
        animate, tuple(self_attention or ()), self_grid, stats, tuple(mask or ()), folder, tuple(blend or ()),
        byte_count(budget), video,
    )  # fmt: skip
    ask.check(target)
    if output.exists() and not force:
        raise FileExistsError(f"{output} exists. Choose another file with -o, or replace it with --force.")
    network = load(model)
    general: dict[str, Any] = {
        "model": network, "seed": seed, "steps": steps, "guidance": guidance, "size": size(size_text),
    }  # fmt: skip
    with terminal.progress("editing" if target else "generating", steps or network.defaults[0]) as advance:
        general["progress"] = advance
        files, facts = views(ask, prompt, general) if target is None else beside(ask, prompt, target, general)
    written = write(files, force)
    terminal.give({"file": str(output), "files": [str(path) for path in written], **facts})
    terminal.say(*facts.get("notes", ()), *(f"wrote {path}" for path in written))
