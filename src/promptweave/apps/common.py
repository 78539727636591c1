"""The options that all commands of methods have, declared once, and the runs that they ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, get_type_hints

from promptweave.apps.flags import (
    Device,
    Force,
    Given,
    Guidance,
    Images,
    Inversion,
    Json,
    ModelName,
    Negative,
    Output,
    Quiet,
    Scheduler,
    Seed,
    Size,
    Steps,
    Truncate,
)
from promptweave.apps.pictures import given_line, passes
from promptweave.apps.terminal import Terminal, size

OF_PICTURES = ("image", "inversion")  # options of commands that edit


@dataclass(frozen=True)
class Common:
    """The values of the common options."""

    image: Given = None
    inversion: Inversion = None
    seed: Seed = 0
    images: Images = 1
    steps: Steps = None
    guidance: Guidance = None
    scheduler: Scheduler = None
    size_text: Size = None
    negative: Negative = ""
    truncate: Truncate = False
    model: ModelName = "toybox"
    device: Device = "auto"
    output: Output = Path("out")
    force: Force = False
    json: Json = False
    quiet: Quiet = False

    @cached_property
    def terminal(self) -> Terminal:
        """Where the command speaks."""
        return Terminal(self.json, self.quiet)

    def load(self) -> Any:
        """The model, once it is known that results can be written."""
        from promptweave.editing.result import check_output
        from promptweave.models.load import load

        check_output(self.output, force=self.force)
        return load(self.model, device=self.device, scheduler=self.scheduler)

    @property
    def run(self) -> dict[str, Any]:
        """The settings of a run, as `edit` and `generate` take them."""
        return {
            "seed": self.seed, "images": self.images, "steps": self.steps, "guidance": self.guidance,
            "size": size(self.size_text), "negative": self.negative, "truncate": self.truncate,
        }  # fmt: skip

    def edit(
        self, network: Any, prompts: Sequence[str], control: Any, what: str, *, compare: bool = False,
        inversion: str | None = None,
    ) -> Any:  # fmt: skip
        """Source and targets under a control; `inversion` is the usual one of the command."""
        from promptweave.editing.edit import edit

        steps = network.defaults[0] if self.steps is None else self.steps
        with self.terminal.progress(what, passes(steps, self.image)) as advance:
            made = edit(
                *prompts, model=network, controls=[control], compare=compare, image=self.image,
                inversion=self.inversion or (None if self.image is None else inversion), progress=advance, **self.run,
            )  # fmt: skip
        self.terminal.say(*given_line(made.report))
        return made

    def steer(self, network: Any, prompt: str, control: Any) -> Any:
        """A picture with a control and without, and the word maps of both (`steering.steer`)."""
        from promptweave.apps.steering import steer

        return steer(
            self.terminal, prompt, [control], network, output=self.output, force=self.force, **self.run
        )  # fmt: skip

    def save(self, made: Any, **extra: Any) -> None:
        """Write the result and further pictures."""
        from promptweave.apps.steering import save

        save(self.terminal, made, self.output, self.force, **extra)


def with_common(output: str, *, pictures: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the common options, results going to `output`; its parameter `common` gets their values.

    `pictures`: also those for a given picture.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(Common, include_extras=True)
        shared = [
            inspect.Parameter(
                field.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=hints[field.name],
                default=Path(output) if field.name == "output" else field.default,
            )
            for field in fields(Common)
            if pictures or field.name not in OF_PICTURES
        ]  # fmt: skip
        signature = inspect.signature(command, eval_str=True)
        own = [parameter for name, parameter in signature.parameters.items() if name != "common"]

        @wraps(command)
        def run(**given: Any) -> None:
            values = {parameter.name: given.pop(parameter.name) for parameter in shared}
            command(**given, common=Common(**values))

        everything = [*own, *shared]
        setattr(run, "__signature__", signature.replace(parameters=everything))  # noqa: B010 - functions declare none
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in everything}
        return run

    return decorate
