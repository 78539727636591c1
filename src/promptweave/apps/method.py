"""Commands of methods, derived from the controls: prompts, the control's own options, and the common ones.

Every control in `methods` that declares a `Command` gets one. `SPECIAL` lists modules with additions to some commands:
options that are not parameters of the control, and further images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from promptweave.apps.common import (
    SETTINGS,
    Comparing,
    Given,
    MaybePrompt,
    Opening,
    Output,
    Prompt,
    Source,
    Targets,
    folder,
    recipe_of,
)
from promptweave.apps.declared import method_commands
from promptweave.apps.flags import Flags, command
from promptweave.apps.telling import tell, tell_image

SPECIAL = {name: f"promptweave.apps.special_{name}" for name in ("attend", "compose", "place", "sega", "translate")}


@dataclass
class Asked:
    """The parsed command line. `own`: the control's fields that were given; `extra`: the special options."""

    kind: str
    prompts: tuple[str, ...]
    own: dict[str, Any]
    extra: Any
    settings: dict[str, Any]
    output: Output
    network: Any = None
    given: Given = field(default_factory=Given)
    compare: bool = False

    def control(self, **changes: Any) -> Any:
        """The control."""
        module, _, name = self.kind.partition(":")
        return getattr(import_module(module), name)(**{**self.own, **changes})


@dataclass(frozen=True, eq=False)
class Made:
    """A run, and for a single prompt the word maps with the control and without it."""

    result: Any
    after: Any = None
    before: Any = None


class Special:
    """Additions to a derived command; override what the command needs.

    `options`: a dataclass of further options. `optional`: fields without a default that `prepare` fills in; `without`:
    fields that it computes from the further options. `elsewhere`: further options that only the command line has.
    `inversion`: the default inversion of an input image. `hidden`: facts of the report that are not printed.
    """

    options: type | None = None
    optional: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    inversion: str | None = None
    hidden: tuple[str, ...] = ()

    def prepare(self, asked: Asked) -> None:
        """Check and complete the parsed options, once the network is loaded."""

    def options_for(self, values: dict[str, Any], prompt: str) -> dict[str, Any]:
        """The options that ask for a control of the prompt with these values; the inverse of `prepare`."""
        return values

    def make(self, asked: Asked) -> Made | None:
        """The run, if it is not the usual one."""
        return None

    def pictures(self, asked: Asked, made: Made) -> dict[str, Any]:
        """Further images by name; may also print."""
        return {}

    def stems(self, asked: Asked) -> tuple[str, ...]:
        """The names of the prompts' files, if they are not the usual ones."""
        return ()


@dataclass(frozen=True)
class Nothing:
    """No further options."""


def derived(name: str) -> Callable[..., None]:
    """The function of a method's command."""
    what, kind = method_commands()[name]
    special: Special = import_module(SPECIAL[name]).SPECIAL if name in SPECIAL else Special()
    common: dict[str, Flags] = {
        "own": Flags(kind, optional=special.optional, without=special.without),
        "extra": Flags(special.options or Nothing), "settings": SETTINGS, "opening": Flags(Opening),
        "output": folder(name),
    }  # fmt: skip

    def run(prompts: tuple[str, ...], opening: Opening, comparing: Comparing | None = None, **given: Any) -> None:
        compare = comparing is not None and comparing.compare
        _run(special, opening, Asked(kind, prompts, compare=compare, **given))

    if what.prompts == "one":

        @command(**common)
        def one(prompt: Prompt, /, *, own: Any, extra: Any, settings: Any, opening: Any, output: Any) -> None:
            run((prompt,), opening, own=own, extra=extra, settings=settings, output=output)

        return one
    common |= {"given": Flags(Given), "comparing": Flags(Comparing)}
    if what.prompts in ("same", "repeated"):

        @command(**common)
        def same(
            prompt: MaybePrompt = None, /, *, own: Any, extra: Any, settings: Any, opening: Any, output: Any,
            given: Any, comparing: Any,
        ) -> None:  # fmt: skip
            found = given.first(given.image, () if prompt is None else (prompt,), opening, output.terminal, settings)
            if len(found) != 1:
                raise ValueError(
                    f"{what.name} takes one prompt, or --image with --caption. Received {len(found)}. Give one of them."
                )
            run(
                (found[0], *what.targets(found[0], own)),
                opening,
                comparing,
                own=own,
                extra=extra,
                settings=settings,
                output=output,
                given=given,
            )

        return same

    @command(**common)
    def targets(
        source: Source, /, *targets: Targets, own: Any, extra: Any, settings: Any,
        opening: Any, output: Any, given: Any, comparing: Any,
    ) -> None:  # fmt: skip
        prompts = given.first(given.image, (source, *targets), opening, output.terminal, settings)
        if len(prompts) < 2:
            raise ValueError(
                f"{what.name} takes a source prompt and a target. Received {source!r} alone. Add what the edit is to "
                "show, or let --caption describe --image."
            )
        run(prompts, opening, comparing, own=own, extra=extra, settings=settings, output=output, given=given)

    return targets


def _run(special: Special, opening: Opening, asked: Asked) -> None:
    asked.output.check()
    asked.network = opening.load()
    special.prepare(asked)
    made = special.make(asked) or (_steered(asked) if len(asked.prompts) == 1 else _edited(asked, special))
    terminal = asked.output.terminal
    tell_image(terminal, made.result.report)
    tell(terminal, made.result.report, special.hidden)
    for number, rows in enumerate(made.result.report["distance"], 1):
        terminal.say(
            f"  target {number}: {rows[0]['changed_pixels']:.0%} of the pixels changed, "
            f"PSNR to the source {rows[0]['psnr']:.1f} dB"
        )
    asked.output.save(made.result, special.pictures(asked, made), special.stems(asked))


def _steered(asked: Asked) -> Made:
    from promptweave.apps.steering import steer

    return Made(
        *steer(
            asked.output.terminal, asked.prompts[0], [asked.control()], asked.network, report=asked.output.report,
            **asked.settings,
        )
    )  # fmt: skip


def _edited(asked: Asked, special: Special) -> Made:
    from promptweave.editing.edit import run
    from promptweave.editing.masks import with_controls
    from promptweave.editing.plan import check_inverted, steps_of_run
    from promptweave.editing.recorders import edit_watch

    given: Mapping[str, Any] = asked.given.options
    if "image" in given and special.inversion is not None:
        given = {"inversion": special.inversion, **given}
    source, *targets = asked.prompts
    recipe = recipe_of(asked.network, source, tuple(targets), asked.settings, **given)
    recipe = with_controls(recipe, [asked.control()], asked.network)
    check_inverted(recipe.controls, asked.given.inversion)
    asked.given.announce(asked.output.terminal, asked.network, asked.settings)
    watch = edit_watch(recipe, asked.network) if asked.output.report else ()
    steps = steps_of_run(recipe, asked.network)
    with asked.output.terminal.progress("editing", asked.given.passes(steps)) as advance:
        return Made(run(recipe, asked.network, compare=asked.compare, watch=watch, progress=advance))


def __getattr__(name: str) -> Callable[..., None]:
    """`method.attend` is the function of `promptweave attend`, created on access."""
    if name not in method_commands():
        raise AttributeError(f"There is no method command {name!r}.")
    return derived(name)
