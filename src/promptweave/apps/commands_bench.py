"""Commands that train and measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from promptweave.apps.flags import Guidance, Json, ModelName, Quiet, Scheduler, Steps
from promptweave.apps.terminal import Terminal, size, table

TimedModel = Annotated[
    str, typer.Option("--model", "-m", help="toybox, sd15-random, sdxl-random, sd3-random, flux-random, a folder ...")
]
bench = typer.Typer(no_args_is_help=True, help="Measure edits and speed.")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(train)
    app.add_typer(bench, name="bench")


def train(
    stage: Annotated[str, typer.Option("--stage", help="all, vae, diffusion, decoder, oracle, joint or fast.")] = "all",
    folder: Annotated[Path, typer.Option("--folder", help="Where checkpoints, log and grids go.")] = Path(
        "runs/toybox"
    ),
    vae_minutes: Annotated[float, typer.Option("--vae-minutes", help="For the autoencoder, in all.")] = 11,
    minutes: Annotated[
        float, typer.Option("--minutes", help="For text encoder and UNet, in all its runs together.")
    ] = 180,
    decoder_minutes: Annotated[float, typer.Option("--decoder-minutes", help="To improve the decoder, in all.")] = 15,
    joint_minutes: Annotated[float, typer.Option("--joint-minutes", help="For toybox-dit, in all.")] = 220,
    fast_minutes: Annotated[float, typer.Option("--fast-minutes", help="For toybox-fast, in all.")] = 26,
    begin: Annotated[
        str,
        typer.Option("--from", help="Begin a new folder with this model's weights: toybox, toybox-dit, or a folder."),
    ] = "",
    rate: Annotated[float, typer.Option("--rate", help="Highest rate of learning, stages diffusion and joint.")] = 1e-3,
    batch: Annotated[
        int, typer.Option("--batch", min=0, help="Pictures a step, stages diffusion and joint; 0: 24 and 32.")
    ] = 0,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Stages diffusion and joint in bfloat16: faster where the machine has it.")
    ] = False,
    scenes: Annotated[
        int, typer.Option("--scenes", min=1, help="To train on; a fifth as many more have two things of two colours.")
    ] = 30_000,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    install: Annotated[bool, typer.Option("--install", help="Copy the trained pipeline into the package.")] = False,
    score: Annotated[bool, typer.Option("--score", help="Only score --model, train nothing.")] = False,
    count: Annotated[int, typer.Option("--count", help="Prompts of each family to score.")] = 200,
    steps: Steps = None,
    guidance: Guidance = None,
    scheduler: Scheduler = None,
    model: ModelName = "toybox",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the embedded model, going on from its checkpoints; or print the oracle's figures of a model."""
    terminal = Terminal(json, quiet)
    if score:
        _score(terminal, model, scheduler, count, steps, guidance)
        return
    from promptweave.world import train as recipe

    stages = recipe.STAGES if stage == "all" else (stage,)
    if not set(stages) <= set(recipe.STAGES):
        raise ValueError(f"--stage must be all, {', '.join(recipe.STAGES)}. Received {stage!r}.")
    times = {"vae": vae_minutes, "diffusion": minutes, "decoder": decoder_minutes, "oracle": 0.0}
    times["joint"] = joint_minutes
    times["fast"] = fast_minutes
    if begin:
        recipe.begin_with(folder, begin)
    sizes = {"batch": batch, "joint_batch": batch} if batch else {}
    with _training_bar(terminal, times) as watch:
        recipe.train(
            folder,
            recipe.Recipe(seed, scenes, scenes // 5, rate=rate, joint_rate=rate, bf16=bf16, **sizes),
            {name: times[name] for name in stages},
            device,
            watch,
        )
    terminal.say(f"log and sample grids are in {folder}")
    if install:
        terminal.say(*(f"installed {path}" for path in recipe.install(folder, stages)))


@contextmanager
def _training_bar(terminal: Terminal, minutes: dict[str, float]) -> Iterator[Any]:
    """A bar per stage on standard error: share of its minutes, loss and samples a second."""
    with terminal.bar() as bar:
        tasks: dict[str, Any] = {}
        first: dict[str, tuple[float, float]] = {}

        def watch(values: Mapping[str, Any]) -> None:
            stage = str(values["stage"])
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=1.0)
            spent, samples = float(values["minutes"]), float(values.get("samples", 0))
            begun, before = first.setdefault(stage, (spent, samples))
            done = values.get("share") or spent / max(minutes.get(stage, 0.0), 1e-9)
            rate = (samples - before) / max(60 * (spent - begun), 1e-9)
            loss = f" loss {values['loss']:.3f}" if "loss" in values else ""
            bar.update(tasks[stage], completed=done, description=f"{stage}{loss}, {rate:.0f} samples/s")

        yield watch


def _score(
    terminal: Terminal, name: str, scheduler: str | None, count: int, steps: int | None, guidance: float | None
) -> None:
    from promptweave.benchmarks.score import score as measure
    from promptweave.editing.plan import settings
    from promptweave.models.load import load

    model = load(name, scheduler=scheduler)
    steps, strength = settings(model, steps, guidance)
    figures = measure(model, count=count, steps=steps, guidance=strength)
    terminal.give(figures)
    terminal.say(
        table(
            f"{name}: {count} seeded prompts of each family, guidance {strength:g}, {steps} steps",
            ("", "right"),
            [(what, f"{value:.1%}" if "mIoU" not in what else f"{value:.3f}") for what, value in figures.items()],
        )
    )


@bench.command()
def edits(
    pairs: Annotated[int, typer.Option("--pairs", help="Scene pairs of each kind.")] = 50,
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", help="Only this kind: 'object swap', 'colour change' ...; repeatable.")
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    cross: Annotated[float, typer.Option("--cross")] = 0.8,
    self_attention: Annotated[float, typer.Option("--self")] = 0.4,
    joint: Annotated[float, typer.Option("--joint", help="Instead, for joint attention.")] = 0.2,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", help="Folder for a sheet of the first twelve pairs a kind.")
    ] = None,
    model: ModelName = "toybox",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Edit seeded scene pairs: does what the words name change, and does the rest stay?"""
    from promptweave.benchmarks import bench_edits
    from promptweave.editing.plan import settings
    from promptweave.models.load import load

    terminal, network = Terminal(json, quiet), load(model)
    count, strength = settings(network, steps, guidance)
    with terminal.progress("editing pairs", pairs * len(kinds or bench_edits.KINDS)) as advance:
        figures, rows = bench_edits.bench_edits(
            network, pairs=pairs, steps=count, guidance=strength,
            shares=bench_edits.Shares(cross, self_attention, joint), kinds=kinds or (), progress=advance,
        )  # fmt: skip
    terminal.give(figures)
    lines = [
        (kind, name, f"{f[f'{name}: success']:.0%}", f"{f[f'{name}: PSNR']:.1f} dB")
        for kind, f in figures.items()
        for name in dict.fromkeys(key.partition(":")[0] for key in f)
    ]
    terminal.say(
        table(
            f"{pairs} pairs of each kind, {count} steps, guidance {strength:g}",
            ("edit", "run", "success", "PSNR of what should stay"),
            lines,
        )
    )
    if pictures:
        terminal.say(*(f"wrote {path}" for path in bench_edits.save(pictures, rows)))


@bench.command()
def speed(
    steps: Annotated[int, typer.Option("--steps")] = 50,
    repeats: Annotated[int, typer.Option("--repeats")] = 5,
    size_text: Annotated[str | None, typer.Option("--size", help="Pixels, height x width.")] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="toybox, sd15-random, sdxl-random, sd3-random, flux-random, ...")
    ] = "toybox",
    maps: Annotated[bool, typer.Option("--maps", help="Time the recording of word maps instead of edits.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time plain sampling, edits, edits with local blend, and explicit attention matrices; or word maps."""
    from promptweave.benchmarks import bench_speed

    terminal = Terminal(json, quiet)
    with terminal.progress("timing", repeats * len(bench_speed.MAPS if maps else bench_speed.VARIANTS)) as advance:
        figures = bench_speed.bench_speed(
            model, steps=steps, repeats=repeats, size=size(size_text), maps=maps, progress=advance
        )
    terminal.give(figures)
    columns = ("seconds", "process seconds", "peak growth MB")
    lines = [(name, *(f"{f[key]:.2f} ({f[f'{key} / plain']:.2f})" for key in columns)) for name, f in figures.items()]
    title = f"{model}, source and one target, {steps} steps, medians of {repeats} (in brackets: over plain)"
    terminal.say(table(title, ("", *columns), lines))


@bench.command()
def targets(
    steps: Annotated[int, typer.Option("--steps")] = 20,
    repeats: Annotated[int, typer.Option("--repeats")] = 3,
    size_text: Annotated[str | None, typer.Option("--size", help="Pixels, height x width.")] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="toybox, sd15-random, sdxl-random, sd3-random, flux-random, ...")
    ] = "toybox",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time several targets in one run against as many runs, and an edit of a recording against a fresh one."""
    from promptweave.benchmarks import bench_targets

    terminal = Terminal(json, quiet)
    with terminal.progress("timing", repeats * (len(bench_targets.COUNTS) + 4)) as advance:
        figures = bench_targets.bench_targets(
            model, steps=steps, repeats=repeats, size=size(size_text), progress=advance
        )
    terminal.give(figures)
    lines = [(name, f"{f['seconds']:.2f}", f"{f['ratio']:.3f}", f"{f['least']:.3f}") for name, f in figures.items()]
    title = f"{model}, {steps} steps, medians of {repeats}; ratio: over separate, fresh or plain runs"
    terminal.say(table(title, ("", "seconds", "ratio", "rows alone"), lines))


@bench.command()
def methods(
    names: Annotated[list[str] | None, typer.Argument(help="Methods to measure. [all]")] = None,
    count: Annotated[int, typer.Option("--count", help="Seeded prompts of each.")] = 100,
    steps: Annotated[int, typer.Option("--steps")] = 20,
    guidance: Guidance = None,
    seed: Annotated[int, typer.Option("--seed", "-s")] = 5000,
    model: ModelName = "toybox",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """What each method does for the thing it exists for, against plain generation on the same seeds."""
    from dataclasses import asdict

    from promptweave.benchmarks.bench_methods import MEASURES, bench_methods
    from promptweave.editing.plan import settings
    from promptweave.models.load import load

    terminal, chosen, network = Terminal(json, quiet), tuple(names or MEASURES), load(model)
    strength = settings(network, steps, guidance)[1]
    with terminal.progress("measuring", 2 * count * len(chosen)) as advance:
        figures = bench_methods(
            network, chosen, count=count, steps=steps, guidance=strength, seed=seed, progress=advance
        )
    terminal.give({"figures": [asdict(figure) for figure in figures]})
    others = any(figure.beside is not None for figure in figures)
    columns = ("method", "what", "plain", "with it", *(["Prompt-to-Prompt"] if others else []), "pictures")
    lines = [
        (f.method, f.what, f"{f.plain:.3g}", f"{f.steered:.3g}",
         *(["" if f.beside is None else f"{f.beside:.3g}"] if others else []), str(f.count))
        for f in figures
    ]  # fmt: skip
    terminal.say(table(f"{model}, {steps} steps, guidance {strength:g}", columns, lines))
