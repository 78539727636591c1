"""Guidance scales under which a prompt has no say, and what they mean for distilled models."""

from __future__ import annotations

from collections.abc import Sequence

from promptweave.core.control import Hooks, NoEffect
from promptweave.models.base import Model


def effective(model: Model, guidance: int | float) -> int | float:
    """The scale of a run. Distilled models are published with guidance 0, which means none: the prompt alone counts.

    With classifier-free guidance e_u + w (e_c - e_u), w = 1 says that; w = 0 is the unconditional prediction. Where
    guidance is an input of the network, it stays as it is.
    """
    return 1 if guidance == 0 and model.guided and model.distilled else guidance


def check_heard(model: Model, prompts: Sequence[str], guidance: int | float, hooks: Sequence[Hooks]) -> None:
    """Raise NoEffect if the network's conditional prediction, the only one that reads a prompt, has no share in a run.

    Hooks that set the strength of guidance or change the prediction may give it one.
    """
    if guidance != 0 or not model.guided or not any(prompt.strip() for prompt in prompts):
        return
    acting = (Hooks.strength, Hooks.prediction)
    if any(getattr(type(hook), own.__name__) is not own for hook in hooks for own in acting):
        return
    raise NoEffect(
        "With guidance 0 the image is the network's unconditional prediction, in which no word of a prompt has a say. "
        f"Received guidance=0 for {model.name}, which is not known as a distilled model. Give 1 for no guidance, or "
        f"more, such as {model.defaults[1]:g}."
    )
