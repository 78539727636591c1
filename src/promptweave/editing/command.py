"""The command that makes a recipe's images again, and the same in Python for what no command says."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from promptweave.core.clock import Window
from promptweave.core.control import Run
from promptweave.core.options import Listed, options_of
from promptweave.editing.options import FIELDS, PromptToPrompt, asked, check_read
from promptweave.editing.recipe import Recipe
from promptweave.editing.settings import Settings

LONG = 200  # characters of a parameter that Python code still shows


class NoCommand(ValueError):
    """A recipe that has no command, since options cannot say all of it."""


def command_of(recipe: Recipe, run: Run) -> str:
    """`promptweave edit ...` or `promptweave generate ...`; raises NoCommand for what only Python can say."""
    if recipe.base is not None:
        raise NoCommand("It edits the row of another run.")
    if recipe.picture is not None:
        raise NoCommand("The given image is in the recipe, and not in a file of a known name.")
    words = ["promptweave", "edit" if recipe.targets else "generate", *recipe.prompts]
    if recipe.targets or recipe.controls:
        chosen = _options(recipe, run)
        words += [part for listed in options_of(PromptToPrompt) if listed.name in chosen
                  for part in text_of(listed, chosen[listed.name])]  # fmt: skip
    words += [part for listed, value in _settings(recipe) for part in text_of(listed, value)]
    words += ["--chunks", str(recipe.chunks)] if recipe.chunks != 1 else []
    words += ["--prompt-weights"] if recipe.prompt_weights else []
    if (recipe.model, recipe.scheduler) != ("toybox", "ddim"):
        words += ["--model", recipe.model, "--scheduler", recipe.scheduler]
    return shlex.join(words)


def python_of(recipe: Recipe) -> str:
    """The recipe as a call in Python; long parameters are left out as `...`."""
    own = {type(control) for control in recipe.controls if not type(control).__module__.startswith("promptweave.")}
    lines = ["import promptweave as pw"]
    lines += sorted(f"from {kind.__module__} import {kind.__name__}" for kind in own)
    call = "edit" if recipe.targets else "generate"
    given = [*map(repr, recipe.prompts), f"model={recipe.model!r}"]
    given += [f"controls=[{', '.join(_code(control) for control in recipe.controls)}]"] if recipe.controls else []
    given += ["image=..."] if recipe.picture is not None else []
    given += [f"inversion={recipe.inversion!r}"] if recipe.picture is not None and recipe.inversion != "direct" else []
    given += [f"{listed.name}={value!r}" for listed, value in _settings(recipe)]
    return "\n".join([*lines, "", f"pw.{call}(", *(f"    {part}," for part in given), ")"])


def text_of(listed: Listed, value: Any) -> list[str]:
    """An option on the command line: its flag and its value, several times for words."""
    if listed.name == "kind":
        return [f"--{value}"]
    if isinstance(value, bool):
        return [listed.flag] if value else []
    if isinstance(value, Mapping):
        return [part for word, each in value.items()
                for part in (listed.flag, _span(each) if word == "default" else f"{word}={_span(each)}")]  # fmt: skip
    if listed.name == "size":
        return [listed.flag, "x".join(map(str, value))]
    if isinstance(value, tuple) and all(isinstance(each, str) for each in value):
        return [part for each in value for part in (listed.flag, each)]
    return [listed.flag, value if isinstance(value, str) else _span(value)]


def _options(recipe: Recipe, run: Run) -> dict[str, Any]:
    """The options that ask for a recipe's controls, and for no others."""
    for control in recipe.controls:
        if type(control) not in FIELDS:
            raise NoCommand(f"{type(control).__name__} has no option of promptweave edit.")
    found = asked(recipe.controls)
    if found.get("mask") is not None:
        raise NoCommand("The mask is in the recipe, and not in a file of a known name.")
    usual = {listed.name: listed.default for listed in options_of(PromptToPrompt)}
    changed = {name: value for name, value in found.items() if value != usual[name] and name != "kind"}
    kinds = [{}] if "kind" not in found else [{}, {"kind": found["kind"]}]
    for kind in kinds:  # where the prompts decide alike, the kind need not be said
        chosen = {**kind, **changed}
        try:
            made = PromptToPrompt(**chosen).controls(run.words)
            check_read(chosen, made, run)
        except ValueError:
            continue
        if made == recipe.controls:
            return chosen
    raise NoCommand("Its controls have parameters, or an order, that no options of promptweave edit ask for.")


def _settings(recipe: Recipe) -> list[tuple[Listed, Any]]:
    """The settings of a run that are not the usual ones; steps and guidance always."""
    usual = {"seed": 0, "images": 1, "size": None, "negative": "", "truncate": False}
    shown = [(listed, getattr(recipe, listed.name)) for listed in options_of(Settings)]
    return [(listed, value) for listed, value in shown if listed.name not in usual or value != usual[listed.name]]


def _code(control: Any) -> str:
    """A control in Python, with `pw.` before the library's."""
    values = {name: repr(value) for name, value in vars(control).items()}
    usual = {name: getattr(type(control), name, values) for name in values}
    parts = [
        f"{name}={text if len(text) <= LONG else '...'}"
        for name, text in values.items()
        if getattr(control, name) != usual[name]
    ]
    prefix = "pw." if type(control).__module__.startswith("promptweave.") else ""
    return f"{prefix}{type(control).__name__}({', '.join(parts)})"


def _span(value: Any) -> str:
    if isinstance(value, tuple | Window):
        window = Window.of(value)
        return _number(window.end) if window.start == 0 else f"{_number(window.start)}:{_number(window.end)}"
    return _number(value)


def _number(value: int | float) -> str:
    """The shortest text that reads as the same number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
