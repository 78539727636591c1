"""The command line: `promptweave --help`."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

try:
    import typer
except ImportError as missing:  # pragma: no cover - an environment without the extra
    raise SystemExit(
        "The command line needs the extra 'apps'. Install it with: pip install 'promptweave[apps]'"
    ) from missing

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # the libraries' advice on import is no news to our users
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

from promptweave.apps import commands_many
from promptweave.apps.failures import explain, fail
from promptweave.apps.flags import (
    AllowPickle,
    Blend,
    Chunks,
    Device,
    Force,
    Given,
    Guidance,
    Images,
    ImagesOrNone,
    Inversion,
    Json,
    ModelName,
    Negative,
    NegativeOrNone,
    Output,
    PromptWeights,
    Quiet,
    Report,
    Scheduler,
    Seed,
    SeedOrNone,
    Size,
    Steps,
    Subtract,
    Truncate,
)
from promptweave.apps.pictures import given_line, passes, read_mask
from promptweave.apps.terminal import INTERRUPTED, Terminal, size, span, spans, table, weights

app = typer.Typer(
    name="promptweave",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="See and steer the attention of text-to-image diffusion models.",
)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture is to show.")],
    seed: Seed = 0,
    images: Images = 1,
    steps: Steps = None,
    guidance: Guidance = None,
    scheduler: Scheduler = None,
    size_text: Size = None,
    negative: Negative = "",
    truncate: Truncate = False,
    model: ModelName = "toybox",
    device: Device = "auto",
    allow_pickle: AllowPickle = False,
    chunks: Chunks = 1,
    prompt_weights: PromptWeights = False,
    report: Report = False,
    output: Output = Path("out/generate"),
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a picture from a prompt."""
    from promptweave.editing.edit import run
    from promptweave.editing.plan import recipe_for
    from promptweave.editing.recorders import edit_watch
    from promptweave.editing.result import check_output
    from promptweave.models.load import load

    terminal = Terminal(json, quiet)
    check_output(output, force=force)
    opened: dict[str, Any] = {
        "device": device,
        "scheduler": scheduler,
        "allow_pickle": allow_pickle,
        "chunks": chunks,
        "prompt_weights": prompt_weights,
    }
    network = load(model, **opened)
    recipe = recipe_for(network, prompt, (), seed, images, steps, guidance, size(size_text), negative, truncate)
    recipe.check()
    with terminal.progress("generating", recipe.steps) as advance:
        result = run(recipe, network, watch=edit_watch(recipe, network) if report else (), progress=advance)
    _finish(terminal, result, output, force, report)


@app.command()
def edit(
    source: Annotated[str | None, typer.Argument(help="Prompt of the source picture.")] = None,
    targets: Annotated[
        list[str] | None, typer.Argument(help="Edited prompts; none with --weight on the source.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Word swap, whatever the prompts look like.")] = False,
    refine: Annotated[bool, typer.Option("--refine", help="Added phrase, whatever the prompts look like.")] = False,
    flow: Annotated[bool, typer.Option("--flow", help="FlowEdit, for Stable Diffusion 3 and FLUX.")] = False,
    consist: Annotated[bool, typer.Option("--consist", help="Keep all but what --blend names; SD3 and FLUX.")] = False,
    strength: Annotated[
        float | None,
        typer.Option("--strength", help="Of --flow: fraction of the steps that act. [0.66, of FLUX 0.857]"),
    ] = None,
    structure: Annotated[float, typer.Option("--structure", help="Of --consist: how long the shape is kept.")] = 0.3,
    weight: Annotated[list[str] | None, typer.Option("--weight", "-w", help="word=factor; may be repeated.")] = None,
    blend: Blend = None,
    subtract: Subtract = None,
    mask: Annotated[Path | None, typer.Option("--mask", help="Picture, white where the result may change.")] = None,
    mask_union: Annotated[bool, typer.Option("--mask-union", help="Add the mask to the words' region.")] = False,
    threshold: Annotated[float, typer.Option("--threshold", help="Of the local blend, 0 to 1.")] = 0.3,
    blend_start: Annotated[float, typer.Option("--blend-start", help="Share of the steps before it.")] = 0.2,
    shared_start: Annotated[
        float | None, typer.Option("--shared-start", help="Share of the steps that all prompts have in common.")
    ] = None,
    cross: Annotated[
        list[str] | None, typer.Option("--cross", help="Share or range of steps, or word=share. [0.8]")
    ] = None,
    self_attention: Annotated[str, typer.Option("--self", help="Share or range of steps for self-attention.")] = "0.4",
    self_grid: Annotated[
        int | None, typer.Option("--self-grid", help="Pixels of the largest self-attention map used.")
    ] = None,
    joint: Annotated[
        str, typer.Option("--joint", help="Share or range of steps, in networks of joint attention.")
    ] = "0.2",
    image: Given = None,
    inversion: Inversion = None,
    recording: Annotated[
        Path | None, typer.Option("--recording", help="Edit a recording; all prompts are targets then.")
    ] = None,
    jobs: Annotated[Path | None, typer.Option("--jobs", help="Run a file of edits, one JSON object a line.")] = None,
    rows: Annotated[int, typer.Option("--rows", help="Pictures made at once with --jobs.")] = 8,
    compare: Annotated[bool, typer.Option("--compare", help="Also make the targets without control.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Also write report.html, a page of it all.")] = False,
    reference_compat: Annotated[
        bool, typer.Option("--reference-compat", help="Maps and windows of the authors' code.")
    ] = False,
    seed: SeedOrNone = None,
    images: ImagesOrNone = None,
    steps: Steps = None,
    guidance: Guidance = None,
    scheduler: Scheduler = None,
    size_text: Size = None,
    negative: NegativeOrNone = None,
    truncate: Truncate = False,
    model: ModelName = "toybox",
    device: Device = "auto",
    allow_pickle: AllowPickle = False,
    chunks: Chunks = 1,
    prompt_weights: PromptWeights = False,
    output: Output = Path("out/edit"),
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Edit a picture by changing its prompt: only what the words name changes."""
    from promptweave.editing.edit import edit as make
    from promptweave.editing.record import Recording
    from promptweave.editing.result import check_output
    from promptweave.models.load import load

    kinds = {"replace": replace, "refine": refine, "flow": flow, "consist": consist}
    named: list[Any] = [name for name, given in kinds.items() if given]
    if len(named) > 1:
        raise ValueError(
            f"{' and '.join(f'--{name}' for name in named)} exclude each other. "
            "Give one of them, or none to let the prompts decide."
        )
    opened: dict[str, Any] = {
        "device": device,
        "scheduler": scheduler,
        "allow_pickle": allow_pickle,
        "chunks": chunks,
        "prompt_weights": prompt_weights,
    }
    terminal = Terminal(json, quiet)
    if jobs is not None:
        commands_many.run_file(terminal, jobs, source, load(model, **opened), output, rows, force)
        return
    check_output(output, force=force)
    if recording is None and source is None:
        raise ValueError("An edit needs a source prompt and a target. Received none: promptweave edit SOURCE TARGET.")
    drawn = None if mask is None else read_mask(mask)
    network = load(model, **opened)
    recorded = None if recording is None else Recording.load(recording, network.device)
    prompts: Any = [recorded, source, *(targets or [])] if recorded else [source, *(targets or [])]
    prompts = [prompt for prompt in prompts if prompt is not None]
    usual = network.defaults[0] if recorded is None else recorded.recipe.steps
    with terminal.progress("editing", passes(usual if steps is None else steps, image)) as advance:
        result = make(
            *prompts,
            model=network,
            kind=named[0] if named else "auto",
            strength=strength,
            structure=structure,
            cross=spans(cross or ["0.8"], "--cross"),
            self_attention=span(self_attention, "--self"),
            self_grid=self_grid,
            joint=span(joint, "--joint"),
            weights=weights(weight or []),
            blend=blend or (),
            subtract=subtract or (),
            threshold=threshold,
            mask=drawn,
            combine="union" if mask_union else "intersection",
            blend_start=blend_start,
            shared_start=shared_start,
            seed=seed,
            images=images,
            steps=steps,
            guidance=guidance,
            size=size(size_text),
            negative=negative,
            truncate=truncate,
            image=image,
            inversion=inversion,
            compare=compare,
            maps=report,
            reference_compat=reference_compat,
            progress=advance,
        )
    _finish(terminal, result, output, force, report)


def _finish(terminal: Terminal, result: Any, output: Path, force: bool, report: bool = False) -> None:
    from promptweave.maps.html_report import html_report

    pages = {"report.html": html_report(result)} if report else {}
    files = result.save(output, force=force, pages=pages)
    terminal.give({"files": [str(path) for path in files], **result.record})
    for number, pairs in enumerate(result.report["alignment"], 1):
        rows = [(pair["kind"], pair["source"], pair["target"]) for pair in pairs if pair["kind"] != "kept"]
        distance = result.report["distance"][number - 1][0]
        terminal.say(
            table(
                f"target {number}: {result.recipe.targets[number - 1]}",
                ("", "source", "target"),
                rows or [("same", "", "")],
            )
        )
        terminal.say(
            f"  {distance['changed_pixels']:.0%} of the pixels changed, PSNR to the source {distance['psnr']:.1f} dB"
        )
    terminal.say(*given_line(result.report))
    for control in result.report["controls"]:
        shown = {key: value for key, value in control.items() if key not in ("control", "mask_area")}
        areas = [f"mask {area[-1]:.0%} at the end" for area in control.get("mask_area", {}).values()]
        facts = [f"{key.replace('_', ' ')} {value}" for key, value in shown.items() if value] + areas
        terminal.say(f"  {control['control']}: {', '.join(facts)}")
    terminal.say(*(f"wrote {path}" for path in files))


COMMANDS = "look maps bench attend place compose translate masactrl plug_and_play sega many page"
for name in COMMANDS.split():
    import_module(f"promptweave.apps.commands_{name}").register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors become one message and an exit code."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="promptweave", standalone_mode=False)
    except KeyboardInterrupt:
        sys.exit(fail("Interrupted. Nothing was written.", INTERRUPTED))
    except Exception as error:
        sys.exit(explain(error))
    if code == INTERRUPTED:  # typer turns Ctrl-C into this exit code
        fail("Interrupted. Nothing was written.", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
