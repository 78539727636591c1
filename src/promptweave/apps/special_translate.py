"""Additions to `promptweave translate`: files of sentences, and saved directions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from promptweave.apps.common import recipe_of
from promptweave.apps.method import Asked, Made, Special
from promptweave.core.fields import Option


@dataclass(frozen=True)
class Banks:
    """Sentences that replace the names of the two things."""

    source_sentences: Annotated[
        Path | None,
        Option("File of sentences about the first thing, one per line.", group="Advanced", metavar="FILE"),
    ] = None  # fmt: skip
    target_sentences: Annotated[
        Path | None,
        Option("File of sentences about the second thing, one per line.", group="Advanced", metavar="FILE"),
    ] = None  # fmt: skip
    save_direction: Annotated[
        Path | None, Option("Save the direction to this file.", group="Output", metavar="FILE")
    ] = None  # fmt: skip


class Translate(Special):
    options = Banks
    inversion = "regularised"
    hidden = ("losses",)

    def prepare(self, asked: Asked) -> None:
        from promptweave.editing.recorders import bound
        from promptweave.methods.pix2pix_zero import Direction

        for name, path in (("source", asked.extra.source_sentences), ("target", asked.extra.target_sentences)):
            if path is not None:
                asked.own[name] = _bank(path)
        if asked.extra.save_direction is not None:
            run = bound(
                recipe_of(asked.network, asked.prompts[0], (), asked.settings, **asked.given.options), asked.network
            )
            direction = Direction.of(asked.own["source"], asked.own["target"], run)
            asked.output.terminal.say(f"wrote {direction.save(asked.extra.save_direction)}")

    def pictures(self, asked: Asked, made: Made) -> dict[str, Any]:
        losses = made.result.report["controls"][0]["losses"].get("1", [])
        if losses:
            asked.output.terminal.say(
                f"  distance of the maps: {losses[0]:.3g} at the first step, {losses[-1]:.3g} at the last"
            )
        return {}


def _bank(path: Path) -> tuple[str, ...]:
    """The sentences of a file."""
    try:
        lines = tuple(line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"Sentences are read from a text file, one per line. {path} cannot be read: {error}."
        ) from error
    if not lines:
        raise ValueError(f"Sentences are read from a text file, one per line. {path} holds none.")
    return lines


SPECIAL = Translate()
