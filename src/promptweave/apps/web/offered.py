"""The methods that the page offers, their fields, and the controls that the fields ask for.

Everything is read from the declarations of the library: the kinds of `edit` and their options, the commands of methods
and theirs. A method with a `Command` is on the page without a line here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any, Literal, get_origin

from promptweave.apps.common import Output
from promptweave.apps.declared import method_commands
from promptweave.apps.flags import Flags, value_of
from promptweave.apps.forms import form_of
from promptweave.apps.method import SPECIAL, Asked, Nothing, Special
from promptweave.core.clock import Window
from promptweave.core.control import Control
from promptweave.core.fields import Command, Listed, options_of
from promptweave.editing.options import PromptToPrompt
from promptweave.editing.values import read_option
from promptweave.editing.who_reads import ALONE, FIELDS, KINDS
from promptweave.methods import LocalBlend, Replace, SharedStart
from promptweave.models.base import Model
from promptweave.sampling.loop import latent_grid

EDIT, TARGETS = "edit", "targets"
DRAWN = ("blend", "subtract", "threshold", "mask", "weights")  # options of an edit that have parts of the page
WINDOWS = ("cross", "self_attention", "joint")
INJECTIONS = ("replace", "refine")


class UnknownMethod(ValueError):
    """The page does not offer this method for this model."""


class Missing(ValueError):
    """A field without a default is empty."""


@dataclass(frozen=True)
class Offered:
    """A method. `about`: a sentence; `fields`: its options; `needed`: those without a default; `absent`: those that are
    on the command line alone, files and sheets. `requires`: what a network must have."""

    name: str
    about: str
    prompts: Literal["one", "same", "repeated", "targets"]
    fields: tuple[Listed, ...]
    where: str
    needed: frozenset[str] = frozenset()
    absent: tuple[Listed, ...] = ()
    requires: frozenset[str] = frozenset()

    @property
    def kind(self) -> str | None:
        """The kind of `edit` that it is; None for a method with a command of its own."""
        return "auto" if self.name == EDIT else self.name if self.name not in method_commands() else None

    @property
    def parts(self) -> frozenset[str]:
        """Which options of an edit it reads from other parts of the page: windows, words' strengths, regions."""
        if self.kind is None:
            return frozenset()
        return _read_by(self.kind) & {*DRAWN, *(WINDOWS if self.name == EDIT else ())}

    @property
    def label(self) -> str:
        """Name and sentence."""
        return f"{self.name}: {self.about}"

    @property
    def control(self) -> type[Control]:
        """The class of its control."""
        module, _, name = self.where.partition(":")
        return getattr(import_module(module), name)

    @property
    def usual(self) -> dict[str, Any]:
        """The defaults of its fields; of an option of an edit that is None, that of the control that reads it."""
        own = {one.name: one.default for one in options_of(self.control)}
        names = FIELDS.get(self.control, {}) if self.kind is not None else {}
        return {
            one.name: own.get(names.get(one.name, ""), None) if one.default is None else one.default
            for one in self.fields
        }

    def fits(self, network: Model) -> bool:
        """Whether a network has what the method acts on."""
        return self.requires <= _features(network)

    def read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options that were given: texts as on the command line, or values. What is empty is left out.

        Raises ValueError, which names the field as the page does, for one that cannot be read.
        """
        known = {listed.name: listed for listed in self.fields}
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ValueError(
                f"{self.name} has the options {', '.join(known) or 'of an edit alone'}. Received {unknown[0]!r:.40}. "
                "Leave it out."
            )
        read = {name: _read(known[name], value) for name, value in given.items() if not _empty(value)}
        chosen = {name for name in read if get_origin(known[name].type) is Literal}  # though it be the default
        return {name: value for name, value in read.items() if name in chosen or value != self.usual[name]}

    def asked(self, network: Model, prompt: str, given: Mapping[str, Any]) -> tuple[str, int, Control]:
        """The prompt, the number of targets that are the prompt again, and the control, for a method with a command."""
        values = self.read(given)
        for listed in self.fields:
            if listed.name in self.needed and listed.name not in values:
                raise Missing(f"{self.name} needs a value for {label_of(listed)}: {_lower(listed.option.help)}")
        special, what = special_of(self.name), method_commands()[self.name][0]
        further = {listed.name for listed in options_of(special.options or Nothing)}
        extra = (special.options or Nothing)(**{name: value for name, value in values.items() if name in further})
        own = {name: value for name, value in values.items() if name not in further}
        asked = Asked(self.where, (prompt,), own, extra, {}, Output(), network)
        try:
            special.prepare(asked)
        except ValueError as error:
            raise type(error)(self.spoken(str(error))) from error
        return asked.prompts[0], _repeats(what, asked), asked.control()

    def spoken(self, text: str) -> str:
        """A message with fields instead of the flags of the command line."""
        labels = {listed.flag: label_of(listed) for listed in self.fields}
        return re.sub(r"--[a-z-]+", lambda found: labels.get(found[0], found[0]), text)

    def texts_of(self, control: Control, prompt: str) -> dict[str, str | bool]:
        """The fields that ask for a control, as a visitor would fill them in; those at their default are left out."""
        values = {one.name: getattr(control, one.name) for one in options_of(type(control))}
        options = values if self.kind is not None else special_of(self.name).options_for(values, prompt)
        return self.texts({name: value for name, value in options.items() if value != self.usual.get(name)})

    def texts(self, options: Mapping[str, Any]) -> dict[str, str | bool]:
        """Options as texts."""
        return {
            listed.name: value if isinstance(value, bool) else text_of(value)
            for listed in self.fields
            if not _empty(value := options.get(listed.name))
        }


@cache
def methods() -> dict[str, Offered]:
    """All methods by name: the edit, then its kinds, then those with commands."""
    found = [_edit(EDIT, Replace, "Prompt-to-Prompt: only what the changed words name changes.")]
    commands = method_commands()
    for name, kind in KINDS.items():
        if name not in (*INJECTIONS, *commands):
            found.append(_edit(name, kind, _first_sentence(kind)))
    order: dict[str, int] = {"targets": 0, "same": 1, "repeated": 1, "one": 2}
    found += [_command(*commands[name]) for name in sorted(commands, key=lambda one: order[commands[one][0].prompts])]
    return {one.name: one for one in found}


def offered(network: Model) -> list[Offered]:
    """The methods that fit a network."""
    return [one for one in methods().values() if one.fits(network)]


def method_of(name: Any, network: Model) -> Offered:
    """A method by name. Raises UnknownMethod for one that does not fit the network."""
    found = methods().get(name) if isinstance(name, str) else None
    if found is None or not found.fits(network):
        names = ", ".join(one.name for one in offered(network))
        raise UnknownMethod(f"For this model there are {names}. Received {name!r:.40}. Choose one of them.")
    return found


def named(controls: Sequence[Control]) -> Offered | None:
    """The method whose control this is, among those with commands; None if there are others beside it."""
    kinds = {one.control: one for one in methods().values() if one.kind is None}
    return kinds.get(type(controls[0])) if len(controls) == 1 else None


def special_of(name: str) -> Special:
    """The additions to a method's command."""
    return import_module(SPECIAL[name]).SPECIAL if name in SPECIAL else Special()


def label_of(listed: Listed) -> str:
    """The name of a field on the page: that of its flag."""
    text = listed.flag.lstrip("-").replace("-", " ")
    return text[0].upper() + text[1:]


def text_of(value: Any) -> str:
    """A value as the command line spells it, with one line for each part of a list.

    >>> text_of({"cat": 2.0}), text_of((0.2, 0.5)), text_of((("dog", (0.0, 0, 0.5, 1)),)), text_of(("a", "b"))
    ('cat=2', '0.2:0.5', 'dog=0,0,0.5,1', 'a\\nb')
    """
    if isinstance(value, Mapping):
        return text_of(tuple(value.items()))
    if isinstance(value, Window):
        return f"{_part(value.start)}:{_part(value.end)}"
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(one, int | float) for one in value):
        return ":".join(map(_part, value))
    if isinstance(value, tuple):
        return "\n".join("=".join(map(_part, one)) if isinstance(one, tuple) else _part(one) for one in value)
    return _part(value)


def _part(value: Any) -> str:
    """A text or a number, whole ones without a point; several with commas."""
    if isinstance(value, tuple):
        return ",".join(map(_part, value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def lines(listed: Listed) -> bool:
    """Whether a field has several values, one a line."""
    return get_origin(form_of(listed).hint) is list


def _read(listed: Listed, value: Any) -> Any:
    """The value of a field: of texts as the command line reads them."""
    spelled = replace(listed, option=replace(listed.option, flag=label_of(listed)))
    if isinstance(value, bool) and form_of(listed).hint is not bool:
        raise ValueError(f"{label_of(listed)} takes {form_of(listed).metavar}. Received {value}.")
    if isinstance(value, str):
        if form_of(listed).hint is bool:
            raise ValueError(f"{label_of(listed)} is true or false. Received {value!r:.40}.")
        parts = [line.strip() for line in value.splitlines()] if lines(listed) else [value.strip()]
        return value_of(spelled, [part for part in parts if part])
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return value_of(spelled, value)
    return read_option(listed, value)


def _empty(value: Any) -> bool:
    return value is None or (
        isinstance(value, str | Collection) and not (value.strip() if isinstance(value, str) else value)
    )


def _edit(name: str, kind: type[Control], about: str) -> Offered:
    read = _read_by("auto" if name == EDIT else name)
    fields = tuple(one for one in options_of(PromptToPrompt) if one.name in read - {*DRAWN, *WINDOWS, "kind"})
    return Offered(name, about, "targets", fields, f"{kind.__module__}:{kind.__name__}", requires=kind.requires)


def _read_by(kind: str) -> frozenset[str]:
    """The options that the controls of a kind of edit read."""
    if kind == "auto":
        return frozenset().union(*(FIELDS[one] for one in (Replace, LocalBlend, SharedStart)), {"weights"})
    more = {} if kind in (*ALONE, "inpaint") else FIELDS[LocalBlend]
    weights = {"weights"} if kind not in ALONE else frozenset[str]()
    return frozenset(FIELDS[KINDS[kind]]).union(more, weights) - {"reference_compat"}


def _command(what: Command, where: str) -> Offered:
    special = special_of(what.name)
    own = Flags(where, without=special.without).listed
    further = options_of(special.options or Nothing)
    absent = tuple(one for one in (*own, *further) if one.name in special.elsewhere or _is_file(one))
    optional = () if special.elsewhere else special.optional  # an option that is elsewhere would take its place
    needed = frozenset(one.name for one in own if one.required and one.name not in optional)
    module, _, name = where.partition(":")
    requires = getattr(import_module(module), name).requires
    fields = tuple(one for one in (*further, *own) if one not in absent)
    return Offered(what.name, what.help, what.prompts, fields, where, needed, absent, requires)


def _is_file(listed: Listed) -> bool:
    return "FILE" in (listed.option.metavar, form_of(listed).metavar.partition(" ")[0])


def _first_sentence(kind: type) -> str:
    """The first sentence of a docstring, without the marks of code."""
    text = " ".join((kind.__doc__ or "").split())
    return re.split(r"(?<=[.:]) ", text)[0].replace("`", "")


def _repeats(what: Command, asked: Asked) -> int:
    """How many targets are the prompt again."""
    return 0 if what.prompts == TARGETS else len(what.targets(asked.prompts[0], asked.own))


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _features(network: Model) -> set[str]:
    kinds = {site.kind for site in network.sites(latent_grid(network))}
    return {*kinds, *(["guided"] if network.guided else [])}
