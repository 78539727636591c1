"""Prompts that change from step to step: what a run needs of them."""

from __future__ import annotations

from promptweave.core.control import NoEffect
from promptweave.models.base import Model


def check_phases(model: Model, prompt: str, steps: int, *, steered: bool) -> None:
    """Raise NoEffect for a change that no step of a run sees.

    `steered`: there are controls or recorders, which need words with the same tokens at all steps. Raises ValueError
    if they have others.
    """
    end = model.at_end(prompt)
    if end == prompt:
        return
    phases = list(dict.fromkeys(model.phases(prompt, steps)))
    if len(phases) == 1 or ("|" not in prompt and end not in phases):
        raise NoEffect(
            f'A prompt that changes needs steps before and after the change. Received "{prompt}", which in {steps} '
            f'steps does not become "{end}" on the way. Change it at another step, or write one text.'
        )
    for phase in phases if steered else ():
        tokens = [[unit.tokens for unit in model.words(text).units] if text.strip() else [] for text in (phase, end)]
        if tokens[0] != tokens[1]:
            raise ValueError(
                "Controls and maps need words whose tokens keep their places from step to step. Received "
                f'"{prompt}", which reads "{phase}" and "{end}" as other tokens. Swap words of equally many tokens '
                "(promptweave words shows them), or generate without controls and maps."
            )
