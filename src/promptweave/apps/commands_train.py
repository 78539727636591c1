"""The command train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from promptweave.apps.common import Opening, Speaking
from promptweave.apps.flags import Flags, command
from promptweave.apps.terminal import Terminal, table, training_bar
from promptweave.core.fields import Option
from promptweave.world.stages import STAGES


@dataclass(frozen=True)
class Training:
    """What to train, for how long and where."""

    stage: Annotated[
        str, Option("all, vae, diffusion, decoder, oracle, joint or fast.", group="What changes", metavar="STAGE")
    ] = "all"
    folder: Annotated[Path, Option("Folder of checkpoints, log and sample grids.", group="Output")] = Path(
        "runs/toybox"
    )
    vae_minutes: Annotated[float, Option("Total time for the autoencoder.", low=0)] = 11.0
    minutes: Annotated[float, Option("Total time for text encoder and UNet, over all runs.", low=0)] = 180.0
    decoder_minutes: Annotated[float, Option("Total time for the decoder.", low=0)] = 15.0
    joint_minutes: Annotated[float, Option("Total time for toybox-dit.", low=0)] = 220.0
    fast_minutes: Annotated[float, Option("Total time for toybox-fast.", low=0)] = 26.0
    begin_with: Annotated[
        str | None,
        Option("Start a new folder from this model's weights: toybox, toybox-dit or a folder."),
    ] = None
    rate: Annotated[float, Option("Maximum learning rate of the stages diffusion and joint.", low=0)] = 1e-3
    vae_rate: Annotated[float, Option("Maximum learning rate of the stages vae and decoder.", low=0)] = 0.02
    batch: Annotated[
        int, Option("Batch size of the stages vae, decoder, diffusion and joint; 0 for 12, 12, 24 and 32.", low=0)
    ] = 0
    workers: Annotated[int, Option("Processes that render images for the stages vae and decoder.", low=1)] = 1
    bf16: Annotated[bool, Option("Run the stages vae, decoder, diffusion and joint in bfloat16.")] = False
    scenes: Annotated[int, Option("Training scenes, plus a fifth as many with two things of two colours.", low=1)] = (
        30_000
    )
    seed: Annotated[int, Option("Seed of the training.", low=0)] = 0
    install: Annotated[bool, Option("Copy the trained pipeline into the package.", group="Output")] = False


@dataclass(frozen=True)
class Scoring:
    """What to measure instead."""

    score: Annotated[bool, Option("Only score --model, without training.", group="What changes")] = False
    count: Annotated[int, Option("With --score: prompts of each family.", low=1)] = 200
    steps: Annotated[int | None, Option("With --score: sampling steps. [the model's own]", low=1)] = None
    guidance: Annotated[float | None, Option("With --score: guidance scale. [the model's own]", low=0)] = None


@command(training=Flags(Training), scoring=Flags(Scoring), opening=Flags(Opening), speaking=Flags(Speaking))
def train(*, training: Training, scoring: Scoring, opening: Opening, speaking: Speaking) -> None:
    """Train the embedded models, resuming from checkpoints; or score a model by the oracle."""
    terminal = speaking.terminal
    stages = STAGES if training.stage == "all" else (training.stage,)
    if not set(stages) <= set(STAGES):
        raise ValueError(f"--stage must be one of all, {', '.join(STAGES)}. Received {training.stage!r}.")
    if scoring.score:
        _score(terminal, opening, scoring)
        return
    from promptweave.world import train as recipe

    times = {
        "vae": training.vae_minutes, "diffusion": training.minutes, "decoder": training.decoder_minutes, "oracle": 0.0,
        "joint": training.joint_minutes, "fast": training.fast_minutes,
    }  # fmt: skip
    if training.begin_with:
        recipe.begin_with(training.folder, training.begin_with)
    sizes = dict.fromkeys(("vae_batch", "batch", "joint_batch"), training.batch) if training.batch else {}
    with training_bar(terminal, times) as watch:
        recipe.train(
            training.folder,
            recipe.Training(
                training.seed, training.scenes, training.scenes // 5, rate=training.rate, joint_rate=training.rate,
                bf16=training.bf16, vae_rate=training.vae_rate, workers=training.workers, **sizes,
            ),
            {name: times[name] for name in stages},
            opening.device,
            watch,
        )  # fmt: skip
    terminal.say(f"log and sample grids are in {training.folder}")
    if training.install:
        terminal.say(*(f"installed {path}" for path in recipe.install(training.folder, stages)))


def _score(terminal: Terminal, opening: Opening, scoring: Scoring) -> None:
    from promptweave.benchmarks.score import score as measure
    from promptweave.editing.plan import usual

    model = opening.load()
    steps, strength = usual(model, scoring.steps, scoring.guidance)
    figures = measure(model, count=scoring.count, steps=steps, guidance=strength)
    terminal.give(figures)
    terminal.say(
        table(
            f"{opening.model}: {scoring.count} seeded prompts of each family, guidance {strength:g}, {steps} steps",
            ("", "right"),
            [(what, f"{value:.1%}" if "mIoU" not in what else f"{value:.3f}") for what, value in figures.items()],
        )
    )
