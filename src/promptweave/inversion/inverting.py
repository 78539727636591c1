"""What inversions are: parameters that turn an image into the start of a run, and what they find.

An inversion is a frozen dataclass, in one file with its paper, and gives an `Inverted`: the latents from noise to the
image, what else it found, and from these the controls and the solver under which a run makes the image again. Every
editor then works on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Control, Text
from promptweave.core.finite import NotFinite, cure, finite
from promptweave.core.gradient_memory import GradientMemory
from promptweave.core.precision import precision
from promptweave.core.rows import Layout
from promptweave.core.schedule import Schedule
from promptweave.core.shown import brief
from promptweave.inversion.pinned import Pinned
from promptweave.models.base import Model, Solver
from promptweave.sampling.guidance import effective
from promptweave.sampling.loop import FLOW, Job
from promptweave.sampling.noise_levels import check_channels
from promptweave.sampling.passes import Pass, answer
from promptweave.sampling.steps import guide
from promptweave.sampling.walk import Progress, branches

Latent = Float[Tensor, "images channels height width"]
KNOWN: dict[str, type[Inversion]] = {}  # by name, in order of definition


class CannotInvert(ValueError):
    """Raised for a model, or for settings, with which an image cannot be inverted in this way."""


@dataclass(frozen=True, eq=False)
class Task:
    """An image to invert: its `latents` (`model.to_latent`), the `prompt` that describes it, and the run to come.

    `guidance`: that of the run; an inversion itself is guided only where its paper says so. Everything that a run
    checks is checked here.
    """

    model: Model
    latents: Latent
    prompt: str
    steps: int = 50
    guidance: int | float = 7.5
    negative: str = ""
    seed: int = 0
    progress: Progress | None = None
    truncate: bool = False

    def __post_init__(self) -> None:
        wanted = precision(self.latents.dtype, self.model.dtype)
        object.__setattr__(self, "latents", self.latents.to(self.model.device, wanted))
        object.__setattr__(self, "guidance", effective(self.model, self.guidance))
        check_channels(self.model, self._job.bind(self.model)[1])

    @cached_property
    def _job(self) -> Job:
        return Job(
            [self.prompt],
            self.latents,
            self.steps,
            self.guidance,
            negative=self.negative,
            compared=True,
            truncate=self.truncate,
        )

    @cached_property
    def steps_of_run(self) -> Sequence[Step]:
        """The steps of the run, noisiest first."""
        return self._job.solver(self.model).steps

    @cached_property
    def texts(self) -> tuple[Text, ...]:
        """The encoded prompt and negative prompt at each step; one and the same object while they do not change."""
        return self._job.texts(self.model, len(self.steps_of_run))

    def schedule(self) -> Schedule:
        """The noise levels of a model that is sampled with DDIM. Raises CannotInvert for others."""
        if self.model.scheduler == FLOW:
            raise CannotInvert(
                f"This inversion is for diffusion models, and {self.model.name} is a flow model. "
                f"Choose another: {', '.join(names(flow=True))}."
            )
        if self.model.scheduler != "ddim":
            raise CannotInvert(
                f"Only DDIM and the Euler solver of flow models can be inverted. Received {self.model.scheduler!r}. "
                'Load the model with scheduler="ddim" (--scheduler ddim), or choose infedit, which inverts nothing.'
            )
        found = self.model.schedule()
        if found.prediction == "sample":
            raise CannotInvert(
                "DDIM inversion needs a prediction of the noise, and this network predicts the image. Choose another "
                "model."
            )
        return found

    def velocities(self) -> None:
        """Raise CannotInvert unless the model is a flow model, sampled with Euler's method."""
        if self.model.scheduler != FLOW:
            raise CannotInvert(
                f"This inversion is for flow models, and {self.model.name} is a diffusion model. "
                f"Choose another: {', '.join(names(flow=False))}."
            )

    def predict(self, z: Latent, step: Step, guidance: int | float = 1, text: Text | None = None) -> Latent:
        """The network's output at the time `step.t`, guided if `guidance` is not 1."""
        layout = Layout(branches(self.model, guidance), 1, len(z))
        strength = torch.full((1,), float(guidance), device=z.device, dtype=z.dtype)
        here = Pass(self.model, step, text or self.texts[step.index], strength, (), layout)
        output = answer(self.model, [here.request(z[None], step.t)])[0].unflatten(0, (len(layout.branches), len(z)))
        return (guide(output[0], output[1], guidance) if len(output) == 2 else output[0]).to(z.dtype)

    def tell(self, step: Step, z: Latent) -> None:
        """Report progress."""
        if self.progress:
            self.progress(step, z[None])


@dataclass(frozen=True)
class Inversion:
    """The parameters of an inversion. Its options are fields with an `Option`; `name` is how it is chosen.

    `about`: one sentence. `flow`: whether it is for flow models; `diffusion`: for the others. `tensors`: what its
    `Inverted.more` holds, with the number of axes.
    """

    name: ClassVar[str] = ""
    about: ClassVar[str] = ""
    flow: ClassVar[bool] = False
    diffusion: ClassVar[bool] = True
    tensors: ClassVar[Mapping[str, int]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.name:
            KNOWN[cls.name] = cls

    def find(self, task: Task) -> Inverted:
        """Invert. Raises CannotInvert."""
        raise NotImplementedError

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        """The controls of the run, put before all others."""
        return ()

    def solver(self, found: Inverted, model: Model, prompts: int) -> Solver | None:
        """The solver of the run for so many computed prompts; None: the model's own."""
        return None

    def memory(self, model: Model, size: tuple[int, int] | None = None) -> GradientMemory | None:
        """What the gradients of an inversion that optimises take, for an image of `size` (height, width); else None."""
        return None

    def passes(self, steps: int) -> int:
        """Steps that `Task.progress` is told of."""
        return steps

    @property
    def spec(self) -> str:
        """Its name and the options that are not its defaults: "null-text:rounds=5"."""
        changed = [f"{f.name}={_text(value)}" for f in fields(self) if (value := getattr(self, f.name)) != f.default]
        return ":".join([self.name, ",".join(changed)]) if changed else self.name


def found(inversion: Inversion, task: Task) -> Inverted:
    """Carry out an inversion. Raises CannotInvert, and NotFinite if the network gives no numbers."""
    return in_numbers(inversion.find(task), task.model)


def in_numbers(made: Inverted, model: Model) -> Inverted:
    """What was found. Raises NotFinite for latents that are not finite."""
    wrong = next((number for number, z in enumerate(reversed(made.path)) if not finite(z)), None)
    if wrong is not None:
        raise NotFinite(
            f"The latents are not finite (NaN or infinity) from step {wrong} of {len(made.path) - 1} of the inversion "
            f"on. {cure(model.dtype)}"
        )
    return made


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def names(*, flow: bool) -> list[str]:
    """The inversions for flow models, or for the others."""
    return [name for name, kind in KNOWN.items() if (kind.flow if flow else kind.diffusion)]


@dataclass(frozen=True, eq=False)
class Inverted:
    """What an inversion found.

    `path` [steps + 1]: the latents from noise (0) to the image (last), [images, channels, height, width] each.
    `more`: further tensors, such as the unconditional texts of null-text inversion. `figures`: numbers for the report.
    """

    path: tuple[Latent, ...]
    method: Inversion
    more: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    figures: Mapping[str, int | float] = field(default_factory=dict[str, int | float])

    def __post_init__(self) -> None:
        """Latents lie in memory as in a file: kernels round by how they lie, and a saved inversion is the same edit."""
        object.__setattr__(self, "path", tuple(z.clone(memory_format=torch.contiguous_format) for z in self.path))

    def __repr__(self) -> str:
        return brief(self, self.method.spec, f"{len(self.path) - 1} steps", f"latents {[*self.noise.shape]}")

    @property
    def noise(self) -> Latent:
        """The starting noise of a run."""
        return self.path[0]

    @property
    def pin(self) -> Pinned:
        """A control, to be put first: row 0 follows the path."""
        return Pinned(self.path)

    @property
    def controls(self) -> tuple[Control, ...]:
        """The controls of a run, to be put before all others."""
        return self.method.controls(self)

    @property
    def pinned(self) -> bool:
        """Whether the source follows the path, whatever the network predicts."""
        return any(isinstance(control, Pinned) for control in self.controls)

    @property
    def further(self) -> tuple[Control, ...]:
        """The controls that act on more than the source: those of a run whose source comes from a recording."""
        return tuple(control for control in self.controls if not isinstance(control, Pinned))

    def solver(self, model: Model, prompts: int) -> Solver | None:
        """The solver of a run for so many computed prompts; None: the model's own."""
        return self.method.solver(self, model, prompts)

    def on(self, device: torch.device) -> Inverted:
        """The same with its tensors on a device."""
        more = {name: x.to(device) for name, x in self.more.items()}
        return replace(self, path=tuple(z.to(device) for z in self.path), more=more)
