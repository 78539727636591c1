"""Direct Inversion: the source is kept on a known path (Ju et al. 2024, arXiv 2310.01506)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Hooks, Probe, Run
from promptweave.inversion.of_source import OfSource


@dataclass(frozen=True, eq=False)
class Pinned(OfSource):
    """Row 0 follows `path` [steps + 1] of latents [images, channels, height, width], whatever the network predicts.

    Differs from the authors' code: they add the difference between the path and the sampler's step, which gives the
    same latents up to rounding.
    """

    path: Sequence[Float[Tensor, "images channels height width"]]

    def bind(self, run: Run) -> Hooks:
        shape = (run.images, *self.path[0].shape[1:2], *run.latent_grid)
        if len(self.path) != run.steps + 1 or any(tuple(z.shape) != shape for z in self.path):
            raise ValueError(
                f"A path holds the latents before each of a run's {run.steps} steps and after the last, {list(shape)} "
                f"each. Received {len(self.path)} of {list(self.path[0].shape)}. Invert with the run's steps and size."
            )
        if run.recorded:
            raise ValueError(
                "A recorded source has a path of its own. Received a pinned path too. Run without one of the two."
            )
        return _Following(self.path)


@dataclass
class _Following(Hooks):
    path: Sequence[Tensor]

    def before_step(self, step: Step, z: Tensor, probe: Probe) -> Tensor:
        return self._placed(z, step.index)

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        return self._placed(z, step.index + 1)

    def _placed(self, z: Tensor, index: int) -> Tensor:
        return torch.cat([self.path[index].to(z)[None], z[1:]])
