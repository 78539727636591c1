"""Commands for many pictures from little work: record, sweep, and files of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from promptweave.apps.flags import (
    Budget,
    Device,
    Force,
    Given,
    Guidance,
    Inversion,
    Json,
    ModelName,
    Place,
    Quiet,
    Scheduler,
    Seed,
    Size,
    Steps,
)
from promptweave.apps.pictures import passes
from promptweave.apps.terminal import Terminal, byte_count, number, size, span, weights

AXIS_OPTIONS = {"cross": "--cross", "self_attention": "--self", "joint": "--joint", "threshold": "--threshold"}


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (record, sweep):
        app.command()(command)


def record(
    prompt: Annotated[str, typer.Argument(help="What the picture is to show.")],
    cross: Annotated[str, typer.Option("--cross", help="Window of cross-attention that edits may use.")] = "0.8",
    self_attention: Annotated[str, typer.Option("--self", help="Window of self-attention.")] = "0.4",
    joint: Annotated[str, typer.Option("--joint", help="Window of joint attention.")] = "0.2",
    maps: Annotated[bool, typer.Option("--maps/--no-maps", help="Keep what word maps and local blends read.")] = True,
    image: Given = None,
    inversion: Inversion = None,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    size_text: Size = None,
    model: ModelName = "toybox",
    device: Device = "auto",
    scheduler: Scheduler = None,
    place: Place = "cpu",
    budget: Budget = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="File.")] = Path("out/recording.safetensors"),
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a picture and keep what edits of it read: `edit --recording FILE TARGET` then needs half the work."""
    from promptweave.editing.edit import record as make
    from promptweave.editing.plan import usual
    from promptweave.editing.recipe import Recipe
    from promptweave.editing.record import estimate, megabytes
    from promptweave.models.load import load
    from promptweave.sampling.recording import Kept

    terminal = Terminal(json, quiet)
    if output.exists() and not force:
        raise FileExistsError(f"{output} exists. Choose another file with -o, or replace it with --force.")
    if output.suffix != ".safetensors":
        raise ValueError(f"A recording is saved as a .safetensors file. Received {output}.")
    network = load(model, device=device, scheduler=scheduler)
    count, strength = usual(network, steps, guidance)
    windows: dict[str, Any] = {
        "cross": span(cross, "--cross"), "self_attention": span(self_attention, "--self"),
        "joint": span(joint, "--joint"), "maps": maps,
    }  # fmt: skip
    recipe = Recipe(prompt, seed=seed, steps=count, guidance=strength, size=size(size_text))
    recipe.check()
    needed = estimate(network, recipe, Kept(**windows))
    terminal.say(f"The recording will take {megabytes(needed)}.")
    with terminal.progress("recording", passes(count, image)) as advance:
        made = make(
            prompt, model=network, seed=seed, steps=count, guidance=strength, size=size(size_text),
            place=_place(place), budget=byte_count(budget), image=image, inversion=inversion,
            progress=advance, **windows,
        )  # fmt: skip
    made.save(output)
    terminal.give({"file": str(output), "bytes": made.bytes, "estimate": needed, "recipe": made.recipe.as_dict()})
    terminal.say(f"wrote {output}")


def sweep(
    source: Annotated[str, typer.Argument(help="Prompt of the source picture.")],
    target: Annotated[str, typer.Argument(help="Edited prompt.")],
    cross: Annotated[str | None, typer.Option("--cross", help="Windows of cross-attention: 0,0.2,...,1")] = None,
    self_attention: Annotated[str | None, typer.Option("--self", help="Windows of self-attention.")] = None,
    joint: Annotated[str | None, typer.Option("--joint", help="Windows of joint attention.")] = None,
    threshold: Annotated[str | None, typer.Option("--threshold", help="Thresholds of the local blend.")] = None,
    weight: Annotated[
        list[str] | None, typer.Option("--weight", "-w", help="word=factor, or word=-2,0,2 for an axis.")
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Seeds as an axis: 0,1,2")] = None,
    blend: Annotated[
        list[str] | None, typer.Option("--blend", help="Word in whose region alone it may change.")
    ] = None,
    subtract: Annotated[list[str] | None, typer.Option("--subtract", help="Word whose region must not change.")] = None,
    image: Given = None,
    inversion: Inversion = None,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    size_text: Size = None,
    batch: Annotated[int, typer.Option("--batch", help="Cells in one forward pass.")] = 4,
    model: ModelName = "toybox",
    device: Device = "auto",
    scheduler: Scheduler = None,
    place: Place = "cpu",
    budget: Budget = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("out/sweep"),
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Edit with every pair of two settings, from one recording: a labelled grid and the single pictures.

    Two of the options are axes: those with several values, --cross and --self unless others are given.
    """
    from promptweave.editing.plan import usual
    from promptweave.editing.sweep import check_sweep
    from promptweave.editing.sweep import sweep as make
    from promptweave.models.load import load

    terminal = Terminal(json, quiet)
    check_sweep(output, force=force)
    rows, columns, fixed = _axes(
        {"cross": cross, "self_attention": self_attention, "joint": joint, "threshold": threshold}, weight or [], seeds
    )
    if rows[0] != "seed" and columns[0] != "seed":
        fixed["seed"] = seed
    network = load(model, device=device, scheduler=scheduler)
    count, strength = usual(network, steps, guidance)
    recordings = max((len(axis[1]) for axis in (rows, columns) if axis[0] == "seed"), default=1)
    if image is not None:
        fixed.update(image=image, inversion=inversion)
    total = passes(count, image) - count + count * (recordings + len(rows[1]) * len(columns[1]))
    given: dict[str, Any] = {
        "batch": batch, "place": _place(place), "budget": byte_count(budget), "steps": count, "guidance": strength,
        "size": size(size_text), **({"blend": blend} if blend else {}), **({"subtract": subtract} if subtract else {}),
        **fixed,
    }  # fmt: skip
    with terminal.progress("sweeping", total) as advance:
        made = make(source, target, rows=rows, columns=columns, model=network, progress=advance, **given)
    files = made.save(output, force=force)
    terminal.give({"files": [str(path) for path in files], "rows": made.rows, "columns": made.columns})
    terminal.say(f"wrote {output / 'sweep.png'} and {len(files) - 1} more files beside it")


def _axes(options: dict[str, str | None], weight: list[str], seeds: str | None) -> tuple[Any, Any, dict[str, Any]]:
    """The two axes and the fixed settings among the options."""
    found: dict[str, tuple[float, ...]] = {}
    fixed: dict[str, Any] = {}
    for name, text in options.items():
        if text is not None and "," in text:
            found[name] = values(text, AXIS_OPTIONS[name])
        elif text is not None:
            fixed[name] = span(text, AXIS_OPTIONS[name])
    single: list[str] = []
    for text in weight:
        word, _, factors = text.rpartition("=")
        if "," in factors:
            found[f"weight:{word}"] = values(factors, "--weight")
        else:
            single.append(text)
    if seeds is not None:
        found["seed"] = tuple(int(value) for value in values(seeds, "--seeds"))
    if single:
        fixed["weights"] = weights(single)
    for name in ("cross", "self_attention"):
        if len(found) < 2 and name not in found and name not in fixed:
            found[name] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    if len(found) != 2:
        raise ValueError(
            f"A sweep has two axes, options with several values. Received {', '.join(found) or 'none'}. "
            "Write --cross 0,0.4,0.8 --self 0,0.5,1, say."
        )
    names = list(found)
    rows, columns = (names[1], names[0]) if names[0] == "cross" else names
    return (rows, found[rows]), (columns, found[columns]), fixed


def values(text: str, option: str) -> tuple[float, ...]:
    """Numbers "0,0.5,1", also "0,0.2,...,1" with the step of the first two."""
    parts = [part.strip() for part in text.split(",")]
    if "..." not in parts:
        return tuple(number(part, option) for part in parts)
    place = parts.index("...")
    if place < 2 or place != len(parts) - 2:
        raise ValueError(f"{option} takes numbers, or two numbers, '...' and the last: 0,0.2,...,1. Received {text!r}.")
    known, last = [number(part, option) for part in parts[:place]], number(parts[-1], option)
    step = known[-1] - known[-2]
    count = (last - known[-1]) / step if step else -1
    if count < 1 or abs(count - round(count)) > 1e-6:
        raise ValueError(f"{option}: {last:g} is not reached from {known[-1]:g} in steps of {step:g}.")
    return (*known, *(round(known[-1] + step * (i + 1), 10) for i in range(round(count))))


def _place(text: str) -> Any:
    if text not in ("cpu", "device", "disk"):
        raise ValueError(f"--place is cpu, device or disk. Received {text!r}.")
    return text


def run_file(
    terminal: Terminal, path: Path, source: str | None, network: Any, output: Path, rows: int, force: bool
) -> None:
    """`edit --jobs`: run a file of jobs, each into a folder of its own below `output`."""
    from promptweave.editing.jobs import read_jobs, run_jobs

    if source is not None:
        raise ValueError(f"--jobs takes its prompts from the file. Received {source!r} too.")
    jobs = read_jobs(path, network)
    there: list[str] = []

    def note(job: Any, result: Any) -> None:
        if result is None:
            there.append(job.name)
        advance(None, None)

    with terminal.progress("jobs", len(jobs)) as advance:
        folders = run_jobs(jobs, network, output, rows=rows, force=force, done=note)
    terminal.give({"folders": [str(folder) for folder in folders], "there_already": there})
    terminal.say(f"{len(folders) - len(there)} jobs run, {len(there)} there already, in {output}")
