"""From dataclasses with `Option` fields to command-line flags in groups, and from their texts to values."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import wraps
from typing import Annotated, Any, TypedDict, get_args, get_origin

from cyclopts import Group, Parameter

from promptweave.apps.declared import declared
from promptweave.apps.forms import FORMS, Form, factors, form_of, series
from promptweave.core.clock import Number
from promptweave.core.fields import Group as Heading
from promptweave.core.fields import Listed, options_of

GROUPS = {name: Group(name, sort_key=place) for place, name in enumerate(get_args(Heading))}


@dataclass(frozen=True)
class Axis:
    """Several values of one option."""

    values: tuple[Number, ...]


@dataclass(frozen=True)
class Flags:
    """The options of a dataclass in a command.

    `kind`: the dataclass, of which the command gets an instance; or "module:Class", which is parsed without importing
    it, and the command gets a dict of the given options. `usual`: defaults of this command. `optional`: fields
    without a default that the command may fill in itself. `without`: fields that other options replace. `axes`: numbers
    may have several values (0,0.2,...,1), which become an `Axis`.
    """

    kind: type | str
    usual: Mapping[str, Any] = field(default_factory=dict[str, Any])
    optional: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    axes: bool = False

    @property
    def listed(self) -> tuple[Listed, ...]:
        """The options, with the defaults of this command."""
        fields = declared(self.kind) if isinstance(self.kind, str) else options_of(self.kind)
        return tuple(
            Listed(one.name, one.type, self.usual.get(one.name, one.default), one.option)
            for one in fields
            if one.name not in self.without
        )

    def hint(self) -> Any:
        """The type hint for the parser: a dictionary of the given options."""
        if not self.listed:
            return Annotated[Any, Parameter(parse=False)]
        known = {
            one.name: parameter(one, required=one.required and one.name not in self.optional) for one in self.listed
        }
        return Annotated[TypedDict("Given", known, total=False), Parameter("*")]  # type: ignore[misc]  # pyright: ignore

    def made(self, given: Mapping[str, Any] | None) -> Any:
        """The value that the command gets for the given texts."""
        known = {one.name: one for one in self.listed}
        values = {name: value_of(known[name], text, self.axes) for name, text in (given or {}).items()}
        if isinstance(self.kind, str):
            return values
        given = {"given": frozenset(values)} if "given" in {one.name for one in fields(self.kind)} else {}
        made = self.kind(**{**self.usual, **values, **given})
        return made.apart() if "output" not in values and hasattr(made, "apart") else made


def command(**flags: Flags) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command options: each of these keyword parameters gets the value of its `Flags`."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def run(*prompts: Any, **given: Any) -> None:
            function(*prompts, **given | {name: one.made(given.get(name)) for name, one in flags.items()})

        parameters = inspect.signature(function).parameters.values()  # the parser may leave out options
        optional = [one.replace(default=None) if one.name in flags else one for one in parameters]
        run.__annotations__ = {**function.__annotations__, **{name: one.hint() for name, one in flags.items()}}
        setattr(run, "__signature__", inspect.Signature(optional))  # noqa: B010 - functions have no such attribute
        setattr(run, "flags", flags)  # noqa: B010 - read by tests
        return run

    return decorate


def parameter(listed: Listed, *, required: bool) -> Any:
    """An option as a cyclopts parameter."""
    form, option = form_of(listed), listed.option
    several, flag = get_origin(form.hint) is list, form.hint is bool
    names = [listed.flag, *([f"-{option.short}"] if option.short else [])]
    default = shown(listed, form)
    return Annotated[
        form.hint,
        Parameter(
            name=names, help=option.help, group=GROUPS[option.group], required=required,
            metavar=None if flag else (option.metavar or form.metavar) + ("..." if several else ""),
            negative=f"--no-{listed.flag[2:]}" if listed.default is True else "", show_choices=False,
            show_default=default or False,
        ),
    ]  # fmt: skip


def shown(listed: Listed, form: Form) -> str:
    """The default as shown by help; empty if there is none, or if the help text has it in brackets."""
    if listed.default is MISSING or listed.default is None or listed.default is False or listed.default in ((), ""):
        return ""
    return "on" if listed.default is True else form.show(listed.default)


def value_of(listed: Listed, given: Any, axes: bool = False) -> Any:
    """The value of an option's texts or flag. Raises ValueError if it is invalid or out of range."""
    flag, option, form = listed.flag, listed.option, form_of(listed)
    if isinstance(given, bool):
        return given
    texts = [given] if isinstance(given, str) else list(given)
    if axes and listed.name == "weights":
        return dict(_weight(text, flag) for text in texts)
    if axes and option.low is not None and len(texts) == 1 and "," in texts[0]:
        values = series(texts[0], flag)
        return Axis(tuple(map(int, values)) if form is FORMS[int] else values)
    value = form.read(texts, flag)
    low, high = (-math.inf if option.low is None else option.low), (math.inf if option.high is None else option.high)
    if isinstance(value, int | float) and not low <= value <= high:
        least = "" if option.low is None else f" of at least {low}"
        most = "" if option.high is None else f"{' and' if least else ' of'} at most {high}"
        raise ValueError(f"{flag} takes a number{least}{most}. Received {texts[0]}.")
    return value


def _weight(text: str, flag: str) -> tuple[str, float | Axis]:
    word, equals, values = text.rpartition("=")
    if equals and word and "," in values:
        return word, Axis(series(values, flag))
    ((word, factor),) = factors([text], flag).items()
    return word, factor
