"""Additions to `promptweave place`: the boxes drawn, and a word placed in each quarter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

from promptweave.apps.common import recipe_of
from promptweave.apps.method import Asked, Made, Special
from promptweave.core.fields import Option


@dataclass(frozen=True)
class Quarters:
    """An alternative to --at."""

    quadrants: Annotated[
        str | None,
        Option("Place this word in each quarter of the image, on one sheet.", group="Where", metavar="WORD"),
    ] = None


class Place(Special):
    options = Quarters
    optional = ("regions",)
    elsewhere = ("quadrants",)

    def prepare(self, asked: Asked) -> None:
        if ("regions" in asked.own) == (asked.extra.quadrants is not None):
            raise ValueError(
                "promptweave place takes either boxes or one word. Received "
                f"{'both' if 'regions' in asked.own else 'neither'}. Give --region dog=0,0,0.5,0.5, or --quadrants dog."
            )

    def make(self, asked: Asked) -> Made | None:
        """With --quadrants: the plain image, and one with the word in each quarter, in one run from the same noise."""
        from promptweave.editing.edit import run
        from promptweave.editing.recorders import edit_watch
        from promptweave.view.boxes import QUADRANTS

        word = asked.extra.quadrants
        if word is None:
            return None
        prompt, network = asked.prompts[0], asked.network
        recipe = recipe_of(network, prompt, (prompt,) * len(QUADRANTS), asked.settings)
        controls = [
            asked.control(regions=((word, box),), prompts=(row,)) for row, box in enumerate(QUADRANTS.values(), 1)
        ]
        recipe = replace(recipe, controls=tuple(controls))
        watch = edit_watch(recipe, network) if asked.output.report else ()
        with asked.output.terminal.progress("steering", recipe.steps) as advance:
            return Made(run(recipe, network, watch=watch, progress=advance))

    def stems(self, asked: Asked) -> tuple[str, ...]:
        from promptweave.view.boxes import QUADRANTS

        if asked.extra.quadrants is None:
            return ()
        return "plain", *(f"steered-{name.replace(' ', '-')}" for name in QUADRANTS)

    def pictures(self, asked: Asked, made: Made) -> dict[str, Any]:
        import numpy as np

        from promptweave.view.boxes import boxed
        from promptweave.view.heat import over
        from promptweave.view.sheet import sheet

        if asked.extra.quadrants is not None:
            return {"quadrants": _quarters(asked.extra.quadrants, made.result)}
        words, regions = asked.network.words(asked.prompts[0]), asked.own["regions"]
        rows, labels = list[list[Any]](), list[list[str]]()
        for name, maps in (("plain", made.before), ("steered", made.after)):
            picture = np.asarray(maps.picture)
            seen = [over(maps.attention[..., list(words.find(word))].sum(-1), picture) for word, _ in regions]
            framed = [boxed(one, dict([region])) for one, region in zip(seen, regions, strict=True)]
            rows.append([boxed(picture, dict(regions)), *framed])
            labels.append([name, *(f"attention to {word}" for word, _ in regions)])
        return {"boxes": sheet(rows, labels)}


def _quarters(word: str, result: Any) -> Any:
    from promptweave.view.boxes import QUADRANTS, boxed
    from promptweave.view.sheet import sheet

    pictures, recipe = result.sample.pictures, result.recipe
    rows = [
        [pictures[0, i], *(boxed(pictures[row, i], {word: box}) for row, box in enumerate(QUADRANTS.values(), 1))]
        for i in range(recipe.images)
    ]
    return sheet(rows, [[recipe.source, *(f"{word}: {name}" for name in QUADRANTS)]] * recipe.images)


SPECIAL = Place()
