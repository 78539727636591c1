"""The commands of `promptweave net2net`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from promptweave.apps.common import Output, Speaking
from promptweave.apps.flags import Flags, command
from promptweave.apps.terminal import training_bar
from promptweave.core.fields import Option

net2net = App(name="net2net", help="Translate between frozen networks with a conditional invertible network.")

RECIPE = Flags("promptweave.translation.train_flows:FlowTraining")
Conditions = Annotated[str, Parameter(help="Prompts, or labels such as 'photo, night'.")]
Before = Annotated[str, Parameter(help="Prompt or labels of the image.")]
After = Annotated[str, Parameter(help="New prompts or labels.")]


@dataclass(frozen=True)
class Choice:
    """Which translator."""

    translator: Annotated[
        Literal["text", "domains"],
        Option(
            "text: from prompts to images. domains: between photo and sketch, day and night.",
            group="Model",
            metavar="text|domains",
        ),
    ] = "text"
    folder: Annotated[
        Path | None, Option("A training folder. [the weights that ship]", group="Model", metavar="FOLDER")
    ] = None  # fmt: skip

    refine: Annotated[bool, Option("Sharpen images by the last steps of toybox-fast.", group="Image")] = True

    def load(self) -> Any:
        """The translator."""
        from promptweave.translation.translator import net2net as load

        return load(self.translator, folder=self.folder, refine=self.refine)


@dataclass(frozen=True)
class Drawing:
    """How residuals are drawn."""

    count: Annotated[int, Option("Images of each condition.", low=1, group="Image")] = 4
    seed: Annotated[int, Option("Seed of the residuals.", low=0, group="Image", short="s")] = 0
    temperature: Annotated[
        float, Option("Standard deviation of the residuals; less is more alike.", low=0, group="Image")
    ] = 1.0


@dataclass(frozen=True)
class Source:
    """What is exchanged."""

    image: Annotated[
        tuple[str, ...],
        Option("Image that BEFORE describes. [sampled images]", group="Image", metavar="FILE"),
    ] = ()


@dataclass(frozen=True)
class Where:
    """Where and what to train."""

    stage: Annotated[
        Literal["all", "pairs", "summary", "text", "domains"],
        Option("all, pairs, summary, text or domains.", group="What changes", metavar="STAGE"),
    ] = "all"
    folder: Annotated[Path, Option("Folder of pairs, checkpoints, log and weights.", group="Output")] = Path(
        "runs/net2net"
    )
    device: Annotated[str, Option("auto, cpu, cuda ...", group="Model", metavar="DEVICE")] = "auto"


def _output(name: str) -> Flags:
    return Flags(Output, {"output": Path("out") / name}, without=("report",))


def _written(output: Output, made: Any) -> None:
    """Save a translation, and say where."""
    files = made.save(output.output, force=output.force)
    output.terminal.give({"files": [str(path) for path in files], **made.record})
    output.terminal.say(*(f"wrote {path}" for path in files if path.stem == "sheet"))
    output.terminal.say(f"and {len(files) - 1} more files beside it")


@net2net.command(
    usage="Usage: promptweave net2net sample [OPTIONS] CONDITIONS...",
    help_epilogue='Example: promptweave net2net sample "a photo of a blue bird in a field" --count 8',
)
@command(choice=Flags(Choice), drawing=Flags(Drawing), output=_output("sample"))
def sample(*conditions: Conditions, choice: Choice, drawing: Drawing, output: Output) -> None:
    """Sample images for conditions; a column of the sheet has the same residual."""
    from promptweave.translation.translator import check_run

    check_run(output.output, force=output.force)
    made = choice.load().sample(*conditions, **vars(drawing))
    _written(output, made)


@net2net.command(
    usage="Usage: promptweave net2net exchange [OPTIONS] BEFORE AFTER...",
    help_epilogue='Example: promptweave net2net exchange "a blue bird in a field" "a yellow bird in a forest"',
)
@command(choice=Flags(Choice), source=Flags(Source), drawing=Flags(Drawing), output=_output("exchange"))
def exchange(before: Before, *after: After, choice: Choice, source: Source, drawing: Drawing, output: Output) -> None:
    """Exchange the condition of images and keep their residual: what the condition does not say stays."""
    from promptweave.translation.translator import check_run

    check_run(output.output, force=output.force)
    if source.image and drawing != Drawing():
        raise ValueError(
            "--count, --seed and --temperature are for sampled images, and --image brings one. Leave out one or the "
            "other."
        )
    drawn = {} if source.image else vars(drawing)
    made = choice.load().exchange(list(source.image) or None, before, *after, **drawn)
    _written(output, made)


@net2net.command(
    help_epilogue="Example: promptweave net2net train --folder runs/net2net --scenes 3000",
)
@command(where=Flags(Where), recipe=RECIPE, speaking=Flags(Speaking))
def train(*, where: Where, recipe: dict[str, Any], speaking: Speaking) -> None:
    """Train the translators of the synthetic world, resuming from checkpoints."""
    from promptweave.translation.train_flows import STAGES, FlowTraining, train_flows

    stages = STAGES if where.stage == "all" else (where.stage,)
    with training_bar(speaking.terminal) as watch:
        train_flows(where.folder, FlowTraining(**recipe), stages, where.device, watch)
    speaking.terminal.give({"folder": str(where.folder), "stages": list(stages)})
    speaking.terminal.say(f"weights and log are in {where.folder}: use them with --folder {where.folder}")
