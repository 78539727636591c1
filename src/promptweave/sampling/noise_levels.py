"""The noise levels of a run, and what its network reads beside the latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from promptweave.core.control import Hooks
from promptweave.core.mask import ReadsMask
from promptweave.core.noising import Noising, Noisy
from promptweave.models.base import Model, Solver


def noising(solver: Solver, noise: Tensor) -> Noising:
    """How much noise the latents of a run hold at each step. Raises ValueError for a solver that cannot say."""
    if not isinstance(solver, Noisy):
        raise ValueError(
            f"A run that mixes an image with noise needs a solver that knows its noise levels. Received "
            f"{type(solver).__name__}, which an inversion brings. Leave the inversion out."
        )
    shares = [solver.shares(solver.calls(step)[0]) for step in solver.steps]
    return Noising((*shares, (1.0, 0.0)), noise, solver.rewinds)


def masked(model: Model) -> Callable[[Tensor, Tensor], Tensor] | None:
    """What turns an image and a mask into the further channels of a network that reads them; None for others."""
    return model.masked if isinstance(model, ReadsMask) and model.reads_mask else None


def check_channels(model: Model, hooks: Sequence[Hooks]) -> None:
    """Raise ValueError for a network that reads a mask in a run that does not give it one."""
    if masked(model) is None or any(type(hook).channels is not Hooks.channels for hook in hooks):
        return
    raise ValueError(
        f"{model.name} is an inpainting model: its network reads a mask and the image around it. Received neither. "
        "Give image=... and mask=... to inpaint or edit (--image, --mask), or put Inpaint(mask) first among the "
        "controls."
    )
