"""The command line that reproduces a recipe, and the Python call for recipes that no command line can express."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import combinations, product
from typing import Any, get_args

from promptweave.core.clock import Window
from promptweave.core.control import Run
from promptweave.core.fields import Command, Listed, options_of
from promptweave.editing.options import PromptToPrompt
from promptweave.editing.recipe import Recipe
from promptweave.editing.settings import Settings
from promptweave.editing.who_reads import FIELDS, asked, check_read

LONG = 200  # characters: a longer parameter is abbreviated in the Python call


class NoCommand(ValueError):
    """A recipe that no command line can express; the message says why."""


def command_of(recipe: Recipe, run: Run) -> str:
    """`promptweave edit ...`, `generate ...` or a method's command. Raises NoCommand if only Python can express it."""
    if recipe.base is not None:
        raise NoCommand("It edits an image of another run.")
    if recipe.picture is not None:
        raise NoCommand("The input image is stored in the recipe, not in a file with a known name.")
    words = _method(recipe) or _edit(recipe, run)
    words += [part for listed, value in _settings(recipe) for part in text_of(listed, value)]
    words += ["--chunks", str(recipe.chunks)] if recipe.chunks != 1 else []
    words += ["--prompt-weights"] if recipe.prompt_weights else []
    if (recipe.model, recipe.scheduler) != ("toybox", "ddim"):
        words += ["--model", recipe.model, "--scheduler", recipe.scheduler]
    return shlex.join(["promptweave", *words])


def _edit(recipe: Recipe, run: Run) -> list[str]:
    """`edit` or `generate` with the options that produce the recipe's controls."""
    chosen = _options(recipe, run) if recipe.targets or recipe.controls else {}
    options = [listed for listed in options_of(PromptToPrompt) if listed.name in chosen]
    words = ["edit" if recipe.targets else "generate", *recipe.prompts]
    return words + [part for listed in options for part in text_of(listed, chosen[listed.name])]


def _method(recipe: Recipe) -> list[str]:
    """The command of a method if the only control has one: its name, prompts and parameters. Otherwise empty."""
    what = getattr(type(recipe.controls[0]), "command", None) if len(recipe.controls) == 1 else None
    if not isinstance(what, Command):
        return []
    control = recipe.controls[0]
    if what.prompts != "targets" and recipe.targets != what.targets(recipe.source, vars(control)):
        return []
    said = {listed.name: listed for listed in options_of(type(control))}
    words = [what.name, recipe.source, *(recipe.targets if what.prompts == "targets" else ())]
    for field in fields(control):
        value = getattr(control, field.name)
        if value == field.default:
            continue
        if field.name not in said:
            raise NoCommand(f"{field.name} of {type(control).__name__} has no command-line option.")
        words += text_of(said[field.name], value)
    return words


def python_of(recipe: Recipe) -> str:
    """The recipe as a Python call; long parameters are abbreviated to `...`."""
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
    """An option as command-line words: flag and value, repeated for several values. Raises NoCommand."""
    if listed.name in ("mask", "masks"):
        raise NoCommand("The mask is stored in the recipe, not in a file with a known name.")
    if isinstance(value, bool):
        return [listed.flag if value else f"--no-{listed.flag[2:]}"]
    if listed.name == "size":
        return [listed.flag, "x".join(map(str, value))]
    if isinstance(value, Mapping):
        return [part for item in value.items() for part in (listed.flag, _pair(*item))]
    if isinstance(value, tuple) and int in get_args(listed.type) and Ellipsis in get_args(listed.type):
        return [part for number in value for part in (listed.flag, str(number))]
    if isinstance(value, tuple) and not (len(value) == 2 and all(isinstance(each, int | float) for each in value)):
        texts = [each if isinstance(each, str) else _pair(*each) if len(each) == 2 else None for each in value]
        if None in texts:
            raise NoCommand(f"{listed.name} cannot be written on the command line.")
        return [part for text in texts for part in (listed.flag, str(text))]
    return [listed.flag, value if isinstance(value, str) else _span(value)]


def _pair(first: Any, second: Any) -> str:
    """ "word=0.5", "word=0.2:0.8", "word=0,0,0.5,1" or "0.2=0.5"; the default window has no word."""
    if isinstance(second, tuple) and len(second) == 4:
        return f"{first}={','.join(map(_number, second))}"
    if not isinstance(second, int | float | Window | tuple) or (isinstance(second, tuple) and len(second) != 2):
        raise NoCommand(f"{first!r}, {second!r} cannot be written on the command line.")
    if first == "default":
        return _span(second)
    return f"{first if isinstance(first, str) else _number(first)}={_span(second)}"


def _options(recipe: Recipe, run: Run) -> dict[str, Any]:
    """The options that produce exactly the controls of a recipe."""
    for control in recipe.controls:
        if type(control) not in FIELDS:
            raise NoCommand(f"{type(control).__name__} cannot be requested by the options of promptweave edit.")
    found = asked(recipe.controls)
    usually = {listed.name: listed.default for listed in options_of(PromptToPrompt)}
    changed = {name: value for name, value in found.items() if value != usually[name] and name != "kind"}
    kinds = [{}] if "kind" not in found else [{}, {"kind": found["kind"]}]
    windows = [name for name in ("cross", "self_attention", "joint") if name in changed]
    for kind, usual in product(kinds, _left_out(windows)):  # what the prompts lead to is left out
        chosen = {**kind, **{name: value for name, value in changed.items() if name not in usual}}
        try:
            made = PromptToPrompt(**chosen).controls(run.words, run.steps)
            check_read(chosen, made, run)
        except ValueError:
            continue
        if made == recipe.controls:
            return chosen
    raise NoCommand("The options of promptweave edit cannot produce these parameters, or this order, of its controls.")


def _left_out(names: Sequence[str]) -> list[tuple[str, ...]]:
    """All choices of some of the names, those with the most first."""
    return [some for count in range(len(names), -1, -1) for some in combinations(names, count)]


def _settings(recipe: Recipe) -> list[tuple[Listed, Any]]:
    """The settings that differ from their defaults; steps and guidance always."""
    usual = {
        "seed": 0,
        "images": 1,
        "size": None,
        "negative": "",
        "truncate": False,
        "fit": None,
        "keep_original": False,
    }
    shown = [(listed, getattr(recipe, listed.name)) for listed in options_of(Settings)]
    return [(listed, value) for listed, value in shown if listed.name not in usual or value != usual[listed.name]]


def _code(control: Any) -> str:
    """A control as Python code; the library's own get the prefix `pw.`."""
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
    """The shortest text that parses to the same number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
