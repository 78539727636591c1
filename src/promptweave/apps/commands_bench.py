"""The commands of `promptweave bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from promptweave.apps import bench_field as bench_field  # registers its commands
from promptweave.apps import bench_looks as bench_looks
from promptweave.apps import bench_quality as bench_quality
from promptweave.apps import bench_strengths as bench_strengths
from promptweave.apps import bench_trade as bench_trade
from promptweave.apps.bench_app import OPENING, SPEAKING, bench
from promptweave.apps.common import Opening, Speaking
from promptweave.apps.flags import Flags, command
from promptweave.apps.terminal import table
from promptweave.core.fields import Option


@dataclass(frozen=True)
class Pairs:
    """The edits of `bench edits`."""

    pairs: Annotated[int, Option("Scene pairs of each kind.", low=1, group="What changes")] = 50
    kinds: Annotated[
        tuple[str, ...],
        Option(
            "Only this kind: 'object swap', 'colour change' ...", group="What changes", flag="--kind", metavar="KIND"
        ),
    ] = ()
    cross: Annotated[float, Option("Fraction of the steps with the source's cross-attention.", low=0, high=1)] = 0.8
    self_attention: Annotated[
        float, Option("Fraction of the steps with the source's self-attention.", low=0, high=1)
    ] = 0.4
    joint: Annotated[
        float, Option("Fraction of the steps with the source's joint attention, which replaces both.", low=0, high=1)
    ] = 0.2
    steps: Annotated[int | None, Option("Sampling steps. [the model's own]", low=1, group="Image")] = None
    guidance: Annotated[float | None, Option("Guidance scale. [the model's own]", low=0, group="Image")] = None
    pictures: Annotated[
        Path | None,
        Option("Folder for sheets of the first twelve pairs of each kind.", group="Output", metavar="FOLDER"),
    ] = None


@dataclass(frozen=True)
class Timing:
    """The runs to time."""

    model: Annotated[
        str,
        Option("toybox, sd15-random, sdxl-random, sd3-random, flux-random, a folder ...", group="Model", short="m"),
    ] = "toybox"
    steps: Annotated[int, Option("Sampling steps.", low=1, group="Image")] = 50
    repeats: Annotated[int, Option("Runs of each; the median counts.", low=1)] = 5
    size: Annotated[tuple[int, int] | None, Option("Pixels, height x width. [the model's own]", group="Image")] = None


@dataclass(frozen=True)
class Recorders:
    """Time recorders instead of edits."""

    maps: Annotated[bool, Option("Time the recording of word maps instead of edits.", group="What changes")] = False


@dataclass(frozen=True)
class Card:
    """What `bench gpu` measures."""

    families: Annotated[
        str, Option("Which families, with commas between: sd15, sdxl, sd3-medium, flux-dev.", group="Model")
    ] = "sd15,sdxl,sd3-medium,flux-dev"
    quick: Annotated[
        bool, Option("One repeat; no explicit matrices, no recordings, no further targets.", group="What changes")
    ] = False
    repeats: Annotated[
        int | None, Option("Runs of each, of which the median counts. [2 to 5, one with --quick]", low=1)
    ] = None
    output: Annotated[
        Path | None,
        Option("Markdown file, written after each family.", group="Output", short="o", metavar="FILE"),
    ] = None


@bench.command
@command(asked=Flags(Pairs), opening=OPENING, speaking=SPEAKING)
def edits(*, asked: Pairs, opening: Opening, speaking: Speaking) -> None:
    """Edit seeded pairs of scenes: do edits change what they should and keep the rest?"""
    from promptweave.benchmarks import bench_edits
    from promptweave.editing.plan import usual

    terminal, network, pairs = speaking.terminal, opening.load(), asked.pairs
    count, strength = usual(network, asked.steps, asked.guidance)
    shares = bench_edits.Shares(asked.cross, asked.self_attention, asked.joint)
    with terminal.progress("editing pairs", pairs * len(asked.kinds or bench_edits.KINDS)) as advance:
        figures, rows = bench_edits.bench_edits(
            network, pairs=pairs, steps=count, guidance=strength,
            shares=shares, kinds=asked.kinds, progress=advance,
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
    if asked.pictures:
        terminal.say(*(f"wrote {path}" for path in bench_edits.save(asked.pictures, rows)))


@bench.command
@command(timing=Flags(Timing), recorders=Flags(Recorders), speaking=SPEAKING)
def speed(*, timing: Timing, recorders: Recorders, speaking: Speaking) -> None:
    """Time plain sampling, edits, edits with local blend, and explicit attention matrices; or word maps."""
    from promptweave.benchmarks import bench_speed

    terminal, model, steps, repeats = speaking.terminal, timing.model, timing.steps, timing.repeats
    maps = recorders.maps
    with terminal.progress("timing", repeats * len(bench_speed.MAPS if maps else bench_speed.VARIANTS)) as advance:
        figures = bench_speed.bench_speed(
            model, steps=steps, repeats=repeats, size=timing.size, maps=maps, progress=advance
        )
    terminal.give(figures)
    columns = ("seconds", "process seconds", "peak growth MB")
    lines = [(name, *(f"{f[key]:.2f} ({f[f'{key} / plain']:.2f})" for key in columns)) for name, f in figures.items()]
    title = f"{model}, source and one target, {steps} steps, medians of {repeats} (in brackets: over plain)"
    terminal.say(table(title, ("", *columns), lines))


@dataclass(frozen=True)
class Perceiving:
    """What `bench perception` compares."""

    tasks: Annotated[str, Option("Which tasks, with commas between.", group="What changes")] = "segment,refer,depth"
    variants: Annotated[
        str | None, Option("Only these, with commas between. [all]", group="What changes", metavar="NAME,...")
    ] = None
    repeats: Annotated[int, Option("Seeds of each.", low=1)] = 3
    scenes: Annotated[int | None, Option("Scenes of training. [600]", low=1)] = None
    unseen: Annotated[int, Option("Unseen scenes to measure.", low=1)] = 400


@bench.command
@command(asked=Flags(Perceiving), opening=OPENING, speaking=SPEAKING)
def perception(*, asked: Perceiving, opening: Opening, speaking: Speaking) -> None:
    """Train heads on the features of the model and on what they are compared with, and measure them."""
    from promptweave.benchmarks import bench_perception

    terminal, network = speaking.terminal, opening.load()
    variants = bench_perception.VARIANTS if asked.variants is None else tuple(asked.variants.split(","))
    tasks = asked.tasks.split(",")
    with terminal.progress("training", asked.repeats * len(tasks) * len(variants)) as advance:
        figures = bench_perception.bench_perception(
            network, tasks, variants=variants, seeds=range(asked.repeats),
            scenes=asked.scenes or bench_perception.SCENES, unseen=asked.unseen, progress=advance,
        )  # fmt: skip
    terminal.give(figures)
    for task, found in figures.items():
        names = list(next(iter(found.values()))[0])
        lines = [(v, *(bench_perception.spread([f[n] for f in rows]) for n in names)) for v, rows in found.items()]
        terminal.say(table(f"{task}: {asked.unseen} unseen scenes, {asked.repeats} seeds", ("", *names), lines))


@bench.command
@command(timing=Flags(Timing, {"steps": 20, "repeats": 3}), speaking=SPEAKING)
def targets(*, timing: Timing, speaking: Speaking) -> None:
    """Time several targets in one run against separate runs, and an edit of a recording against one without."""
    from promptweave.benchmarks import bench_targets

    terminal, model, steps, repeats = speaking.terminal, timing.model, timing.steps, timing.repeats
    with terminal.progress("timing", repeats * (len(bench_targets.COUNTS) + 4)) as advance:
        figures = bench_targets.bench_targets(model, steps=steps, repeats=repeats, size=timing.size, progress=advance)
    terminal.give(figures)
    lines = [(name, f"{f['seconds']:.2f}", f"{f['ratio']:.3f}", f"{f['least']:.3f}") for name, f in figures.items()]
    title = f"{model}, {steps} steps, medians of {repeats}; ratio: over separate, fresh or plain runs"
    terminal.say(table(title, ("", "seconds", "ratio", "rows alone"), lines))


@dataclass(frozen=True)
class Counted:
    """How many steps `bench host` times."""

    steps: Annotated[int, Option("Steps of each run, of which the median counts.", low=3)] = 24


@bench.command
@command(asked=Flags(Counted), speaking=SPEAKING)
def host(*, asked: Counted, speaking: Speaking) -> None:
    """Operations and host time of a step, in networks with next to no arithmetic: what a GPU would wait for."""
    from promptweave.benchmarks import bench_host

    terminal, steps = speaking.terminal, asked.steps
    with terminal.progress("timing", 2 * (steps + 1) * (len(bench_host.VARIANTS) + 3)) as advance:
        figures = bench_host.bench_host(steps=steps, progress=advance)
    terminal.give(figures)
    columns = ("", "ms a step", "over diffusers", "ms a run", "operations a step", "over plain")
    for family, found in figures.items():
        lines = [
            (name, f"{f['step']:.1f}", f"{f['step over']:.2f}", f"{f['run']:.1f}",
             f"{f['operations']:.0f}", f"{f['operations over']:.2f}")
            for name, f in found.items()
        ]  # fmt: skip
        terminal.say(
            table(f"{family}'s layers, medians of {steps - 2} steps; a recording: over a fresh edit", columns, lines)
        )


@bench.command
@command(asked=Flags(Card), speaking=SPEAKING)
def gpu(*, asked: Card, speaking: Speaking) -> None:
    """Time and peak memory of edits on this machine's GPU, at the families' true size, against diffusers' own."""
    from dataclasses import asdict

    from promptweave.benchmarks import bench_gpu
    from promptweave.core.files import write_text

    terminal, device = speaking.terminal, bench_gpu.gpu()
    figures: list[bench_gpu.Figure] = []
    families = tuple(name.strip() for name in asked.families.split(","))
    for found in bench_gpu.bench_gpu(families, quick=asked.quick, repeats=asked.repeats, device=device):
        figures += found
        if asked.output:
            write_text(asked.output, bench_gpu.markdown(figures, device))
        terminal.say(table(found[0].family, bench_gpu.COLUMNS, [bench_gpu.cells(figure) for figure in found]))
    terminal.say(bench_gpu.surroundings(device))
    terminal.give([asdict(figure) for figure in figures])
    if asked.output:
        terminal.say(f"wrote {asked.output}")


@dataclass(frozen=True)
class Costing:
    """The runs of `bench costs`."""

    model: Annotated[
        str, Option("sd15-random, sdxl-random, sd3-random, flux-random, toybox, a folder ...", group="Model", short="m")
    ] = "sd15-random"
    device: Annotated[str, Option("auto, cpu, cuda ...", group="Model", metavar="DEVICE")] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"],
        Option("Precision of the networks. [float32 on a CPU, else float16]", group="Model"),
    ] = "auto"
    steps: Annotated[int, Option("Sampling steps.", low=1, group="Image")] = 10
    guidance: Annotated[float, Option("Guidance scale.", low=0, group="Image")] = 7.5
    size: Annotated[tuple[int, int] | None, Option("Pixels, height x width. [the model's own]", group="Image")] = None


@bench.command(usage="Usage: promptweave bench costs [OPTIONS] [NAMES...]")
@command(asked=Flags(Costing), speaking=SPEAKING)
def costs(
    *names: Annotated[str, Parameter(help="Inversions, with their options, and editors to measure. [all]")],
    asked: Costing,
    speaking: Speaking,
) -> None:
    """What each inversion and each editor of a given image costs a step: passes of the network, time, memory."""
    from dataclasses import asdict

    from promptweave.benchmarks import bench_costs

    terminal = speaking.terminal
    model = bench_costs.load_for_costs(asked.model, asked.device, asked.dtype)
    chosen = bench_costs.check_names(model, names)
    with terminal.progress("measuring", len(chosen)) as advance:
        found = list(
            bench_costs.bench_costs(
                model, chosen, steps=asked.steps, guidance=asked.guidance, size=asked.size, progress=advance
            )
        )
    terminal.give([asdict(cost) for cost in found])
    height, width = asked.size or model.default_size
    title = (
        f"{asked.model}, {height} x {width}, {str(model.dtype)[6:]}, {asked.steps} steps, guidance {asked.guidance:g}"
    )
    terminal.say(table(title, bench_costs.COLUMNS, [bench_costs.cells(cost) for cost in found]))
