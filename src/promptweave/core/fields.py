"""Options: fields of a frozen dataclass with their help text and range, declared once and used everywhere.

Every control, and every other list of options, is a frozen dataclass with fields such as

    share: Annotated[Number, Option("Fraction of the steps in which the latents are moved.", low=0, high=1)] = 0.5

The command line, job files, sweeps, the web page, its HTTP API and recipes are derived from these fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from promptweave.core.shown import brief, short

Group = Literal["What changes", "Where", "How strongly", "Image", "Model", "Output", "Limits", "Advanced"]


@dataclass(frozen=True)
class Option:
    """The help text of a field (one sentence), the range of its numbers, and the group in which it is listed.

    `low` and `high`: inclusive bounds. `flag`: its spelling on the command line, if that is not the field's name with
    dashes: the singular of an option that is given once for each value. `short`: its one-letter form. `metavar`: the
    placeholder for its value in help texts. `mask`: the value is a mask (or several), which belongs to an image and is
    fitted as that is.
    """

    help: str
    low: int | float | None = None
    high: int | float | None = None
    group: Group = "How strongly"
    flag: str | None = None
    short: str | None = None
    metavar: str | None = None
    mask: bool = False


@dataclass(frozen=True)
class Command:
    """The command of a control: `command: ClassVar[Command] = Command(...)` in its class is all that it takes.

    `help`: one sentence. `prompts`: "one": one prompt, whose image is made with and without the control; "same": one
    prompt as source, without the control, and as target, with it; "repeated": like "same", with one target for each
    value of the field `counted`; "targets": a source and its targets. `example`: arguments for an example call.
    """

    name: str
    help: str
    prompts: Literal["one", "same", "repeated", "targets"] = "one"
    example: str = ""
    counted: str = ""

    def targets(self, source: str, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The targets of a command that takes one prompt, with these values of the control's fields.

        >>> Command("mix", "Mix.", prompts="repeated", counted="proxies").targets("a cat", {"proxies": ("dog", "fox")})
        ('a cat', 'a cat')
        """
        counted = values[self.counted] if self.prompts == "repeated" else ()
        several = 1 if isinstance(counted, str) else len(counted)
        return (source,) * {"one": 0, "same": 1, "repeated": several}[self.prompts]


@dataclass(frozen=True)
class Listed:
    """A field that has an `Option`. `type` is without the annotation; `default` is MISSING if a value is required."""

    name: str
    type: Any
    default: Any
    option: Option

    @property
    def required(self) -> bool:
        """Whether the field has no default."""
        return self.default is MISSING

    @property
    def spelling(self) -> str:
        """Its name as an option, which every command takes, too."""
        return "--" + self.name.replace("_", "-")

    @property
    def flag(self) -> str:
        """Its spelling on the command line.

        >>> Listed("self_grid", int, None, Option("...")).flag
        '--self-grid'
        """
        return self.option.flag or self.spelling


def changed(parameters: Any) -> str:
    """A one-line `__repr__` of a dataclass: its fields that differ from their defaults, in brief."""
    usual = {field.name: field.default for field in dataclasses.fields(parameters)}
    found = {name: getattr(parameters, name) for name in usual if hasattr(parameters, name)}
    said = [f"{name}={short(value)}" for name, value in found.items() if not _same(value, usual[name])]
    return brief(parameters, *said)


def _same(value: Any, usual: Any) -> bool:
    return value is usual or (type(value) is type(usual) and bool(value == usual))


@cache
def options_of(kind: type) -> tuple[Listed, ...]:
    """The fields of a dataclass that users can set, those with an `Option`, in order of definition."""
    hints = get_type_hints(kind, include_extras=True)  # of each base in its own module
    found: list[Listed] = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if get_origin(hint) is not Annotated:
            continue
        said = next((extra for extra in get_args(hint)[1:] if isinstance(extra, Option)), None)
        if said is not None:
            made = field.default_factory
            default = field.default if made is MISSING else made()
            found.append(Listed(field.name, get_args(hint)[0], default, said))
    return tuple(found)
