"""The command that makes a recipe's pictures again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from promptweave.core.clock import Window
from promptweave.core.control import Control
from promptweave.editing.recipe import Recipe
from promptweave.methods import Consist, FlowEdit, LocalBlend, Refine, Replace, Reweight, SharedStart


class NoCommand(ValueError):
    """A recipe that has no command, since options cannot say all of it."""


def command_of(recipe: Recipe) -> str:
    """`promptweave edit ...` or `promptweave generate ...`; raises NoCommand for what only Python can say."""
    if recipe.base is not None:
        raise NoCommand("An edit of a recording stands on another run.")
    if recipe.picture is not None:
        raise NoCommand("A given picture is in the recipe, and not in a file of a known name.")
    words = ["promptweave", "edit" if recipe.targets else "generate", *recipe.prompts]
    injections = [c for c in recipe.controls if isinstance(c, Replace | Refine)]
    for control in recipe.controls:
        if not (isinstance(control, Replace | Refine) and control is not injections[0]):
            words += _options(control, len(injections))
    plain = (("--seed", recipe.seed, 0), ("--images", recipe.images, 1), ("--negative", recipe.negative, ""))
    words += [part for name, value, usual in plain if value != usual for part in (name, str(value))]
    words += ["--steps", str(recipe.steps), "--guidance", f"{recipe.guidance:g}"]
    words += ["--size", f"{recipe.size[0]}x{recipe.size[1]}"] if recipe.size else []
    words += ["--truncate"] if recipe.truncate else []
    words += ["--chunks", str(recipe.chunks)] if recipe.chunks != 1 else []
    words += ["--prompt-weights"] if recipe.prompt_weights else []
    if (recipe.model, recipe.scheduler) != ("toybox", "ddim"):
        words += ["--model", recipe.model, "--scheduler", recipe.scheduler]
    return shlex.join(words)


def _options(control: Control, injections: int) -> list[str]:
    """The options of a control; raises NoCommand for fields that have none."""
    usual = type(control)() if not isinstance(control, Reweight) else control
    if isinstance(control, Replace | Refine):
        _same(control, usual, "blocks", *(() if injections > 1 else ("targets",)))
        words = [] if injections > 1 else ["--replace" if isinstance(control, Replace) else "--refine"]
        words += [part for text in _spans(control.cross) for part in ("--cross", text)]
        words += ["--self", _span(control.self_attention), "--joint", _span(control.joint)]
        words += ["--self-grid", str(control.self_grid)] if control.self_grid is not None else []
        return words + (["--reference-compat"] if control.reference_compat else [])
    if isinstance(control, Reweight):
        compat = control.reference_compat  # then its window is that of the injection
        _same(control, Reweight(control.weights, control.window if compat else 1.0, reference_compat=compat))
        return [part for word, factor in control.weights.items() for part in ("--weight", f"{word}={factor:g}")]
    if isinstance(control, LocalBlend):
        _same(control, usual, "mask", "maps", "combine", "targets", "subtract_threshold")
        words = [part for word in _words(control.words) for part in ("--blend", word)]
        words += [part for word in _words(control.subtract) for part in ("--subtract", word)]
        return [*words, "--threshold", f"{control.threshold:g}", "--blend-start", f"{control.start:g}"]
    if isinstance(control, SharedStart):
        _same(control, usual, "targets")
        return ["--shared-start", f"{control.share:g}"]
    if isinstance(control, FlowEdit):
        _same(control, FlowEdit(control.strength))
        return ["--flow", *([] if control.strength is None else ["--strength", f"{control.strength:g}"])]
    if isinstance(control, Consist):
        _same(control, Consist(control.words, control.structure))
        return ["--consist", *(p for w in _words(control.words) for p in ("--blend", w)), "--structure",
                f"{control.structure:g}"]  # fmt: skip
    raise NoCommand(f"{type(control).__name__} has no option.")


def _same(control: Any, usual: Any, *names: str) -> None:
    """Raise unless the fields, or without names all, are the usual ones."""
    different = [name for name in names or vars(control) if getattr(control, name) != getattr(usual, name)]
    if different:
        raise NoCommand(f"{different[0]} of {type(control).__name__} has no option.")


def _words(words: tuple[str, ...] | str) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else words


def _span(span: Any) -> str:
    window = Window.of(span)
    return f"{window.end:g}" if window.start == 0 else f"{window.start:g}:{window.end:g}"


def _spans(cross: Any) -> list[str]:
    if not isinstance(cross, Mapping):
        return [_span(cross)]
    return [_span(span) if word == "default" else f"{word}={_span(span)}" for word, span in cross.items()]
