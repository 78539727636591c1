"""Negative-prompt inversion (Miyake et al. 2023, arXiv 2305.16807).

Null-text inversion looks for the unconditional text with which guidance leads back to the image; the prompt's own text
is nearly that, and costs nothing to find. The image is inverted without guidance, and in the run the source prompt
takes the place of the unconditional text:

    e = e(z, source) + w (e(z, target) - e(z, source)).

The source's row is then what DDIM without guidance makes of the inverted noise, whatever w is. `null` turns the text
towards that of the negative prompt, by spherical interpolation (section 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Number
from promptweave.core.control import Control
from promptweave.core.fields import Option
from promptweave.inversion.ddim import ddim_path
from promptweave.inversion.inverting import CannotInvert, Inversion, Inverted, Task
from promptweave.inversion.unconditional import Unconditional


@dataclass(frozen=True)
class NegativePrompt(Inversion):
    """DDIM inversion, with the source prompt as the unconditional text of the run (negative-prompt inversion)."""

    name: ClassVar[str] = "negative-prompt"
    about: ClassVar[str] = "The source prompt becomes the negative prompt, so that guidance leads back to the image."
    tensors: ClassVar[Mapping[str, int]] = {"uncond": 3}
    null: Annotated[
        Number, Option("Fraction of the way from the source prompt's text to the negative prompt's.", low=0, high=1)
    ] = 0.0
    pin: Annotated[bool, Option("Also keep the source on the path of its inversion.")] = False

    def find(self, task: Task) -> Inverted:
        return Inverted(ddim_path(task), self, unconditional(task, self.null))

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        return (*((found.pin,) if self.pin else ()), as_negative(found))


def unconditional(task: Task, null: Number = 0.0) -> dict[str, Tensor]:
    """The tensors of the source prompt's text, as an unconditional text."""
    if not task.model.guided:
        raise CannotInvert(
            f"This inversion replaces the unconditional text, and {task.model.name} takes guidance as an input and has "
            "none. Choose another inversion."
        )
    if task.negative and not null:
        raise CannotInvert(
            "In negative-prompt inversion the source prompt takes the place of the negative prompt. Received "
            f"negative={task.negative!r}. Leave it out, or mix both: --inversion negative-prompt:null=0.5."
        )
    texts = task.texts if len(set(map(id, task.texts))) > 1 else task.texts[:1]
    found = {"uncond": torch.cat([slerp(text.cond, text.uncond, null) for text in texts])}
    pooled = [
        slerp(x.pooled, x.uncond_pooled, null) for x in texts if not (x.pooled is None or x.uncond_pooled is None)
    ]
    return {**found, "uncond_pooled": torch.cat(pooled)} if pooled else found


def as_negative(found: Inverted) -> Unconditional:
    """The control that uses these texts."""
    return Unconditional(found.more["uncond"], found.more.get("uncond_pooled"))


def slerp(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], fraction: Number) -> Float[Tensor, "*shape"]:
    """Spherical interpolation of two tensors, each as one vector: `a` for fraction 0, `b` for 1.

    >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)
    tensor([0.7071, 0.7071])
    """
    if fraction in (0, 1):
        return b if fraction else a
    x, y = a.double(), b.double()
    cosine = (x * y).sum() / (x.norm() * y.norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    if angle.sin().abs() < 1e-6:  # of nearly the same direction
        return torch.lerp(x, y, float(fraction)).to(a)
    return ((torch.sin((1 - fraction) * angle) * x + torch.sin(fraction * angle) * y) / torch.sin(angle)).to(a)
