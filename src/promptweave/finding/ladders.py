"""What a search may try: settings from no control to all of it, with and without a local blend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptweave.models.base import Model
from promptweave.sampling.loop import latent_grid
from promptweave.words import Words
from promptweave.words.edit_kinds import Change, region_words

Settings = Mapping[str, Any]
WINDOWS = ("auto", "replace", "refine")  # the kinds that windows steer
CROSS = tuple(
    {"cross": cross, "self_attention": self_attention}
    for cross, self_attention in ((0.0, 0.0), (0.2, 0.1), (0.4, 0.2), (0.6, 0.3), (0.8, 0.4), (0.9, 0.7), (1.0, 1.0))
)
JOINT = tuple({"joint": share} for share in (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0))
STRENGTH = tuple({"strength": share} for share in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4))  # the more, the more changes
OTHERS: dict[str, tuple[Settings, ...]] = {
    "flow": STRENGTH,
    "uniedit": STRENGTH,
    "kvedit": STRENGTH,
    "inpaint": STRENGTH,
    "consist": tuple({"structure": share} for share in (0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0)),
    "directedit": tuple({"inject": share} for share in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)),
}
THRESHOLD, NEARBY = 0.3, (0.15, 0.5)  # of the local blend: the first, then what is tried around the best


class NothingToFind(ValueError):
    """Raised if all that a search could vary was given, or the kind of edit has no strength."""


@dataclass(frozen=True)
class Column:
    """Settings that a search goes through, from the least control to the most, and what they share."""

    rungs: tuple[Settings, ...]
    shared: Settings

    def at(self, rung: int) -> dict[str, Any]:
        """The settings of a rung."""
        return {**self.rungs[rung], **self.shared}


def joint(model: Model) -> bool:
    """Whether the model has joint attention."""
    return any(site.kind == "joint" for site in model.sites(latent_grid(model)))


def columns(model: Model, given: Settings, found: Change, target: Words) -> tuple[Column, ...]:
    """The columns of a search: without a local blend, and with one where there is a region to keep to.

    `given`: options of the edit that are fixed. Raises NothingToFind.
    """
    kind = given.get("kind") or "auto"
    if kind not in WINDOWS and kind not in OTHERS:
        others = ", ".join([*WINDOWS, *OTHERS])
        raise NothingToFind(f"Edits of kind {kind!r} have no strength to search. Kinds that have: {others}.")
    ladder = OTHERS[kind] if kind in OTHERS else JOINT if joint(model) else CROSS
    rungs = _open(ladder, given)
    alone = Column(rungs, {})
    if kind not in WINDOWS or "mask" in given:
        made = [alone] if len(rungs) > 1 else []
    elif given.get("blend"):
        made = [Column(rungs, {} if "threshold" in given else {"threshold": THRESHOLD})]
        made = made if len(rungs) > 1 or "threshold" not in given else []
    else:
        words = region_words(found, target)
        blended = {"blend": words} | ({} if "threshold" in given else {"threshold": THRESHOLD})
        if found.kind == "background" and found.kept and "subtract" not in given:
            blended["subtract"] = found.kept
        asked = bool(given.keys() & {"threshold", "subtract", "blend_start"})  # which only a blend reads
        made = ([] if asked else [alone]) + ([Column(rungs, blended)] if words else [])
        made = made if len(rungs) > 1 or len(made) > 1 else []
    if not made:
        raise NothingToFind(
            f"A search needs a strength that was not given: {', '.join(dict.fromkeys(n for r in ladder for n in r))}"
            f"{', blend or threshold' if kind in WINDOWS else ''}. Received {', '.join(given)}. Leave one of them out."
        )
    return tuple(made)


def _open(ladder: Sequence[Settings], given: Settings) -> tuple[Settings, ...]:
    """The rungs without what was given, each once."""
    left = [{name: value for name, value in rung.items() if name not in given} for rung in ladder]
    return tuple(rung for place, rung in enumerate(left) if rung not in left[:place])


def thresholds(settings: Settings, given: Settings) -> list[dict[str, Any]]:
    """The same settings with the threshold of their blend moved to both sides; none without one to move."""
    if "threshold" not in settings or "threshold" in given:
        return []
    return [{**settings, "threshold": value} for value in NEARBY]


def told(settings: Settings) -> str:
    """Settings as a reader has them: "cross 0.6, self 0.3, blend hat, threshold 0.3"."""
    names = {"self_attention": "self"}
    texts: list[str] = []
    for name, value in settings.items():
        text = ", ".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else value
        texts.append(f"{names.get(name, name.replace('_', ' '))} {text}")
    return ", ".join(texts) or "no control"
