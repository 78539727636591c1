"""RF-Inversion: controlled flows (Rout et al. 2024, arXiv 2410.10792).

Inversion is pulled towards a known noise y1 ~ N(0, I), and sampling towards the image's latent y0. With v = dx / ds the
network's velocity at the noise level s,

    inversion:  x' = x + h (u + gamma ((y1 - x) / (1 - s) - u)),        u = v(x, s, ""),
    sampling:   v <- v + eta ((x - y0) / s - v)    in the steps from `start` to `stop`,

and both pulls are the optimal fields of their ends: with gamma = 1 the inversion ends in y1, and with eta = 1 in all
steps the sampling ends in y0, whatever the network.

Differs from the authors' code: theirs gives the network the times of a uniform grid while the latents follow the
shifted one in descending order, so that times and levels disagree; here each step has the level that it starts from.
Only rows other than the source are pulled if it is pinned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from promptweave.core.clock import Number, Step, Window
from promptweave.core.control import Control, Hooks, Latents, Predictions, Run
from promptweave.core.fields import Option
from promptweave.inversion.inverting import Inversion, Inverted, Task
from promptweave.inversion.of_source import OfSource
from promptweave.inversion.second_order import at, span


@dataclass(frozen=True)
class RFInversion(Inversion):
    """Inversion pulled towards a known noise, and sampling pulled towards the image (RF-Inversion)."""

    name: ClassVar[str] = "rf-inversion"
    about: ClassVar[str] = "The inversion is pulled towards a known noise, and sampling towards the image."
    flow: ClassVar[bool] = True
    diffusion: ClassVar[bool] = False
    gamma: Annotated[Number, Option("Pull of the inversion towards the noise.", low=0, high=1)] = 0.5
    eta: Annotated[Number, Option("Pull of the sampling towards the image.", low=0, high=1)] = 0.9
    start: Annotated[Number, Option("Fraction of the steps before the first that is pulled.", low=0, high=1)] = 0.0
    stop: Annotated[Number, Option("Fraction of the steps after which none is pulled.", low=0, high=1)] = 0.25
    pin: Annotated[bool, Option("Also keep the source on the path of its inversion.")] = False

    @torch.no_grad()
    def find(self, task: Task) -> Inverted:
        task.velocities()
        generator = torch.Generator().manual_seed(task.seed)
        noise = torch.randn(task.latents.shape, generator=generator, dtype=torch.float32).to(task.latents)
        empty = task.model.encode([""], [""])
        z, path = task.latents, [task.latents]
        for step in reversed(task.steps_of_run):
            begin, _, h = span(step)
            u = at(task, z, step, begin, empty)
            z = z + h * (u + self.gamma * ((noise - z) / (1 - begin / 1000) - u))
            path.append(z)
            task.tell(step, z)
        return Inverted(tuple(reversed(path)), self)

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        pin = (found.pin,) if self.pin else ()
        return (*pin, Pulled(self, found)) if self.eta else pin


@dataclass(frozen=True, eq=False)
class Pulled(OfSource):
    """The velocity is pulled towards the image of an inversion."""

    options: RFInversion
    found: Inverted

    def bind(self, run: Run) -> Hooks:
        return _Pulling(self.options.eta, Window(self.options.start, self.options.stop), self.found.path[-1])


@dataclass
class _Pulling(Hooks):
    eta: Number
    window: Window
    image: Tensor

    def prediction(self, step: Step, made: Predictions) -> Latents:
        if step not in self.window:
            return made.guided
        back = (made.latents - self.image.to(made.latents)) / (step.t / 1000)
        return made.guided + self.eta * (back - made.guided)
